"""One comparison of two generations of a type, slice by slice of raw offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from fastapi import Request

from query_api.compare_slices import Answers, answered
from query_api.compare_windows import windows_of
from query_api.domain.compare import Grounds, Touched, changed_codes, explained, unknown_originals
from query_api.domain.compare_kpis import Days, compared, not_compared
from query_api.domain.compare_tally import Reasons, Side, Sums, slices
from query_api.domain.problems import Problem
from query_api.domain.ranges import from_ms
from query_api.parts import Parts
from telestream_domain.rule_changes import RuleChanges
from telestream_opstore import Derivation
from telestream_warehouse.compare import judged_from, judged_otherwise
from telestream_warehouse.compare_facts import compared_subscribers
from telestream_warehouse.compare_spans import SLICE_RECORDS, Pair, Span

MOST_RECORDS = 50_000_000
"""Records of a type that one answer compares: what is more takes minutes, and is asked for by range of arrival."""

MOST_LOOKED_UP = 5_000
"""Originals from before the range that are looked up in one question."""

Group = Literal["day", "region", "source", "rule", "kpi"]


@dataclass(frozen=True, slots=True)
class Asked:
    by: Group
    zone: ZoneInfo
    since: datetime | None
    until: datetime | None
    all: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Reached:
    """How far one generation has come: partition → first raw offset judged, and the one behind the last stored."""

    first: Mapping[int, int]
    next: Mapping[int, int]

    def within(self, partition: int) -> tuple[int, int]:
        first = self.first.get(partition, 0)
        return first, max(first, self.next.get(partition, 0)) if partition in self.first else first


@dataclass(frozen=True, slots=True)
class Common:
    """``spans``: what is compared. ``whole``: the same without bounds of time. Counts are of ``this`` and ``other``."""

    spans: list[Span]
    whole: list[Span]
    before_start: tuple[int, int]
    not_yet: tuple[int, int]


@dataclass(slots=True)
class Sides:
    """Both sides of one group."""

    this: Any
    other: Any


@dataclass(slots=True)
class Found:
    """What the slices of one type came to."""

    groups: dict[str, Sides] = field(default_factory=dict)
    total: Sides = field(default_factory=lambda: Sides(Side(), Side()))
    reasons: Reasons = field(default_factory=Reasons)

    def add(self, answers: Answers, pair: Pair) -> None:
        """The totals of one slice."""
        for row in answers.totals:
            sides = self.groups.setdefault(row["group"], Sides(Side(), Side()))
            for both in (sides, self.total):
                (both.this if row["generation"] == pair.this else both.other).add(row)
        for row in answers.regions:
            sides = self.groups.setdefault(f"region:{row['group']}", Sides(Sums(), Sums()))
            (sides.this if row["generation"] == pair.this else sides.other).add(row)


async def compare_type(
    parts: Parts, request: Request, record_type: str, this: Derivation, other: Derivation, asked: Asked
) -> dict[str, Any]:
    """``this`` with ``other``, as the route answers it. Raises Problem."""
    pair = Pair(record_type, this.generation, other.generation)
    mine, theirs = await asyncio.gather(*(_reached(parts, record_type, g) for g in (pair.this, pair.other)))
    bounds = await _bounds(parts, pair, asked)
    common = _common(mine, theirs, bounds)
    compared_records = sum(map(len, common.spans))
    if compared_records > MOST_RECORDS:
        raise Problem(
            422,
            "too_wide",
            f"{compared_records:,} records of {record_type} would be compared, at most {MOST_RECORDS:,} are: "
            "narrow it by from and to",
        )
    grounds = Grounds(
        record_type,
        changed=changed_codes(
            RuleChanges.from_json(this.plan.rules), RuleChanges.from_json(other.plan.rules), record_type
        ),
        this_began=mine.first,
        other_began=theirs.first,
        pinned_below=_pinned(this, other, record_type),
    )
    found, touched, days = Found(), Touched(common.whole), (Days(asked.zone), Days(asked.zone))
    for spans in slices(common.spans, SLICE_RECORDS):
        if await request.is_disconnected():
            raise Problem(499, "gone", "nobody waits for the answer")
        async for answers in answered(parts, pair, spans, asked.by, asked.zone.key):
            found.add(answers, pair)
            for row in answers.kpis:
                days[row["generation"] != pair.this].add(row, record_type)
            await _look_up(parts, pair, answers.verdicts, touched, common)
            known = grounds.with_rules(answers.rules_differ)
            found.reasons.add(await asyncio.to_thread(explained, answers.verdicts, answers.facts, known, touched))
    if asked.by == "kpi" and record_type == "cdr" and common.spans:
        for row in await parts.warehouse.rows(compared_subscribers(pair, common.spans, asked.zone.key)):
            day = from_ms(int(row["day_ms"])).astimezone(asked.zone).date()
            days[row["generation"] != pair.this].sums[day]["distinct_estimate"] += int(row["subscribers"])
    shown = _groups(asked, found)
    body: dict[str, Any] = {
        "type": record_type,
        "with": pair.other,
        "spans": [{"partition": span.partition, "first": span.first, "end": span.end} for span in common.spans],
        "records": compared_records,
        "before_start": {"this": common.before_start[0], "other": common.before_start[1]},
        "not_yet": {"this": common.not_yet[0], "other": common.not_yet[1]},
        "differing": found.reasons.records,
        "this": found.total.this.shown(),
        "other": found.total.other.shown(),
        "difference": found.total.this.shown(found.total.other),
        "causes": found.reasons.shown(compared_records),
        "groups": [] if asked.by == "kpi" else shown[: asked.limit],
        "kpis": [],
        "kpis_not_compared": [],
        "truncated": len(shown) > asked.limit,
        "windows": await windows_of(parts, pair, common.spans, mine.within, theirs.within),
    }
    if asked.by == "kpi":
        by_day = compared(record_type, *days, differing=not asked.all)
        body |= {
            "kpis": by_day[: asked.limit],
            "kpis_not_compared": not_compared(record_type),
            "truncated": len(by_day) > asked.limit,
        }
    return body


async def _reached(parts: Parts, record_type: str, generation: int) -> Reached:
    # positions first: what lies below them is in all tables
    positions = await parts.positions(record_type, generation)
    rows = await parts.warehouse.rows(judged_from(record_type, generation))
    return Reached({int(row["partition"]): int(row["first"]) for row in rows}, positions)


async def _bounds(parts: Parts, pair: Pair, asked: Asked) -> dict[int, tuple[int | None, int | None]] | None:
    """Partition → raw offsets from which on records arrived at ``from``, and at ``to``; None: no bounds."""
    if asked.since is None and asked.until is None:
        return None
    rows = await parts.warehouse.rows(judged_from(pair.record_type, pair.this, asked.since, asked.until))
    past = 2**63
    return {
        int(row["partition"]): (
            None if asked.since is None else past if row["since"] is None else int(row["since"]),
            None if row["until"] is None else int(row["until"]),
        )
        for row in rows
    }


def _common(mine: Reached, theirs: Reached, bounds: Mapping[int, tuple[int | None, int | None]] | None) -> Common:
    spans, whole = [], []
    before, behind = [0, 0], [0, 0]
    for partition in sorted({*mine.first, *theirs.first}):
        sides = [reached.within(partition) for reached in (mine, theirs)]
        there = [partition in reached.first for reached in (mine, theirs)]
        first = max((side[0] for side, is_there in zip(sides, there, strict=True) if is_there), default=0)
        end = min(side[1] if is_there else first for side, is_there in zip(sides, there, strict=True))
        for number, (begun, reached) in enumerate(sides):
            before[number] += max(0, min(first, reached) - begun)
            behind[number] += max(0, reached - max(end, first, begun))
        if end <= first:
            continue
        whole.append(Span(partition, first, end))
        since, until = (None, None) if bounds is None else bounds.get(partition, (None, None))
        asked = Span(partition, min(end, max(first, since or first)), min(end, end if until is None else until))
        if len(asked):
            spans.append(asked)
    return Common(spans, whole, (before[0], before[1]), (behind[0], behind[1]))


def _pinned(this: Derivation, other: Derivation, record_type: str) -> dict[int, int]:
    """Raw offsets below which both were judged with the same versions of all reference data."""
    if not this.plan.reference or this.plan.reference != other.plan.reference:
        return {}
    ends = [derivation.plan.ends.get(record_type, {}) for derivation in (this, other)]
    return {partition: min(end[partition] for end in ends) for partition in {*ends[0]} & {*ends[1]}}


async def _look_up(parts: Parts, pair: Pair, verdicts: pl.DataFrame, touched: Touched, common: Common) -> None:
    """What lies before the range asked for is not compared, but may explain what lies in it."""
    firsts = {span.partition: span.first for span in common.spans}
    starts = {span.partition: span.first for span in common.whole}
    for partition, offsets in unknown_originals(verdicts, firsts, starts).items():
        for begin in range(0, len(offsets), MOST_LOOKED_UP):
            chosen = offsets[begin : begin + MOST_LOOKED_UP]
            frame = await parts.warehouse.frame(judged_otherwise(pair, partition, chosen))
            if not frame.is_empty():
                touched.judged.mark(partition, frame["offset"].cast(pl.Int64).to_numpy())


def _groups(asked: Asked, found: Found) -> list[dict[str, Any]]:
    """Days in their order, other groups with most difference first."""
    if asked.by == "kpi":
        return []
    groups = []
    for key, sides in found.groups.items():
        if asked.by == "region" and not key.startswith("region:"):
            continue
        entry = {
            "key": _key(asked, key),
            "this": sides.this.shown(),
            "other": sides.other.shown(),
            "difference": sides.this.shown(sides.other),
        }
        if asked.all or entry["this"] != entry["other"]:
            groups.append(entry)
    if asked.by == "day":
        return sorted(groups, key=lambda entry: str(entry["key"]))
    return sorted(groups, key=lambda entry: (-_size(entry["difference"]), str(entry["key"])))


def _key(asked: Asked, key: str) -> str:
    if asked.by == "day":
        return from_ms(int(key)).astimezone(asked.zone).date().isoformat()
    return key.removeprefix("region:") if asked.by == "region" else key


def _size(difference: Mapping[str, Any]) -> int:
    records: int = difference["records"]
    standing: int = difference["sums"]["records"] if "sums" in difference else 0
    return abs(records) + abs(standing)
