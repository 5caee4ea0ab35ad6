"""The steps of a range: by the clock of UTC up to a quarter hour, hours and days by the clock of a zone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from query_api.domain.problems import Problem
from query_api.domain.ranges import Range, to_ms

STEPS_S: dict[str, int | None] = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": None}
"""Name of a step → its seconds; None: local days, which have 23 to 25 hours."""

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Step:
    """``label``: when it began by its zone's clock, as the warehouse names it; ``start`` ≤ t < ``end``: the part of it
    that lies in the range. All in UTC."""

    label: datetime
    start: datetime
    end: datetime

    @property
    def length_ms(self) -> int:
        return to_ms(self.end) - to_ms(self.start)


def steps_of(asked: Range, step: str, zone: ZoneInfo, most: int) -> list[Step]:
    """All steps that touch the range, ascending, cut to it. Raises Problem where there are more than ``most``."""
    size_s = STEPS_S[step]
    if (asked.end - asked.start).total_seconds() / (size_s or 86_400) > most:
        raise Problem(
            422, "too_wide", f"step: more than {most} steps; ask for a longer step or a shorter range", "step"
        )
    whole = _days(asked, zone) if size_s is None else _clock(asked, size_s, zone)
    return [
        Step(label, max(start, asked.start), min(end, asked.end))
        for label, start, end in whole
        if start < asked.end and end > asked.start
    ]


def past(steps: list[Step], now: datetime) -> list[Step]:
    """The steps as far as they are over."""
    return [Step(step.label, step.start, min(step.end, now)) for step in steps if step.start < now]


def _days(asked: Range, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime, datetime]]:
    day = asked.start.astimezone(zone).date()
    start = _midnight(day, zone)
    while start < asked.end:
        day += timedelta(days=1)
        end = _midnight(day, zone)
        # a day that a zone left out when it changed sides of the date line has no length
        if end > start:
            yield start, start, end
        start = end


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, also where its clock skips midnight or has it twice."""
    at = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    if at.astimezone(zone).date() < day or at.astimezone(zone).hour:
        # midnight was skipped: the day begins when the clock jumps over it
        low, high = at - timedelta(hours=26), at + timedelta(hours=26)
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            low, high = (middle, high) if middle.astimezone(zone).date() < day else (low, middle)
        at = high.replace(microsecond=0)
    return at


def _clock(asked: Range, size_s: int, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime, datetime]]:
    size = timedelta(seconds=size_s)
    if size < _HOUR:
        at = datetime.fromtimestamp(int(asked.start.timestamp()) // size_s * size_s, UTC)
        while at < asked.end:
            yield at, at, at + size
            at += size
        return
    at, held = asked.start, None
    while at < asked.end:
        label = _label(at, zone)
        start = max(label, _since(at, label, zone))
        end = label + _HOUR
        at = _changed(start, end, zone) or end
        if held is not None and held[0] == label:
            # where the clock is put within an hour whose other half keeps its name
            held = label, held[1], at
            continue
        if held is not None:
            yield held
        held = label, start, at
    if held is not None:
        yield held


def _label(at: datetime, zone: ZoneInfo) -> datetime:
    offset = at.astimezone(zone).utcoffset() or timedelta()
    return datetime.fromtimestamp(int((at + offset).timestamp()) // 3_600 * 3_600, UTC) - offset


def _since(at: datetime, label: datetime, zone: ZoneInfo) -> datetime:
    """Where the clock was put to its offset at ``at``, if after ``label``."""
    quarter = timedelta(minutes=15)
    found = at - timedelta(seconds=at.timestamp() % 900)
    while found > label and (found - quarter).astimezone(zone).utcoffset() == at.astimezone(zone).utcoffset():
        found -= quarter
    return found


def _changed(start: datetime, end: datetime, zone: ZoneInfo) -> datetime | None:
    """When the clock was put within the hour, if it was: on a quarter hour, as all zones do."""
    offset = start.astimezone(zone).utcoffset()
    if (end - timedelta(minutes=15)).astimezone(zone).utcoffset() == offset:
        return None
    at = start
    while at < end:
        if at.astimezone(zone).utcoffset() != offset:
            return at
        at += timedelta(minutes=15)
    return None
