"""KPIs of two generations by local day of events, both counted up to the same raw offset."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from query_api.domain.ranges import from_ms, to_ms
from telestream_domain.kpis import KPIS, WINDOW_MS, Basis, Kpi, Shown, shown

QUARTER_MS = 900_000
HOUR_MS = 4 * QUARTER_MS


@dataclass(slots=True)
class Days:
    """One generation's sums by local day."""

    zone: ZoneInfo
    sums: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    traffic: defaultdict[date, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, row: Mapping[str, Any], record_type: str) -> None:
        """A row of ``compared_kpis``."""
        at_ms = int(row["quarter_ms"])
        day = from_ms(at_ms).astimezone(self.zone).date()
        for name, value in row.items():
            if name not in ("generation", "quarter_ms", "records"):
                self.sums[day][name] += int(value)
        self.sums[day]["records" if record_type == "cdr" else "events"] += int(row["records"])
        self.traffic[day][at_ms] += int(row.get("holding_ms", 0))

    def shown(self, day: date, kpi: Kpi) -> Shown:
        """The KPI of one day; of a day without records it is null."""
        sums = self.sums.get(day, Counter())
        beside: dict[str, int | float] = {WINDOW_MS: self._ends(day) - self._begins(day)}
        if kpi.basis is Basis.BUSY_HOUR:
            beside |= {"holding_ms": self._busiest(day), "hour_ms": HOUR_MS}
        return shown(kpi, {**sums, **beside})

    def _busiest(self, day: date) -> int:
        """Of an hour that begins at a quarter and ends within the day."""
        traffic = self.traffic.get(day, Counter())
        last = self._ends(day) - HOUR_MS
        starts = {min(at, last) for at in traffic}
        return max((sum(traffic[start + n * QUARTER_MS] for n in range(4)) for start in starts), default=0)

    def _begins(self, day: date) -> int:
        return to_ms(datetime.combine(day, time(), self.zone).astimezone(UTC))

    def _ends(self, day: date) -> int:
        return self._begins(day + timedelta(days=1))


def compared(record_type: str, this: Days, other: Days, differing: bool) -> list[dict[str, Any]]:
    """One entry per day: of each KPI both values with numerator and denominator, and their difference.

    ``differing``: only KPIs, and days, that differ.
    """
    days = []
    for day in sorted({*this.sums, *other.sums}):
        kpis = {}
        for kpi in compared_kpis_of(record_type):
            mine, theirs = this.shown(day, kpi), other.shown(day, kpi)
            if differing and (mine.num, mine.den) == (theirs.num, theirs.den):
                continue
            known = mine.value is not None and theirs.value is not None
            kpis[kpi.name] = {
                "this": _shown(mine),
                "other": _shown(theirs),
                "difference": mine.value - theirs.value if known else None,  # type: ignore[operator]
            }
        if kpis or not differing:
            days.append({"day": day.isoformat(), "kpis": kpis})
    return days


def compared_kpis_of(record_type: str) -> Iterable[Kpi]:
    """The KPIs that records between two raw offsets can tell."""
    return (kpi for kpi in KPIS if kpi.needs == {record_type} and kpi.basis is not Basis.AVAILABILITY)


def not_compared(record_type: str) -> list[str]:
    """The others: an outage lasts until an event that may lie behind both."""
    return [kpi.name for kpi in KPIS if kpi.needs == {record_type} and kpi.basis is Basis.AVAILABILITY]


def _shown(found: Shown) -> dict[str, float | None]:
    return {"value": found.value, "num": found.num, "den": found.den}
