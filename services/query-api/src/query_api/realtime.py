"""``GET /v1/metrics/realtime``: the last hour by minute, from the tail; goes on while ClickHouse is away."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

import polars as pl
from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.domain.measures import FAMILY_TYPES, GROUP_FIELDS
from query_api.domain.present import instants, kpis
from query_api.domain.problems import Problem, bad_parameter
from query_api.domain.progress import Reach, complete_to_ms
from query_api.domain.ranges import from_ms as at_ms
from query_api.domain.ranges import iso_ms
from query_api.domain.tail import MINUTE_MS, Question, Tail, totals
from query_api.explain import explained
from query_api.http import answer
from query_api.kafka import QUALITY
from query_api.parts import Parts, shown_generation
from query_api.point import Asked
from query_api.series import silent
from telestream_domain.kpis import Basis, kpis_of

MAX_MINUTES = 60
MAX_IDS = 200
SETTLED_MS = 15_000
"""Cells by minute are published every ten seconds, the rest faster."""

Ids = Annotated[list[Annotated[str, Query(max_length=64)]] | None, Query(max_length=MAX_IDS)]


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/metrics/realtime",
        tags=["metrics"],
        summary="KPIs of the last minutes",
        description="One row per group over all the minutes asked for (`step=all`), or one per group and minute "
        "(`step=1m`). Minutes are UTC; the last one is still open. Regions, plans and the whole are at most a second "
        "behind, cells ten. Late records of older minutes are in the history only. KPIs that sums of minutes give, as "
        "`value`, `num` and `den`. Kept for what people see and for replays whose workers run.",
        response_model=models.Answer[models.Realtime],
        responses=examples.responses(503),
    )
    async def realtime(
        request: Request,
        point: Asked,
        group_by: Annotated[Literal["cell", "region", "plan", "none"], Query(examples=["region"])] = "none",
        minutes: Annotated[int, Query(ge=1, le=MAX_MINUTES, examples=[15])] = 15,
        step: Annotated[Literal["1m", "all"], Query(examples=["all"])] = "all",
        cell_id: Ids = None,
        region_id: Ids = None,
        plan_id: Ids = None,
        explain: Annotated[
            bool, Query(description="Also say what each KPI is, with ten records that it counts", examples=[False])
        ] = False,
    ) -> Response:
        family, ids = _family(group_by, {"cell": cell_id, "region": region_id, "plan": plan_id})
        types = FAMILY_TYPES[family]
        generations = await parts.generations_in_haste(types, point)
        live = parts.tails.held(generations)
        now_ms = parts.now_ms()
        to_ms = now_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
        from_ms = max(to_ms - minutes * MINUTE_MS, -(-live.tail.since_ms // MINUTE_MS) * MINUTE_MS)
        question = Question(family, from_ms, to_ms, ids, grouped=group_by != "none", by_minute=step == "1m")
        rows, as_of_ms = await asyncio.to_thread(_rows, live.tail, question, now_ms, parts.settings.query_max_rows)
        head = {
            "from": iso_ms(from_ms),
            "to": iso_ms(to_ms),
            "step": step,
            "group_by": group_by,
            "silent_sources": silent(live.progress, types, now_ms),
        }
        body = examples.with_rows(head, "rows", rows)
        if explain:
            span: tuple[datetime, datetime] = (at_ms(from_ms), at_ms(to_ms))
            shown = await explained(parts, kpis_of(family, Basis.WINDOWS), family, ids, span, generations)
            body = examples.with_member(body, "explain", shown)
        return answer(
            request,
            body,
            as_of_ms=as_of_ms,
            complete_to_ms=complete_to_ms(live.progress, live.partitions_of(types), reach(live.tail, family, now_ms)),
            generation=shown_generation(generations, types),
        )


def reach(tail: Tail, family: str, now_ms: int) -> Reach:
    """What the tail's windows of a family include."""

    def of(name: str) -> dict[tuple[str, int], int]:
        return {(kind, number): offset for (held, kind, number), offset in tail.included.items() if held == name}

    return Reach(exact=of(family), processed=of(QUALITY), settled_ms=now_ms - SETTLED_MS)


def _family(group_by: str, filters: dict[str, list[str] | None]) -> tuple[str, list[str]]:
    """Which aggregate answers: the one grouped by, else the one filtered by, else regions, which are few."""
    given = {family: ids for family, ids in filters.items() if ids}
    if len(given) > 1:
        raise bad_parameter(GROUP_FIELDS[list(given)[1]], "only one of cell_id, region_id, plan_id at a time")
    filtered = next(iter(given), None)
    if group_by == "none":
        family = filtered or "region"
    else:
        family = group_by
        if filtered not in (None, family):
            raise bad_parameter(GROUP_FIELDS[str(filtered)], f"cannot be combined with group_by={group_by}")
    return family, given.get(family, [])


def _rows(tail: Tail, question: Question, now_ms: int, max_rows: int) -> tuple[bytes, int | None]:
    frame = totals(tail, question)
    if frame.height > max_rows:
        raise Problem(
            422, "too_wide", f"more than {max_rows} rows: ask for fewer groups or minutes, or step=all", "step"
        )
    as_of_ms: Any = frame["freshest_at"].max()
    head = []
    if question.by_minute:
        head.append(instants(pl.col("window_ms")).alias("window_start"))
    if question.grouped:
        head.append(pl.col("group").alias(GROUP_FIELDS[question.family]))
    # of the minute that is still open, what is past
    length = (pl.min_horizontal(pl.col("window_ms") + MINUTE_MS, pl.lit(now_ms)) - pl.col("window_ms")).clip(
        lower_bound=0
    )
    whole = pl.lit(max(1, min(question.to_ms, now_ms) - question.from_ms), pl.Int64)
    columns = [*head, *kpis(question.family)]
    if question.by_minute:
        # the minute's start gives way to its length, which has the name that the KPIs want
        frame = frame.with_columns(pl.col("window_ms").alias("start_ms"), length.alias("window_ms"))
        columns[0] = instants(pl.col("start_ms")).alias("window_start")
    else:
        frame = frame.with_columns(whole.alias("window_ms"))
    return frame.select(columns).write_json().encode(), as_of_ms
