"""One file from the spool into its raw topic: judged block by block, each acknowledged and booked before the next is
sent.

While Kafka is away the idempotent producer waits and repeats by itself. What was sent but not booked when a process
died is found by reading the raw topic from the last booked offsets on, and not sent again. So each accepted row lies in
the topic once, and the books of a file balance whatever happened to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ingest_gateway.domain.accepted import from_entries
from ingest_gateway.domain.file_reader import BLOCK_BYTES, Chunk, FileReader, chunks
from ingest_gateway.domain.profile import Profile
from ingest_gateway.domain.refusal import Refusal
from ingest_gateway.encode import BatchHead, Encoder
from ingest_gateway.errors import NotAcknowledged, Stopping
from ingest_gateway.kafka import Sender, messages_of
from ingest_gateway.metrics import RECORDS_ACCEPTED, RECORDS_REFUSED
from ingest_gateway.pacer import Pacer
from ingest_gateway.raw_topic import RawTopics, Sent
from ingest_gateway.spool import Spool, Unpacked
from telestream_domain import TelestreamError
from telestream_opstore import FileEntry, FileLedger, OpstoreUnavailable, Progress, RefusedRow, State
from telestream_runtime import get_logger

SETTLE_S = 1.0  # a killed process's last requests may still be on their way through the broker
RETRY_S = 1.0
LOG_EVERY_S = 10.0
LAST_BLOCK_S = 5.0
BACKFILL_BLOCK_BYTES = 256 << 10  # sent at once: a thousand rows or two are no wait for anybody
TURN_S = 0.02
log = get_logger("ingest-gateway")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loading:
    """What a load works with; the same for all files of a gateway but ``topic``, ``partitions`` and ``encoder``."""

    raw: RawTopics
    topic: str
    partitions: int
    encoder: Encoder
    sender: Sender
    ledger: FileLedger
    spool: Spool
    thread: Executor
    max_bytes: int
    pacer: Pacer


@dataclass(slots=True)
class _Ready:
    """A judged block, encoded. ``end`` is the byte of the content after it."""

    end: int
    file_lines: int
    rows: int
    accepted: int
    refusals: list[tuple[Refusal, str]]
    messages: list[dict[str, Any]]
    lines: list[int]
    nbytes: int
    totals: dict[str, int]


@dataclass(slots=True)
class _Booked:
    """What is acknowledged so far."""

    read_bytes: int
    read_lines: int
    rows: int
    accepted: int
    refused_by_code: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)


class Load:
    """Loads one file. ``run`` ends when every row is booked; ``alive_at`` is when Kafka last acknowledged something."""

    def __init__(self, entry: FileEntry, profile: Profile, reader: FileReader, loading: Loading) -> None:
        self.entry = entry
        self._profile, self._reader, self._with = profile, reader, loading
        self.alive_at = time.monotonic()
        self.stopping = False
        self._told_at = -LOG_EVERY_S
        self._booked = _Booked(
            entry.read_bytes,
            entry.read_lines,
            entry.rows,
            entry.accepted,
            Counter(entry.refused_by_code),
            Counter(entry.totals),
        )
        self._sent_from = dict(entry.sent_from)
        self._already: Sent = set()

    async def run(self, resumed: bool) -> FileEntry:
        """Raises BodyRefused if the file cannot be read at all, Stopping if the gateway stops first."""
        if not self._gives_way:
            return await self._run(resumed)
        async with self._with.pacer.pacing():
            return await self._run(resumed)

    @property
    def _gives_way(self) -> bool:
        return self.entry.priority == "backfill"

    async def _run(self, resumed: bool) -> FileEntry:
        if resumed:
            await asyncio.sleep(SETTLE_S)
            await self._find_sent()
        stream = await self._in_thread(self._open)
        with stream:
            source = self._ready(stream)
            sending: tuple[_Ready, Future[None]] | None = None
            try:
                while True:
                    self._check_stop()
                    ready = await self._in_thread(lambda: next(source, None))
                    if sending is not None:
                        await self._acknowledged(*sending)
                        sending = None
                    if ready is None:
                        break
                    if self._gives_way:
                        await self._turn(ready.accepted)
                    sending = (ready, self._send(ready))
            finally:
                if sending is not None:
                    await asyncio.wait([asyncio.wrap_future(sending[1])], timeout=LAST_BLOCK_S)
        return await self._finish()

    def _open(self) -> Unpacked:
        """A stream that stands at the first row not yet booked, with the reader knowing its columns."""
        loading, entry = self._with, self.entry
        with loading.spool.open(entry.file_id, entry.content_encoding, loading.max_bytes) as head:
            first = next(chunks(head, 0, 1), None)
        self._reader.bind(first if first is not None else Chunk(b"", 1, 0))
        if self._profile.identical_rows == "keep" and self._booked.read_bytes:
            self._recount()
        stream = loading.spool.open(entry.file_id, entry.content_encoding, loading.max_bytes)
        stream.skip(self._booked.read_bytes)
        return stream

    def _recount(self) -> None:
        """Judge what is booked once more, sending nothing: the n-th of equal rows must stay the n-th."""
        entry, done = self.entry, self._booked.read_bytes
        with self._with.spool.open(entry.file_id, entry.content_encoding, self._with.max_bytes) as stream:
            for chunk in chunks(_Limited(stream, done), 0, 1):
                self._reader.judge(chunk)

    def _ready(self, stream: Unpacked) -> Iterator[_Ready]:
        entry, encoder = self.entry, self._with.encoder
        booked = self._booked
        block_bytes = BACKFILL_BLOCK_BYTES if self._gives_way else BLOCK_BYTES
        for chunk in chunks(stream, booked.read_bytes, booked.read_lines + 1, block_bytes):
            block = self._reader.judge(chunk)
            head = BatchHead(entry.source, entry.file_id, time.time_ns() // 1_000_000, entry.allow_age_days)
            values = encoder.columns(block.columns, head)
            lines: list[int] = block.columns.lines.tolist()
            keys, shards = block.columns.keys, block.columns.shards.tolist()
            totals = Counter(block.columns.totals() if len(block.columns) else {})
            if block.entries:
                values = values + encoder.entries(block.entries, block.entry_lines, head)
                keys = keys + [item.key for item in block.entries]
                shards = shards + [item.shard for item in block.entries]
                totals += Counter(from_entries(entry.type, block.entries, block.entry_lines, encoder.types).totals())
                if lines:
                    order = sorted(range(len(values)), key=(lines + block.entry_lines).__getitem__)
                    values, keys, shards = (
                        [values[at] for at in order],
                        [keys[at] for at in order],
                        [shards[at] for at in order],
                    )
                lines = sorted(lines + block.entry_lines)
            messages = messages_of(values, keys, shards, self._with.partitions)
            ready = _Ready(
                chunk.end,
                block.lines,
                block.rows,
                block.accepted,
                block.refusals,
                messages,
                lines,
                sum(map(len, values)),
                dict(totals),
            )
            # while this is sent the next is judged: nothing of this one may stay but its messages
            del chunk, block, values, keys, shards, messages
            yield ready
            del ready

    async def _turn(self, records: int) -> None:
        while not self._with.pacer.take(records):
            self._check_stop()
            await asyncio.sleep(TURN_S)
            self.alive_at = time.monotonic()  # it waits for live records, not for Kafka

    def _send(self, ready: _Ready) -> Future[None]:
        messages = ready.messages
        if self._already:
            messages = [
                message
                for message, line in zip(messages, ready.lines, strict=True)
                if (line, message["key"]) not in self._already
            ]
        return self._with.sender.send(self._with.topic, messages, ready.nbytes)

    async def _acknowledged(self, ready: _Ready, sending: Future[None]) -> None:
        """Wait for Kafka, however long it is away, then book the block."""
        while True:
            try:
                await asyncio.wrap_future(sending)
                break
            except NotAcknowledged as err:
                self._waits("Kafka", err)
                await self._find_sent()
                sending = self._send(ready)
        last = self._booked.read_lines + ready.file_lines
        self._already = {(line, key) for line, key in self._already if line > last}
        if not self._already:  # else what the crashed process sent further on must be found again after another crash
            self._sent_from = await self._until_answered(self._ends)
        self.alive_at = time.monotonic()
        await self._book(ready)

    async def _find_sent(self) -> None:
        schema = self._with.encoder.schema

        def look() -> Sent:
            return self._with.raw.sent_lines(self._with.topic, self._sent_from, schema, self.entry.file_id)

        self._already = await self._until_answered(look)

    def _ends(self) -> dict[str, int]:
        return self._with.raw.ends(self._with.topic, self._with.partitions)

    async def _until_answered(self, ask: Callable[[], T]) -> T:
        while True:
            self._check_stop()
            try:
                return await asyncio.get_running_loop().run_in_executor(None, ask)
            except TelestreamError as err:
                self._waits("Kafka", err)
                await asyncio.sleep(RETRY_S)

    async def _book(self, ready: _Ready) -> None:
        booked = self._booked
        booked.read_bytes = ready.end
        booked.read_lines += ready.file_lines
        booked.rows += ready.rows
        booked.accepted += ready.accepted
        codes = Counter(refusal.code for refusal, _ in ready.refusals)
        booked.refused_by_code.update(codes)
        booked.totals.update(ready.totals)
        progress = Progress(
            booked.read_bytes,
            booked.read_lines,
            booked.rows,
            booked.accepted,
            booked.refused_by_code,
            booked.totals,
            self._sent_from,
        )
        refused = [RefusedRow(refusal.position, refusal.code, refusal.field, text) for refusal, text in ready.refusals]
        await self._ledger(lambda: self._with.ledger.advance(self.entry.file_id, progress, refused))
        RECORDS_ACCEPTED.labels(type=self.entry.type, path="columns").inc(ready.accepted)
        for code, count in codes.items():
            RECORDS_REFUSED.labels(type=self.entry.type, code=code).inc(count)

    async def _finish(self) -> FileEntry:
        booked, expected = self._booked, self.entry.expected
        found = {"rows": booked.rows, **booked.totals}
        differing = [
            f"{name}: {found.get(name, 0)}, the producer says {value}"
            for name, value in expected.items()
            if found.get(name, 0) != value
        ]
        state: State = "LOADED_MISMATCH" if differing else "LOADED"
        problem = "; ".join(differing) or None
        finish = self._with.ledger.finish
        return await self._ledger(lambda: finish(self.entry.file_id, state, problem))

    async def _ledger(self, write: Callable[[], Awaitable[T]]) -> T:
        """Book, however long PostgreSQL is away: what Kafka has must not be forgotten."""
        while True:
            try:
                return await write()
            except OpstoreUnavailable as err:
                self._check_stop()
                self._waits("PostgreSQL", err)
                await asyncio.sleep(RETRY_S)

    def _waits(self, whom: str, err: Exception) -> None:
        if time.monotonic() - self._told_at > LOG_EVERY_S:
            self._told_at = time.monotonic()
            log.warning(f"file waits for {whom}", file_id=self.entry.file_id, reason=str(err))

    def _check_stop(self) -> None:
        if self.stopping:
            raise Stopping("the gateway is stopping; the file goes on at its next start")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._with.thread, work)


class _Limited:
    def __init__(self, stream: Unpacked, count: int) -> None:
        self._stream, self._left = stream, count

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data
