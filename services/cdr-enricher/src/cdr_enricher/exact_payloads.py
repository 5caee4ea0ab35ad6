"""Decoding that takes nothing for a record but a whole one, and finds those that are not.

The decoder says that a batch is bad, but not which record; it overlooks bytes after a record's end, and texts that are
not UTF-8. So every payload gets a mark behind it, read as one more field: a record that is too long or too short does
not end where the mark begins, and is found without looking for it. For the rest there is bisection.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from telestream_contracts import DecodeError, Schema, decode_arrow_payloads

_MARK = "telestream_end"
# Bytes that a torn record can go on with: a branch of a union, a short text, a small number. Zeros behind them are
# nulls, empty texts and noughts. So nearly any torn record is read to its end, which is not where the mark is.
_MARK_BYTES = b"\x02\x00\x02\x02\x00\x02\x00\x02"
_SPARE = bytes(96)
_MARK_VALUE = struct.unpack("<d", _MARK_BYTES)[0]

_LENGTH = "the value is shorter or longer than its schema says"
_NO_FIT = "the value does not fit its schema"
_NO_TEXT = "a text in the value is not UTF-8"


class ExactPayloads:
    """Bare payloads of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._marked: Schema = {**schema, "fields": [*schema["fields"], {"name": _MARK, "type": "double"}]}
        self._fields = len(schema["fields"])

    def columns(self, payloads: list[bytes]) -> pa.RecordBatch | None:
        """All payloads as columns; None if any is not exactly a record."""
        try:
            batch = self._read(payloads, _MARK_BYTES)
            batch.validate(full=True)
        except (DecodeError, pa.ArrowInvalid):
            return None
        if len(self._misplaced(batch)):
            return None
        return batch.select(list(range(self._fields)))

    def bad(self, payloads: list[bytes]) -> dict[int, str]:
        """Which payloads are not exactly a record, and why.

        Bisection costs about as many decodes as there are bad ones, times twice the halvings between them.
        """
        found: dict[int, str] = {}
        open_ = [(0, len(payloads))] if payloads else []
        while open_:
            start, stop = open_.pop()
            reason = _NO_FIT
            try:
                batch = self._read(payloads[start:stop], _MARK_BYTES + _SPARE)
                found.update((start + index, _LENGTH) for index in self._misplaced(batch).tolist())
                reason = _NO_TEXT
                batch.validate(full=True)
            except (DecodeError, pa.ArrowInvalid):
                if stop - start == 1:
                    found.setdefault(start, reason)
                else:
                    middle = (start + stop) // 2
                    open_ += [(start, middle), (middle, stop)]
        return found

    def _read(self, payloads: list[bytes], behind: bytes) -> pa.RecordBatch:
        return decode_arrow_payloads([payload + behind for payload in payloads], self._marked)

    def _misplaced(self, batch: pa.RecordBatch) -> np.ndarray:
        return np.flatnonzero(batch.column(self._fields).to_numpy() != _MARK_VALUE)
