"""Local days: 23, 24 or 25 hours long, and in some zones they do not begin at midnight."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

EPOCH = date(1970, 1, 1)


def local_midnight(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local date in epoch ms, also where clocks jump over midnight or pass it twice."""
    return int(datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC).timestamp()) * 1_000


@lru_cache(maxsize=4_096)
def day_start(day: int, zone: ZoneInfo) -> int:
    """``local_midnight`` of a day since 1970."""
    return local_midnight(EPOCH + timedelta(days=day), zone)
