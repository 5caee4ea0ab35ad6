"""The state of one family in one open segment: partials, appended as they come and merged now and then.

Merging costs a row visit; so small partials are merged with each other, and with the long ones below them only when
together they are about as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from window_aggregator.domain.families import Family
from window_aggregator.domain.measures import merged

MAX_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Levels:
    """``touched`` is the last source offset that any window took in, −1 if none did."""

    frames: tuple[pl.DataFrame, ...] = ()
    touched: int = -1

    def add(self, partial: pl.DataFrame, family: Family, record_type: str) -> Levels:
        """With one more partial."""
        if partial.is_empty():
            return self
        touched = max(self.touched, int(partial["touched"].max()))  # type: ignore[arg-type]
        frames = (*self.frames, partial)
        if len(frames) > MAX_FRAMES:
            first, rows = len(frames) - 1, frames[-1].height
            while first and frames[first - 1].height <= 2 * rows:
                first -= 1
                rows += frames[first].height
            if first < len(frames) - 1:
                frames = (*frames[:first], merged(frames[first:], family, record_type))
        return Levels(frames, touched)

    def rows(self) -> int:
        """Rows held: the windows, and those of them that are not merged yet once more."""
        return sum(frame.height for frame in self.frames)

    def compact(self, family: Family, record_type: str) -> Levels:
        """With one row per key."""
        return replace(self, frames=(merged(self.frames, family, record_type),)) if len(self.frames) > 1 else self

    def dirty(self, after: int) -> int:
        """Rows that took in a source offset above ``after``; of windows that are not merged yet some come twice."""
        if self.touched <= after:
            return 0
        return sum(int((frame["touched"] > after).sum()) for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The windows of one partition that took in a source offset above ``after``, from ``from_window`` on."""

    levels: Levels
    after: int
    from_window: int | None = None

    def rows(self) -> pl.DataFrame:
        """Rows that say so; other rows of their windows may not."""
        wanted = pl.col("touched") > self.after
        if self.from_window is not None:
            wanted &= pl.col("window") >= self.from_window
        return self.state().filter(wanted)

    def state(self) -> pl.DataFrame:
        return pl.concat(self.levels.frames, how="vertical", rechunk=False)


def changed(wanted: Sequence[Wanted], family: Family, record_type: str) -> pl.DataFrame:
    """The full state of the wanted windows. ``wanted`` has some rows at least."""
    windows = family.windows()
    found = pl.concat([part.rows() for part in wanted], how="vertical").select(windows)
    if found.is_empty():
        return wanted[0].levels.frames[0].clear()
    first = found["window"].min()
    state = pl.concat([part.state().filter(pl.col("window") >= first) for part in wanted], how="vertical")
    return merged([state.join(found, on=windows, how="semi")], family, record_type)


def changed_before(levels: Levels, window: int, after: int) -> bool:
    """Whether a window that begins before ``window`` took in a source offset above ``after``."""
    wanted = (pl.col("window") < window) & (pl.col("touched") > after)
    return any(bool(frame.select(wanted.any()).item()) for frame in levels.frames)
