"""The state of one family in one open segment: partials, appended as they come and merged now and then.

Merging costs a row visit; so small partials are merged with each other, and with the long ones below them only when
together they are about as long. Sums are held packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from window_aggregator.domain.families import Family
from window_aggregator.domain.measures import is_packed, merged, packed
from window_aggregator.domain.sketches import Entries, Sketch

MAX_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Levels:
    """``touched`` is the last source offset that any window took in, −1 if none did. ``gathered``: so many changed
    windows at most have not been emitted; counting them exactly would visit every row, at every batch."""

    frames: tuple[pl.DataFrame, ...] = ()
    touched: int = -1
    gathered: int = 0
    sketch: Sketch = field(default_factory=Sketch)

    def add(self, partial: pl.DataFrame, family: Family, record_type: str, entries: Entries | None = None) -> Levels:
        """With one more partial, and what its records add to sketches."""
        if partial.is_empty():
            return self
        touched = max(self.touched, _touched(partial))
        frames = (*self.frames, packed(partial, family, record_type))
        if len(frames) > MAX_FRAMES:
            first, rows = len(frames) - 1, frames[-1].height
            while first and frames[first - 1].height <= 2 * rows:
                first -= 1
                rows += frames[first].height
            if first < len(frames) - 1:
                frames = (*frames[:first], _merged(frames[first:], family, record_type))
        sketch = self.sketch if entries is None else self.sketch.add(entries)
        return Levels(frames, touched, self.gathered + partial.height, sketch)

    def rows(self) -> int:
        """Rows held: the windows, and those of them that are not merged yet once more."""
        return sum(frame.height for frame in self.frames)

    def counted(self, after: int, enough: int, family: Family, record_type: str) -> Levels:
        """With ``gathered`` counted: exactly if it is above ``enough``.

        That takes one row per key among the frames that took in a source offset above ``after``. Those below are left
        alone: merging all for every portion would cost more the more is held.
        """
        counted = self.dirty(after)
        if counted <= enough:
            return replace(self, gathered=counted)
        first = next((at for at, frame in enumerate(self.frames) if _touched(frame) > after), len(self.frames))
        frames = self.frames
        if first < len(frames) - 1:
            frames = (*frames[:first], _merged(frames[first:], family, record_type))
        found = replace(self, frames=frames)
        return replace(found, gathered=found.dirty(after))

    def settled(self) -> Levels:
        """The same, ready to be emitted: its sketch merged once, for this flush and the next."""
        return replace(self, sketch=self.sketch.settled())

    def sketch_rows(self) -> tuple[pl.DataFrame, ...]:
        """The sketch as ``Sketch.of_rows`` reads it, in this process or another."""
        if not self.sketch.runs:
            return ()
        group = self.frames[0].columns[2]
        labels = pl.concat([frame[group].unique() for frame in self.frames]).unique()
        return (self.sketch.rows(labels),)

    def emitted(self) -> Levels:
        """After every changed window was."""
        return replace(self, gathered=0)

    def dirty(self, after: int) -> int:
        """Rows that took in a source offset above ``after``; of windows that are not merged yet some come twice."""
        if self.touched <= after:
            return 0
        return sum(int((frame["touched"] > after).sum()) for frame in self.frames)


def _touched(frame: pl.DataFrame) -> int:
    return int(frame["touched"].max())  # type: ignore[arg-type]


def _merged(frames: Sequence[pl.DataFrame], family: Family, record_type: str) -> pl.DataFrame:
    return packed(merged(frames, family, record_type), family, record_type)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The windows of one partition that took in a source offset above ``after``, from ``from_window`` on."""

    levels: Levels
    after: int
    from_window: int | None = None

    def everything(self) -> bool:
        """Whether it is all that is held, as it is at the end of a segment that filled fast."""
        if self.from_window is not None:
            return False
        return all(int(frame["touched"].min()) > self.after for frame in self.levels.frames)  # type: ignore[arg-type]

    def windows(self, family: Family) -> pl.DataFrame:
        """The keys of rows that say so; other rows of these windows may not."""
        wanted = pl.col("touched") > self.after
        if self.from_window is not None:
            wanted &= pl.col("window") >= self.from_window
        windows = family.windows()
        found = [frame.filter(wanted).select(windows) for frame in _few(self.levels.frames)]
        return pl.concat(found, how="vertical") if len(found) > 1 else found[0]


def changed(wanted: Sequence[Wanted], family: Family, record_type: str) -> pl.DataFrame:
    """The full state of the wanted windows. ``wanted`` has some rows at least."""
    windows = family.windows()
    frames = [frame for part in wanted for frame in part.levels.frames]
    if all(part.everything() for part in wanted):
        return merged(_few(frames), family, record_type)
    found = pl.concat([part.windows(family) for part in wanted], how="vertical")
    if found.is_empty():
        return frames[0].clear()
    first = found["window"].min()
    state = [frame.filter(pl.col("window") >= first) for frame in _few(frames)]
    # sums are widened only in what is emitted
    state = [frame.join(found, on=windows, how="semi") for frame in state if frame.height]
    return merged([frame for frame in state if frame.height], family, record_type)


def _few(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The same rows in few frames: those that are not packed, which are the many, become one without a copy."""
    short = [frame for frame in frames if not is_packed(frame)]
    rest = [frame for frame in frames if is_packed(frame)]
    return [pl.concat(short, how="vertical", rechunk=False), *rest] if short else rest


def changed_before(levels: Levels, window: int, after: int) -> bool:
    """Whether a window that begins before ``window`` took in a source offset above ``after``."""
    wanted = (pl.col("window") < window) & (pl.col("touched") > after)
    return any(bool(frame.select(wanted.any()).item()) for frame in levels.frames)
