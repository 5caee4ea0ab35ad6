"""``generation=`` and ``at=``: the parameters that every question has."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, Query

from query_api.domain.points import NOW, Point
from query_api.domain.problems import bad_parameter
from query_api.domain.ranges import instant

_UTC = ZoneInfo("UTC")


async def _point(
    generation: Annotated[
        int | None,
        Query(
            ge=1,
            lt=2**32,
            description="Read this generation instead of what people see now; types that it does not derive stay as "
            "people see them",
            examples=[2],
        ),
    ] = None,
    at: Annotated[
        str | None,
        Query(
            max_length=40,
            description="Read the generation that people saw at that time, in ISO 8601 with zone: what is in it now",
            examples=["2026-09-01T00:00:00Z"],
        ),
    ] = None,
) -> Point:
    if generation is not None and at is not None:
        raise bad_parameter("at", "either a generation or a time, not both")
    if at is not None:
        return Point(at=instant(at, _UTC, "at"))
    return NOW if generation is None else Point(generation)


Asked = Annotated[Point, Depends(_point)]
