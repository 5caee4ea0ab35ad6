"""Verdicts, warnings and latency of sources, gathered from the rows of a query; the score is in the domain library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from query_api.domain.ranges import Range
from telestream_domain import CONFLICT, LATENCY_BOUNDS_MS
from telestream_domain.quality import Counts, quantile_ms, score, shares

QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
HOUR = timedelta(hours=1)
Key = tuple[int | None, str, str]
"""Start of the step in epoch ms, source, type; what was not asked for is None or ''."""


@dataclass(slots=True)
class Tally:
    """What the rows of one key add up to. ``latency`` by bucket, of what stands stored."""

    verdicts: dict[str, int] = field(default_factory=dict)
    withdrawn: int = 0
    warned: int = 0
    conflicts: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))
    numbers: tuple[int, int] = (0, 0)
    declared: tuple[int, int] = (0, 0)

    def add(self, row: Mapping[str, Any]) -> None:
        verdict, rule, records = row["verdict"], row["rule"], int(row["records"])
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + records
        if verdict == "DUPLICATE" and rule == CONFLICT:
            self.conflicts += records
        if verdict == "REJECTED" and records:
            self.rejected[rule] = self.rejected.get(rule, 0) + records
        if verdict != "STORED":
            return
        self.withdrawn += int(row["reversals"])
        self.warned += int(row["warned"])
        for code, count in row["warning_counts"].items():
            if int(count):
                self.warnings[code] = self.warnings.get(code, 0) + int(count)
        for bucket, count in enumerate(row["latency_buckets"]):
            self.latency[bucket] += int(count)

    def counts(self) -> Counts:
        return Counts(
            stored=self.verdicts.get("STORED", 0),
            withdrawn=self.withdrawn,
            duplicates=self.verdicts.get("DUPLICATE", 0),
            rejected=self.verdicts.get("REJECTED", 0),
            warned=self.warned,
            latency=tuple(self.latency),
            numbers_there=self.numbers[0],
            numbers_expected=self.numbers[1],
            rows_there=self.declared[0],
            rows_declared=self.declared[1],
        )


def tallied(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Tally]:
    """By key, in the order of the rows."""
    tallies: dict[Key, Tally] = {}
    for row in rows:
        key = (None if row["step_start"] is None else int(row["step_start"]), row["source"], row["type"])
        tallies.setdefault(key, Tally()).add(row)
    return tallies


def judged_shown(tally: Tally) -> dict[str, Any]:
    """The counts as an answer has them."""
    return {
        "accepted": sum(tally.verdicts.values()),
        "stored": tally.verdicts.get("STORED", 0) - tally.withdrawn,
        "withdrawn": tally.withdrawn,
        "duplicates": tally.verdicts.get("DUPLICATE", 0),
        "conflicts": tally.conflicts,
        "rejected": dict(sorted(tally.rejected.items())),
        "erased": tally.verdicts.get("ERASED", 0),
        "warned": tally.warned,
        "warnings": dict(sorted(tally.warnings.items())),
        "latency": latency_shown(tally.latency),
    }


def latency_shown(latency: list[int]) -> dict[str, Any]:
    """The distribution, and what is interpolated from it."""
    bounds: list[int | None] = [*LATENCY_BOUNDS_MS, None]
    return {
        "buckets": [{"to_ms": bound, "records": count} for bound, count in zip(bounds, latency, strict=True)],
        **{name: quantile_ms(latency, share) for name, share in QUANTILES.items()},
    }


def scored(tally: Tally) -> dict[str, Any]:
    """The score and its parts; ``value`` is null where a part cannot be known."""
    parts = shares(tally.counts())
    return {
        "score": score(parts),
        "parts": {
            name: {"value": num / den if den > 0 else None, "num": num, "den": den}
            for name, (num, den) in parts.items()
        },
    }


def whole_hours(asked: Range) -> Range:
    """The hours that begin in a range."""
    return Range(_hour_up(asked.start), _hour_up(asked.end))


def step_start_ms(at: datetime, step: str, zone: ZoneInfo) -> int:
    """Start of the hour (UTC), or of the local day that hour begins in, as the warehouse has it."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if step == "day":
        hour = hour.astimezone(zone).replace(hour=0, minute=0, fold=0)
    return int(hour.timestamp() * 1000)


def _hour_up(at: datetime) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    return hour if hour == at else hour + HOUR
