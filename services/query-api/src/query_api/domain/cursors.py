"""Cursors of paged lists: opaque to clients, they pin the generation and say what came last."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from query_api.domain.problems import bad_parameter

MAX_CHARS = 400


@dataclass(frozen=True, slots=True)
class Cursor:
    """``generation`` of the first page; ``after`` is the sort key of the last row, all integers."""

    generation: int
    after: tuple[int, ...]


def to_text(cursor: Cursor) -> str:
    """URL-safe text."""
    raw = json.dumps([cursor.generation, *cursor.after], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_text(text: str, columns: int) -> Cursor:
    """What ``to_text`` made; ``columns`` is the length of the sort key. Raises Problem on anything else."""
    wrong = bad_parameter("cursor", "not a cursor of this list: take next_cursor as it was given", "bad_cursor")
    if len(text) > MAX_CHARS:
        raise wrong
    try:
        numbers = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise wrong from None
    if not isinstance(numbers, list) or len(numbers) != columns + 1:
        raise wrong
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise wrong
    return Cursor(numbers[0], tuple(numbers[1:]))
