"""The HTTP edge: events, reference data and identity lookups. Files are in ``http_files``."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ingest_gateway import openapi_examples as examples
from ingest_gateway.domain.body import MAX_BODY_BYTES, Format, too_large
from ingest_gateway.domain.identity import Party
from ingest_gateway.domain.refusal import BodyRefused, Refused
from ingest_gateway.encode import BatchHead
from ingest_gateway.errors import GatewayError
from ingest_gateway.gateway import Gateway, log
from ingest_gateway.metrics import IN_FLIGHT_BYTES, RECORDS_ACCEPTED, RECORDS_REFUSED, REQUEST_SECONDS, REQUESTS
from ingest_gateway.problems import Problem, frames_of, response, unavailable
from ingest_gateway.requests import Judged
from telestream_domain import REFERENCES, TYPES
from telestream_opstore import ApiKey, OpstoreError

ERRORS_SHOWN = 100
ACK_GRACE_S = 6.0
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
SOURCE_EXPECTED = "a source is 1 to 64 letters, digits, '.', '_' and '-'"
DAYS_MAX = 100_000


class RecordError(BaseModel):
    """One refused record; ``index`` counts from 0."""

    index: int
    event_id: str | None
    field: str | None
    code: str
    message: str


class Answer(BaseModel):
    """What became of a request."""

    request_id: str
    accepted: int
    refused: int
    errors: list[RecordError]
    errors_truncated: bool


class LookupAnswer(BaseModel):
    """What records carry instead of a number."""

    subscriber_id: str
    identifier: str
    partition: int


class Lookup(BaseModel, extra="forbid"):
    """Exactly one of them."""

    msisdn: str | None = Field(None, max_length=32, examples=["+491701234567"])
    imsi: str | None = Field(None, max_length=32)
    line: str | None = Field(None, max_length=64)


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def needs(role: str) -> Callable[..., Awaitable[ApiKey]]:
    """A dependency: the caller's key, which must have ``role``."""

    async def authorized(
        request: Request, x_api_key: Annotated[str | None, Header(description="API key")] = None
    ) -> ApiKey:
        if not x_api_key:
            raise Problem(401, "no_key", "send your API key as X-API-Key")
        try:
            key = await gateway_of(request).keys.check(x_api_key)
        except OpstoreError as err:
            raise unavailable("keys_unknown", "API keys cannot be checked now") from err
        if key is None:
            raise Problem(401, "unknown_key", "there is no such API key, or it was revoked")
        if not key.may(role):
            raise Problem(403, "role_missing", f"this key has not the role {role}")
        return key

    return authorized


def is_source(name: str) -> bool:
    """Whether a producer may be called so."""
    return _SOURCE.fullmatch(name) is not None


def source_of(key: ApiKey, named: str | None) -> str:
    """The source a key sends for: the one named, or the only one it is bound to."""
    source = named if named is not None else key.only_source
    if source is None:
        raise Problem(422, "missing_field", "this key may send for several sources: name one, ?source=…", "source")
    if not _SOURCE.fullmatch(source):
        raise Problem(422, "wrong_type", SOURCE_EXPECTED, "source")
    if not key.may_send(source):
        raise Problem(403, "source_not_allowed", "this key is not bound to this source", "source")
    return source


def format_of(request: Request) -> Format:
    media = request.headers.get("content-type", "application/json").split(";", 1)[0].strip().lower()
    if media in ("application/json", "text/json"):
        return "json"
    if media in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        return "ndjson"
    raise Problem(415, "media_type", "send application/json or application/x-ndjson")


@contextmanager
def in_flight(gateway: Gateway) -> Iterator[Callable[[int], None]]:
    """Counts bytes while they are held: ``hold(n)`` raises 429 when too much is under way."""
    held = 0

    def hold(count: int) -> None:
        nonlocal held
        if gateway.in_flight + count > gateway.settings.max_in_flight_bytes and gateway.in_flight > held:
            raise Problem(429, "busy", "too much is being judged or sent; try again", headers={"Retry-After": "1"})
        held += count
        gateway.in_flight += count
        IN_FLIGHT_BYTES.set(gateway.in_flight)

    try:
        yield hold
    finally:
        gateway.in_flight -= held
        IN_FLIGHT_BYTES.set(gateway.in_flight)


async def body_of(request: Request, hold: Callable[[int], None]) -> bytes:
    """The whole body, 16 MiB at most."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
        hold(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


def answer_of(request_id: str, judged: Judged) -> Answer:
    return Answer(
        request_id=request_id,
        accepted=judged.accepted,
        refused=len(judged.refusals),
        errors=[
            RecordError(
                index=entry.position,
                event_id=entry.event_id,
                field=entry.field,
                code=entry.code,
                message=f"{entry.field} {entry.message}" if entry.field else entry.message,
            )
            for entry in judged.refusals[:ERRORS_SHOWN]
        ],
        errors_truncated=len(judged.refusals) > ERRORS_SHOWN,
    )


async def take_in(
    request: Request, record_type: str, key: ApiKey, source: str | None, dry_run: bool, allow_age_days: int | None
) -> JSONResponse:
    """Judge a request, send what is accepted, answer once Kafka has it."""
    gateway = gateway_of(request)
    request_id: str = request.state.request_id
    head = BatchHead(
        source_of(key, source),
        0 if dry_run else await gateway.batch_ids.take(),
        time.time_ns() // 1_000_000,
        allow_age_days,
    )
    body_format = format_of(request)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    loop = asyncio.get_running_loop()
    with in_flight(gateway) as hold:
        body = await body_of(request, hold)
        judge = gateway.judges[record_type].judge
        judged = await loop.run_in_executor(gateway.judge_thread, judge, body, encoding, body_format, head)
        if judged.messages and not dry_run:
            sending = gateway.sender.send(gateway.topic(record_type), judged.messages, judged.nbytes)
            try:
                await asyncio.wait_for(
                    asyncio.wrap_future(sending), gateway.settings.ack_timeout_ms / 1000 + ACK_GRACE_S
                )
            except (GatewayError, TimeoutError) as err:
                raise unavailable(
                    "not_acknowledged",
                    "Kafka did not acknowledge in time: unknown whether it was stored; send the same again",
                ) from err
    if not dry_run:
        RECORDS_ACCEPTED.labels(type=record_type, path="direct").inc(judged.accepted)
        for code, count in judged.by_code().items():
            RECORDS_REFUSED.labels(type=record_type, code=code).inc(count)
    answer = answer_of(request_id, judged).model_dump()
    if not judged.accepted and judged.refusals:
        first = judged.refusals[0]
        raise Problem(422, first.code, "every record was refused; errors says why", first.field, members=answer)
    return JSONResponse(answer, 200 if dry_run else 202)


Ingest = Annotated[ApiKey, Depends(needs("ingest"))]
Asking = Annotated[ApiKey, Depends(needs("identity"))]
Source = Annotated[
    str | None, Query(description="Who sends; needed if the key is bound to several sources", examples=["msc-1"])
]
DryRun = Annotated[bool, Query(description="Judge and store nothing")]
AllowAge = Annotated[
    int | None, Query(ge=1, le=DAYS_MAX, description="Days a record may be old before it is rejected as too_old")
]


def build_app(gateway: Gateway) -> FastAPI:
    """The API over a connected gateway."""
    app = FastAPI(
        title="TeleStream ingest gateway",
        version="1",
        description="Call detail records, network events and reference data in; acknowledged once Kafka has them.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.gateway = gateway
    _middleware(app)
    _problems(app)
    _routes(app)
    from ingest_gateway import http_files, http_identity

    http_files.add_routes(app)
    http_identity.add_routes(app)
    return app


def _middleware(app: FastAPI) -> None:
    @app.middleware("http")
    async def account(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.request_id = uuid.uuid4().hex
        started = time.monotonic()
        answer = await call_next(request)
        route = request.scope.get("route")
        path = getattr(route, "path", "unknown")
        REQUESTS.labels(route=path, status=str(answer.status_code)).inc()
        REQUEST_SECONDS.labels(route=path).observe(time.monotonic() - started)
        answer.headers["X-Request-Id"] = request.state.request_id
        return answer


def _problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, err: Problem) -> Response:
        return response(request, err)

    @app.exception_handler(BodyRefused)
    async def body_refused(request: Request, err: BodyRefused) -> Response:
        return response(request, Problem(err.status, err.code, str(err), err.field))

    @app.exception_handler(OpstoreError)
    async def opstore(request: Request, err: OpstoreError) -> Response:
        log.warning("PostgreSQL away", reason=str(err))
        return response(request, unavailable("postgres_away", "the ledger cannot be reached now; try again"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, err: RequestValidationError) -> Response:
        # the library's own text would name the value that was sent
        first = err.errors()[0]
        field = str(first["loc"][-1])
        missing = first["type"] == "missing"
        code, text = (
            ("missing_field", "must be given") if missing else ("wrong_type", "has not the form this route takes")
        )
        return response(request, Problem(422, code, f"{field} {text}", field))

    @app.exception_handler(HTTPException)
    async def other(request: Request, err: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        return response(request, Problem(err.status_code, codes.get(err.status_code, "refused"), "see /docs"))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, err: ClientDisconnect) -> Response:
        return response(request, Problem(400, "disconnected", "the body ended early"))

    @app.exception_handler(Exception)
    async def mistake(request: Request, err: Exception) -> Response:
        request_id = getattr(request.state, "request_id", None)
        log.error("a mistake of ours", request_id=request_id, kind=type(err).__name__, frames=frames_of(err))
        return response(request, Problem(500, "internal", "a mistake of ours; the log has the request id"))


def _routes(app: FastAPI) -> None:
    def add(path: str, record_type: str, what: str) -> None:
        async def endpoint(
            request: Request,
            key: Ingest,
            source: Source = None,
            dry_run: DryRun = False,
            allow_age_days: AllowAge = None,
        ) -> Response:
            return await take_in(request, record_type, key, source, dry_run, allow_age_days)

        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            status_code=202,
            response_model=Answer,
            tags=["events" if record_type in TYPES else "reference"],
            summary=f"Send {what}",
            name=f"send_{record_type}",
            responses=examples.responses(),
            openapi_extra=examples.request_body(record_type),
        )

    add("/v1/events/cdr", "cdr", "call detail records")
    add("/v1/events/network", "network", "network events")
    for entity in REFERENCES:
        add(f"/v1/reference/{entity}", entity, f"versions of a {entity}")

    @app.post("/v1/identity/lookup", response_model=LookupAnswer, tags=["identity"], summary="Look a number up")
    async def lookup(request: Request, asked: Lookup, key: Asking) -> LookupAnswer:
        gateway = gateway_of(request)
        given = [(kind, value) for kind, value in asked.model_dump().items() if value]
        if len(given) != 1:
            raise Problem(422, "missing_field", "give exactly one of msisdn, imsi and line", "msisdn")
        kind, value = given[0]

        def find() -> Party | Refused:
            memo = {"msisdn": gateway.resolver.msisdn, "imsi": gateway.resolver.imsi, "line": gateway.resolver.line}
            return memo[kind][value]

        found = await asyncio.get_running_loop().run_in_executor(gateway.judge_thread, find)
        if isinstance(found, Refused):
            raise Problem(422, found.code, f"{kind} must be {found.expected}", kind)
        return LookupAnswer(
            subscriber_id=found.id, identifier=found.id, partition=found.shard % gateway.partitions["cdr"]
        )
