"""The structure of a block of CSV lines, found with array operations before anything is parsed.

One row is one line: a line end ends the row, also inside quotes. So an unclosed quote spoils its own row and no other,
and a block can be cut at any line end.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest_gateway.domain.fields import RECORD_BYTES

Ints = npt.NDArray[np.int64]
_NEWLINE, _TAB = 10, 9
_DELETE, _FIRST_PRINTABLE, _FIRST_NON_ASCII = 127, 32, 128

UNCLOSED = "a quote that is not closed on its line"
NOT_TEXT = "bytes that are not in the file's encoding"
ODD_QUOTES = "quotes that do not stand around a whole field, or a line end inside one"
TOO_LARGE = f"a row has at most {RECORD_BYTES >> 10} KiB"


@dataclass(frozen=True, slots=True)
class Line:
    """A line by its index in the block, and its text."""

    index: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no row: code and message, and the line for the list of refused rows."""

    line: Line
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Block:
    """``plain``: columns ``0 … width-1`` of the rows at ``plain_index``, ascending.

    ``odd`` lines want a real CSV reader. ``lines`` counts all, blank ones too.
    """

    lines: int
    plain: pl.DataFrame
    plain_index: Ints
    odd: list[Line]
    faults: list[Fault]
    texts: _Texts

    def text(self, index: int) -> bytes:
        """A line as it stood in the block."""
        return self.texts.line(index)


@dataclass(frozen=True, slots=True)
class _Texts:
    data: bytes
    starts: Ints
    ends: Ints

    def line(self, index: int) -> bytes:
        return self.data[self.starts[index] : self.ends[index]]


def read_block(data: bytes, delimiter: str, quote: str | None, width: int) -> Block:
    """``data`` is whole lines ended by ``\\n`` (``\\r\\n`` already replaced), in UTF-8 but for faults."""
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == _NEWLINE).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    texts = _Texts(data, starts, ends)
    sizes = ends - starts
    faults: dict[int, tuple[str, str]] = {}
    for index in np.flatnonzero(sizes > RECORD_BYTES).tolist():
        faults[index] = ("too_large", TOO_LARGE)
    if not data.isascii():
        _find_bad_text(buffer, texts, faults)
    quote_byte = ord(quote) if quote else -1
    quoted = quote is not None and quote.encode() in data
    if quoted:
        positions = np.flatnonzero(buffer == quote_byte)
        per_line = np.diff(np.searchsorted(positions, ends), prepend=0)
        for index in np.flatnonzero(per_line % 2).tolist():
            faults.setdefault(index, ("not_json", UNCLOSED))
    keep = sizes > 0
    keep[list(faults)] = False
    rows = np.flatnonzero(keep)
    if len(rows) != len(ends):
        data = _joined(texts, rows, len(ends))
        buffer = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(buffer == _NEWLINE).astype(np.int64)
    odd_rows: set[int] = set()
    delimiter_byte = ord(delimiter)
    delimiters = buffer == delimiter_byte
    if quoted:
        is_quote = buffer == quote_byte
        inside = (np.cumsum(is_quote, dtype=np.uint8) & 1).astype(
            np.uint8
        )  # every line left has an even number of quotes
        delimiters &= inside == 0
        odd_rows.update(_oddly_quoted(buffer, is_quote, inside, delimiter_byte, quote_byte, ends))
    fields = np.diff(np.searchsorted(np.flatnonzero(delimiters), ends), prepend=0) + 1
    control = (buffer < _FIRST_PRINTABLE) | (buffer == _DELETE)
    control &= (buffer != _NEWLINE) & (buffer != delimiter_byte)
    if control.any():
        odd_rows.update(np.unique(np.searchsorted(ends, np.flatnonzero(control))).tolist())
    narrow = fields != width
    for row in np.flatnonzero(narrow).tolist():
        if row not in odd_rows:
            faults[int(rows[row])] = ("not_json", width_message(int(fields[row]), width))
    sure = ~narrow
    sure[list(odd_rows)] = False
    good = np.flatnonzero(sure)
    if len(good) != len(rows):
        data = _joined(texts, rows[good], len(texts.ends))
    plain = _parse(data, len(good), delimiter, quote if quoted else None, width)
    plain_index: Ints = rows[good].astype(np.int64)
    odd = sorted(int(rows[row]) for row in odd_rows)
    if plain is None:
        # polars reads these lines otherwise than we do: one by one then
        odd = sorted([*odd, *plain_index.tolist()])
        plain_index = plain_index[:0]
        plain = pl.DataFrame(schema={str(column): pl.String for column in range(width)})
    return Block(
        len(texts.ends),
        plain,
        plain_index,
        [Line(entry, texts.line(entry)) for entry in odd],
        [Fault(Line(entry, texts.line(entry)), code, message) for entry, (code, message) in sorted(faults.items())],
        texts,
    )


def width_message(found: int, wanted: int) -> str:
    return f"{found} field{'s' if found != 1 else ''} instead of {wanted}"


def read_line(text: bytes, delimiter: str, quote: str | None, width: int | None) -> list[str] | tuple[str, str]:
    """The fields of one line by the standard library's reader, or code and message of its fault.

    ``width`` None: as many as there are.
    """
    try:
        line = text.decode()
    except UnicodeDecodeError:
        return "not_json", NOT_TEXT
    try:
        if quote is None:
            rows = list(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True))
        else:
            rows = list(csv.reader([line], delimiter=delimiter, quotechar=quote, strict=True))
    except csv.Error:
        return "not_json", ODD_QUOTES
    fields = rows[0] if len(rows) == 1 else []
    if width is not None and len(fields) != width:
        return "not_json", width_message(len(fields), width)
    return fields


def _find_bad_text(buffer: npt.NDArray[np.uint8], texts: _Texts, faults: dict[int, tuple[str, str]]) -> None:
    try:
        texts.data.decode()
        return
    except UnicodeDecodeError:
        pass
    suspects = np.unique(np.searchsorted(texts.ends, np.flatnonzero(buffer >= _FIRST_NON_ASCII)))
    for index in suspects.tolist():
        try:
            texts.line(index).decode()
        except UnicodeDecodeError:
            faults.setdefault(index, ("not_json", NOT_TEXT))


def _joined(texts: _Texts, rows: Ints, lines: int) -> bytes:
    """The block with these lines only, copied in runs."""
    if not len(rows):
        return b""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    firsts = rows[np.concatenate([[0], breaks + 1])]
    lasts = rows[np.concatenate([breaks, [len(rows) - 1]])]
    return b"".join(
        texts.data[start : end + 1]
        for start, end in zip(texts.starts[firsts].tolist(), texts.ends[lasts].tolist(), strict=True)
    )


def _oddly_quoted(
    buffer: npt.NDArray[np.uint8],
    is_quote: npt.NDArray[np.bool_],
    inside: npt.NDArray[np.uint8],
    delimiter: int,
    quote: int,
    ends: Ints,
) -> list[int]:
    """Rows with a quote that neither opens nor closes a whole field, nor stands for one inside it."""
    positions = np.flatnonzero(is_quote)
    opening = inside[positions] == 1
    before = np.where(positions > 0, buffer[positions - 1], _NEWLINE)
    after = buffer[positions + 1]  # there is one: the last byte is a line end
    good_open = (before == delimiter) | (before == _NEWLINE) | (before == quote)
    good_close = (after == delimiter) | (after == _NEWLINE) | (after == quote)
    bad = positions[np.where(opening, ~good_open, ~good_close)]
    return np.unique(np.searchsorted(ends, bad)).tolist() if len(bad) else []


def _parse(data: bytes, rows: int, delimiter: str, quote: str | None, width: int) -> pl.DataFrame | None:
    """Strings in columns ``0 … width-1``, null where empty; None if polars finds another number of rows."""
    schema = {str(column): pl.String for column in range(width)}
    if not rows:
        return pl.DataFrame(schema=schema)
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            separator=delimiter,
            quote_char=quote,
            schema=schema,
            extra_columns="raise",
            empty_string_is_null=True,
        )
    except pl.exceptions.PolarsError:
        return None
    if frame.height != rows:
        return None
    # "" in quotes is empty too
    return frame if quote is None else frame.select(pl.when(pl.all() != "").then(pl.all()))
