"""``GET /v1/quality``: a score per source and hour of arrival, and what it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models, models_quality
from query_api.domain.problems import bad_parameter
from query_api.domain.progress import Reach, complete_to_ms, freshest_ms
from query_api.domain.quality import Key, Tally, judged_shown, scored, step_start_ms, tallied, whole_hours
from query_api.domain.ranges import Range, from_ms, iso, iso_ms, range_of, zone_of
from query_api.http import answer, sources_of
from query_api.ledger import from_ledger
from query_api.parts import Parts, known_type, shown_generation
from query_api.point import Asked
from telestream_domain import TYPES
from telestream_domain.quality import PARTS
from telestream_opstore import Declared
from telestream_warehouse import judged_by_step, numbers_by_step, step_of

DEFAULT = timedelta(days=1)
LONGEST = {"hour": timedelta(days=31), "day": timedelta(days=400)}
BEAT_MS = 2_000
"""Quality is published every second."""

NUMBER_MARGIN_S = 86_400
"""A switch's number that came up to a day before or after the range still fills a hole in it."""


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/quality",
        tags=["quality"],
        summary="How good what arrived was, by source and hour of arrival",
        description="`score` is the mean, by weight, of the parts that are known, 0 to 1: "
        + "; ".join(f"`{part.name}` (weight {part.weight}) = {part.formula}" for part in PARTS)
        + ". A part that cannot be known is null. Hours are hours of arrival in UTC, a day (`step=day`) has those that "
        "begin in it. `latency` is from event to arrival of what stands stored; percentiles are interpolated in their "
        "bucket. A key that is bound to sources is told of these only.",
        response_model=models.Answer[models_quality.Quality],
        responses=examples.responses(503),
    )
    async def quality(
        request: Request,
        point: Asked,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        step: Annotated[Literal["hour", "day"], Query(examples=["hour"])] = "hour",
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
        group_by: Annotated[Literal["source", "type"], Query(examples=["source"])] = "source",
        record_type: Annotated[str | None, Query(alias="type", max_length=20, examples=["cdr"])] = None,
        source: Annotated[str | None, Query(max_length=64, examples=["msc-1"])] = None,
    ) -> Response:
        types = [known_type(record_type)] if record_type is not None else list(TYPES)
        zone = zone_of(tz)
        sources = sources_of(request, source)
        asked = whole_hours(range_of(start, to, zone, from_ms(parts.now_ms()), DEFAULT, LONGEST[step]))
        if asked.start == asked.end:
            raise bad_parameter("to", "no hour begins between from and to")
        generations = await parts.generations(types, point)
        tallies = await _tallies(parts, asked, step, zone, group_by, generations, sources)
        rows = [
            {
                "step_start": iso_ms(key[0]),
                group_by: key[1] if group_by == "source" else key[2],
                **scored(tally),
                **judged_shown(tally),
            }
            for key, tally in sorted(tallies.items(), key=lambda entry: (entry[0][0] or 0, *entry[0][1:]))
        ]
        data = {
            "from": iso(asked.start),
            "to": iso(asked.end),
            "step": step,
            "tz": tz,
            "group_by": group_by,
            "weights": {part.name: part.weight for part in PARTS},
            "rows": rows,
        }
        return answer(request, data, **await said(parts, types, generations))


async def said(parts: Parts, types: Sequence[str], generations: dict[str, int]) -> dict[str, Any]:
    """The envelope of an answer from ``agg.quality``."""
    progress = parts.progress(generations)
    partitions = parts.partitions_of(types)
    reach: Reach = await parts.reach_of_aggregates(types, generations, BEAT_MS)
    return {
        "as_of_ms": freshest_ms(progress, partitions, reach),
        "complete_to_ms": complete_to_ms(progress, partitions, reach),
        "generation": shown_generation(generations, types),
    }


async def _tallies(
    parts: Parts,
    asked: Range,
    step: str,
    zone: ZoneInfo,
    group_by: str,
    generations: Mapping[str, int],
    sources: list[str] | None,
) -> dict[Key, Tally]:
    by_source = group_by == "source"
    judged = parts.warehouse.rows(
        judged_by_step(
            asked.start,
            asked.end,
            generations,
            step=step,
            time_zone=zone.key,
            by_source=by_source,
            by_type=not by_source,
            sources=sources,
        )
    )
    declared = from_ledger(parts.keys, lambda mirror: mirror.declared(asked.start, asked.end, sources))
    found, numbers, files = await asyncio.gather(
        judged, _numbers(parts, asked, step, zone, by_source, generations, sources), declared
    )
    tallies = tallied(found)
    for row in numbers:
        tally = tallies.get((int(row["step_start"]), row["source"], "" if by_source else "cdr"))
        if tally is not None:
            tally.numbers = (int(row["present"]), int(row["present"]) + int(row["missing"]))
    for key, rows_there, rows_declared in _declared(files, step, zone, by_source, generations):
        tally = tallies.get(key)
        if tally is not None:
            tally.declared = (tally.declared[0] + rows_there, tally.declared[1] + rows_declared)
    return tallies


async def _numbers(
    parts: Parts,
    asked: Range,
    step: str,
    zone: ZoneInfo,
    by_source: bool,
    generations: Mapping[str, int],
    sources: list[str] | None,
) -> list[dict[str, Any]]:
    if "cdr" not in generations:
        return []
    return await parts.warehouse.rows(
        numbers_by_step(
            asked.start,
            asked.end,
            generations["cdr"],
            step_of(step, zone.key, "at"),
            by_source=by_source,
            sources=sources,
            margin_s=NUMBER_MARGIN_S,
        )
    )


def _declared(
    files: list[Declared], step: str, zone: ZoneInfo, by_source: bool, generations: Mapping[str, int]
) -> list[tuple[Key, int, int]]:
    """Rows loaded and declared of whole files, booked when the load ended."""
    return [
        (
            (
                step_start_ms(file.finished_at, step, zone),
                file.source if by_source else "",
                "" if by_source else file.type,
            ),
            file.loaded["rows"],
            file.expected["rows"],
        )
        for file in files
        if file.type in generations and "rows" in file.expected and "rows" in file.loaded
    ]
