"""The enricher as a stage of faust-batch: what it reads beside its batches, and when it says how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cdr_enricher import metrics
from cdr_enricher.domain.progress import Progress, Reported
from cdr_enricher.domain.references import ENTITIES, References
from cdr_enricher.errors import JudgementBroken
from cdr_enricher.restore import Restorer, metadata_of
from cdr_enricher.stage import Judge, State
from faust_batch import Batch, Committed, Output, Source, TopicTail, end_offsets, read_partition
from telestream_contracts import Registry, decode_each, encode_records, load_schema
from telestream_domain import Topics
from telestream_runtime.lean import give_back_memory

_QUIET = {"log_level": "4"}  # a short-lived client says goodbye on stderr otherwise


class ReferenceReader:
    """Keeps ``references`` up with ``ref.*``."""

    def __init__(self, bootstrap: str, topics: Topics, registry: Registry) -> None:
        self._bootstrap, self._registry = bootstrap, registry
        self._entities = {topics.ref(entity): entity for entity in ENTITIES}
        self._tail: TopicTail | None = None
        self.references = References()
        self.positions: dict[str, int] = {}

    def catch_up(self) -> None:
        """Read all versions up to the ends seen at the call.

        Raises BatchError where Kafka does not answer, JudgementBroken on a version that cannot be read.
        """
        if self._tail is None:
            self._tail = TopicTail(self._bootstrap, list(self._entities))
        for batch in self._tail.catching_up():
            self._add(batch)

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()

    def _add(self, batch: Batch) -> None:
        entity = self._entities[batch.source.topic]
        versions = self.references.of(entity)
        decoded = decode_each(batch.values, self._registry.schema)
        if decoded.bad:
            bad = decoded.bad[0]
            raise JudgementBroken(
                f"{batch.source}@{int(batch.offsets[bad.index])}: reference data that cannot be read ({bad.reason}); "
                "it was not written by the gateway"
            )
        wanted = (versions.id_field, "valid_from", "deleted", *versions.body)
        frame = decoded.frame
        if missing := [name for name in wanted if name not in frame.columns]:
            raise JudgementBroken(f"{batch.source}@{batch.first_offset}: not a {entity}, {missing[0]} is missing")
        self.references.add(entity, frame.select(wanted), batch.offsets)
        self.positions[f"{batch.source.topic}/{batch.source.partition}"] = batch.next_offset
        metrics.REFERENCE_VERSIONS.labels(entity=entity).set(versions.count)


@dataclass(frozen=True, slots=True)
class TypeStage:
    """How one type is judged and restored, and the topics that are its own."""

    name: str
    judge: Judge
    restorer: Restorer
    enriched_topic: str


class EnricherStage:
    """Judges every type's raw topic. The one stateful value beside the partitions' states is the reference data."""

    def __init__(
        self,
        bootstrap: str,
        by_topic: Mapping[str, TypeStage],
        reader: ReferenceReader,
        *,
        progress_topic: str,
        progress_id: int,
        lateness_ms: int,
    ) -> None:
        self._bootstrap, self._by_topic, self._reader = bootstrap, by_topic, reader
        self._progress_topic, self._progress_id = progress_topic, progress_id
        self._progress_schema = load_schema("progress")
        self._lateness_ms = lateness_ms
        self.topics: Sequence[str] = list(by_topic)

    def restore(self, source: Source, committed: Committed | None) -> State:
        """Rebuild the state of a partition from its judged records."""
        started = time.monotonic()
        stage = self._by_topic[source.topic]
        enriched = Source(stage.enriched_topic, source.partition)
        # settled: the last commit may be answered before its records can be read
        ends = end_offsets(self._bootstrap, [source.topic, enriched.topic], settled=True, client_options=_QUIET)
        state = stage.restorer.state(
            source,
            committed,
            enriched,
            read_partition(self._bootstrap, enriched, None, ends[enriched]),
            raw_end=ends[source],
            expected=ends[enriched],
        )
        give_back_memory()
        metrics.RESTORE_SECONDS.observe(time.monotonic() - started)
        _count_seen(source, state)
        return state

    def before_round(self, batches: Sequence[Batch]) -> None:
        """A customer accepted before a call is there for it: the ends are asked for after the fetch."""
        with metrics.REFERENCE_SECONDS.time():
            self._reader.catch_up()

    def on_batch(self, batch: Batch, state: State) -> tuple[Sequence[Output], State]:
        with metrics.JUDGE_SECONDS.time():
            return self._by_topic[batch.source.topic].judge.on_batch(batch, state, self._reader.references)

    def due(self, states: Mapping[Source, State], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, State]]:
        """One ``progress`` record per partition and second where something changed."""
        reports: list[Progress] = []
        changed: dict[Source, State] = {}
        for source, state in states.items():
            next_offset = _next_offset(state)
            if next_offset is None or not state.reported.due(next_offset, state.raw_end, now_ms):
                continue
            reports.append(
                Progress(
                    self._by_topic[source.topic].name,
                    source.partition,
                    next_offset,
                    state.raw_end,
                    state.watermark,
                    self._reader.positions,
                )
            )
            changed[source] = replace(state, reported=Reported(next_offset, state.raw_end, now_ms))
            _count_seen(source, state)
        if not reports:
            return (), {}
        return [Output(self._progress_topic, 0, self._encoded(reports, now_ms))], changed

    def metadata(self, source: Source, state: State) -> str:
        return metadata_of(state)

    def revoked(self, source: Source) -> None:
        for gauge in (metrics.SEEN_IDS, metrics.SEEN_BYTES):
            gauge.remove(source.topic, str(source.partition))

    def _encoded(self, reports: Iterable[Progress], now_ms: int) -> list[dict[str, bytes | None]]:
        chosen = list(reports)
        records = [report.record(now_ms, self._lateness_ms) for report in chosen]
        values = encode_records(records, self._progress_schema, self._progress_id)
        return [{"key": report.key, "value": value} for report, value in zip(chosen, values, strict=True)]


def _next_offset(state: State) -> int | None:
    # of a partition that nothing was judged of, only an empty log's position is known
    return 0 if state.next_offset is None and state.raw_end == 0 else state.next_offset


def _count_seen(source: Source, state: State) -> None:
    where = {"topic": source.topic, "partition": str(source.partition)}
    metrics.SEEN_IDS.labels(**where).set(len(state.seen))
    metrics.SEEN_BYTES.labels(**where).set(state.seen.nbytes)
