"""Rows of state as they are held: where they are many, compressed, and out of memory if there is a place for them.

Most windows of an open segment wait for its end and are never looked at again, above all those of old records, each of
which has windows of its own. Compressed they take a fifth, for a third of a microsecond a row. Sums are packed first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

PRESSED_FROM_ROWS = 12_000

Keeper = Callable[[bytes], Callable[[], bytes]]
"""Puts bytes somewhere, and gives what reads them."""


def _in_memory(data: bytes) -> Callable[[], bytes]:
    return lambda: data


_keeper: Keeper = _in_memory


def keep_with(keeper: Keeper) -> None:
    """From now on, in this process."""
    global _keeper  # where bytes lie is no part of any value
    _keeper = keeper


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A frame with ``window`` and ``touched``; of both the least and the greatest, so that it need not be looked into.

    ``empty`` has its columns and no rows: while it is there, the labels in ``kept`` keep their numbers.
    """

    kept: pl.DataFrame | Callable[[], bytes]
    empty: pl.DataFrame
    height: int
    windows: tuple[int, int]
    touched: tuple[int, int]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Held:
        """A frame that has rows."""
        return cls(
            _keeper(ipc(frame, "zstd")) if frame.height >= PRESSED_FROM_ROWS else frame,
            frame.clear(),
            frame.height,
            _ends(frame["window"]),
            _ends(frame["touched"]),
        )

    @classmethod
    def of_ipc(cls, data: bytes) -> Held | None:
        """From what ``ipc`` gave, in this process or another; None if that had no rows."""
        frame = pl.read_ipc_stream(data)
        if not frame.height:
            return None
        kept = _keeper(data) if frame.height >= PRESSED_FROM_ROWS else frame
        return cls(kept, frame.clear(), frame.height, _ends(frame["window"]), _ends(frame["touched"]))

    def frame(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Its rows, or only some columns of them; in no order of columns."""
        if isinstance(self.kept, pl.DataFrame):
            return self.kept if columns is None else self.kept.select(columns)
        return pl.read_ipc_stream(self.kept(), columns=None if columns is None else list(columns))

    def ipc(self) -> bytes:
        """Its rows as Arrow's stream format has them."""
        return ipc(self.kept, "lz4") if isinstance(self.kept, pl.DataFrame) else self.kept()


def ipc(frame: pl.DataFrame, compression: Literal["lz4", "zstd"]) -> bytes:
    """A frame as Arrow's stream format has it."""
    body = io.BytesIO()
    # in the old layout a text column holds its texts only, not all that they were once cut from
    frame.write_ipc_stream(body, compression=compression, compat_level=pl.CompatLevel.oldest())
    return body.getvalue()


def _ends(column: pl.Series) -> tuple[int, int]:
    return int(column.min()), int(column.max())  # type: ignore[arg-type]
