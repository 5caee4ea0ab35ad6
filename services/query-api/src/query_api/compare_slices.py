"""What ClickHouse says of one slice of two generations. A slice that it has no time for is asked in halves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import xor
from typing import Any

import polars as pl

from query_api.domain.compare import typed
from query_api.domain.compare_tally import slices
from query_api.domain.problems import Problem
from query_api.domain.ranges import from_ms
from query_api.parts import Parts
from telestream_warehouse.compare import By, compared_totals, verdict_differences
from telestream_warehouse.compare_facts import compared_kpis, fact_differences, region_totals, rules_versions
from telestream_warehouse.compare_spans import Pair, Span

SMALLEST_SLICE = 1 << 14
"""Raw offsets; what takes too long for these does so for another reason."""

_GROUPS: Mapping[str, By] = {"day": "day", "source": "source", "rule": "rule"}


@dataclass(frozen=True, slots=True)
class Answers:
    """``totals``: rows of ``compared_totals``. ``verdicts`` and ``facts``: records that differ. ``rules_differ``: rules
    of two versions. ``regions`` and ``kpis``: only where asked for."""

    totals: list[dict[str, Any]]
    verdicts: pl.DataFrame
    facts: pl.DataFrame
    rules_differ: bool
    regions: list[dict[str, Any]]
    kpis: list[dict[str, Any]]


async def answered(parts: Parts, pair: Pair, spans: Sequence[Span], by: str, time_zone: str) -> AsyncIterator[Answers]:
    """The slice, or its parts in ascending order. Raises Problem."""
    try:
        found = await _ask(parts, pair, spans, by, time_zone)
    except Problem as err:
        records = sum(map(len, spans))
        if err.code != "too_wide" or records <= SMALLEST_SLICE:
            raise
        for half in slices(spans, (records + 1) // 2):
            async for part in answered(parts, pair, half, by, time_zone):
                yield part
    else:
        yield found


async def _ask(parts: Parts, pair: Pair, spans: Sequence[Span], by: str, time_zone: str) -> Answers:
    group = _GROUPS.get(by, "all")
    totals = await parts.warehouse.frame(compared_totals(pair, spans, group, time_zone))
    arrived = _arrived(totals)
    rows = list(totals.iter_rows(named=True))
    verdicts = pl.DataFrame()
    # of two that judged alike every hash is there twice
    if reduce(xor, (row["fingerprint"] for row in rows), 0):
        verdicts = await parts.warehouse.frame(verdict_differences(pair, spans))
    facts = await parts.warehouse.frame(fact_differences(pair, spans, arrived))
    differ = False
    if not (verdicts.is_empty() and facts.is_empty()):
        versions = await parts.warehouse.rows(rules_versions(pair, spans, arrived))
        differ = len(versions) == 2 and versions[0]["versions"] != versions[1]["versions"]
    regions = await parts.warehouse.rows(region_totals(pair, spans)) if by == "region" else []
    kpis = await parts.warehouse.rows(compared_kpis(pair, spans)) if by == "kpi" else []
    return Answers(rows, typed(verdicts, facts=False), typed(facts, facts=True), differ, regions, kpis)


def _arrived(totals: pl.DataFrame) -> tuple[datetime, datetime] | None:
    """When the first and the last of a slice arrived: facts of other times need not be read."""
    own = totals.filter(pl.col("sign") > 0) if totals.height else totals
    if own.is_empty():
        return None
    first, last = own["first_arrival"].min(), own["last_arrival"].max()
    return from_ms(int(first)), from_ms(int(last))  # type: ignore[arg-type]
