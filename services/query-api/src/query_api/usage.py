"""``GET /v1/customers/{id}/usage`` and ``POST /v1/customers/lookup``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models, usage_reading
from query_api.domain.problems import Problem, bad_parameter
from query_api.domain.progress import complete_to_ms, freshest_ms
from query_api.domain.ranges import Dates, dates_of, from_ms
from query_api.domain.usage_allowances import day_in_force
from query_api.domain.usage_cycles import Cycle, cycles
from query_api.http import answer, json_object
from query_api.parts import Parts
from query_api.point import Asked
from query_api.queries import customer_of, known_customer, known_subscriber
from query_api.series import Explain
from telestream_domain import is_pseudonym
from telestream_warehouse import Holder

DEFAULT = timedelta(days=31)
LONGEST = timedelta(days=800)
BEAT_MS = 135_000
"""Subscriber-days are published every 120 seconds, and written within a few."""

NUMBERS = {"msisdn": re.compile(r"\+?[0-9 ()./-]{3,32}"), "imsi": re.compile(r"[0-9]{6,15}")}


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/customers/{id:path}/usage",
        tags=["customers"],
        summary="What a customer used, and what its plans still include",
        description="`{id}` is a customer id, or the `customer_ref` of a lookup (then: whoever held the number); never "
        "a number. `from` ≤ date < `to` in the business time zone (without them: the last 31 days). `local_date` is "
        "the first date of a row's step; steps without usage are left out. `step=bill_cycle` widens the range to whole "
        "cycles (without one: the running cycle, so month to date) and adds `cycles`: allowances used and left per "
        "subscription and plan, each plan with its share of the days. A cycle starts at local midnight of "
        "`bill_cycle_day`, in a shorter month on its last day; customers without one: the first.",
        response_model=models.Answer[models.Usage],
        responses=examples.responses(404, 503),
    )
    async def usage(
        request: Request,
        point: Asked,
        customer: Annotated[str, Path(alias="id", min_length=1, max_length=128, examples=["C00042"])],
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-10-01"])] = None,
        step: Annotated[Literal["day", "month", "bill_cycle", "total"], Query(examples=["bill_cycle"])] = "day",
        group_by: Annotated[
            list[Literal["plan_id", "roaming", "direction", "subscriber_id"]] | None,
            Query(max_length=4, examples=[["roaming"]]),
        ] = None,
        explain: Explain = False,
    ) -> Response:
        settings = parts.settings
        now = from_ms(parts.now_ms())
        dates = dates_of(start, to, settings.zone, now, DEFAULT, LONGEST)
        groups: list[str] = [*dict.fromkeys(group_by or [])]
        generations = await parts.generations(("cdr",), point)
        generation = generations["cdr"]
        reach = await parts.reach_of_aggregates(("cdr",), generations, BEAT_MS)
        is_reference = is_pseudonym(customer)  # what a lookup gives; no customer id looks like it
        holder = Holder(subscriber_id=customer) if is_reference else Holder(customer)
        whole: list[Cycle] = []
        today = now.astimezone(settings.zone).date()
        if step == "bill_cycle":
            versions = await usage_reading.versions_of(parts, holder)
            day = day_in_force(versions, now)
            since = today if start is None and to is None else dates.start
            whole = cycles(since, dates.end, day)
            dates = Dates(whole[0].start, whole[-1].end)
        rows = await usage_reading.rows_of(parts, holder, dates, step, whole, groups, generation)
        if rows == b"[]":
            known = await parts.warehouse.frame(
                known_subscriber(customer, generation) if is_reference else known_customer(customer)
            )
            if known.is_empty() or not known["known"][0]:
                raise Problem(404, "not_found", "no customer or reference of this id", "id")
        progress = parts.progress(generations)
        partitions = parts.partitions_of(("cdr",))
        head = {
            "id": customer,
            "from": dates.start.isoformat(),
            "to": dates.end.isoformat(),
            "tz": settings.business_timezone,
            "step": step,
        }
        body = examples.with_rows(head, "rows", rows)
        if whole:
            found = await usage_reading.cycles_of(parts, holder, whole, versions, day, today, generation)
            body = examples.with_member(body, "cycles", found)
        if explain:
            body = examples.with_member(body, "explain", await usage_reading.explain(parts, holder, dates, generation))
        return answer(
            request,
            body,
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
        generations = await parts.generations(("cdr",))
        found = await parts.warehouse.frame(customer_of(reference))
        customer_id = None if found.is_empty() else found["customer_id"][0]
        return answer(
            request,
            {"customer_ref": reference, "customer_id": customer_id},
            as_of_ms=None,
            complete_to_ms=None,
            generation=generations["cdr"],
        )


async def _asked(request: Request) -> tuple[str, str]:
    """Which kind of number, and the number. Nothing of the body is ever echoed."""
    asked = await json_object(request)
    unknown = [name for name in asked if name not in NUMBERS]
    if unknown or len(asked) != 1:
        raise Problem(422, "unknown_field" if unknown else "missing_field", 'send either "msisdn" or "imsi"', "msisdn")
    kind, number = next(iter(asked.items()))
    if not isinstance(number, str) or not NUMBERS[kind].fullmatch(number):
        raise bad_parameter(kind, f"not a possible {kind}, as text", f"bad_{kind}")
    return kind, number
