"""Steps of usage: local dates summed to days, months, bill cycles or one total."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

FIRST_OF_MONTH = 1
"""The bill cycle day of a customer without one."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """``start`` ≤ date < ``end``."""

    start: date
    end: date

    @property
    def days(self) -> int:
        return (self.end - self.start).days


def cycle_of(on: date, day: int) -> Cycle:
    """The bill cycle that holds a date. It starts at local midnight of ``day`` (1 to 31), in a month that is shorter at
    that of the month's last day, and ends where the next one starts."""
    start = _start(on.year, on.month, day)
    if on < start:
        previous = on.replace(day=1) - timedelta(days=1)
        return Cycle(_start(previous.year, previous.month, day), start)
    following = (on.replace(day=1) + timedelta(days=31)).replace(day=1)
    return Cycle(start, _start(following.year, following.month, day))


def cycles(since: date, until: date, day: int) -> list[Cycle]:
    """All whole cycles that touch ``since ≤ date < until``, ascending."""
    found = []
    at = since
    while at < until:
        found.append(cycle_of(at, day))
        at = found[-1].end
    return found


def starts_of(step: str, since: date, until: date, whole: Sequence[Cycle] = ()) -> list[date] | None:
    """First dates of the steps of a range, none before it; None: each day is one."""
    match step:
        case "day":
            return None
        case "month":
            return [max(month.start, since) for month in cycles(since, until, FIRST_OF_MONTH)]
        case "bill_cycle":
            return [cycle.start for cycle in whole]
        case "total":
            return [since]
    raise ValueError(f"no step {step}")


def bill_cycle_day(days: Iterable[int | None]) -> int:
    """What holds for a customer of whose numbers these are the days in force: the least, the first without any."""
    return min((day for day in days if day is not None), default=FIRST_OF_MONTH)


def _start(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))
