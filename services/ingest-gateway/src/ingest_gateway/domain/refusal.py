"""Why a record or a whole body is not let in. No text here ever holds a value from the input."""

from __future__ import annotations

import re
from dataclasses import dataclass

from telestream_domain import REFUSED, TelestreamError

PRECEDENCE = {rule.code: rank for rank, rule in enumerate(REFUSED)}
"""Of several faults of one record the first code in the table counts."""

_DIGITS = re.compile(r"\d{5,}")
_LONG = re.compile(r"\d{7,}")
FIELD_NAME_SHOWN = 64


def mask_digits(text: str) -> str:
    """Every run of five digits or more keeps its first two and becomes asterisks."""
    return _DIGITS.sub(_stars, text)


def mask_numbers(text: str) -> str:
    """Every run of seven digits or more, which may be a subscriber's number, keeps its first two."""
    return _LONG.sub(_stars, text)


def _stars(match: re.Match[str]) -> str:
    run = match.group()
    return run[:2] + "*" * (len(run) - 2)


def shown_name(name: str) -> str:
    """A producer's field name, short and without a number, so that it may be named back."""
    return mask_digits(name[:FIELD_NAME_SHOWN])


class Refused(Exception):
    """One value cannot be let in: a code of the table and what was expected (never what was found)."""

    def __init__(self, code: str, expected: str) -> None:
        super().__init__(code)
        self.code, self.expected = code, expected


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused record: its position (index from 0 in a request, line from 1 in a file) and the fault that counts."""

    position: int
    code: str
    field: str | None
    message: str
    event_id: str | None = None


class BodyRefused(TelestreamError):
    """A whole request or file cannot be read."""

    def __init__(self, code: str, message: str, field: str | None = None, status: int = 422) -> None:
        super().__init__(message)
        self.code, self.field, self.status = code, field, status
