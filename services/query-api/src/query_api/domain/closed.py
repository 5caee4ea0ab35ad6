"""Books of closed hours, remembered: what a request need not count again, and when it has to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from telestream_warehouse import Books

HOUR = timedelta(hours=1)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
MAX_HOURS = 20_000
"""Hours remembered, over all types and sources; the least recently asked for go first."""

KEPT_S = 3_600.0
"""All is counted anew once an hour: what no position and no mutation tells of (a row altered by hand) shows by then."""

MAX_SPANS = 24
"""Ranges of hours that one question may name; beyond that, all in between are counted again."""

Key = tuple[str, int, str | None]
"""Type, generation, source (None: all)."""

Span = tuple[datetime, datetime]
"""Whole hours, ``start`` ≤ hour < ``end``."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The books of all hours of arrival in ``start`` ≤ hour < ``end``; one that is not in ``hours`` is empty.

    ``positions`` is up to where raw was judged when they were counted: below ``sealed`` lie all records of these
    hours (and of earlier ones, without a hole), between the two only reversals can go back to them. ``mark`` tells
    whether rows were changed by hand since, ``counted_s`` is when they were counted, on a monotonic clock.
    """

    start: datetime
    end: datetime
    hours: Mapping[datetime, Books]
    positions: Mapping[int, int]
    mark: str
    counted_s: float

    def holds(self, positions: Mapping[int, int], mark: str, now_s: float) -> bool:
        """Whether they may be used at these positions, once what reversals since went back to is counted again."""
        return (
            mark == self.mark
            and now_s - self.counted_s < KEPT_S
            and all(positions.get(partition, 0) >= position for partition, position in self.positions.items())
        )

    def without(self, changed: Iterable[datetime]) -> tuple[Closed, list[Span]]:
        """With the books of these hours taken out, and which of them have to be counted again."""
        gone = {hour for hour in changed if self.start <= hour < self.end}
        left = {hour: books for hour, books in self.hours.items() if hour not in gone}
        return replace(self, hours=left), spans_of(gone)

    def within(self, wanted: Span) -> list[Books]:
        """The books of hours in a span."""
        return [books for hour, books in self.hours.items() if wanted[0] <= hour < wanted[1]]


class ClosedHours:
    """A bounded memory of ``Closed`` by key; not safe for threads, made for one event loop."""

    def __init__(self, max_hours: int = MAX_HOURS) -> None:
        self._held: OrderedDict[Key, Closed] = OrderedDict()
        self._max_hours = max_hours

    def get(self, key: Key) -> Closed | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: Key, closed: Closed) -> None:
        self._held[key] = closed
        self._held.move_to_end(key)
        while self._held and self.hours > self._max_hours:
            self._held.popitem(last=False)

    def drop(self, key: Key) -> None:
        self._held.pop(key, None)

    def drop_type(self, record_type: str) -> None:
        """Everything of a type, of all its sources and generations."""
        for key in [key for key in self._held if key[0] == record_type]:
            del self._held[key]

    @property
    def hours(self) -> int:
        """Hours held; an entry without any counts as one."""
        return sum(max(1, len(closed.hours)) for closed in self._held.values())


def spans_of(hours: Iterable[datetime]) -> list[Span]:
    """Hours as few spans, ascending; more than MAX_SPANS become one from the first to the last."""
    spans: list[Span] = []
    for hour in sorted(set(hours)):
        if spans and spans[-1][1] == hour:
            spans[-1] = (spans[-1][0], hour + HOUR)
        else:
            spans.append((hour, hour + HOUR))
    return spans if len(spans) <= MAX_SPANS else [(spans[0][0], spans[-1][1])]


def missing(closed: Closed | None, wanted: Span) -> list[Span]:
    """The parts of ``wanted`` that ``closed`` does not have."""
    if closed is None or closed.end <= wanted[0] or closed.start >= wanted[1]:
        return [wanted]
    spans = []
    if wanted[0] < closed.start:
        spans.append((wanted[0], closed.start))
    if closed.end < wanted[1]:
        spans.append((closed.end, wanted[1]))
    return spans


def joined(closed: Closed | None, wanted: Span) -> Span:
    """What is known once ``missing`` is: both where they touch, else ``wanted``, which was asked for last."""
    if closed is None or closed.end < wanted[0] or closed.start > wanted[1]:
        return wanted
    return min(closed.start, wanted[0]), max(closed.end, wanted[1])


def by_hour(books: Sequence[Books]) -> dict[datetime, Books]:
    """Books that were asked for by hour."""
    return {instant_of(str(entry.hour)): entry for entry in books}


def hour_up(at: datetime) -> datetime:
    """The first whole hour at or after a time."""
    hour = hour_down(at)
    return hour if hour == at else hour + HOUR


def hour_down(at: datetime) -> datetime:
    """The whole hour a time lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def instant_of(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
