"""``GET /v1/generations/{n}/compare``: what two generations made of the same records, and why they differ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models, models_compare
from query_api.compare_run import Asked, Group, compare_type
from query_api.domain.problems import Problem, bad_parameter, unavailable
from query_api.domain.ranges import instant, iso, zone_of
from query_api.http import answer
from query_api.parts import Parts, known_type
from telestream_domain import TYPES
from telestream_opstore import Derivation, DerivationState, OpstoreError, derivations_async

_GONE = (DerivationState.DROPPING, DerivationState.DROPPED)


def register(api: FastAPI, parts: Parts) -> None:
    lock = asyncio.Lock()

    @api.get(
        "/v1/generations/{n}/compare",
        tags=["generations"],
        summary="What differs between two generations, by how much and why",
        description="Compares records by raw offset, only those that both generations have judged and stored: what "
        "only one has reached is `not_yet`, what lies before the start of one is `before_start`, and neither is a "
        "difference. Differences are `this` less `other`. Every record that differs has one cause: `rule_changed` "
        "(with the rule), `reference_arrived`, `original_before_start`, `follows_from` (what it repeats or takes back "
        "differs), `reversal`, `unexplained`. `from` and `to` are times of arrival; `by=day` days of arrival, of "
        "`by=kpi` days of events. Groups that do not differ are left out unless `all`. `windows`: whether each "
        "generation's quarter hours hold what its books say is stored; null while the newest are not written yet.",
        response_model=models.Answer[models_compare.Comparison],
        responses=examples.responses(404, 409, 503),
    )
    async def compare(
        request: Request,
        n: Annotated[int, Path(ge=1, lt=2**32, examples=[2])],
        other: Annotated[int | None, Query(alias="with", ge=1, lt=2**32, examples=[1])] = None,
        by: Annotated[Group, Query(examples=["rule"])] = "day",
        record_type: Annotated[str | None, Query(alias="type", max_length=20, examples=["cdr"])] = None,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        tz: Annotated[str, Query(max_length=64, examples=["UTC"])] = "UTC",
        everything: Annotated[
            bool, Query(alias="all", description="Also groups that do not differ", examples=[False])
        ] = False,
        limit: Annotated[int, Query(ge=1, le=10_000, description="Groups per type", examples=[100])] = 100,
    ) -> Response:
        zone = zone_of(tz)
        since = None if start is None else instant(start, zone, "from")
        until = None if to is None else instant(to, zone, "to")
        if since is not None and until is not None and since >= until:
            raise bad_parameter("to", "must lie after from")
        asked = Asked(by, zone, since, until, everything, limit)
        known = await _derivations(parts)
        active = await parts.generations()
        this = _known(known, n)
        types = [known_type(record_type)] if record_type is not None else [name for name in TYPES if name in this.types]
        pairs = []
        for name in types:
            against = _known(known, active[name] if other is None else other)
            if against.generation == n:
                raise bad_parameter("with", f"generation {n} itself: say with which one to compare it")
            for derivation in (this, against):
                if name not in derivation.types:
                    raise bad_parameter("type", f"generation {derivation.generation} does not derive it")
            pairs.append((name, against))
        # one at a time: it is a long question, and what others ask must not wait for several
        async with lock:
            found = [await compare_type(parts, request, name, this, against, asked) for name, against in pairs]
        data = {
            "this": n,
            "by": by,
            "from": None if since is None else iso(since),
            "to": None if until is None else iso(until),
            "tz": tz,
            "equal": not any(entry["differing"] for entry in found),
            "types": found,
        }
        return answer(request, data, as_of_ms=None, complete_to_ms=None, generation=n)


async def _derivations(parts: Parts) -> dict[int, Derivation]:
    settings = parts.settings
    try:
        found = await derivations_async(settings.postgres.get_secret_value(), settings.topic_prefix)
    except OpstoreError as err:
        raise unavailable("the table of generations") from err
    return {derivation.generation: derivation for derivation in found}


def _known(known: Mapping[int, Derivation], generation: int) -> Derivation:
    found = known.get(generation)
    if found is None:
        raise Problem(404, "unknown_generation", "there is no such generation; GET /v1/generations lists them")
    if found.state in _GONE:
        raise Problem(409, "dropped", f"generation {generation} is {found.state}: nothing of it is left to compare")
    return found
