"""``GET /v1/metrics/timeseries``: chosen KPIs over time, by cell, region or plan."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.domain.measures import GROUP_FIELDS
from query_api.domain.problems import bad_parameter
from query_api.domain.ranges import from_ms, iso, range_of, zone_of
from query_api.domain.series import LONGEST, Series, checked, chosen
from query_api.explain import answered
from query_api.parts import Parts
from query_api.point import Asked
from query_api.realtime import Ids
from query_api.series import Explain, Kpis, found
from telestream_domain.kpis import Basis, Kpi

DEFAULT: dict[str, timedelta] = {
    "1m": timedelta(hours=1),
    "5m": timedelta(hours=6),
    "15m": timedelta(days=1),
    "1h": timedelta(days=1),
    "1d": timedelta(days=31),
}


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/metrics/timeseries",
        tags=["metrics"],
        summary="KPIs over time",
        description="One row per step of `from` ≤ t < `to` and group that has records. Steps up to a quarter hour are "
        "UTC's; hours and days are those of `tz`, so a day has 23 to 25 hours. Minutes (`1m`, `5m`) are kept for 13 "
        "days and leave out records that arrived more than two hours late. Every KPI comes as `value`, `num` and "
        "`den`; over several steps sum `num` and `den`, of additive ones `value`. Without `kpi`, those that "
        "sums of windows give.",
        response_model=models.Answer[models.Timeseries],
        responses=examples.responses(503),
    )
    async def timeseries(
        request: Request,
        point: Asked,
        family: Annotated[Literal["cell", "region", "plan"], Query(examples=["region"])] = "region",
        kpi: Kpis = None,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        step: Annotated[Literal["1m", "5m", "15m", "1h", "1d"], Query(examples=["1h"])] = "1h",
        tz: Annotated[str, Query(max_length=64, examples=["Asia/Kolkata"])] = "UTC",
        group_by: Annotated[Literal["cell", "region", "plan", "none"] | None, Query(examples=["region"])] = None,
        cell_id: Ids = None,
        region_id: Ids = None,
        plan_id: Ids = None,
        explain: Explain = False,
    ) -> Response:
        if group_by not in (None, "none", family):
            raise bad_parameter("group_by", f"with family={family} either {family} or none")
        ids = _ids(family, {"cell": cell_id, "region": region_id, "plan": plan_id})
        zone = zone_of(tz)
        now_ms = parts.now_ms()
        asked = range_of(start, to, zone, from_ms(now_ms), DEFAULT[step], LONGEST["1d"])
        checked(asked, step, now_ms)
        kpis = chosen(kpi, family, step, Basis.WINDOWS)
        grouped = group_by != "none"
        question = Series(family, kpis, asked, step, zone, ids, grouped)
        result = await found(parts, question, point)
        head: dict[str, Any] = {
            "from": iso(asked.start),
            "to": iso(asked.end),
            "step": step,
            "tz": tz,
            "family": family,
            "group_by": family if grouped else "none",
            "kpis": [named(row) for row in kpis],
        }
        return await answered(request, parts, question, result, head, explain)


def named(row: Kpi) -> dict[str, Any]:
    """What a reader of rows must know of a KPI."""
    return {"name": row.name, "title": row.title, "unit": row.unit, "additive": row.additive}


def _ids(family: str, filters: dict[str, list[str] | None]) -> list[str]:
    for name, ids in filters.items():
        if ids and name != family:
            raise bad_parameter(GROUP_FIELDS[name], f"cannot be combined with family={family}")
    return filters[family] or []
