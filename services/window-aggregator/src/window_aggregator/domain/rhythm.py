"""When windows are emitted. Time is an argument; deciding is all that happens here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from window_aggregator.domain.families import DAY_S, HOUR_S, MINUTE_S, QUARTER_S

REALTIME_WINDOW_MS = 75 * 60_000
"""How far back the realtime tail of the query API reaches: older windows are in no hurry."""


class Flush(Enum):
    NONE = "none"
    RECENT = "recent"  # changed windows that began within REALTIME_WINDOW_MS
    ALL = "all"  # every changed window, closed by a marker


@dataclass(frozen=True, slots=True)
class Beat:
    """How often the changed windows of one family and size are emitted: the recent ones, and all.

    Two rhythms, or a file of last month would be emitted as fast as it is read, nearly a window per record, for nobody
    who waits for it.
    """

    recent_ms: int
    all_ms: int

    def times(self, stretch: float, whole: bool) -> Beat:
        """Longer; ``whole``: that of all windows too."""
        recent_ms, all_ms = round(self.recent_ms * stretch), round(self.all_ms * stretch) if whole else self.all_ms
        return Beat(recent_ms, max(recent_ms, all_ms))


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one family and size has been emitted in the open segment.

    ``all_to``: last source offset up to which every window is emitted; ``recent_to``: the recent ones. The two
    instants say when that was, None before the first look at the clock.
    """

    all_to: int
    recent_to: int
    all_at_ms: int | None = None
    recent_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Beats by (family, size in seconds), and the quiet time after which everything is emitted at once."""

    beats: Mapping[tuple[str, int], Beat]
    idle_ms: int

    def stretched(self, by: Mapping[str, float]) -> Rhythm:
        """With the beats of some families that much longer; of regions and plans those of one-minute windows only."""
        beats = {
            (family, size_s): beat.times(by.get(family, 1.0), whole=family not in ("region", "plan"))
            if size_s != QUARTER_S or family == "cell"
            else beat
            for (family, size_s), beat in self.beats.items()
        }
        return replace(self, beats=beats)

    def due(self, family: str, size_s: int, cursor: Cursor, touched: int, idle_since_ms: int, now_ms: int) -> Flush:
        """What to emit now, for state that was last touched by source offset ``touched``."""
        if touched <= cursor.all_to:
            return Flush.NONE
        beat = self.beats[family, size_s]
        if now_ms - idle_since_ms >= self.idle_ms:
            return Flush.ALL
        if cursor.all_at_ms is not None and now_ms - cursor.all_at_ms >= beat.all_ms:
            return Flush.ALL
        recent_to, recent_at_ms = max(cursor.recent_to, cursor.all_to), cursor.recent_at_ms
        if beat.recent_ms < beat.all_ms and touched > recent_to and recent_at_ms is not None:
            return Flush.RECENT if now_ms - recent_at_ms >= beat.recent_ms else Flush.NONE
        return Flush.NONE


def default_beats(
    *,
    minute_ms: int = 500,
    cell_minute_ms: int = 10_000,
    quarter_ms: int = 60_000,
    subscriber_day_ms: int = 120_000,
    quality_ms: int = 1_000,
) -> dict[tuple[str, int], Beat]:
    """The rhythm of the design. Minutes of the past keep the beat of the quarters."""
    quarter = Beat(quarter_ms, quarter_ms)
    return {
        ("region", MINUTE_S): Beat(minute_ms, max(minute_ms, quarter_ms)),
        ("plan", MINUTE_S): Beat(minute_ms, max(minute_ms, quarter_ms)),
        ("cell", MINUTE_S): Beat(cell_minute_ms, max(cell_minute_ms, quarter_ms)),
        **{(family, QUARTER_S): quarter for family in ("region", "plan", "cell")},
        ("subscriber_day", DAY_S): Beat(subscriber_day_ms, subscriber_day_ms),
        ("quality", HOUR_S): Beat(quality_ms, quality_ms),
    }
