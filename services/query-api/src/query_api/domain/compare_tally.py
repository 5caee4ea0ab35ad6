"""Sums over the slices of a comparison, and how they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from query_api.domain.compare import SHOWN, Cause
from telestream_warehouse.compare_spans import Span

SAMPLES = 10
MOST_PLACES = 20
"""Sources and regions that a cause names, those with most records first."""


@dataclass(slots=True)
class Sums:
    """``charge_micros`` by currency."""

    records: int = 0
    duration_ms: int = 0
    bytes: int = 0
    charge_micros: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any], sign: int = 1) -> None:
        self.records += sign * int(row["records"])
        self.duration_ms += sign * int(row["duration_ms"])
        self.bytes += sign * int(row["bytes"])
        self.charge_micros[row["currency"] or ""] += sign * int(row["charge_micros"])

    def shown(self, less: Sums | None = None) -> dict[str, Any]:
        """The sums, or the difference to others."""
        other = less or Sums()
        charges = {
            currency: self.charge_micros[currency] - other.charge_micros[currency]
            for currency in sorted({*self.charge_micros, *other.charge_micros})
        }
        return {
            "records": self.records - other.records,
            "duration_ms": self.duration_ms - other.duration_ms,
            "bytes": self.bytes - other.bytes,
            "charges": [
                {"currency": currency, "amount": _amount(micros)}
                for currency, micros in charges.items()
                if currency and micros
            ],
        }


@dataclass(slots=True)
class Side:
    """What one generation made of some records; ``standing``: what is stored, with reversals taken out."""

    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    standing: Sums = field(default_factory=Sums)

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of ``compared_totals``."""
        records, verdict, back = int(row["records"]), row["verdict"], row["sign"] < 0
        self.counts["records"] += records
        self.counts["warned"] += int(row["warned"])
        if verdict == "REJECTED":
            self.rejected[row["rule"]] += records
        name = {"STORED": "withdrawn", "DUPLICATE": "without_effect"} if back else _NAMES
        self.counts[name.get(verdict, verdict.lower())] += records
        if verdict == "DUPLICATE" and row["rule"]:
            self.counts["conflicts"] += records
        if verdict == "STORED":
            self.standing.add(row, -1 if back else 1)

    def shown(self, less: Side | None = None) -> dict[str, Any]:
        other = less or Side()
        rejected = {code: self.rejected[code] - other.rejected[code] for code in {*self.rejected, *other.rejected}}
        return {
            **{name: self.counts[name] - other.counts[name] for name in COUNTS},
            "rejected": {code: count for code, count in sorted(rejected.items()) if count},
            "sums": self.standing.shown(other.standing),
        }


_NAMES = {"STORED": "stored", "DUPLICATE": "duplicates", "REJECTED": "rejected_records", "ERASED": "erased"}
COUNTS = (
    *("records", "stored", "withdrawn", "duplicates", "conflicts", "rejected_records", "erased"),
    *("without_effect", "warned"),
)


@dataclass(slots=True)
class Reason:
    """The records that differ for one cause (and rule): how many, which, where."""

    sums: Sums = field(default_factory=Sums)
    verdicts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def shown(self, of: int) -> dict[str, Any]:
        """``of``: how many records were compared."""
        return {
            **{name: value for name, value in self.sums.shown().items() if name == "records"},
            "share": self.sums.records / of if of else 0.0,
            "sums": self.sums.shown(),
            "verdicts": [
                {**_both(key), "records": count} for key, count in sorted(self.verdicts.items(), key=_most_first)
            ],
            "by_source": _places(self.sources, "source"),
            "by_region": _places(self.regions, "region_id"),
            "columns": dict(sorted(self.columns.items(), key=_most_first)),
            "samples": self.samples,
        }


class Reasons:
    """Why records differ, over all slices."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Reason] = {}

    @property
    def records(self) -> int:
        return sum(reason.sums.records for reason in self.found.values())

    def add(self, records: pl.DataFrame) -> None:
        """What ``explained`` gave for one slice."""
        if records.is_empty():
            return
        keys = ["cause", "code", *SHOWN, "source", "region_id", "columns", "currency"]
        sums = records.group_by(keys).agg(
            pl.len().alias("records"), pl.col("duration_ms", "bytes", "charge_micros").sum()
        )
        for row in sums.iter_rows(named=True):
            reason = self.found.setdefault((row["cause"], row["code"]), Reason())
            count = row["records"]
            reason.sums.add(row)
            reason.verdicts[tuple(row[name] for name in SHOWN)] += count
            reason.sources[row["source"]] += count
            reason.regions[row["region_id"]] += count
            for column in row["columns"].split(","):
                reason.columns[column] += count
        first = records.group_by("cause", "code", maintain_order=True).head(SAMPLES)
        for row in first.iter_rows(named=True):
            samples = self.found[row["cause"], row["code"]].samples
            if len(samples) < SAMPLES:
                samples.append(
                    {
                        "partition": row["partition"],
                        "offset": row["offset"],
                        "source": row["source"],
                        **_both(tuple(row[name] for name in SHOWN)),
                        "columns": row["columns"].split(","),
                    }
                )

    def shown(self, of: int) -> list[dict[str, Any]]:
        """Causes in their order, of each the rule with most records first."""
        order = {str(cause): place for place, cause in enumerate(Cause)}
        entries = sorted(self.found.items(), key=lambda entry: (order[entry[0][0]], -entry[1].sums.records, entry[0]))
        return [{"cause": cause, "rule": code or None, **reason.shown(of)} for (cause, code), reason in entries]


def slices(spans: Sequence[Span], most: int) -> Iterator[list[Span]]:
    """The spans in ascending order, cut and put together to ``most`` offsets each."""
    piece: list[Span] = []
    room = most
    for span in spans:
        first = span.first
        while first < span.end:
            end = min(span.end, first + room)
            piece.append(Span(span.partition, first, end))
            room -= end - first
            first = end
            if not room:
                yield piece
                piece, room = [], most
    if piece:
        yield piece


def _amount(micros: int) -> str:
    """Millionths as exact decimal text."""
    return f"{'-' if micros < 0 else ''}{abs(micros) // 1_000_000}.{abs(micros) % 1_000_000:06d}"


def _both(key: Sequence[str]) -> dict[str, Any]:
    this_verdict, this_rule, other_verdict, other_rule = key
    return {
        "this": {"verdict": this_verdict or None, "rule": this_rule or None},
        "other": {"verdict": other_verdict or None, "rule": other_rule or None},
    }


def _places(counts: Counter[str], name: str) -> list[dict[str, Any]]:
    most = sorted(counts.items(), key=_most_first)[:MOST_PLACES]
    return [{name: place, "records": count} for place, count in most]


def _most_first(entry: tuple[Any, int]) -> tuple[int, Any]:
    return -entry[1], entry[0]
