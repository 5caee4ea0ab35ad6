"""``/v1/generations``: replays, from the first question to the last row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models, models_generations
from query_api.domain.replay_progress import progress_shown
from query_api.domain.replay_request import (
    MAX_REASON_CHARS,
    flag,
    known_fields,
    reason_of,
    types_of,
    wanted_of,
)
from query_api.generations_control import Control, active_of
from query_api.generations_show import shown
from query_api.generations_start import begin
from query_api.generations_switch import activate, drop, roll_back
from query_api.http import answer, json_object
from query_api.parts import shown_generation
from telestream_domain import TYPES
from telestream_opstore import ApiKey, DerivationState
from telestream_warehouse import Span

MAX_BODY_BYTES = 262_144
Number = Annotated[int, Path(ge=1, lt=2**31, examples=[2])]


def register(api: FastAPI, control: Control, code_version: str) -> None:
    @api.get(
        "/v1/generations",
        tags=["generations"],
        summary="Every derivation of the log there ever was",
        description="State: `PREPARING` (its topics are made), `RUNNING` (its workers are wanted), `FINISHED` (a "
        "rehearsal that has reached its ends; its rows stay), `DROPPING`, `DROPPED`. `active`: the types for which "
        "people see it. `starts` and `ends` are raw offsets by type and partition, `reference` offsets of reference "
        "topics: below `ends` records are judged with what lay below these.",
        response_model=models.Answer[list[models_generations.Generation]],
        responses=examples.responses(503),
    )
    async def listed(request: Request) -> Response:
        rows, history = await asyncio.gather(control.rows(), control.history())
        return _answer(request, [shown(row, history) for row in rows], history)

    @api.post(
        "/v1/generations",
        tags=["generations"],
        summary="Begin a replay",
        description="Derives the log anew beside what is live. `from`: an offset, or a time of arrival (ISO 8601, or "
        "13 digits of epoch milliseconds); without it from where raw begins. What may be activated begins on a border "
        "of 2²⁰ offsets, so up to that much earlier. `sample` (`1d`, `6h`, `30m`: the newest) with `compare_only` is a "
        "rehearsal: it ends where raw ends now, and can be compared but not activated. `rules`: changes of rules as "
        "TOML. `reference_of`: judge with the reference positions and up to the ends of that generation, so that both "
        "can be held against each other byte by byte. One replay at a time per type.",
        status_code=201,
        response_model=models.Answer[models_generations.Generation],
        responses=examples.responses(409, 413, 503, success=201),
        openapi_extra=models_generations.START_BODY,
    )
    async def start(request: Request) -> Response:
        wanted = wanted_of(await json_object(request, MAX_BODY_BYTES))
        made = await begin(control, wanted, _actor(request), code_version)
        history = await control.history()
        return _answer(request, shown(made, history), history, 201)

    @api.get(
        "/v1/generations/{n}",
        tags=["generations"],
        summary="How far a generation is, and what it costs",
        description="By raw partition: offsets below `judged`, `aggregated` and `stored` are through that stage, those "
        "below `published` in every window. "
        "`lag`: records not stored yet. `done_ratio` and `seconds_left` are of what lay in raw as the replay was "
        "asked for; the rate is of the last minute, null until it is known. `caught_up`: all of that is in "
        "ClickHouse, with every published window.",
        response_model=models.Answer[models_generations.GenerationProgress],
        responses=examples.responses(404, 503),
    )
    async def one(request: Request, n: Number) -> Response:
        row = await control.row(n)
        history, costs = await asyncio.gather(control.history(), control.costs(n))
        parts = [] if row.state in (DerivationState.DROPPING, DerivationState.DROPPED) else await control.progress(row)
        pace = control.noted_pace(n, parts) if row.state is DerivationState.RUNNING else None
        caught_up = row.caught_up_at is not None or not row.plan.ends
        progress = progress_shown(parts, row.plan.only_to_ends, pace, caught_up, costs)
        return _answer(request, {**shown(row, history), "progress": progress}, history)

    @api.post(
        "/v1/generations/rollback",
        tags=["generations"],
        summary="Back to what people saw before",
        description="By type, the generation that was active before and whose workers still run; without `types`, of "
        "those types that the last activation switched.",
        response_model=models.Answer[models_generations.Activated],
        responses=examples.responses(409, 503),
        openapi_extra=models_generations.ROLLBACK_BODY,
    )
    async def rollback(request: Request) -> Response:
        body = await json_object(request)
        known_fields(body, ("types", "reason"))
        switched = await roll_back(control, types_of(body), reason_of(body), _actor(request))
        return await _switched(request, switched, [])

    @api.post(
        "/v1/generations/{n}/activate",
        tags=["generations"],
        summary="Show a generation to everybody",
        description="One row switches every view of these types (without `types`: all that it derives) at once. It "
        "must have caught up, and begin no later than what is active now: `begins_later` is refused for now also with "
        "`keep_before`, which would leave what lies before to that. Each `gate` check gives its value and limit; if "
        "one fails the answer is 409 `gate_failed` with all "
        "of them, unless `force` is true.",
        response_model=models.Answer[models_generations.Activated],
        responses=examples.responses(404, 409, 503),
        openapi_extra=models_generations.ACTIVATE_BODY,
    )
    async def switch(request: Request, n: Number) -> Response:
        body = await json_object(request)
        known_fields(body, ("types", "force", "keep_before", "reason"))
        switched, checks = await activate(
            control,
            n,
            types_of(body),
            reason_of(body),
            _actor(request),
            force=flag(body, "force"),
            keep_before=flag(body, "keep_before"),
        )
        return await _switched(request, switched, checks)

    @api.delete(
        "/v1/generations/{n}",
        tags=["generations"],
        summary="Remove a generation",
        description="Its workers end; then its topics, consumer groups, schemas and rows are removed. That goes on by "
        "itself: look at `state` and `problem`. What people see cannot be dropped.",
        status_code=202,
        response_model=models.Answer[models_generations.Generation],
        responses=examples.responses(404, 409, 503, success=202),
    )
    async def remove(
        request: Request,
        n: Number,
        reason: Annotated[str, Query(min_length=1, max_length=MAX_REASON_CHARS, examples=["compared, not better"])],
    ) -> Response:
        dropping = await drop(control, n, reason_of({"reason": reason}), _actor(request))
        history = await control.history()
        return _answer(request, shown(dropping, history), history, 202)

    async def _switched(request: Request, switched: dict[str, int], checks: Sequence[Any]) -> Response:
        gate = [check.shown() for check in checks]
        return _answer(request, {"activated": switched, "gate": gate}, await control.history())


def _answer(request: Request, data: Any, history: Sequence[Span], status: int = 200) -> Response:
    active = active_of(history)
    generation = shown_generation(active, [name for name in TYPES if name in active])
    return answer(request, data, as_of_ms=None, complete_to_ms=None, generation=generation, status=status)


def _actor(request: Request) -> str:
    key: ApiKey = request.scope["telestream.key"]
    return key.name
