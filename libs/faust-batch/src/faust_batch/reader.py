"""Reading without a group: bounded reads of a partition, and tails that catch up. All read committed records only."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from faust_batch.batch import Batch
from faust_batch.config import MIB
from faust_batch.errors import ClientFailed, OffsetOutOfRange, ReadStalled, TopicMissing
from faust_batch.fetch import Appetite, Grouper, batch_of, before, not_before
from faust_batch.patience import ATTEMPT_TIMEOUT_S, QUERY_TIMEOUT_S, log_range, partitions_of, patiently
from faust_batch.source import Source

_LOG = logging.getLogger("faust_batch.librdkafka")
STALL_LIMIT_S = 60.0  # longer than any transaction may be open
POLL_S = 0.1
MAX_BATCH_RECORDS = 50_000
EPOCH = 0


def end_offsets(
    bootstrap: str,
    topics: Iterable[str],
    *,
    settled: bool = False,
    client_options: Mapping[str, str] | None = None,
) -> dict[Source, int]:
    """The last stable offset of every partition of `topics`: where a committed reader's log ends now.

    `settled`: the ends that hold once every transaction open now has ended, committed ones whose markers are still
    on their way among them (a commit is answered before its records can be read).
    """
    ask = _Asking(bootstrap, client_options)
    return ask.ends(ask.partitions(topics), settled)


def read_partition(
    bootstrap: str,
    source: Source,
    start: int | None,
    end: int | None = None,
    *,
    settled: bool = False,
    max_bytes: int = 8 * MIB,
    client_options: Mapping[str, str] | None = None,
) -> Iterator[Batch]:
    """The committed records of one partition in [start, end), in batches of about `max_bytes`.

    `start` None: from the log's beginning. `end` None: up to the last stable offset at the call; or, if `settled`,
    up to the end of whatever is written at the call, waiting for open transactions to end. **A stage that restores
    itself from its own outputs needs `settled`**: Kafka answers a commit before the outputs can be read, so the
    committed position may already include records beyond the last stable offset.

    Always comes to an end: also where nothing but control records is left. Raises OffsetOutOfRange if `start` lies
    outside the log, ReadStalled if `end` is not reached and nothing has come for a minute.
    """
    if start is not None and end is not None and start >= end:
        return
    reader = _Reader(bootstrap, max_bytes, client_options)
    try:
        low, high = reader.range(source)
        if settled:
            high = max(high, _Asking(bootstrap, client_options).ends([source], settled=True)[source])
        position = low if start is None else start
        if not low <= position <= high:
            raise OffsetOutOfRange(source, position, low, high)
        if end is None:
            end = high
        reader.add({source: position})
        yield from reader.read_to({source: end}, cut=True)
    finally:
        reader.close()


class TopicTail:
    """Follows whole topics, or some of their partitions, from the beginning.

    `partitions`: the same selection for every topic, or one per topic; None: all there are. `since_ms`: begin at the
    first record appended then or later. Not thread-safe.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Collection[str],
        partitions: Collection[int] | Mapping[str, Collection[int]] | None = None,
        *,
        since_ms: int | None = None,
        max_bytes: int = 8 * MIB,
        client_options: Mapping[str, str] | None = None,
    ) -> None:
        self._asking = _Asking(bootstrap, client_options)
        self._reader = _Reader(bootstrap, max_bytes, client_options)
        self._since_ms = since_ms
        wanted = []
        for source in self._asking.partitions(topics):
            chosen = partitions.get(source.topic) if isinstance(partitions, Mapping) else partitions
            if chosen is None or source.partition in chosen:
                wanted.append(source)
        self.add(wanted)

    def add(self, sources: Collection[Source], start: int | None = None) -> None:
        """Follow these partitions too, from `start` on; None: from their beginning (or `since_ms`)."""
        new = [source for source in sources if source not in self._reader.positions]
        if start is None:
            self._reader.add(self._starts(new))
        else:
            self._reader.add(dict.fromkeys(new, start))

    def drop(self, sources: Collection[Source]) -> None:
        """Follow these partitions no longer."""
        self._reader.drop(sources)

    @property
    def positions(self) -> dict[Source, int]:
        """How far each partition has been read: the next offset."""
        return dict(self._reader.positions)

    def catch_up(self, *, settled: bool = False) -> list[Batch]:
        """Everything committed since the last call, up to the ends seen at this one (`settled` as in `end_offsets`)."""
        return list(self.catching_up(settled=settled))

    def catching_up(self, *, settled: bool = False) -> Iterator[Batch]:
        """As `catch_up`, one batch at a time: for a first call that may be large. Must be exhausted."""
        yield from self._reader.read_to(self._asking.ends(list(self._reader.positions), settled))

    def close(self) -> None:
        self._reader.close()

    def _starts(self, sources: Collection[Source]) -> dict[Source, int]:
        if self._since_ms is None:
            return {source: self._reader.range(source)[0] for source in sources}
        found = self._asking.since(sources, self._since_ms)
        # nothing as young as that: begin at the end
        return {s: offset if offset >= 0 else self._reader.range(s)[1] for s, offset in found.items()}

    def __enter__(self) -> TopicTail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader:
    """A consumer with a fixed assignment and the position reached in each partition."""

    def __init__(self, bootstrap: str, max_bytes: int, client_options: Mapping[str, str] | None) -> None:
        self._consumer = Consumer(
            {
                "queued.max.messages.kbytes": max(2 * max_bytes // 1024, 1024),
                # the end of the log is reported by an empty fetch: behind control records it takes this long
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 10,
                **(client_options or {}),
                "bootstrap.servers": bootstrap,
                "group.id": "faust-batch-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            },
            logger=_LOG,
        )
        self._appetite = Appetite(MAX_BATCH_RECORDS, max_bytes)
        self.positions: dict[Source, int] = {}

    def range(self, source: Source) -> tuple[int, int]:
        return log_range(self._consumer, source)

    def add(self, starts: Mapping[Source, int]) -> None:
        if starts:
            self._consumer.incremental_assign(
                [TopicPartition(s.topic, s.partition, offset) for s, offset in starts.items()]
            )
            self.positions.update(starts)

    def drop(self, sources: Collection[Source]) -> None:
        known = [source for source in sources if source in self.positions]
        if known:
            self._consumer.incremental_unassign([_tp(source) for source in known])
            for source in known:
                del self.positions[source]

    def read_to(self, ends: Mapping[Source, int], *, cut: bool = False) -> Iterator[Batch]:
        """Batches until every partition has reached its end; what was fetched past an end comes along unless `cut`."""
        open_ = {source for source, end in ends.items() if self.positions[source] < end}
        grouper = Grouper(sorted({source.topic for source in self.positions}))
        moved_at = time.monotonic()
        while open_:
            messages = self._consume(open_)
            fetch = grouper.group(messages)
            for source in fetch.out_of_range:
                raise OffsetOutOfRange(source, self.positions[source], *self.range(source))
            for source, found in fetch.messages.items():
                if source not in self.positions:
                    continue
                found = not_before(found, self.positions[source])
                if cut and found and source in open_:
                    found, beyond = before(found, ends[source]), found
                    if len(found) < len(beyond):
                        open_.discard(source)
                if not found:
                    continue
                batch = batch_of(
                    source,
                    found,
                    end=_reached(fetch.ends.get(source), ends.get(source) if cut else None),
                    high_watermark=self._high_watermark(source),
                    epoch=EPOCH,
                )
                self.positions[source] = batch.next_offset
                self._appetite.saw(len(batch), batch.nbytes)
                moved_at = time.monotonic()
                yield batch
            for source, end in fetch.ends.items():
                if source in self.positions and end > self.positions[source]:
                    self.positions[source] = end
                    moved_at = time.monotonic()
            open_ = {source for source in open_ if self.positions[source] < ends[source]}
            if open_ and time.monotonic() - moved_at > STALL_LIMIT_S:
                stuck = min(open_)
                raise ReadStalled(
                    f"{stuck}: nothing after {self.positions[stuck]} for {STALL_LIMIT_S:.0f} s, "
                    f"{ends[stuck]} was to be reached; is a transaction open, or the broker away?"
                )

    def _consume(self, open_: Collection[Source]) -> list[Message]:
        wanted = self._appetite.records
        messages: list[Message] = self._consumer.consume(1, POLL_S)
        if messages and wanted > 1:
            messages += self._consumer.consume(wanted - 1, 0)
        return messages

    def _high_watermark(self, source: Source) -> int:
        found = self._consumer.get_watermark_offsets(_tp(source), cached=True)
        return int(found[1]) if found is not None else 0

    def close(self) -> None:
        self._consumer.close()


def _reached(end: int | None, limit: int | None) -> int | None:
    return end if end is None or limit is None else min(end, limit)


def _tp(source: Source) -> TopicPartition:
    return TopicPartition(source.topic, source.partition)


class _Asking:
    """Asks a broker about topics, with one client as long as all goes well."""

    def __init__(self, bootstrap: str, client_options: Mapping[str, str] | None) -> None:
        self._options: dict[str, str | int | float | bool] = {**(client_options or {}), "bootstrap.servers": bootstrap}
        self._admin: AdminClient | None = None

    def partitions(self, topics: Iterable[str]) -> list[Source]:
        wanted = list(topics)
        try:
            known = partitions_of(self._client(), wanted)
        except KafkaException as error:
            raise ClientFailed(f"no metadata for {', '.join(wanted)} ({error}); is the broker up?") from error
        missing = sorted(set(wanted) - set(known))
        if missing:
            raise TopicMissing(f"no such topic: {', '.join(missing)}; create it first")
        return [Source(topic, partition) for topic in wanted for partition in known[topic]]

    def ends(self, sources: Collection[Source], settled: bool) -> dict[Source, int]:
        level = IsolationLevel.READ_UNCOMMITTED if settled else IsolationLevel.READ_COMMITTED
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._offsets(sources, latest, level, "the log's end is unknown")

    def since(self, sources: Collection[Source], since_ms: int) -> dict[Source, int]:
        """The first offsets appended at `since_ms` or later, −1 where there is none."""
        spec, level = OffsetSpec.for_timestamp(since_ms), IsolationLevel.READ_UNCOMMITTED
        return self._offsets(sources, spec, level, f"the offset at {since_ms} ms is unknown", OFFSET_END)

    def _offsets(
        self, sources: Collection[Source], spec: OffsetSpec, level: IsolationLevel, unknown: str, least: int = 0
    ) -> dict[Source, int]:
        if not sources:
            return {}
        asked: dict[Any, Any] = dict.fromkeys(map(_tp, sources), spec)

        def ask() -> dict[Source, int]:
            try:
                futures = self._client().list_offsets(asked, isolation_level=level, request_timeout=ATTEMPT_TIMEOUT_S)
                found = {Source(tp.topic, tp.partition): future.result().offset for tp, future in futures.items()}
                if min(found.values()) < least:  # a broker that stood still: no offsets, and no error either
                    raise KafkaException(KafkaError(KafkaError._TRANSPORT))
                return found
            except KafkaException:
                self._admin = None  # after a change of leader a client can go on with the old epoch for ever
                raise

        try:
            return patiently(ask, QUERY_TIMEOUT_S)
        except KafkaException as error:
            where = ", ".join(map(str, sorted(sources)))
            raise ClientFailed(f"{where}: {unknown} ({error})") from error

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(self._options, logger=_LOG)
        return self._admin
