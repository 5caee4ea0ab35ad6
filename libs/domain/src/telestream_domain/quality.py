"""The quality of what a source sends, as parts that are each a share, and one score: this table is all there is to it.

Everything is counted by hour of arrival. A part that cannot be known is null, never 0 or 1, and the score is the mean,
by weight, of the parts that are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from telestream_domain.segments import LATENCY_BOUNDS_MS

TIMELY_MS = 900_000
"""A record is in time if it arrived within a quarter hour of its event. The event of a call is its start, so a bound
of minutes would blame long calls; one of LATENCY_BOUNDS_MS, so the distribution is enough to know it."""

TIMELY_BUCKETS = LATENCY_BOUNDS_MS.index(TIMELY_MS) + 1
"""The first so many buckets are in time."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a source in some hours of arrival.

    ``stored``, ``duplicates``, ``rejected``: records by verdict, reversals apart. ``warned`` of the stored, and
    ``latency`` of the stored by LATENCY_BOUNDS_MS, withdrawn ones taken out. ``numbers_there`` of ``numbers_expected``:
    the switches' own counters; where there are none, ``rows_there`` of ``rows_declared``: rows of whole files against
    the totals declared with them.
    """

    stored: int = 0
    withdrawn: int = 0
    duplicates: int = 0
    rejected: int = 0
    warned: int = 0
    latency: tuple[int, ...] = ()
    numbers_there: int = 0
    numbers_expected: int = 0
    rows_there: int = 0
    rows_declared: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table; ``formula`` in words of ``Counts``."""

    name: str
    weight: int
    title: str
    formula: str


PARTS: tuple[Part, ...] = (
    Part(
        "completeness",
        3,
        "What the source counted and we have",
        "numbers_there / numbers_expected, else rows_there / rows_declared (at most 1), else null",
    ),
    Part(
        "uniqueness",
        2,
        "What was sent once",
        "(stored + rejected) / (stored + rejected + duplicates)",
    ),
    Part(
        "validity",
        3,
        "What breaks no rule; a warning counts half",
        "(2·(stored − withdrawn) − warned) / (2·(stored − withdrawn + rejected))",
    ),
    Part(
        "timeliness",
        2,
        "What arrived within 15 minutes of its event",
        "latency up to 15 minutes / latency of all",
    ),
)
"""The parts of the score. Weights are whole numbers; the score is Σ weight·num/den ÷ Σ weight over known parts."""

Share = tuple[int, int]
"""Numerator and denominator; a denominator of 0: not known."""


def shares(counts: Counts) -> dict[str, Share]:
    """Part → numerator and denominator, in the order of PARTS."""
    judged = counts.stored + counts.rejected
    standing = counts.stored - counts.withdrawn
    complete = (counts.numbers_there, counts.numbers_expected)
    if not counts.numbers_expected:
        # more rows than declared is a mismatch of totals, not more than complete
        complete = (min(counts.rows_there, counts.rows_declared), counts.rows_declared)
    return {
        "completeness": complete,
        "uniqueness": (judged, judged + counts.duplicates),
        "validity": (2 * standing - counts.warned, 2 * (standing + counts.rejected)),
        "timeliness": (sum(counts.latency[:TIMELY_BUCKETS]), sum(counts.latency)),
    }


def score(parts: Mapping[str, Share]) -> float | None:
    """0 to 1, or None if no part is known."""
    known = [(part.weight, *parts[part.name]) for part in PARTS if parts[part.name][1] > 0]
    if not known:
        return None
    return sum(weight * num / den for weight, num, den in known) / sum(weight for weight, _, _ in known)


def quantile_ms(latency: Sequence[int], share: float) -> float | None:
    """The latency below which ``share`` of the records lie, linear within its bucket; None without records.

    In the last bucket, which has no upper bound, it is that bucket's lower bound: at least so long.
    """
    total = sum(latency)
    if total <= 0:
        return None
    wanted, below = share * total, 0
    for count, lower, upper in zip(latency, (0, *LATENCY_BOUNDS_MS), (*LATENCY_BOUNDS_MS, None), strict=True):
        if count > 0 and below + count >= wanted:
            return float(lower) if upper is None else lower + (upper - lower) * (wanted - below) / count
        below += count
    return float(LATENCY_BOUNDS_MS[-1])
