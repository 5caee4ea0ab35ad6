"""``GET /v1/customers/{id}/usage`` and ``POST /v1/customers/lookup``."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Annotated, Literal

import polars as pl
from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models
from query_api.domain.measures import MEASURES
from query_api.domain.present import kpis
from query_api.domain.problems import Problem, bad_parameter
from query_api.domain.progress import complete_to_ms, freshest_ms
from query_api.domain.ranges import dates_of, from_ms
from query_api.http import answer
from query_api.parts import Parts
from query_api.queries import customer_of, known_customer, known_subscriber, usage_of_subscriber
from telestream_warehouse import usage_per_day

DEFAULT = timedelta(days=31)
LONGEST = timedelta(days=800)
BEAT_MS = 135_000
"""Subscriber-days are published every 120 seconds, and written within a few."""

REFERENCE = re.compile(r"k[0-9]{1,3}\.[A-Za-z0-9_-]{22}")
"""What a lookup gives: which key, and the pseudonym. No customer id looks like it."""

MAX_BODY_BYTES = 4_096
NUMBERS = {"msisdn": re.compile(r"\+?[0-9 ()./-]{3,32}"), "imsi": re.compile(r"[0-9]{6,15}")}


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/customers/{id:path}/usage",
        tags=["customers"],
        summary="What a customer used, by local day",
        description="`{id}` is a customer id, or the `customer_ref` of a lookup; never a number. `from` ≤ date < `to` "
        "in the business time zone (without them: the last 31 days). Days without usage are left out.",
        response_model=models.Answer[models.Usage],
        responses=examples.responses(404, 503),
    )
    async def usage(
        request: Request,
        customer: Annotated[str, Path(alias="id", min_length=1, max_length=128, examples=["C00042"])],
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-10-01"])] = None,
        group_by: Annotated[
            list[Literal["plan_id", "roaming", "direction"]] | None, Query(max_length=3, examples=[["roaming"]])
        ] = None,
    ) -> Response:
        settings = parts.settings
        dates = dates_of(start, to, settings.zone, from_ms(parts.now_ms()), DEFAULT, LONGEST)
        groups: list[str] = [*dict.fromkeys(group_by or [])]
        generations = await parts.generations()
        generation = generations["cdr"]
        reach = await parts.reach_of_aggregates(("cdr",), generations, BEAT_MS)
        if REFERENCE.fullmatch(customer):
            queries = (
                usage_of_subscriber(customer, dates.start, dates.end, groups, generation),
                known_subscriber(customer, generation),
            )
        else:
            queries = (
                usage_per_day(customer, dates.start, dates.end, group_by=groups, generation=generation),
                known_customer(customer),
            )
        frame, known = await parts.warehouse.frames(*queries)
        if frame.is_empty() and (known.is_empty() or not known["known"][0]):
            raise Problem(404, "not_found", "no customer or reference of this id", "id")
        rows = await asyncio.to_thread(_rows, frame, groups)
        progress, _ = parts.progress()
        partitions = parts.partitions_of(("cdr",))
        head = {
            "id": customer,
            "from": dates.start.isoformat(),
            "to": dates.end.isoformat(),
            "tz": settings.business_timezone,
        }
        return answer(
            request,
            examples.with_rows(head, "days", rows),
            as_of_ms=freshest_ms(progress, partitions, reach),
            complete_to_ms=complete_to_ms(progress, partitions, reach),
            generation=generation,
        )

    @api.post(
        "/v1/customers/lookup",
        tags=["customers"],
        summary="The reference that stands for a number",
        description="Numbers travel in the body only. The gateway, which alone holds the keys, makes the reference; "
        "`customer_id` is who holds the number now.",
        response_model=models.Answer[models.Customer],
        responses=examples.responses(413, 503),
        openapi_extra=examples.LOOKUP_BODY,
    )
    async def lookup(request: Request) -> Response:
        kind, number = await _asked(request)
        key = request.headers["x-api-key"]
        reference = await parts.identity.lookup(kind, number, key)
        generations = await parts.generations()
        found = await parts.warehouse.frame(customer_of(reference))
        customer_id = None if found.is_empty() else found["customer_id"][0]
        return answer(
            request,
            {"customer_ref": reference, "customer_id": customer_id},
            as_of_ms=None,
            complete_to_ms=None,
            generation=generations["cdr"],
        )


def listed_charges(column: str) -> pl.Expr:
    """ClickHouse's map by currency as a list of (currency, charge_micros), by currency, as column ``charges``."""
    entries = pl.List(pl.Struct({"key": pl.String, "value": pl.Int64}))
    key, value = pl.element().struct.field("key"), pl.element().struct.field("value")
    return (
        pl.col(column)
        .cast(entries)
        .list.eval(
            pl.struct(key.alias("currency"), value.alias("charge_micros")).sort_by(key).filter(key.sort_by(key) != "")
        )
        .alias("charges")
    )


def _rows(frame: pl.DataFrame, groups: list[str]) -> bytes:
    if frame.is_empty():
        return b"[]"
    shown = frame.select(
        pl.col("local_date").cast(pl.Date).cast(pl.String),
        *(pl.col(name).cast(pl.String) for name in groups),
        *(pl.col(name).cast(pl.Int64) for name in MEASURES["cdr"].all),
        listed_charges("charge_micros"),
    )
    return shown.select("local_date", *groups, *kpis("plan")).write_json().encode()


async def _asked(request: Request) -> tuple[str, str]:
    """Which kind of number, and the number. Nothing of the body is ever echoed."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise Problem(413, "too_large", f"the body has more than {MAX_BODY_BYTES} bytes")
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Problem(415, "not_json", "send application/json")
    asked = examples.json_object(body)
    unknown = [name for name in asked if name not in NUMBERS]
    if unknown or len(asked) != 1:
        raise Problem(422, "unknown_field" if unknown else "missing_field", 'send either "msisdn" or "imsi"', "msisdn")
    kind, number = next(iter(asked.items()))
    if not isinstance(number, str) or not NUMBERS[kind].fullmatch(number):
        raise bad_parameter(kind, f"not a possible {kind}, as text", f"bad_{kind}")
    return kind, number
