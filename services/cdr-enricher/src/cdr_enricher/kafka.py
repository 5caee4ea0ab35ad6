"""The enricher as a stage of faust-batch: what it reads beside its batches, and when it says how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cdr_enricher import metrics
from cdr_enricher.ahead import Ahead, Known, ReadAhead
from cdr_enricher.dedup_log import Position
from cdr_enricher.dedup_store import DedupStore
from cdr_enricher.domain.hashing import Ints
from cdr_enricher.domain.progress import Progress, Reported
from cdr_enricher.errors import JudgedCut, RejectionsAboveLimit
from cdr_enricher.judged_log import JudgedLog, JudgedPartition
from cdr_enricher.pin import Pin
from cdr_enricher.reference_reader import ReferenceReader
from cdr_enricher.restore import Restorer, Saved, metadata_of
from cdr_enricher.stage import Judge, State
from faust_batch import (
    Batch,
    Committed,
    OffsetOutOfRange,
    Output,
    PartitionStopped,
    Source,
    end_offsets,
    read_partition,
)
from telestream_contracts import encode_records, load_schema
from telestream_guards import PartitionsChanged
from telestream_runtime.lean import give_back_memory

MAX_TOUCHED_BYTES = 128 << 20  # of mapped identities, which the system would keep in memory while there is room
_QUIET = {"log_level": "4"}  # a short-lived client says goodbye on stderr otherwise


@dataclass(frozen=True, slots=True)
class TypeStage:
    """How one type is judged and restored, and the topics that are its own."""

    name: str
    judge: Judge
    restorer: Restorer
    enriched_topic: str
    has_customer: bool


class EnricherStage:
    """Judges every type's raw topic. The one stateful value beside the partitions' states is the reference data."""

    def __init__(
        self,
        bootstrap: str,
        by_topic: Mapping[str, TypeStage],
        reader: ReferenceReader,
        log: JudgedLog,
        dedup: DedupStore,
        *,
        progress_topic: str,
        progress_id: int,
        lateness_ms: int,
        starts: Mapping[Source, int] | None = None,
        pin: Pin | None = None,
    ) -> None:
        self._starts, self._pin = starts or {}, pin or Pin()
        self._pinned: set[Source] = set()  # of the partitions at work, those whose next record is pinned
        self._bootstrap, self._by_topic, self._reader, self._log = bootstrap, by_topic, reader, log
        self._dedup = dedup
        self._progress_topic, self._progress_id = progress_topic, progress_id
        self._progress_schema = load_schema("progress")
        self._lateness_ms = lateness_ms
        self._stopped: dict[Source, str] = {}
        self._ahead = Ahead()
        self._judged_to: dict[Source, int] = {}
        self.topics: Sequence[str] = list(by_topic)

    def restore(self, source: Source, committed: Committed | None) -> State:
        """Rebuild the state of a partition from its judged records."""
        started = time.monotonic()
        stage, enriched = self._by_topic[source.topic], self._enriched(source)
        left = Source(self._dedup.topic, source.partition)
        # settled: the last commit may be answered before its records can be read
        ends = end_offsets(
            self._bootstrap, [source.topic, enriched.topic, left.topic], settled=True, client_options=_QUIET
        )
        if enriched not in ends:
            raise PartitionsChanged(
                f"{source} has no {enriched}: a partition was added while the enricher ran; a partition count never "
                "changes, duplicates would slip between partitions: bring the old topic back"
            )
        saved = None if committed is None else Saved.read(source, committed)
        seen, position = self._dedup.empty(), Position()
        if saved is not None and committed is not None:
            saved.check_same(source, self._dedup.segment_bits, self._dedup.horizon_days)
            if saved.began is not None:
                seen, position = self._dedup.restore(
                    source,
                    stage.name,
                    saved.position,
                    saved.withdrawn_hash,
                    saved.began,
                    committed.offset,
                    lambda: read_partition(self._bootstrap, left, None, ends[left], client_options=_QUIET),
                )
        state = stage.restorer.state(
            source,
            committed,
            saved,
            enriched,
            self._judged_from(enriched, position.enriched_from, ends[enriched]),
            raw_end=ends[source],
            seen=seen,
            position=position,
        )
        if committed is None:
            state = replace(state, next_offset=self._starts.get(source))
        pinned = self._pin.holds(stage.name, source.partition, state.next_offset or 0)
        if pinned:
            self._pinned.add(source)
            self._reader.pinned()
        if stage.has_customer:
            self._reader.hold_customers(source.partition, pinned=pinned)
        give_back_memory()
        metrics.RESTORE_SECONDS.observe(time.monotonic() - started)
        _count_seen(source, state)
        self._ahead.drop(source)
        self._judged_to[source] = 0 if state.began_at is None else state.next_offset or 0
        return state

    def needs_quiet(self, batches: Sequence[Batch]) -> bool:
        """Whether they hold reversals of what is not at hand."""
        return any(len(self._far(self._known(batch))) for batch in batches)

    def before_round(self, batches: Sequence[Batch]) -> None:
        """A customer accepted before a call is there for it: the ends are asked for after the fetch."""
        for known in map(self._known, batches):
            far = self._far(known)
            if len(far):
                known.originals |= self._log.read_ahead(self._enriched(known.batch.source), far)
        with metrics.REFERENCE_SECONDS.time():
            self._reader.catch_up()

    def on_batch(self, batch: Batch, state: State) -> tuple[Sequence[Output], State]:
        stage, enriched = self._by_topic[batch.source.topic], self._enriched(batch.source)
        outputs: list[Output] = []
        known = self._ahead.take(batch)
        originals = ReadAhead(known.originals if known else {}, JudgedPartition(self._log, enriched))
        with metrics.JUDGE_SECONDS.time():
            try:
                for part, pinned in self._pin.parts(stage.name, batch):
                    if not pinned:
                        self._unpin(batch.source)
                    references = self._reader.pinned() if pinned else self._reader.references
                    decoded = known.decoded if known and part is batch else None
                    found, state = stage.judge.on_batch(part, state, references, originals, decoded)
                    self._keep(enriched, part.first_offset, found)
                    outputs += found
            except RejectionsAboveLimit as err:
                self._stopped[batch.source] = str(err)
                metrics.STOPPED.labels(batch.source.topic, str(batch.source.partition)).set(1)
                raise PartitionStopped(str(err)) from err
        self._judged_to[batch.source] = batch.next_offset
        started = time.monotonic()
        left, position = self._dedup.close(
            stage.name, batch.source.partition, state.seen, state.dedup, lambda: self._readable_end(enriched)
        )
        if left:
            outputs, state = [*outputs, *left], replace(state, dedup=position)
            metrics.CLOSE_SECONDS.observe(time.monotonic() - started)
        return outputs, state

    def due(self, states: Mapping[Source, State], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, State]]:
        """One ``progress`` record per partition and second where something changed."""
        self._log.settle()
        closed = [state.seen.closed for state in states.values()]
        if sum(each.touched_bytes for each in closed) > MAX_TOUCHED_BYTES:
            for each in closed:
                each.release()
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
                    self._reader.positions(pinned=source in self._pinned),
                )
            )
            changed[source] = replace(state, reported=Reported(next_offset, state.raw_end, now_ms))
            _count_seen(source, state)
        if not reports:
            return (), {}
        return [Output(self._progress_topic, 0, self._encoded(reports, now_ms))], changed

    def metadata(self, source: Source, state: State) -> str:
        self._log.committing(self._enriched(source))
        return metadata_of(state)

    def going_on(self) -> str | None:
        """Why a partition goes no further, None if all do; from any thread."""
        return next(iter(list(self._stopped.values())), None)

    def revoked(self, source: Source) -> None:
        if self._stopped.pop(source, None) is not None:
            metrics.STOPPED.remove(source.topic, str(source.partition))
        if self._by_topic[source.topic].has_customer:
            self._reader.drop_customers(source.partition)
            give_back_memory()
        self._let_go_of_pinned(source)
        self._log.drop(self._enriched(source))
        self._ahead.drop(source)
        self._judged_to.pop(source, None)
        for gauge in (metrics.SEEN_IDS, metrics.SEEN_BYTES):
            gauge.remove(source.topic, str(source.partition))

    def _known(self, batch: Batch) -> Known:
        known = self._ahead.find(batch)
        if known is None:
            known = Known.of(batch, self._by_topic[batch.source.topic].judge.decode(batch))
            self._ahead.put(known)
        return known

    def _far(self, known: Known) -> Ints:
        """The originals of its reversals that are to be read from the log, and can be."""
        source = known.batch.source
        kept = self._log.kept_from(self._enriched(source)) if len(known.named) else None
        return known.before(self._judged_to.get(source, 0) if kept is None else kept)

    def _keep(self, enriched: Source, first_offset: int, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if output.topic == enriched.topic:
                self._log.keep(enriched, first_offset, [message["value"] or b"" for message in output.messages])

    def _unpin(self, source: Source) -> None:
        """From here on the partition is judged with what there is now."""
        if source not in self._pinned:
            return
        if self._by_topic[source.topic].has_customer:
            self._reader.unpin_customers(source.partition)
        self._let_go_of_pinned(source)

    def _let_go_of_pinned(self, source: Source) -> None:
        self._pinned.discard(source)
        if not self._pinned:
            self._reader.drop_pinned()

    def _judged_from(self, enriched: Source, start: int | None, end: int) -> Iterator[Batch]:
        """The judged records from ``start`` on, or those that are left of them."""
        if start is not None and start > end:
            raise JudgedCut(
                f"{enriched} ends at {end}, but the open segment begins at {start} or later: the topic was cut or made "
                "anew; derive a new generation"
            )
        try:
            yield from read_partition(self._bootstrap, enriched, start, end, client_options=_QUIET)
        except OffsetOutOfRange:
            yield from read_partition(self._bootstrap, enriched, None, end, client_options=_QUIET)

    def _readable_end(self, enriched: Source) -> int:
        return end_offsets(self._bootstrap, [enriched.topic], client_options=_QUIET)[enriched]

    def _enriched(self, source: Source) -> Source:
        return Source(self._by_topic[source.topic].enriched_topic, source.partition)

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
