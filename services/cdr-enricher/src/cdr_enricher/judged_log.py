"""Reads single judged records back: what is committed from Kafka, what the open round judged from memory.

Judged records are dense by raw offset and lie in its order, but control records lie between them; so a raw offset's
position is bounded by every position known, and found by bisection.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdr_enricher.domain.hashing import Ints
from cdr_enricher.errors import JudgedCut, JudgementBroken
from faust_batch import ClientFailed, Source
from telestream_contracts import FRAME_BYTES, DecodeError, Schema, decode_payloads, prefix_schema, schema_id_of

NEAR = 20_000  # records: reading on over so many costs about what finding the place anew does
CHUNK = 5_000
MAX_KNOWN = 1_000
QUERY_TIMEOUT_S = 8.0
POLL_S = 0.1
VISIBLE_S = 8.0  # a commit is answered before its records can be read; longer, and the round would time out
IDLE_S = 30.0


@dataclass(slots=True)
class _Round:
    """What the open round judged of one partition, from ``first_src`` on, without a hole."""

    first_src: int
    values: list[bytes] = field(default_factory=list)
    committing: bool = False


@dataclass(frozen=True, slots=True)
class _Window:
    """Records that were read last: dense from ``first_src`` on; ``next_position`` follows them."""

    source: Source
    first_src: int
    values: list[bytes]
    next_position: int

    @property
    def next_src(self) -> int:
        return self.first_src + len(self.values)


class JudgedLog:
    """Not thread-safe. ``schema_of`` finds the schema of an id."""

    def __init__(self, bootstrap: str, schema_of: Callable[[int], Schema | None]) -> None:
        self._bootstrap, self._schema_of = bootstrap, schema_of
        self._rounds: dict[Source, _Round] = {}
        self._known: dict[Source, list[tuple[int, int]]] = {}  # (raw offset, position), ascending
        self._consumer: Consumer | None = None
        self._window: _Window | None = None
        self._heads: dict[int, Schema] = {}
        self._used_at = 0.0

    def keep(self, enriched: Source, first_src: int, values: Iterable[bytes]) -> None:
        """Remember what was just judged, until it is committed."""
        self._forget(enriched)
        self._rounds.setdefault(enriched, _Round(first_src)).values.extend(values)

    def committing(self, enriched: Source) -> None:
        """The open round is being committed: from the next one on, what it judged is in the log."""
        if enriched in self._rounds:
            self._rounds[enriched].committing = True

    def settle(self) -> None:
        """Between rounds: let go of what was committed, and of a reader that nobody has needed for a while."""
        for enriched in list(self._rounds):
            self._forget(enriched)
        if self._consumer is not None and time.monotonic() - self._used_at > IDLE_S:
            self.close()

    def drop(self, enriched: Source) -> None:
        """The partition is another worker's now."""
        self._rounds.pop(enriched, None)
        self._known.pop(enriched, None)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = self._window = None

    def read(self, enriched: Source, src_offsets: Ints) -> list[bytes]:
        """The judged records at these raw offsets, which ascend; all were judged before.

        Raises JudgedCut if one is no longer in the log, ClientFailed if Kafka does not answer.
        """
        self._forget(enriched)
        round_ = self._rounds.get(enriched)
        wanted = src_offsets.tolist()
        kept_from = len(wanted) if round_ is None else bisect_right(wanted, round_.first_src - 1)
        found = self._read_committed(enriched, wanted[:kept_from])
        if round_ is not None:
            found += [round_.values[src - round_.first_src] for src in wanted[kept_from:]]
        return found

    def read_ahead(self, enriched: Source, src_offsets: Ints) -> dict[int, bytes]:
        """Those of the judged records at these raw offsets, which ascend, that are committed and still in the log.

        It may take long: not while a transaction is open. Raises ClientFailed if Kafka does not answer.
        """
        wanted, found = src_offsets.tolist(), dict[int, bytes]()
        place = 0
        while place < len(wanted):
            window = self._reach(enriched, wanted[place])
            place = max(place, bisect_left(wanted, window.first_src))
            stop = max(place, bisect_left(wanted, window.next_src))
            found.update((src, window.values[src - window.first_src]) for src in wanted[place:stop])
            place = stop
        self._used_at = time.monotonic()
        return found

    def kept_from(self, enriched: Source) -> int | None:
        """The first raw offset of the open round, all of which is at hand; None: nothing is."""
        self._forget(enriched)
        round_ = self._rounds.get(enriched)
        return None if round_ is None else round_.first_src

    # -- the log ----------------------------------------------------------------------------------------------------

    def _read_committed(self, enriched: Source, wanted: list[int]) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < len(wanted):
            src = wanted[len(found)]
            window = self._reach(enriched, src)
            if src < window.first_src:
                raise JudgedCut(
                    f"{enriched}: the judged record of raw offset {src}, which is to be reversed, is no longer in the "
                    f"log (the next one there is of {window.first_src}); keep enriched topics as long as raw ones, and "
                    "derive a new generation"
                )
            stop = bisect_right(wanted, window.next_src - 1)
            found += [window.values[src - window.first_src] for src in wanted[len(found) : stop]]
        self._used_at = time.monotonic()
        return found

    def _reach(self, enriched: Source, src: int) -> _Window:
        """A window that holds ``src``; if that is no longer in the log, one of what follows."""
        window = self._window
        if window is None or window.source != enriched or not 0 <= src - window.first_src <= len(window.values) + NEAR:
            self._jump(enriched, self._position(enriched, src))
        quiet_since = time.monotonic()
        while (window := self._window) is None or src >= window.next_src:
            if self._consume(enriched, CHUNK):
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > VISIBLE_S:
                raise ClientFailed(
                    f"{enriched}: the judged record of raw offset {src} could not be read within {VISIBLE_S:.0f} s; is "
                    "the broker well?"
                )
        return window

    def _position(self, enriched: Source, src: int) -> int:
        """A position at or before that of ``src``, and not many records before it."""
        low, high = self._range(enriched)
        known = self._known.get(enriched, [])
        place = bisect_right(known, (src, high))
        first, last = low, high - 1
        if place:
            first = max(low, known[place - 1][1] + src - known[place - 1][0])
            if src - known[place - 1][0] <= NEAR:
                return first
        if place < len(known):
            last = min(last, known[place][1] - (known[place][0] - src))
        while last - first > NEAR:
            middle = (first + last + 1) // 2
            found = self._look(enriched, middle)
            if found is None or found[0] > src:
                last = middle - 1
            else:
                first = found[1] + src - found[0]
        return first

    def _look(self, enriched: Source, position: int) -> tuple[int, int] | None:
        """Raw offset and position of the first record at or behind ``position``; None: there is none to be read yet."""
        self._jump(enriched, position)
        deadline = time.monotonic() + QUERY_TIMEOUT_S
        while time.monotonic() < deadline:
            read = self._consume(enriched, 1)
            if self._window is not None:
                found = (self._window.first_src, self._window.next_position - 1)
                self._learn(enriched, *found)
                return found
            if read is None:
                return None
        raise ClientFailed(f"{enriched}: nothing came from {position} on within {QUERY_TIMEOUT_S:.0f} s")

    def _jump(self, enriched: Source, position: int) -> None:
        if self._window is not None:
            self._learn(self._window.source, self._window.next_src, self._window.next_position)
        self._window = None
        self._client().assign([TopicPartition(enriched.topic, enriched.partition, position)])

    def _learn(self, enriched: Source, src: int, position: int) -> None:
        """That nothing of ``src`` lies before ``position``, and nothing of earlier ones behind it."""
        known = self._known.setdefault(enriched, [])
        if len(known) >= MAX_KNOWN:
            del known[::2]
        insort(known, (src, position))

    def _consume(self, enriched: Source, count: int) -> int | None:
        """Read on: how many records came, None if the end of what can be read was met instead."""
        try:
            messages: list[Message] = self._client().consume(count, POLL_S)
        except (KafkaException, RuntimeError) as err:
            raise ClientFailed(f"{enriched}: reading judged records failed: {err}") from err
        values, position, ended = [], 0, False
        for message in messages:
            error = message.error()
            if error is None:
                values.append(message.value() or b"")
                position = int(message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            else:
                raise ClientFailed(f"{enriched}: reading judged records failed: {error.str()}")
        if not values:
            return None if ended else 0
        before = self._window
        first_src = self._src_offset(enriched, values[0]) if before is None else before.next_src
        self._window = _Window(enriched, first_src, values, position)
        return len(values)

    def _src_offset(self, enriched: Source, value: bytes) -> int:
        schema_id = schema_id_of(value)
        try:
            if schema_id not in self._heads:
                schema = None if schema_id is None else self._schema_of(schema_id)
                if schema_id is None or schema is None:
                    raise DecodeError(f"schema id {schema_id} is not registered")
                self._heads[schema_id] = prefix_schema(schema, "src_offset")
            head = decode_payloads([value[FRAME_BYTES:]], self._heads[schema_id])
        except (DecodeError, KeyError) as err:
            raise JudgementBroken(f"{enriched}: holds what is not a judged record: {err}") from err
        return int(head["src_offset"][0])

    def _range(self, enriched: Source) -> tuple[int, int]:
        partition = TopicPartition(enriched.topic, enriched.partition)
        try:
            found = self._client().get_watermark_offsets(partition, timeout=QUERY_TIMEOUT_S)
        except KafkaException as err:
            raise ClientFailed(f"{enriched}: where the log begins and ends is unknown: {err}") from err
        if found is None:
            raise ClientFailed(f"{enriched}: where the log begins and ends is unknown: no answer")
        return int(found[0]), int(found[1])

    def _client(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "cdr-enricher-originals",  # never joined: partitions are assigned by hand
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 20,
                    "fetch.queue.backoff.ms": 10,
                    "queued.max.messages.kbytes": 8_192,
                    "log_level": 4,
                }
            )
        return self._consumer

    def _forget(self, enriched: Source) -> None:
        round_ = self._rounds.get(enriched)
        if round_ is not None and round_.committing:
            del self._rounds[enriched]


@dataclass(frozen=True, slots=True)
class JudgedPartition:
    """One partition of the log: see ``originals.Originals``."""

    log: JudgedLog
    enriched: Source

    def read(self, src_offsets: Ints) -> list[bytes]:
        return self.log.read(self.enriched, src_offsets)
