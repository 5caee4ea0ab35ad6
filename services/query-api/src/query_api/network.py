"""``GET /v1/network/performance``: measures and KPIs per cell or region from ClickHouse."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.domain.problems import bad_parameter
from query_api.domain.ranges import from_ms, iso, range_of, zone_of
from query_api.domain.series import LONGEST, Series, chosen
from query_api.explain import answered
from query_api.parts import Parts
from query_api.point import Asked
from query_api.realtime import Ids
from query_api.series import Explain, Kpis, found
from telestream_domain.kpis import Basis

DEFAULT = timedelta(days=1)


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/network/performance",
        tags=["network"],
        summary="Calls and radio KPIs per cell or region",
        description="Windows that start in `from` ≤ t < `to` (without them: the last day), summed to `step`; days and "
        "hours are those of `tz`. All measures, and every KPI as `value`, `num` and `den`; `value` is null and `den` 0 "
        "where the source is missing. `late_records` arrived after their window was complete. Without `kpi`, the KPIs "
        "that sums of windows give.",
        response_model=models.Answer[models.NetworkPerformance],
        responses=examples.responses(503),
    )
    async def performance(
        request: Request,
        point: Asked,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        step: Annotated[Literal["15m", "1h", "1d"], Query(examples=["1h"])] = "1h",
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
        group_by: Annotated[Literal["cell", "region", "none"], Query(examples=["cell"])] = "cell",
        cell_id: Ids = None,
        region_id: Ids = None,
        kpi: Kpis = None,
        explain: Explain = False,
    ) -> Response:
        family, ids = _family(group_by, cell_id, region_id)
        zone = zone_of(tz)
        asked = range_of(start, to, zone, from_ms(parts.now_ms()), DEFAULT, LONGEST["1h"])
        kpis = chosen(kpi, family, step, Basis.WINDOWS)
        question = Series(family, kpis, asked, step, zone, ids, group_by != "none", with_measures=True)
        result = await found(parts, question, point)
        head: dict[str, Any] = {
            "from": iso(asked.start),
            "to": iso(asked.end),
            "step": step,
            "tz": tz,
            "group_by": group_by,
        }
        return await answered(request, parts, question, result, head, explain)


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
