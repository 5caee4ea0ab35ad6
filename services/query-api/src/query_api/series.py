"""KPIs by step and group from ClickHouse: what several routes answer with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query as Parameter

from query_api.domain.measures import FAMILY_TYPES
from query_api.domain.points import Point
from query_api.domain.progress import Progress, complete_to_ms, silent_sources
from query_api.domain.ranges import from_ms, iso_ms
from query_api.domain.series import Series, Table, table
from query_api.domain.steps import STEPS_S, Step, past, steps_of
from query_api.parts import Parts, shown_generation
from query_api.queries import in_milliseconds
from telestream_domain.kpis import KPIS, Basis
from telestream_warehouse import Query, busy_hours, cell_availability, distinct_subscribers, window_kpis

BEAT_MS = 75_000
"""Quarter hours are published every 60 seconds, and written within a few; minutes faster."""

Kpis = Annotated[
    list[Annotated[str, Parameter(max_length=40)]] | None,
    Parameter(
        max_length=len(KPIS), description="Names of KPIs, several by repeating it", examples=[["answer_seizure_ratio"]]
    ),
]
Explain = Annotated[
    bool,
    Parameter(
        description="Also say what each KPI is: formula, unit, standard, numerator and denominator, and ten of the "
        "records it counts in the newest step, with pseudonyms only",
        examples=[False],
    ),
]


@dataclass(frozen=True, slots=True)
class Found:
    """The rows, and what an answer says about them. ``last`` is the newest step that has any."""

    table: Table
    last: Step | None
    generations: dict[str, int]
    silent: list[dict[str, Any]]
    said: dict[str, Any]

    @property
    def newest(self) -> tuple[datetime, datetime] | None:
        """From when to when the newest step with rows lasts, as far as it lies in the range."""
        return (self.last.start, self.last.end) if self.last else None


async def found(parts: Parts, question: Series, point: Point) -> Found:
    """Ask ClickHouse, with all that belongs together from the same generations."""
    steps = steps_of(question.asked, question.step, question.zone, parts.settings.query_max_rows)
    types = FAMILY_TYPES[question.family]
    generations = await parts.generations(types, point)
    # positions before rows: what is found must be at least what is promised
    reach = await parts.reach_of_aggregates(types, generations, BEAT_MS)
    now_ms = parts.now_ms()
    queries = _queries(question, past(steps, from_ms(now_ms)), generations)
    answers = await parts.warehouse.frames(*queries.values())
    made = await asyncio.to_thread(table, question, steps, dict(zip(queries, answers, strict=True)), now_ms)
    progress = parts.progress(generations)
    said = {
        "as_of_ms": made.as_of_ms,
        "complete_to_ms": complete_to_ms(progress, parts.partitions_of(types), reach),
        "generation": shown_generation(generations, types),
    }
    last = next((step for step in steps if made.last_ms is not None and step.label == from_ms(made.last_ms)), None)
    return Found(made, last, generations, silent(progress, types, now_ms), said)


def silent(progress: Progress, types: Sequence[str], now_ms: int) -> list[dict[str, Any]]:
    """Member ``silent_sources`` of an answer: producers that were heard before and are not now."""
    return [
        {"type": kind, "source": source, "last_arrival": iso_ms(arrived_ms)}
        for kind, source, arrived_ms in silent_sources(progress, types, now_ms)
    ]


def _queries(question: Series, over: Sequence[Step], generations: dict[str, int]) -> dict[Basis, Query]:
    family, start, end = question.family, question.asked.start, question.asked.end
    step_s, ids = STEPS_S[question.step], question.ids or None
    same: dict[str, Any] = {"time_zone": question.zone.key, "groups": ids, "by_group": question.grouped}
    asked = {Basis.WINDOWS: window_kpis(family, start, end, step_s=step_s, generation=generations, **same)}
    if question.wants(Basis.BUSY_HOUR):
        peaks = busy_hours(family, start, end, generation=generations["cdr"], **same)
        asked[Basis.BUSY_HOUR] = in_milliseconds(peaks, "busy_hour_start")
    if question.wants(Basis.SKETCH):
        asked[Basis.SKETCH] = distinct_subscribers(
            family, start, end, step_s=step_s, generation=generations["cdr"], **same
        )
    asked = {basis: in_milliseconds(query, "step_start") for basis, query in asked.items()}
    if question.wants(Basis.AVAILABILITY) and over:
        asked[Basis.AVAILABILITY] = cell_availability(
            [(step.start, step.end) for step in over], cells=ids, generation=generations["network"]
        )
    return asked
