"""How far beats are stretched so that upserts stay a bounded share of the records. Time is an argument.

How many windows change between two beats depends on cells, regions, subscribers and partitions, which no setting knows.
So it is measured, over the last minutes, and the stretch it was measured with is corrected by how far it was off.
What a full segment emits comes whatever the beat, and is taken off what the clock may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

SLOT_MS = 10_000
SPARE_RECORDS_PER_S = 10_000
"""A worker that takes in less has time to spare: then as many upserts as at this rate are fine, and figures fresh."""

WINDOWS_SHARE = 0.15
DAYS_SHARE = 0.65
_AIM = 0.93
_DAYS_AIM = 0.85
"""Of a share, because the next minutes are not quite like the last. Less of subscriber-days, which come by the hundred
thousand at a flush or at the end of a segment."""

_DAYS_BEGIN = 2.0
"""The stretch of subscriber-days before the first of them are emitted, which is minutes after the start: of a million
subscribers nearly every record has changed a day of its own by then. With time to spare it ends within seconds."""

_MINUTES_PART = 0.5
"""Of the windows' share, what regions and plans may take before they slow down: they are what people watch."""

_CORRECTION = 1.5
"""A beat twice as long gives half the upserts where the same few windows change in each, and nearly as many where each
record has a window of its own. Between the two, this finds the right length in two or three rounds."""

_CLOCK_PART = 0.25
"""Of a share, what the clock may take however much comes without it: under a bulk load people still watch."""


@dataclass(frozen=True, slots=True)
class Slot:
    """``rows``: upserts that the clock asked for; ``weighed``: the same, each times the stretch that held then;
    ``others`` came without the clock."""

    begin_ms: int
    records: int = 0
    rows: int = 0
    weighed: float = 0.0
    others: int = 0

    def and_(self, records: int, rows: int, others: int, stretch: float) -> Slot:
        """With more."""
        return Slot(
            self.begin_ms,
            self.records + records,
            self.rows + rows,
            self.weighed + rows * stretch,
            self.others + others,
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """The stretch of some beats, from 1 to ``at_most``, by what happened in the last ``over_ms``."""

    at_most: float
    over_ms: int
    slots: tuple[Slot, ...] = ()
    stretch: float = 1.0

    def counted(self, now_ms: int, records: int, rows: int, others: int, share: float) -> Pace:
        """With what happened until now: ``rows`` that the clock emitted, and ``others``. The stretch is judged anew
        when a slot is full."""
        *before, last = self.slots or (Slot(now_ms),)
        slots = (*before, last.and_(records, rows, others, self.stretch))
        if now_ms - last.begin_ms < SLOT_MS:
            return replace(self, slots=slots)
        slots = tuple(slot for slot in slots if slot.begin_ms > now_ms - self.over_ms)
        # between two beats there would seem to be ever fewer
        until = next((at for at in range(len(slots), 0, -1) if slots[at - 1].rows), 0)
        beats, end_ms = slots[:until], slots[until].begin_ms if until < len(slots) else now_ms
        allowed = share * self._records(beats, end_ms)
        allowed = max(allowed - sum(slot.others for slot in beats), allowed * _CLOCK_PART)
        rows = sum(slot.rows for slot in beats)
        wanted = 1.0
        if rows and allowed > 0:
            held = sum(slot.weighed for slot in beats) / rows
            wanted = held * float(rows / allowed) ** _CORRECTION
        elif slots and sum(slot.records for slot in slots) > _AIM * self._spared(slots, now_ms):
            wanted = self.stretch  # nothing is known yet
        return replace(self, slots=(*slots, Slot(now_ms)), stretch=min(max(1.0, wanted), self.at_most))

    def share(self, now_ms: int) -> float:
        """Upserts per record, those that a worker with spare time would have included."""
        records = self._records(self.slots, now_ms)
        return sum(slot.rows + slot.others for slot in self.slots) / records if records else 0.0

    @staticmethod
    def _records(slots: tuple[Slot, ...], now_ms: int) -> float:
        return max(float(sum(slot.records for slot in slots)), Pace._spared(slots, now_ms))

    @staticmethod
    def _spared(slots: tuple[Slot, ...], now_ms: int) -> float:
        """Records of that time that leave time to spare."""
        return SPARE_RECORDS_PER_S * (now_ms - slots[0].begin_ms) / 1_000 if slots else 0.0


@dataclass(frozen=True, slots=True)
class Paces:
    """Of one-minute windows of regions and plans, of cells' windows, and of subscriber-days.

    The bounds keep regions within two seconds, cells within a minute (their quarter hours within six), and
    subscriber-days within six.
    """

    minutes: Pace = field(default_factory=lambda: Pace(at_most=4, over_ms=300_000))
    cells: Pace = field(default_factory=lambda: Pace(at_most=6, over_ms=300_000))
    days: Pace = field(default_factory=lambda: Pace(at_most=3, over_ms=900_000, stretch=_DAYS_BEGIN))

    def counted(
        self, now_ms: int, records: Mapping[str, int], rows: Mapping[str, int], others: Mapping[str, int]
    ) -> Paces:
        """With records taken in, by type, and by family the upserts that the clock emitted, and those that came
        without it."""

        def of(*families: str) -> tuple[int, int]:
            return sum(rows.get(name, 0) for name in families), sum(others.get(name, 0) for name in families)

        both, windows = sum(records.values()), WINDOWS_SHARE * _AIM
        minutes = self.minutes.counted(now_ms, both, *of("region", "plan"), windows * _MINUTES_PART)
        left = max(windows - minutes.share(now_ms), windows * (1 - _MINUTES_PART))
        return Paces(
            minutes,
            self.cells.counted(now_ms, both, *of("cell"), left),
            self.days.counted(now_ms, records.get("cdr", 0), *of("subscriber_day"), DAYS_SHARE * _DAYS_AIM),
        )

    def stretch(self) -> Mapping[str, float]:
        """By family."""
        return {
            "region": self.minutes.stretch,
            "plan": self.minutes.stretch,
            "cell": self.cells.stretch,
            "subscriber_day": self.days.stretch,
        }
