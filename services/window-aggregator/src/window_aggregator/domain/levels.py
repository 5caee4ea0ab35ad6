"""The state of one family in one open segment: partials, appended as they come and merged now and then.

Merging costs a row visit; so small partials are merged with each other, and with longer ones below them only when
together they are about as long. Long ones stay: merging them would take several times their size in memory. Sums are
held packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from window_aggregator.domain.families import Family
from window_aggregator.domain.held import Held
from window_aggregator.domain.measures import PACKED_FROM_ROWS, merged, packed
from window_aggregator.domain.sketches import Entries, Sketch

MAX_FRAMES = 16
LONG_ROWS = 24_000
"""Where fewer windows take in all records, all of them stay in one frame."""

_SHORT_ROWS = 32_000
"""Of frames that are not long, together: they are mostly not compressed."""

PORTION_ROWS = 20_000
"""Windows are emitted in portions of about so many: in upserts each takes about a kilobyte for a moment."""


@dataclass(frozen=True, slots=True)
class Levels:
    """``touched`` is the last source offset that any window took in, −1 if none did. ``gathered``: so many changed
    windows at most have not been emitted; counting them exactly would visit every row, at every batch."""

    frames: tuple[Held, ...] = ()
    touched: int = -1
    gathered: int = 0
    sketch: Sketch = field(default_factory=Sketch)

    def add(self, partial: pl.DataFrame, family: Family, record_type: str, entries: Entries | None = None) -> Levels:
        """With one more partial, and what its records add to sketches."""
        if partial.is_empty():
            return self
        added = Held.of(packed(partial, family, record_type))
        frames = (*self.frames, added)
        short = [held.height for held in frames if held.height < LONG_ROWS]
        if len(short) > MAX_FRAMES or sum(short) > _SHORT_ROWS:
            first, rows = len(frames) - 1, added.height
            while first and frames[first - 1].height <= min(2 * rows, LONG_ROWS):
                first -= 1
                rows += frames[first].height
            if first < len(frames) - 1:
                frames = (*frames[:first], _merged(frames[first:], family, record_type))
        sketch = self.sketch if entries is None else self.sketch.add(entries)
        return Levels(frames, max(self.touched, added.touched[1]), self.gathered + added.height, sketch)

    def rows(self) -> int:
        """Rows held: the windows, and those of them that are not merged yet once more."""
        return sum(held.height for held in self.frames)

    def counted(self, after: int, enough: int, family: Family) -> Levels:
        """With ``gathered`` counted: exactly if it is above ``enough``."""
        counted = self.dirty(after)
        if counted > enough:
            windows = family.windows()
            keys = [held.frame(windows).select(_hashed(family)) for held in self.frames if held.touched[1] > after]
            counted = pl.concat(keys).to_series().n_unique()
        return replace(self, gathered=counted)

    def settled(self) -> Levels:
        """The same, ready to be emitted: its sketch merged once, for this flush and the next."""
        return replace(self, sketch=self.sketch.settled())

    def sketch_rows(self) -> tuple[pl.DataFrame, ...]:
        """The sketch as ``Sketch.of_rows`` reads it, in this process or another."""
        if not self.sketch.runs:
            return ()
        group = self.frames[0].empty.columns[2]
        labels = pl.concat([held.frame([group])[group].unique() for held in self.frames]).unique()
        return (self.sketch.rows(labels),)

    def emitted(self) -> Levels:
        """After every changed window was."""
        return replace(self, gathered=0)

    def dirty(self, after: int) -> int:
        """Rows that took in a source offset above ``after``; of windows that are not merged yet some come twice."""
        return sum(_dirty(held, after) for held in self.frames) if self.touched > after else 0


def _dirty(held: Held, after: int) -> int:
    if held.touched[1] <= after:
        return 0
    if held.touched[0] > after:
        return held.height
    return int((held.frame(["touched"])["touched"] > after).sum())


def _merged(frames: Sequence[Held], family: Family, record_type: str) -> Held:
    rows = merged([held.frame() for held in frames], family, record_type)
    return Held.of(packed(rows, family, record_type))


def _hashed(family: Family) -> pl.Expr:
    """A number for a row's window, equal for equal windows within a process."""
    return pl.struct(pl.col(name).to_physical() for name in family.windows()).hash().alias("hashed")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The windows of one partition that took in a source offset above ``after``, from ``from_window`` on."""

    levels: Levels
    after: int
    from_window: int | None = None

    def everything(self) -> bool:
        """Whether it is all that is held, as it is at the end of a segment that filled fast."""
        return self.from_window is None and all(held.touched[0] > self.after for held in self.levels.frames)

    def windows(self, family: Family) -> list[pl.DataFrame]:
        """The keys of rows that say so, in some frames; other rows of these windows may not."""
        wanted = pl.col("touched") > self.after
        from_window = self.from_window
        if from_window is not None:
            wanted &= pl.col("window") >= from_window
        windows = family.windows()
        columns = [*windows, "touched"]
        return [
            held.frame(columns).filter(wanted).select(windows)
            for held in self.levels.frames
            if held.touched[1] > self.after and (from_window is None or held.windows[1] >= from_window)
        ]


def changed(
    wanted: Sequence[Wanted], family: Family, record_type: str, portion_rows: int = PORTION_ROWS
) -> Iterator[pl.DataFrame]:
    """The full state of the wanted windows, each whole in one of some portions of about ``portion_rows``."""
    frames = [held for part in wanted for held in part.levels.frames]
    found, first, last = None, 0, 0
    if not all(part.everything() for part in wanted):
        keys = [windows for part in wanted for windows in part.windows(family)]
        found = pl.concat(keys, how="vertical") if keys else None
        if found is None or found.is_empty():
            return
        first, last = int(found["window"].min()), int(found["window"].max())  # type: ignore[arg-type]
        frames = [held for held in frames if held.windows[0] <= last and held.windows[1] >= first]
    portions = -(-(sum(held.height for held in frames) if found is None else found.height) // portion_rows)
    rows = _few(frames)
    if found is not None:
        between = pl.col("window").is_between(first, last)
        # sums are widened only in what is emitted
        rows = (frame.filter(between).join(found, on=family.windows(), how="semi") for frame in rows)
    if portions <= 1:
        yield merged([frame for frame in rows if frame.height], family, record_type)
        return
    dealt: list[list[pl.DataFrame]] = [[] for _ in range(portions)]
    for frame in rows:
        slots = frame.with_columns(slot=_hashed(family) % portions).partition_by(
            "slot", include_key=False, as_dict=True
        )
        for (slot,), part in slots.items():
            dealt[slot].append(part)
    while dealt:
        parts = dealt.pop()
        if parts:
            yield merged(parts, family, record_type)


def _few(frames: Sequence[Held]) -> Iterator[pl.DataFrame]:
    """The same rows in few frames: those that are not packed, which are the many, become one without a copy."""
    short = [held.frame() for held in frames if held.height < PACKED_FROM_ROWS]
    if short:
        yield pl.concat(short, how="vertical", rechunk=False)
    for held in frames:
        if held.height >= PACKED_FROM_ROWS:
            yield held.frame()


def changed_before(levels: Levels, window: int, after: int) -> bool:
    """Whether a window that begins before ``window`` took in a source offset above ``after``."""
    wanted = (pl.col("window") < window) & (pl.col("touched") > after)
    return any(
        bool(held.frame(["window", "touched"]).select(wanted.any()).item())
        for held in levels.frames
        if held.touched[1] > after and held.windows[0] < window
    )
