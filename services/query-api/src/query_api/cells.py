"""``GET /v1/cells/{id}/kpis``: everything about one cell."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models
from query_api.domain.problems import Problem
from query_api.domain.ranges import from_ms, iso, range_of, zone_of
from query_api.domain.series import LONGEST, Series, checked, chosen
from query_api.explain import answered
from query_api.parts import Parts
from query_api.point import Asked
from query_api.queries import cell_of
from query_api.series import Explain, Kpis, found

DEFAULT = timedelta(days=1)


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/cells/{id}/kpis",
        tags=["network"],
        summary="All KPIs of one cell",
        description="Measures and KPIs by step, among them availability, distinct subscribers (steps of a quarter hour "
        "and more) and the busy hour (`step=1d`), and what is known of the cell now. Steps as in "
        "`/v1/metrics/timeseries`.",
        response_model=models.Answer[models.CellKpis],
        responses=examples.responses(404, 503),
    )
    async def kpis_of_cell(
        request: Request,
        point: Asked,
        cell: Annotated[str, Path(alias="id", min_length=1, max_length=64, examples=["208-01-10001"])],
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        step: Annotated[Literal["1m", "5m", "15m", "1h", "1d"], Query(examples=["1h"])] = "1h",
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
        kpi: Kpis = None,
        explain: Explain = False,
    ) -> Response:
        zone, now_ms = zone_of(tz), parts.now_ms()
        asked = range_of(start, to, zone, from_ms(now_ms), DEFAULT, LONGEST["1d"])
        checked(asked, step, now_ms)
        kpis = chosen(kpi, "cell", step, None)
        known = await parts.warehouse.rows(cell_of(cell))
        question = Series("cell", kpis, asked, step, zone, [cell], with_measures=True)
        result = await found(parts, question, point)
        if not known and result.last is None:
            raise Problem(404, "not_found", "no cell of this id, and no record of it in the range", "id")
        head: dict[str, Any] = {
            "id": cell,
            "cell": known[0] if known else None,
            "from": iso(asked.start),
            "to": iso(asked.end),
            "step": step,
            "tz": tz,
        }
        return await answered(request, parts, question, result, head, explain)
