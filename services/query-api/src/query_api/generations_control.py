"""What the routes of generations and their keeper share: rows, positions, and the warehouse with the right to write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from query_api.domain.problems import Problem, unavailable
from query_api.domain.replay_progress import Pace, Part, costs_shown
from query_api.generations_kafka import GroupPositions
from query_api.parts import Parts
from query_api.settings import QuerySettings
from query_api.sql import _with_user
from telestream_contracts import generation_topics
from telestream_domain import TYPES, Topics, group_id
from telestream_opstore import Derivation, OpstoreError, derivations_async
from telestream_runtime import get_logger
from telestream_warehouse import (
    ClickHouse,
    Query,
    Span,
    WarehouseError,
    activations,
    costs,
    derived_positions,
    judged_positions,
    spans,
)

log = get_logger(__name__)
T = TypeVar("T")
ENRICHER, AGGREGATOR, SINK = "cdr-enricher", "window-aggregator", "warehouse-sink"
WORKERS = (ENRICHER, AGGREGATOR, SINK)


@asynccontextmanager
async def opstore_answers(*but: type[OpstoreError]) -> AsyncIterator[None]:
    """Its failures as a Problem, ``but`` those that the caller knows an answer to."""
    try:
        yield
    except OpstoreError as err:
        if isinstance(err, but):
            raise
        raise unavailable("PostgreSQL") from err


@dataclass(slots=True)
class Control:
    """Everything about generations that is not one of the routes' own. Methods raise Problem."""

    settings: QuerySettings
    parts: Parts
    groups: GroupPositions
    clickhouse: ClickHouse
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    paces: dict[int, Pace] = field(default_factory=dict)
    ends: dict[int, dict[tuple[str, int], int]] = field(default_factory=dict)
    """Generation → where its derived topics ended once all it was asked for was published."""

    @classmethod
    def of(cls, settings: QuerySettings, parts: Parts) -> Control:
        writer = settings
        if settings.clickhouse_writer:
            own = {
                "clickhouse_user": settings.clickhouse_writer,
                "clickhouse_password": settings.clickhouse_writer_password,
            }
            writer = settings.model_copy(update=own)
        timeout_s = settings.gate_timeout_s
        clickhouse = ClickHouse(
            _with_user(writer),
            settings.clickhouse_database,
            read_timeout_s=timeout_s + 2,
            settings={"max_execution_time": str(timeout_s)},
        )
        return cls(settings, parts, GroupPositions(settings.kafka), clickhouse)

    @property
    def dsn(self) -> str:
        return self.settings.postgres.get_secret_value()

    @property
    def prefix(self) -> str:
        return self.settings.topic_prefix

    def topics(self, generation: int) -> Topics:
        return Topics(self.prefix, generation)

    def groups_of(self, generation: int) -> list[str]:
        """The consumer groups of its workers."""
        return [group_id(service, self.topics(generation)) for service in WORKERS]

    async def rows(self) -> list[Derivation]:
        async with opstore_answers():
            return await derivations_async(self.dsn, self.prefix)

    async def row(self, generation: int) -> Derivation:
        """Raises Problem (404) if there never was such a one."""
        rows = await self.rows()
        for row in rows:
            if row.generation == generation:
                return row
        raise unknown(generation, rows)

    async def history(self) -> list[Span]:
        """Who was active when, by type, the oldest first."""
        return spans(await self.ask(activations()))

    async def ask(self, query: Query) -> list[dict[str, Any]]:
        """A read that may take as long as counting for the gate may."""
        return await self._warehouse(lambda: self.clickhouse.rows(query))

    async def tell(self, query: Query) -> None:
        await self._warehouse(lambda: self.clickhouse.command(query))

    async def progress(self, row: Derivation) -> list[Part]:
        """Every partition of every type, as of now."""
        found = await asyncio.gather(*(self._progress(row, record_type) for record_type in row.types))
        return [part for parts in found for part in parts]

    async def costs(self, generation: int) -> dict[str, Any]:
        return costs_shown(await self.ask(costs()), generation)

    def noted_pace(self, generation: int, parts: Sequence[Part]) -> float | None:
        """Records stored a second, as seen by this process."""
        pace = self.paces.setdefault(generation, Pace())
        pace.note(time.monotonic(), sum(part.stored for part in parts))
        return pace.per_second()

    async def caught_up(self, row: Derivation, parts: Sequence[Part]) -> bool:
        """Whether all that lay in raw as the replay was asked for is derived, published and in ClickHouse."""
        if row.caught_up_at is not None or not row.plan.ends:
            return True
        if not all(part.through for part in parts):
            return False
        topics = self.topics(row.generation)
        derived = [name for name in generation_topics(topics) if name not in _not_stored(topics)]
        if row.generation not in self.ends:
            # all published windows are sent by now: what these topics hold at this moment is what must be stored
            self.ends[row.generation] = await asyncio.to_thread(self.groups.ends, derived)
        held = {
            (entry["topic"], int(entry["partition"])): int(entry["next_offset"])
            for entry in await self.ask(derived_positions(row.generation))
        }
        return not await asyncio.to_thread(self.groups.records_between, held, self.ends[row.generation])

    async def _progress(self, row: Derivation, record_type: str) -> list[Part]:
        topics, raw = self.topics(row.generation), self.parts.raw
        topic, enriched = topics.raw(record_type), topics.enriched(record_type)

        def asked() -> tuple[Any, ...]:
            count = raw.partitions(topic)
            return (
                raw.starts(topic, count),
                raw.ends(topic, count),
                self.groups.committed(group_id(ENRICHER, topics), topic, count),
                self.groups.aggregated(group_id(AGGREGATOR, topics), enriched, count),
            )

        # positions first, ends after: nothing is ahead of the end
        stored = {
            int(entry["partition"]): int(entry["src_next"])
            for entry in await self.ask(judged_positions(record_type, row.generation))
        }
        low, ends, judged, aggregated = await asyncio.to_thread(asked)
        found = []
        for partition, raw_end in sorted(ends.items()):
            start = row.plan.start_of(record_type, partition)
            start = low.get(partition, 0) if start is None else start
            said = aggregated.get(partition)
            found.append(
                Part(
                    type=record_type,
                    partition=partition,
                    start=start,
                    end=row.plan.end_of(record_type, partition),
                    raw_end=raw_end,
                    judged=max(start, judged.get(partition, 0)),
                    aggregated=start if said is None else said.read,
                    published=start if said is None else said.published,
                    stored=max(start, stored.get(partition, 0)),
                )
            )
        return found

    async def _warehouse(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except WarehouseError as err:
            log.warning("ClickHouse does not answer", reason=str(err))
            if "TIMEOUT_EXCEEDED" in str(err):
                raise Problem(
                    503, "too_slow", "counting takes longer than TELESTREAM_GATE_TIMEOUT_S: set it higher"
                ) from err
            raise unavailable("ClickHouse") from err


def unknown(generation: int, rows: Sequence[Derivation]) -> Problem:
    there = ", ".join(str(row.generation) for row in rows)
    return Problem(404, "unknown_generation", f"there is no generation {generation}; there are {there}", "n")


def active_of(history: Sequence[Span]) -> dict[str, int]:
    """Type → what people see."""
    return {span.type: span.generation for span in history if span.until is None}


def _not_stored(topics: Topics) -> set[str]:
    """Derived topics that do not go into ClickHouse by a position of their own, or at all."""
    return {topics.progress, topics.state_dedup, topics.anomalies, *(topics.enriched(name) for name in TYPES)}
