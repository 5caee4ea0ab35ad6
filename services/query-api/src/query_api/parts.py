"""What the routes are given: the edges, the settings and the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from query_api.domain.problems import Problem, unavailable
from query_api.domain.progress import Partition, Progress, Reach
from query_api.domain.tail import Tail
from query_api.identity import Identity
from query_api.kafka import QUALITY, Live, RawEnds, TailReader
from query_api.keys import Keys
from query_api.raw import RawRecords
from query_api.settings import QuerySettings
from query_api.sql import Warehouse
from telestream_contracts import Registry
from telestream_warehouse import active_generations, judged_positions


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    settings: QuerySettings
    warehouse: Warehouse
    keys: Keys
    identity: Identity
    tail: TailReader
    raw: RawEnds
    records: RawRecords
    registry: Registry
    now_ms: Callable[[], int] = now_ms

    def live(self) -> Live:
        """What the tail holds now; raises Problem while it has not caught up."""
        if self.tail.live is None:
            raise unavailable("the tail of the aggregates", retry_after_s=2)
        return self.tail.live

    def progress(self) -> tuple[Progress, Tail]:
        """The marks and the tail, empty ones while they are not read yet: then completeness is unknown."""
        live = self.tail.live
        return (Progress(), Tail()) if live is None else (live.progress, live.tail)

    def partitions_of(self, types: Sequence[str]) -> list[Partition]:
        """All partitions of these types, as far as known."""
        return [] if self.tail.live is None else self.tail.live.partitions_of(types)

    async def generations(self) -> dict[str, int]:
        """Type → the generation that people see; asked once per request."""
        rows = await self.warehouse.frame(active_generations())
        if rows.is_empty():
            raise unavailable("ClickHouse")
        return {str(name): int(number) for name, number in rows.select("type", "generation").iter_rows()}

    async def positions(self, record_type: str, generation: int) -> dict[int, int]:
        """Partition → raw offsets below it are judged and in all tables."""
        rows = await self.warehouse.frame(judged_positions(record_type, generation))
        if rows.is_empty():
            return {}
        return {int(partition): int(src) for partition, src in rows.select("partition", "src_next").iter_rows()}

    async def reach_of_aggregates(self, types: Sequence[str], generations: dict[str, int], beat_ms: int) -> Reach:
        """What an answer from ClickHouse's aggregates includes, which the aggregator publishes every ``beat_ms``."""
        positions = await asyncio.gather(*(self.positions(name, generations[name]) for name in types))
        _, tail = self.progress()
        processed = {
            (name, partition): min(position, tail.included.get((QUALITY, name, partition), 0))
            for name, found in zip(types, positions, strict=True)
            for partition, position in found.items()
        }
        return Reach(processed=processed, settled_ms=self.now_ms() - beat_ms)


def one_generation(generations: dict[str, int], types: Sequence[str]) -> int | None:
    """The generation that these types share, None if they differ."""
    found = {generations[name] for name in types}
    return found.pop() if len(found) == 1 else None


def shown_generation(generations: dict[str, int], types: Sequence[str]) -> int | dict[str, int]:
    """As it stands in an answer: a number, or by type where they differ."""
    one = one_generation(generations, types)
    return {name: generations[name] for name in types} if one is None else one


def known_type(name: str) -> str:
    """Raises Problem for another type than there are."""
    from telestream_domain import TYPES

    if name not in TYPES:
        raise Problem(422, "bad_parameter", f"type: one of {', '.join(TYPES)}", field="type")
    return name
