"""Cursors of paged lists: opaque to clients, they pin the generation and say what came last."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from query_api.domain.problems import bad_parameter
from telestream_domain import TYPES

MAX_CHARS = 400


@dataclass(frozen=True, slots=True)
class Cursor:
    """``generations`` of the first page, in the order of the types (0: a type that was not asked for); ``after`` is the
    sort key of the last row, all integers."""

    generations: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def at(cls, generations: Mapping[str, int], after: tuple[int, ...]) -> Cursor:
        """Behind a row of these generations by type."""
        return cls(tuple(generations.get(name, 0) for name in TYPES), after)

    def of(self, types: Sequence[str]) -> dict[str, int]:
        """The generations of these types; raises Problem if it goes on with others."""
        pinned = dict(zip(TYPES, self.generations, strict=True))
        if set(types) != {name for name, number in pinned.items() if number}:
            raise bad_parameter("cursor", "is of a list of other types: give the parameters again", "bad_cursor")
        return {name: pinned[name] for name in types}


def to_text(cursor: Cursor) -> str:
    """URL-safe text."""
    raw = json.dumps([*cursor.generations, *cursor.after], separators=(",", ":")).encode()
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
    if not isinstance(numbers, list) or len(numbers) != len(TYPES) + columns:
        raise wrong
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise wrong
    return Cursor(tuple(numbers[: len(TYPES)]), tuple(numbers[len(TYPES) :]))
