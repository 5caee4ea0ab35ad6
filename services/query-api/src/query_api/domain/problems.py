"""What can be wrong with a question, as a value; the edge turns it into ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Problem(Exception):
    """A refusal: HTTP status, stable code, words; ``field`` names the parameter at fault. Words never echo a
    value. ``more``: further members of the answer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        retry_after_s: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.field, self.retry_after_s = field, retry_after_s
        self.more = dict(more or {})


def bad_parameter(field: str, detail: str, code: str = "bad_parameter") -> Problem:
    """422: the parameter and what is wrong with it."""
    return Problem(422, code, f"{field}: {detail}", field=field)


def unavailable(what: str, retry_after_s: int = 5) -> Problem:
    """503: what does not answer right now, and when to ask again."""
    return Problem(503, "unavailable", f"{what} does not answer right now; ask again", retry_after_s=retry_after_s)
