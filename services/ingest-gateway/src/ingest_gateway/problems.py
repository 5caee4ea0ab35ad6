"""Errors as ``application/problem+json``. No text holds a value from the input."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

RETRY_AFTER_S = 2
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is not the one hoped for."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.field = status, code, detail, field
        self.headers, self.members = dict(headers or {}), dict(members or {})


TITLES = {
    400: "The body cannot be parsed",
    401: "Who are you?",
    403: "This key may not do that",
    404: "There is no such thing",
    405: "There is no such method here",
    409: "It is already being done",
    413: "Too large",
    415: "Not a media type this route reads",
    422: "Nothing of it could be accepted",
    429: "Too much at once",
    500: "A mistake of ours",
    503: "Not now",
}


def unavailable(code: str, detail: str, **members: Any) -> Problem:
    """503: try again. What was sent may or may not have been stored; sending it again is harmless."""
    return Problem(503, code, detail, headers={"Retry-After": str(RETRY_AFTER_S)}, members=members)


def frames_of(err: BaseException) -> list[str]:
    """Where a mistake of ours happened, for the log: its text may hold the value it stumbled over, so it stays out."""
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(err.__traceback__)[-8:]]


def response(request: Request, problem: Problem) -> JSONResponse:
    request_id = getattr(request.state, "request_id", None)
    body = {
        "type": f"urn:telestream:problem:{problem.code}",
        "title": TITLES.get(problem.status, "Problem"),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "field": problem.field,
        "request_id": request_id,
        **problem.members,
    }
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)
