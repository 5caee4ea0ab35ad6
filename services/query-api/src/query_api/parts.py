"""What the routes are given: the edges, the settings and the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from query_api.domain.points import NOW, Generations, Point, known, resolved, still_there
from query_api.domain.problems import Problem, bad_parameter, unavailable
from query_api.domain.progress import Partition, Progress, Reach
from query_api.domain.ranges import to_ms
from query_api.domain.tail import Tail
from query_api.identity import Identity
from query_api.kafka import QUALITY, Live, RawEnds
from query_api.keys import Keys
from query_api.raw import RawRecords
from query_api.settings import QuerySettings
from query_api.sql import Warehouse
from query_api.tails import Tails, progress_of
from telestream_contracts import Registry
from telestream_domain import TYPES
from telestream_warehouse import active_generations, judged_positions, known_generations

PATIENCE_S = 0.5
"""How long the newest minutes wait for the row that says what people see; then what it said before counts."""


AHEAD_MS = 60_000
"""A caller's clock may be so far ahead of ours."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    settings: QuerySettings
    warehouse: Warehouse
    keys: Keys
    identity: Identity
    tails: Tails
    raw: RawEnds
    records: RawRecords
    registry: Registry
    now_ms: Callable[[], int] = now_ms

    def progress(self, generations: Mapping[str, int]) -> Progress:
        """The marks of each type's generation, none where they are not read (yet): then completeness is unknown."""
        return progress_of({name: live.progress for name, live in self._lives(generations).items()})

    def partitions_of(self, types: Sequence[str]) -> list[Partition]:
        """All partitions of these types, as far as known."""
        live = self.tails.any_live()
        return [] if live is None else live.partitions_of(types)

    async def generations(
        self, types: Sequence[str] = tuple(TYPES), point: Point = NOW, pinned: Generations | None = None
    ) -> Generations:
        """Type → the generation that answers, for each of ``types``; asked once per request, so that all of an answer
        is of the same. ``pinned``: what a cursor says. Raises Problem."""
        if point.is_now and pinned is None:
            rows = await self.warehouse.frame(active_generations())
            if rows.is_empty():
                raise unavailable("ClickHouse")
            active = {str(name): int(number) for name, number in rows.select("type", "generation").iter_rows()}
            self.tails.noted(active)
            return {name: active[name] for name in types}
        if point.at is not None and to_ms(point.at) > self.now_ms() + AHEAD_MS:
            raise bad_parameter("at", "lies ahead: nobody knows yet")
        answer = await self.warehouse.rows(known_generations(point.at))
        found = known(
            (row["what"], row["type"], row["generation"])
            for row in answer
            if row["what"] == "active" or not self.tails.is_going(row["generation"])
        )
        chosen = None if point.is_now else resolved(point, types, found)
        if pinned is None:
            return chosen or {}
        if chosen is not None and chosen != pinned:
            raise bad_parameter(
                "cursor", f"goes on with {_words(pinned)}: leave generation and at out, or begin anew", "bad_cursor"
            )
        return still_there(pinned, found)

    async def generations_in_haste(self, types: Sequence[str], point: Point) -> Generations:
        """As ``generations``; while ClickHouse keeps us waiting what people saw last, as long as that is what is asked
        for."""
        if not point.is_now:
            return await self.generations(types, point)
        try:
            return await asyncio.wait_for(self.generations(types), PATIENCE_S)
        except (Problem, TimeoutError) as err:
            last = self.tails.last_active
            if last is None or (isinstance(err, Problem) and err.status != 503):
                raise unavailable("ClickHouse, which says what people see,", retry_after_s=2) from err
            return {name: last[name] for name in types}

    async def positions(self, record_type: str, generation: int) -> dict[int, int]:
        """Partition → raw offsets below it are judged and in all tables."""
        rows = await self.warehouse.frame(judged_positions(record_type, generation))
        if rows.is_empty():
            return {}
        return {int(partition): int(src) for partition, src in rows.select("partition", "src_next").iter_rows()}

    async def reach_of_aggregates(self, types: Sequence[str], generations: dict[str, int], beat_ms: int) -> Reach:
        """What an answer from ClickHouse's aggregates includes, which the aggregator publishes every ``beat_ms``."""
        positions = await asyncio.gather(*(self.positions(name, generations[name]) for name in types))
        tails = {name: live.tail for name, live in self._lives(generations).items()}
        processed = {
            (name, partition): min(position, tails.get(name, Tail()).included.get((QUALITY, name, partition), 0))
            for name, found in zip(types, positions, strict=True)
            for partition, position in found.items()
        }
        return Reach(processed=processed, settled_ms=self.now_ms() - beat_ms)

    def _lives(self, generations: Mapping[str, int]) -> dict[str, Live]:
        found = {name: self.tails.live(number) for name, number in generations.items()}
        return {name: live for name, live in found.items() if live is not None}


def one_generation(generations: dict[str, int], types: Sequence[str]) -> int | None:
    """The generation that these types share, None if they differ."""
    found = {generations[name] for name in types}
    return found.pop() if len(found) == 1 else None


def shown_generation(generations: dict[str, int], types: Sequence[str]) -> int | dict[str, int]:
    """As it stands in an answer: a number, or by type where they differ."""
    one = one_generation(generations, types)
    return {name: generations[name] for name in types} if one is None else one


def _words(generations: Mapping[str, int]) -> str:
    return " and ".join(f"generation {number} of {name}" for name, number in generations.items())


def known_type(name: str) -> str:
    """Raises Problem for another type than there are."""
    if name not in TYPES:
        raise Problem(422, "bad_parameter", f"type: one of {', '.join(TYPES)}", field="type")
    return name
