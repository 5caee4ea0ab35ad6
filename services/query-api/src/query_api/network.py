"""``GET /v1/network/performance``: KPIs per cell or region from ClickHouse."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any, Literal

import polars as pl
from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.domain.measures import FAMILY_TYPES, GROUP_FIELDS, MEASURES
from query_api.domain.present import instants, kpis
from query_api.domain.problems import bad_parameter
from query_api.domain.progress import complete_to_ms
from query_api.domain.ranges import from_ms, iso, range_of, zone_of
from query_api.http import answer
from query_api.parts import Parts, one_generation, shown_generation
from query_api.queries import in_milliseconds
from query_api.realtime import Ids
from query_api.usage import listed_charges
from telestream_warehouse import window_kpis

STEPS_S: dict[str, int | None] = {"15m": 900, "1h": 3_600, "1d": None}
DEFAULT = timedelta(days=1)
LONGEST = timedelta(days=400)
BEAT_MS = 75_000
"""Quarter hours are published every 60 seconds, and written within a few."""


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/network/performance",
        tags=["network"],
        summary="Calls and radio KPIs per cell or region",
        description="Windows that start in `from` ≤ t < `to` (without them: the last day), summed to `step`; days and "
        "hours are those of `tz`. Ratios and means come as `num` and `den`.",
        response_model=models.Answer[models.NetworkPerformance],
        responses=examples.responses(503),
    )
    async def performance(
        request: Request,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        step: Annotated[Literal["15m", "1h", "1d"], Query(examples=["1h"])] = "1h",
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
        group_by: Annotated[Literal["cell", "region", "none"], Query(examples=["cell"])] = "cell",
        cell_id: Ids = None,
        region_id: Ids = None,
    ) -> Response:
        family, ids = _family(group_by, cell_id, region_id)
        now_ms = parts.now_ms()
        asked = range_of(start, to, zone_of(tz), from_ms(now_ms), DEFAULT, LONGEST)
        generations = await parts.generations()
        types = FAMILY_TYPES[family]
        # positions before rows: what is found must be at least what is promised
        reach = await parts.reach_of_aggregates(types, generations, BEAT_MS)
        query = window_kpis(
            family,
            asked.start,
            asked.end,
            step_s=STEPS_S[step],
            time_zone=tz,
            groups=ids or None,
            by_group=group_by != "none",
            generation=one_generation(generations, types),
        )
        frame = await parts.warehouse.frame(in_milliseconds(query, "step_start"))
        group = GROUP_FIELDS[family] if group_by != "none" else None
        rows, as_of_ms = await asyncio.to_thread(_rows, frame, family, group)
        progress, _ = parts.progress()
        head = {"from": iso(asked.start), "to": iso(asked.end), "step": step, "tz": tz, "group_by": group_by}
        return answer(
            request,
            examples.with_rows(head, "rows", rows),
            as_of_ms=as_of_ms,
            complete_to_ms=complete_to_ms(progress, parts.partitions_of(types), reach),
            generation=shown_generation(generations, types),
        )


def _family(group_by: str, cell_id: list[str] | None, region_id: list[str] | None) -> tuple[str, list[str]]:
    if cell_id and region_id:
        raise bad_parameter("region_id", "only one of cell_id, region_id at a time")
    if group_by == "cell" and region_id:
        raise bad_parameter("region_id", "cannot be combined with group_by=cell")
    if group_by == "region" and cell_id:
        raise bad_parameter("cell_id", "cannot be combined with group_by=region")
    if group_by == "cell" or cell_id:
        return "cell", cell_id or []
    return "region", region_id or []


def _rows(frame: pl.DataFrame, family: str, group: str | None) -> tuple[bytes, int | None]:
    if frame.is_empty():
        return b"[]", None
    as_of_ms: Any = frame["freshest_event_end_at"].dt.epoch("ms").max()
    names = [name for kind in FAMILY_TYPES[family] for name in MEASURES[kind].all]
    shown = frame.select(
        instants(pl.col("step_start").dt.epoch("ms")).alias("step_start"),
        *([pl.col(group).cast(pl.String)] if group else []),
        *(pl.col(name).cast(pl.Int64) for name in names),
        listed_charges("charge_micros"),
    )
    head = ["step_start", *([group] if group else [])]
    return shown.sort(head).select(*head, *kpis(family)).write_json().encode(), as_of_ms
