"""Holes in what somebody else counted: a switch's record numbers, a producer's file numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

MAX_GAP = 100_000
"""A hole of more numbers than this is a counter that started anew, not that many missing: a switch that comes back at 1
must not make a thousand million. It is counted as a restart, so it never goes unseen."""

SURE_GAP = 1_000
"""A hole of at most so many numbers is always missing ones, in whatever order its two sides came."""

BACKWARDS_MS = 300_000
"""Numbers rise with time: a larger hole whose lower side came so much later than its upper one is a restart, too."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """``expected`` = ``present`` + ``missing``. ``ranges``: first and last missing number of each hole, ascending.

    A counter that comes back to numbers already there cannot be told from repeats by its numbers alone.
    """

    first: int | None
    last: int | None
    present: int
    missing: int
    restarts: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def expected(self) -> int:
        return self.present + self.missing


def is_restart(hole: int, lower_at_ms: int, upper_at_ms: int) -> bool:
    """Whether ``hole`` numbers between two that are there, which arrived at these times, were never given out."""
    return hole > MAX_GAP or (hole > SURE_GAP and lower_at_ms - upper_at_ms > BACKWARDS_MS)


def gaps_of(arrived: Mapping[int, int] | Iterable[int]) -> Gaps:
    """The holes in a set of numbers, whatever their order and repeats; as a mapping with the arrival of each, in epoch
    ms."""
    at = arrived if isinstance(arrived, Mapping) else dict.fromkeys(arrived, 0)
    found = sorted(at)
    steps = [(before, after) for before, after in pairwise(found) if after - before > 1]
    ranges = tuple(
        (before + 1, after - 1) for before, after in steps if not is_restart(after - before - 1, at[before], at[after])
    )
    return Gaps(
        first=found[0] if found else None,
        last=found[-1] if found else None,
        present=len(found),
        missing=sum(last - first + 1 for first, last in ranges),
        restarts=len(steps) - len(ranges),
        ranges=ranges,
    )
