"""Ranges of time as people write them: local dates or instants, ``from`` ≤ t < ``to``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from query_api.domain.problems import Problem, bad_parameter

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH_MS = re.compile(r"[0-9]{13}")
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Range:
    """``start`` ≤ t < ``end``, both aware, in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Dates:
    """``start`` ≤ date < ``end``."""

    start: date
    end: date


def zone_of(name: str, parameter: str = "tz") -> ZoneInfo:
    """The IANA zone of that name; raises Problem."""
    if name not in _zones():
        raise bad_parameter(parameter, "not an IANA time zone such as Europe/Paris")
    return ZoneInfo(name)


def _zones() -> frozenset[str]:
    global _known
    if _known is None:
        _known = frozenset(available_timezones())
    return _known


_known: frozenset[str] | None = None


def instant(text: str, zone: ZoneInfo, parameter: str) -> datetime:
    """An ISO 8601 instant with zone, 13 digits of epoch milliseconds, or a date: the start of that local day."""
    try:
        if _DATE.fullmatch(text):
            at = datetime.combine(date.fromisoformat(text), datetime.min.time(), zone)
        elif _EPOCH_MS.fullmatch(text):
            at = datetime.fromtimestamp(int(text) / 1000, UTC)
        else:
            # a "+" that a client forgot to escape arrives as a space
            at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError):
        raise _bad_time(parameter) from None
    if at.tzinfo is None:
        raise _bad_time(parameter)
    at = at.astimezone(UTC)
    if not EARLIEST <= at <= LATEST:
        raise bad_parameter(parameter, "outside the years 2000 to 2099", "bad_time")
    return at


def range_of(
    start: str | None, end: str | None, zone: ZoneInfo, now: datetime, default: timedelta, longest: timedelta
) -> Range:
    """``from`` and ``to``; without them the ``default`` up to now. Raises Problem naming the parameter."""
    until = now if end is None else instant(end, zone, "to")
    since = until - default if start is None else instant(start, zone, "from")
    if since >= until:
        raise bad_parameter("to", "must lie after from")
    if until - since > longest:
        raise bad_parameter("from", f"more than {_words(longest)} before to: ask for less")
    return Range(since, until)


def dates_of(
    start: str | None, end: str | None, zone: ZoneInfo, now: datetime, default: timedelta, longest: timedelta
) -> Dates:
    """Local dates ``from`` ≤ date < ``to``; an instant counts as its local date, ``to`` rounded up to a whole day."""
    today = now.astimezone(zone).date()
    until = today + timedelta(days=1) if end is None else _date_up(instant(end, zone, "to").astimezone(zone))
    since = until - default if start is None else instant(start, zone, "from").astimezone(zone).date()
    if since >= until:
        raise bad_parameter("to", "must lie after from")
    if until - since > longest:
        raise bad_parameter("from", f"more than {_words(longest)} before to: ask for less")
    return Dates(since, until)


def iso(at: datetime) -> str:
    """UTC with milliseconds, as all instants are written."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def iso_ms(epoch_ms: int | None) -> str | None:
    """The same from epoch milliseconds."""
    return None if epoch_ms is None else iso(from_ms(epoch_ms))


def from_ms(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms // 1000, UTC) + timedelta(milliseconds=epoch_ms % 1000)


def to_ms(at: datetime) -> int:
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return delta // timedelta(milliseconds=1)


def _date_up(at: datetime) -> date:
    day = at.date()
    return day if at.timetz().replace(tzinfo=None) == datetime.min.time() else day + timedelta(days=1)


def _bad_time(parameter: str) -> Problem:
    return bad_parameter(
        parameter, "not a time: a date, ISO 8601 with zone, or epoch milliseconds (13 digits)", "bad_time"
    )


def _words(length: timedelta) -> str:
    return f"{length.days} days" if length.days else f"{int(length.total_seconds() // 3600)} hours"
