"""HTTP's side: who may ask, answers and problems in one form, unknown parameters refused."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api import metrics
from query_api.domain.problems import Problem
from query_api.domain.ranges import iso_ms
from query_api.keys import Keys
from telestream_opstore import ALL_SOURCES, ApiKey
from telestream_runtime import get_logger

API_PREFIX = "/v1"
KEY_HEADER = b"x-api-key"
MAX_QUERY_BYTES = 8_192
MAX_BODY_BYTES = 4_096

ROLE_OF_ROUTE: Mapping[tuple[str, str], str] = {
    ("GET", "/v1/metrics/realtime"): "read",
    ("GET", "/v1/metrics/timeseries"): "read",
    ("GET", "/v1/cells/{id}/kpis"): "read",
    ("GET", "/v1/customers/{id}/usage"): "read",
    ("POST", "/v1/customers/lookup"): "identity",
    ("GET", "/v1/network/performance"): "read",
    ("GET", "/v1/reconciliation"): "read",
    ("GET", "/v1/dead-letters"): "read",
    ("POST", "/v1/events/trace"): "read",  # and identity, which the route itself asks for
    ("GET", "/v1/quality"): "read",
    ("GET", "/v1/completeness"): "read",
    ("GET", "/v1/sources"): "read",
    ("GET", "/v1/sources/{source}"): "read",
    ("GET", "/v1/amendments"): "read",
    ("GET", "/v1/generations/{n}/compare"): "read",
    ("GET", "/v1/generations"): "read",
    ("POST", "/v1/generations"): "operate",
    ("GET", "/v1/generations/{n}"): "read",
    ("POST", "/v1/generations/{n}/activate"): "operate",
    ("POST", "/v1/generations/rollback"): "operate",
    ("DELETE", "/v1/generations/{n}"): "operate",
}
"""Who may ask what. A route that is not here is refused to everybody."""

_TITLES = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "This key may not do that",
    404: "Not found",
    405: "Another method is needed",
    409: "Not as things stand",
    413: "Too large",
    422: "A parameter is wrong",
    500: "A mistake of ours",
    503: "Not available right now",
}

log = get_logger(__name__)


def answer(
    request: Request,
    data: bytes | Any,
    *,
    as_of_ms: int | None,
    complete_to_ms: int | None,
    generation: int | dict[str, int],
    next_cursor: str | None = None,
    status: int = 200,
) -> Response:
    """The one form of every answer; ``data`` as JSON text or as a value."""
    body = b"".join(
        (
            b'{"data":',
            data if isinstance(data, bytes) else _json(data),
            b',"as_of":',
            _json(iso_ms(as_of_ms)),
            b',"complete_to":',
            _json(iso_ms(complete_to_ms)),
            b',"generation":',
            _json(generation),
            b',"next_cursor":',
            _json(next_cursor),
            b',"request_id":',
            _json(request_id(request)),
            b"}",
        )
    )
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})


def request_id(request: Request) -> str:
    return str(request.scope.get("telestream.request_id", ""))


def sources_of(request: Request, source: str | None = None) -> list[str] | None:
    """Which sources this key may be told of, None: all; with ``source`` that one alone. Raises Problem (403) if it is
    not the key's."""
    key: ApiKey = request.scope["telestream.key"]
    if source is not None:
        if not key.may_send(source):
            raise Problem(403, "source_not_allowed", "this key is bound to other sources", "source")
        return [source]
    return None if key.may_send(ALL_SOURCES) else sorted(key.sources)


async def json_object(request: Request, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body as an object. Raises Problem, which quotes nothing of it."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise Problem(413, "too_large", f"the body has more than {max_bytes} bytes")
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Problem(415, "not_json", "send application/json")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "not_json", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Problem(422, "wrong_type", "the body must be an object")
    return found


def problem_response(problem: Problem, of_request: str) -> Response:
    """``application/problem+json``."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status, "Refused"),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": of_request,
        **problem.more,
    }
    if problem.field is not None:
        body["field"] = problem.field
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'ApiKey realm="telestream", header="X-API-Key"'
    return Response(_json(body), problem.status, media_type="application/problem+json", headers=headers)


def install_problems(app: FastAPI) -> None:
    """Every error as a problem; none echoes what was sent."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, err: Problem) -> Response:
        return problem_response(err, request_id(request))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, err: RequestValidationError) -> Response:
        first = err.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("query", "path", "body", "header")]
        field = place[0] if place else None
        code = "missing_parameter" if first["type"] == "missing" else "bad_parameter"
        # pydantic's message names what is expected; the value itself is in "input", which stays here
        detail = f"{field}: {first['msg']}" if field else str(first["msg"])
        return problem_response(Problem(422, code, detail, field), request_id(request))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, err: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(err.status_code, "bad_request")
        response = problem_response(
            Problem(err.status_code, code, _TITLES.get(err.status_code, "Refused")), request_id(request)
        )
        if err.headers:
            response.headers.update(err.headers)
        return response


class Gate:
    """ASGI middleware: request id, key and role before anything of the request is parsed, metrics after it."""

    def __init__(self, app: ASGIApp, routes: FastAPI, keys: Keys) -> None:
        self._app, self._routes, self._keys = app, routes, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        of_request = uuid.uuid4().hex
        scope["telestream.request_id"] = of_request
        route, status, begun = self._route(scope), 500, False
        pattern = route.path_format if route is not None else "unknown"

        async def sending(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message.setdefault("headers", []).append((b"x-request-id", of_request.encode()))
            await send(message)

        try:
            await self._admit(scope, route)
            await self._app(scope, receive, sending)
        except Problem as err:
            await problem_response(err, of_request)(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception:
            log.exception("a request failed", route=pattern, request_id=of_request)
            if begun:
                raise
            await problem_response(Problem(500, "internal", "a mistake of ours; it is logged"), of_request)(
                scope, receive, sending
            )
        finally:
            metrics.REQUESTS.labels(route=pattern, status=str(status)).inc()
            metrics.REQUEST_SECONDS.labels(route=pattern).observe(time.perf_counter() - started)

    def _route(self, scope: Scope) -> APIRoute | None:
        for route in self._routes.routes:
            if isinstance(route, APIRoute) and route.matches(scope)[0] is Match.FULL:
                return route
        return None

    async def _admit(self, scope: Scope, route: APIRoute | None) -> None:
        path: str = scope["path"]
        if path != API_PREFIX and not path.startswith(API_PREFIX + "/"):
            return
        given = [value for name, value in scope["headers"] if name == KEY_HEADER]
        if not given:
            raise Problem(401, "key_missing", "send your key as X-API-Key")
        found = await self._keys.check(given[0].decode("latin-1")) if len(given) == 1 else None
        if found is None:
            raise Problem(401, "key_unknown", "this key is not known, or was revoked")
        if route is None:
            return
        role = ROLE_OF_ROUTE.get((scope["method"], route.path_format))
        if role is None or not found.may(role):
            raise Problem(403, "not_allowed", f"this needs a key with the role {role or 'of nobody'}")
        scope["telestream.key"] = found
        _check_parameters(scope, route)


def _check_parameters(scope: Scope, route: APIRoute) -> None:
    """A parameter that does not exist is a typing mistake, which must not silently widen a question."""
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        raise Problem(413, "too_large", f"the query string has more than {MAX_QUERY_BYTES} bytes")
    known = _parameters(route.dependant)
    for name in Request(scope).query_params:
        if name not in known:
            field = name if name.isidentifier() and len(name) <= 40 else None
            raise Problem(
                422, "unknown_parameter", f"there is no such parameter; known are: {', '.join(sorted(known))}", field
            )


def _parameters(of: Dependant) -> set[str]:
    """All query parameters of a route, also those that it shares with others."""
    return {parameter.alias for parameter in of.query_params}.union(*map(_parameters, of.dependencies))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
