"""``GET /v1/amendments``: windows that changed after they were complete."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models, models_quality
from query_api.domain.cursors import Cursor, from_text, to_text
from query_api.domain.progress import complete_to_ms, freshest_ms
from query_api.domain.ranges import from_ms, instant, iso, iso_ms, zone_of
from query_api.http import answer
from query_api.parts import Parts, shown_generation
from query_api.point import Asked
from telestream_domain import TYPES
from telestream_warehouse import AMENDED_FAMILIES, amendments

DEFAULT = timedelta(days=1)
MAX_LIMIT = 1_000
BEAT_MS = {"cell": 60_000, "region": 60_000, "plan": 60_000, "subscriber_day": 120_000}
_KEY_COLUMNS = 3
_GROUP_NAMES = {"cell": "cell_id", "region": "region_id", "plan": "plan_id", "subscriber_day": "local_date"}


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/amendments",
        tags=["quality"],
        summary="Windows that changed after they were complete",
        description="Windows of 15 minutes (cell, region, plan) and local days (subscriber_day: per date, all "
        "subscribers together, `windows` says how many) of which a late record or a reversal came at or after "
        "`since` (without it: the last day), the earliest `late_at` first: read on from the last one to follow. "
        "`late_records` came more than 5 minutes after the window's end, `reversals` took something back; both count "
        "all of the window, also from before `since`. A window that changes again is listed again.",
        response_model=models.Answer[list[models_quality.Amendment]],
        responses=examples.responses(503),
    )
    async def listed(
        request: Request,
        point: Asked,
        since: Annotated[str | None, Query(max_length=40, examples=["2026-09-01"])] = None,
        family: Annotated[
            Literal["cell", "region", "plan", "subscriber_day"] | None, Query(examples=["region"])
        ] = None,
        tz: Annotated[str, Query(max_length=64, examples=["UTC"])] = "UTC",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, examples=[100])] = 100,
        cursor: Annotated[str | None, Query(max_length=400)] = None,
    ) -> Response:
        zone = zone_of(tz)
        begin = from_ms(parts.now_ms()) - DEFAULT if since is None else instant(since, zone, "since")
        families = list(AMENDED_FAMILIES) if family is None else [family]
        after = None if cursor is None else from_text(cursor, _KEY_COLUMNS)
        types = list(TYPES)
        generations = await parts.generations(types, point, None if after is None else after.of(types))
        rows = await parts.warehouse.rows(
            amendments(
                begin,
                generations,
                families,
                after=None if after is None else (after.after[0], after.after[1], after.after[2]),
                limit=limit + 1,
            )
        )
        page = rows[:limit]
        progress = parts.progress(generations)
        partitions = parts.partitions_of(types)
        reach = await parts.reach_of_aggregates(types, generations, max(BEAT_MS[name] for name in families))
        return answer(
            request,
            [_shown(row) for row in page],
            as_of_ms=freshest_ms(progress, partitions, reach),
            complete_to_ms=complete_to_ms(progress, partitions, reach),
            generation=shown_generation(generations, types),
            next_cursor=_cursor(page[-1], generations) if len(rows) > limit else None,
        )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    late, reversals = int(row["late_records"]), int(row["reversals"])
    return {
        "family": row["family"],
        "type": row["type"],
        _GROUP_NAMES[row["family"]]: row["group"],
        "size_s": int(row["size_s"]),
        "window_start": iso(from_ms(int(row["window_ms"]))),
        "windows": int(row["windows"]),
        "late_records": late,
        "reversals": reversals,
        # only the end of a call that moved here may have been late: the record itself counts elsewhere
        "why": [name for name, there in (("late", late or not reversals), ("reversal", reversals)) if there],
        "late_at": iso_ms(int(row["late_ms"])),
    }


def _cursor(row: dict[str, Any], generations: dict[str, int]) -> str:
    return to_text(Cursor.at(generations, (int(row["late_ms"]), int(row["window_ms"]), int(row["place"]))))
