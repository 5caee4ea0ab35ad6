"""``GET /v1/dead-letters``: what was rejected, and why; nothing that names a person, and not the original bytes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import polars as pl
from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.domain.cursors import Cursor, from_text, to_text
from query_api.domain.present import instants
from query_api.domain.problems import bad_parameter
from query_api.domain.progress import Reach, complete_to_ms, freshest_ms
from query_api.domain.ranges import from_ms, instant, zone_of
from query_api.http import answer
from query_api.parts import Parts, known_type, shown_generation
from query_api.point import Asked
from telestream_domain import TYPES
from telestream_warehouse import Cursor as Place
from telestream_warehouse import dead_letters

MAX_LIMIT = 1_000
_TYPE_NAMES = tuple(TYPES)
_KEY_COLUMNS = 4


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/dead-letters",
        tags=["quality"],
        summary="Rejected records, newest first",
        description="By time of arrival. A cursor goes on with the same generation; give the other parameters again.",
        response_model=models.Answer[list[models.DeadLetter]],
        responses=examples.responses(503),
    )
    async def listed(
        request: Request,
        point: Asked,
        record_type: Annotated[str | None, Query(alias="type", max_length=20, examples=["cdr"])] = None,
        source: Annotated[str | None, Query(max_length=64, examples=["msc-1"])] = None,
        batch: Annotated[int | None, Query(ge=0, lt=2**63, examples=[17])] = None,
        rule: Annotated[str | None, Query(max_length=64, examples=["negative_value"])] = None,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        tz: Annotated[str, Query(max_length=64, examples=["UTC"])] = "UTC",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, examples=[100])] = 100,
        cursor: Annotated[str | None, Query(max_length=400)] = None,
    ) -> Response:
        types = [known_type(record_type)] if record_type is not None else list(TYPES)
        zone = zone_of(tz)
        since = None if start is None else instant(start, zone, "from")
        until = None if to is None else instant(to, zone, "to")
        if since is not None and until is not None and since >= until:
            raise bad_parameter("to", "must lie after from")
        after = None if cursor is None else from_text(cursor, _KEY_COLUMNS)
        generations = await parts.generations(types, point, None if after is None else after.of(types))
        positions = await asyncio.gather(*(parts.positions(name, generations[name]) for name in types))
        frame = await parts.warehouse.frame(
            dead_letters(
                record_type=record_type,
                rule=rule,
                source_name=source,
                batch_id=batch,
                since=since,
                until=until,
                after=None if after is None else _place(after),
                limit=limit + 1,
                generation=generations,
            )
        )
        page = frame.head(limit)
        more = frame.height > limit
        progress = parts.progress(generations)
        partitions = parts.partitions_of(types)
        reach = Reach(
            exact={
                (name, partition): offset
                for name, found in zip(types, positions, strict=True)
                for partition, offset in found.items()
            }
        )
        return answer(
            request,
            _rows(page),
            as_of_ms=freshest_ms(progress, partitions, reach),
            complete_to_ms=complete_to_ms(progress, partitions, reach),
            generation=shown_generation(generations, types),
            next_cursor=_cursor(page, generations) if more else None,
        )


def _place(cursor: Cursor) -> Place:
    appended_ms, type_index, partition, offset = cursor.after
    if type_index >= len(_TYPE_NAMES) or partition >= 2**32 or appended_ms > 4_102_444_800_000:
        raise bad_parameter("cursor", "not a cursor of this list: take next_cursor as it was given", "bad_cursor")
    return Place(from_ms(appended_ms), _TYPE_NAMES[type_index], partition, offset)


def _cursor(page: pl.DataFrame, generations: dict[str, int]) -> str:
    last = page.tail(1).with_columns(pl.col("appended_at").dt.epoch("ms").alias("appended_ms")).row(0, named=True)
    return to_text(
        Cursor.at(
            generations,
            (last["appended_ms"], _TYPE_NAMES.index(last["type"]), last["src_partition"], last["src_offset"]),
        )
    )


def _rows(page: pl.DataFrame) -> Any:
    if page.is_empty():
        return b"[]"
    position = pl.struct(
        pl.col("src_topic").alias("topic"),
        pl.col("src_partition").alias("partition"),
        pl.col("src_offset").alias("offset"),
    )
    texts = ("type", "rule", "reason", "field", "source")
    return (
        page.select(
            *(pl.col(name).cast(pl.String) for name in texts),
            "batch_id",
            "line",
            instants(pl.col("appended_at").dt.epoch("ms")).alias("appended_at"),
            position.alias("position"),
            "rules_version",
        )
        .write_json()
        .encode()
    )
