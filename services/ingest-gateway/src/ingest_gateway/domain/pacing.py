"""How fast a backfill may send while live records flow: from how long these wait in the pipeline, looked at again and
again.

The wait is taken from positions alone, so it needs no other machine's clock and is right at any rate of live records:
what is committed now was the end of the log at some earlier look, and that long a record waits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

Place = tuple[str, int]
"""Topic and partition."""

SLACK = 10
"""Offsets that are no records waiting: the mark of a transaction behind the last record."""

HISTORY_S = 30.0
GROWTH, CUT = 1.1, 0.5  # at one look
TOWARDS, AGAINST = 0.1, 1.0
"""How much the distance to the wanted wait and its own change count. A look lies before what it leads to by two to four
looks; without the second the wait swings between nothing and twice what is wanted."""


@dataclass(frozen=True, slots=True)
class Look:
    """The ends of logs at ``at``, in seconds of any clock that only goes forward."""

    at: float
    ends: Mapping[Place, int]


def wait_s(looks: Sequence[Look], committed: Mapping[Place, int]) -> float:
    """How long the oldest record that waits for a group has waited, at the last look; oldest look first.

    What waited before the first look counts from that look on. A place that is not in ``committed`` waits since ever.
    """
    return max((_waits(looks, place, committed.get(place, 0)) for place in looks[-1].ends), default=0.0)


def _waits(looks: Sequence[Look], place: Place, committed: int) -> float:
    now = looks[-1]
    if now.ends[place] - committed <= SLACK:
        return 0.0
    ends = [look.ends.get(place, 0) for look in looks]
    after = bisect_right(ends, committed)
    if after == 0 or after == len(looks):
        return now.at - looks[0].at
    before, later = looks[after - 1], looks[after]
    share = (committed - ends[after - 1]) / (ends[after] - ends[after - 1])
    return now.at - (before.at + share * (later.at - before.at))


def remembered(looks: Sequence[Look], look: Look) -> list[Look]:
    """The looks with one more, without those that are too old to matter."""
    return [old for old in looks if look.at - old.at <= HISTORY_S] + [look]


@dataclass(frozen=True, slots=True)
class Pace:
    """Records a second. Grows while live records wait less than ``wait_s``, shrinks while they wait longer, never below
    ``floor``. ``waited_s``: what was seen last."""

    wait_s: float
    floor: float
    rate: float
    waited_s: float | None = None

    def after(self, waits_s: float | None, held: bool) -> Pace:
        """The pace once live records were seen to wait so long; None: nobody knows, so it goes at the floor.

        ``held``: whether the pace held anything up since the last look; what holds nothing up need not grow.
        """
        if waits_s is None:
            return replace(self, rate=self.floor, waited_s=None)
        change_s = 0.0 if self.waited_s is None else waits_s - self.waited_s
        wanted = exp(TOWARDS * (1 - waits_s / self.wait_s) - AGAINST * change_s / self.wait_s)
        factor = min(GROWTH, max(CUT, wanted))
        rate = self.rate if factor > 1 and not held else max(self.floor, self.rate * factor)
        return replace(self, rate=rate, waited_s=waits_s)


@dataclass(frozen=True, slots=True)
class Owed:
    """What was sent ahead of the pace, in records, at ``at``. Who owes sends nothing until it is worked off."""

    records: float
    at: float

    def after(self, now: float, rate: float) -> Owed:
        return Owed(max(0.0, self.records - rate * (now - self.at)), now)
