"""Counting the books with what is remembered of closed hours, so that a request costs the open ones only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from query_api.domain.closed import (
    BEGINNING,
    HOUR,
    KEPT_S,
    Closed,
    ClosedHours,
    Key,
    Span,
    by_hour,
    hour_down,
    hour_up,
    instant_of,
    joined,
    missing,
)
from query_api.domain.problems import Problem
from query_api.domain.ranges import from_ms, to_ms
from query_api.parts import Parts
from telestream_warehouse import Arrived, Books, books_of, judged_between, mutations, reconciliation

SETTLE = timedelta(minutes=2)
"""An hour may be closed this long after its end by our clock: the broker's, which stamps records, may differ."""

HOURS_BACK = 4
"""How many hours are tried, back from now, until one is found whose records are all judged."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which books: ``since`` ≤ arrival < ``until`` of a type, or of one of its sources, at the sink's ``positions``;
    ``ends`` are raw's, ``raw`` is its topic."""

    record_type: str
    generation: int
    source: str | None
    since: datetime | None
    until: datetime | None
    hourly: bool
    positions: Mapping[int, int]
    ends: Mapping[int, int]
    raw: str

    @property
    def key(self) -> Key:
        return self.record_type, self.generation, self.source

    def src_next(self) -> list[int]:
        return [self.positions.get(partition, 0) for partition in sorted(self.ends)]


@dataclass(slots=True)
class _Sealed:
    """Raw offsets per partition below which every judged row was seen."""

    offsets: dict[int, int]
    mark: str
    counted_s: float


@dataclass(slots=True)
class Counter:
    """Counts books, and remembers. One at a time by type (``lock``), so that positions never go back between two."""

    parts: Parts
    memory: ClosedHours = field(default_factory=ClosedHours)
    _sealed: dict[tuple[str, int], _Sealed] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def lock(self, record_type: str) -> asyncio.Lock:
        return self._locks.setdefault(record_type, asyncio.Lock())

    def forget(self, record_type: str, generation: int) -> None:
        """Count everything of a type anew from here on."""
        self.memory.drop_type(record_type)
        self._sealed.pop((record_type, generation), None)

    async def mark(self, record_type: str) -> str | None:
        """Changes when rows were changed by hand; None where that may not be asked: then nothing is remembered."""
        try:
            return str((await self.parts.warehouse.rows(mutations(record_type)))[0]["mark"])
        except Problem:
            return None

    async def books(self, asked: Asked, mark: str | None) -> list[Books]:
        """By hour of arrival if ``hourly``, else books that only add up to the whole."""
        closed, wanted = await self._remembered(asked, mark)
        found = [] if closed is None or wanted is None else closed.within(wanted)
        spans = _open_spans(asked, None if closed is None else wanted)
        return [*found, *(await self._count(asked, spans, hourly=asked.hourly) if spans else [])]

    async def judged(self, asked: Asked, starts: Mapping[int, int], mark: str | None) -> dict[int, int]:
        """Partition → judged rows of raw offsets from its start to its position; those below a sealed offset are known
        to be there."""
        key = (asked.record_type, asked.generation)
        sealed = self._sealed.get(key)
        now_s = time.monotonic()
        if sealed is None or mark is None or sealed.mark != mark or now_s - sealed.counted_s > KEPT_S:
            sealed = _Sealed({}, mark or "", now_s)
        first, positions = [], asked.src_next()
        for partition, position in zip(sorted(asked.ends), positions, strict=True):
            known = sealed.offsets.get(partition, 0)
            first.append(max(starts.get(partition, 0), known if known <= position else 0))
        rows = await self.parts.warehouse.rows(judged_between(asked.record_type, first, positions, asked.generation))
        counted = {int(row["partition"]): int(row["rows"]) for row in rows}
        found = {}
        for partition, low, position in zip(sorted(asked.ends), first, positions, strict=True):
            found[partition] = counted.get(partition, 0) + low - starts.get(partition, 0)
            if counted.get(partition, 0) == max(0, position - low):
                sealed.offsets[partition] = max(low, position)
        if mark is not None:
            self._sealed[key] = sealed
        return found

    async def _remembered(self, asked: Asked, mark: str | None) -> tuple[Closed | None, Span | None]:
        """What is known of the closed hours asked for, and which these are; counts those not known yet."""
        start = BEGINNING if asked.since is None else hour_up(asked.since)
        last = hour_down(from_ms(self.parts.now_ms()) - SETTLE)
        end = last if asked.until is None else min(last, hour_down(asked.until))
        if mark is None or start >= end:
            return None, None
        closed = self.memory.get(asked.key)
        if closed is not None:
            if closed.holds(asked.positions, mark, time.monotonic()):
                closed = await self._refreshed(asked, closed)
            else:
                self.memory.drop(asked.key)
                closed = None
        wanted: Span = (start, end)
        if missing(closed, wanted):
            closed, wanted = await self._extended(asked, closed, wanted, mark)
        if closed is None or wanted[0] >= wanted[1]:
            return None, None
        return closed, wanted

    async def _refreshed(self, asked: Asked, closed: Closed) -> Closed:
        """With those hours counted again to which reversals went back since."""
        partitions = sorted(asked.ends)
        since = [closed.positions.get(partition, 0) for partition in partitions]
        rows = await self.parts.warehouse.rows(
            judged_between(asked.record_type, since, asked.src_next(), asked.generation)
        )
        changed = {hour_down(instant_of(hour)) for row in rows for hour in row["hours"]}
        closed, spans = closed.without(changed)
        if spans:
            again = by_hour(await self._count(asked, spans, hourly=True))
            closed = replace(closed, hours={**closed.hours, **again})
        closed = replace(closed, positions=dict(asked.positions))
        self.memory.put(asked.key, closed)
        return closed

    async def _extended(
        self, asked: Asked, closed: Closed | None, wanted: Span, mark: str
    ) -> tuple[Closed | None, Span]:
        """With the hours of ``wanted`` that are closed by now; they are remembered if raw's offsets agree."""
        for _ in range(HOURS_BACK):
            ends = await self._offsets(asked, wanted[1])
            if all(asked.positions.get(partition, 0) >= end for partition, end in ends.items()):
                break
            wanted = (wanted[0], wanted[1] - HOUR)
        else:
            return _clipped(closed, wanted)
        if wanted[0] >= wanted[1]:
            return _clipped(closed, wanted)
        spans = missing(closed, wanted)
        found = by_hour(await self._count(asked, spans, hourly=True)) if spans else {}
        start, end = joined(closed, wanted)
        touching = closed if closed is not None and start <= closed.start and closed.end <= end else None
        extended = Closed(
            start,
            end,
            {**(touching.hours if touching else {}), **found},
            dict(asked.positions),
            mark,
            touching.counted_s if touching else time.monotonic(),
        )
        if await self._agrees(asked, spans, found):
            self.memory.put(asked.key, extended)
        return extended, wanted

    async def _agrees(self, asked: Asked, spans: Sequence[Span], found: Mapping[datetime, Books]) -> bool:
        """Whether the books of these spans hold as many records as raw's offsets between their ends."""
        for start, end in spans:
            first = {} if start == BEGINNING else await self._offsets(asked, start)
            last = await self._offsets(asked, end)
            partitions = sorted(asked.ends)
            rows = await self.parts.warehouse.rows(
                judged_between(
                    asked.record_type,
                    [first.get(partition, 0) for partition in partitions],
                    [last[partition] for partition in partitions],
                    asked.generation,
                    source_name=asked.source,
                )
            )
            accepted = sum(books.accepted.records for hour, books in found.items() if start <= hour < end)
            if accepted != sum(int(row["accepted"]) for row in rows):
                return False
        return True

    async def _offsets(self, asked: Asked, at: datetime) -> dict[int, int]:
        """Raw's first offset of each partition at or after a time, its end where there is none."""
        found = await asyncio.to_thread(self.parts.raw.at, asked.raw, len(asked.ends), to_ms(at))
        offsets = {}
        for partition, end in asked.ends.items():
            offset = found.get(partition)
            offsets[partition] = end if offset is None else offset
        return offsets

    async def _count(self, asked: Asked, spans: Sequence[Arrived], *, hourly: bool) -> list[Books]:
        bounds = [(None if start == BEGINNING else start, end) for start, end in spans]
        rows = await self.parts.warehouse.rows(
            reconciliation(
                asked.record_type,
                asked.src_next(),
                source_name=asked.source,
                spans=bounds,
                by_hour=hourly,
                generation=asked.generation,
            )
        )
        return [books_of(row) for row in rows]


def _clipped(closed: Closed | None, wanted: Span) -> tuple[Closed | None, Span]:
    """What is remembered of ``wanted`` where no more can be: only a beginning of it."""
    if closed is None or closed.start > wanted[0]:
        return None, wanted
    return closed, (wanted[0], min(wanted[1], closed.end))


def _open_spans(asked: Asked, known: Span | None) -> list[Arrived]:
    """What is left to count beside the hours that are known."""
    if known is None:
        return [(asked.since, asked.until)]
    spans: list[Arrived] = []
    if asked.since is not None and asked.since < known[0]:
        spans.append((asked.since, known[0]))
    if asked.until is None or known[1] < asked.until:
        spans.append((known[1], asked.until))
    return spans
