"""What the server must know of a statement before it hands it to the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SKIPPED = rb"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_FIRST_WORD = re.compile(_SKIPPED + rb"*[(]*\s*(\w+)", re.S)
_INSERT_PART = re.compile(
    rb"""
    '(?:[^'\\]|\\.|'')*' | `[^`]*` | "[^"]*" | --[^\n]* | /\*.*?\*/
    | \b(?P<word>FORMAT\s+(?P<format>\w+)|SELECT|VALUES|WITH|FROM)\b
    """,
    re.S | re.X | re.I,
)
_OUTPUT_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^']*)?;?\s*$", re.I)
_SCANNED_BYTES = 256 * 1024  # an INSERT names its format before any data

_READS = frozenset({b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"FROM"})


@dataclass(frozen=True, slots=True)
class InsertData:
    """`INSERT … FORMAT f` and where its data begins in the text that was looked at."""

    statement: str
    format: str
    data_offset: int


def first_word(text: bytes) -> bytes:
    found = _FIRST_WORD.match(text[:_SCANNED_BYTES])
    return found.group(1).upper() if found else b""


def is_read(text: bytes) -> bool:
    return first_word(text) in _READS


def insert_with_data(text: bytes) -> InsertData | None:
    """The parts of an INSERT whose data follows in a named format; None for any other statement
    (INSERT … SELECT and INSERT … VALUES too: their text is the whole statement)."""
    if first_word(text) != b"INSERT":
        return None
    for part in _INSERT_PART.finditer(text[:_SCANNED_BYTES]):
        if part.group("format"):
            end = part.end()
            while text[end : end + 1] in (b" ", b"\t", b"\f"):
                end += 1
            if text[end : end + 2] == b"\r\n":
                end += 2
            elif text[end : end + 1] == b"\n":
                end += 1
            return InsertData(text[: part.start()].decode(), part.group("format").decode(), end)
        if part.group("word"):
            return None
    return None


def output_format(text: bytes, default: str) -> str:
    """The format of the answer: that of a closing FORMAT clause, else the default."""
    found = _OUTPUT_FORMAT.search(text[-1024:])
    return found.group(1).decode() if found else default
