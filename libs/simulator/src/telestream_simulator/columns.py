"""Columns as numpy arrays, nulls as a sentinel, and their text in CSV."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Objects: TypeAlias = npt.NDArray[np.object_]

NULL = int(np.iinfo(np.int64).min)
"""No value, in a column of whole numbers."""


def nulls(count: int) -> Ints:
    return np.full(count, NULL, dtype=np.int64)


def is_set(column: Ints) -> Bools:
    result: Bools = column != NULL
    return result


def zero_if_null(column: Ints) -> Ints:
    result: Ints = np.where(column == NULL, 0, column)
    return result


def objects(values: Sequence[str]) -> Objects:
    return np.array(values, dtype=object)


def int_text(column: Ints) -> list[str]:
    """Decimal digits; empty where null."""
    return ["" if value == NULL else str(value) for value in column.tolist()]


def decimal_text(column: Ints, digits: int) -> list[str]:
    """Thousandths or millionths as a plain decimal, exactly: 12345 with 3 digits is 12.345."""
    scale = 10**digits
    return [
        "" if value == NULL else f"{'-' if value < 0 else ''}{abs(value) // scale}.{abs(value) % scale:0{digits}d}"
        for value in column.tolist()
    ]


def vocabulary_text(words: Sequence[str], codes: Ints) -> list[str]:
    """The word of each code; empty where the code is NULL."""
    table = objects([*words, ""])
    picked: list[str] = table[np.where(codes == NULL, len(words), codes)].tolist()
    return picked


def bool_text(column: Ints) -> list[str]:
    return vocabulary_text(("false", "true"), column)


UTC_Z, PLUS_ONE, EPOCH_MS = 0, 1, 2
"""The three ways in which a producer writes an instant here."""
_HOUR_MS = 3_600_000


def instant_text(column: Ints, style: Ints | None = None) -> list[str]:
    """ISO 8601 with zone, or epoch milliseconds; empty where null."""
    known = zero_if_null(column)
    if style is None:
        texts = [text + "Z" for text in np.datetime_as_string(known.view("datetime64[ms]"), unit="ms").tolist()]
    else:
        shifted = known + np.where(style == PLUS_ONE, _HOUR_MS, 0)
        iso = np.datetime_as_string(shifted.view("datetime64[ms]"), unit="ms").tolist()
        texts = [
            text + "Z" if how == UTC_Z else text + "+01:00" if how == PLUS_ONE else str(ms)
            for text, how, ms in zip(iso, style.tolist(), known.tolist(), strict=True)
        ]
    for index in np.nonzero(column == NULL)[0].tolist():
        texts[index] = ""
    return texts


def iso(ms: int) -> str:
    """An instant as ``2026-11-23T08:00:00Z``; milliseconds only if there are any."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{ms % 1000:03d}" if ms % 1000 else "") + "Z"


def iso_date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
