"""Usage as JSON: rows by step, bill cycles with allowances, and the records behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from query_api.domain.measures import LATE_MEASURES, USAGE_MEASURES
from query_api.domain.present import listed_charges, usage_kpis
from query_api.domain.ranges import Dates
from query_api.domain.usage_allowances import SERVICES, Terms, Version, allowances, counting
from query_api.domain.usage_cycles import Cycle, starts_of
from query_api.domain.usage_measures import explained
from query_api.parts import Parts
from telestream_domain import MASKED, PSEUDONYM, shown_subscriber
from telestream_warehouse import Holder, holdings, plan_terms, usage, usage_records

RECORDS = 10

_ALLOWANCE_GROUPS = ("subscriber_id", "plan_id", "roaming", "direction")


async def versions_of(parts: Parts, holder: Holder) -> list[Version]:
    """What is known of the customer's identifiers."""
    return [
        Version(
            identifier=row["identifier"],
            kind=row["identifier_kind"],
            valid_from=datetime.fromisoformat(row["valid_from"]),
            valid_to=datetime.fromisoformat(row["valid_to"]),
            mine=row["holder"] is not None and holder.customer_id in (None, row["holder"]),
            plan_id=row["plan_id"],
            bill_cycle_day=row["bill_cycle_day"],
            event=row["event"],
        )
        for row in await parts.warehouse.rows(holdings(holder))
    ]


async def terms_of(parts: Parts, plan_ids: Sequence[str]) -> list[Terms]:
    """All versions of the plans."""
    return [
        Terms(
            row["plan_id"],
            datetime.fromisoformat(row["valid_from"]),
            datetime.fromisoformat(row["valid_to"]),
            row["name"],
            {service.term: row[service.term] for service in SERVICES},
        )
        for row in await parts.warehouse.rows(plan_terms(plan_ids))
    ]


async def rows_of(
    parts: Parts,
    holder: Holder,
    dates: Dates,
    step: str,
    whole: Sequence[Cycle],
    groups: Sequence[str],
    generation: int,
) -> bytes:
    """One row per step and group that has usage, as JSON text."""
    frame = await parts.warehouse.frame(
        usage(
            holder,
            dates.start,
            dates.end,
            parts.settings.business_timezone,
            starts=starts_of(step, dates.start, dates.end, whole),
            group_by=groups,
            generation=generation,
        )
    )
    return await asyncio.to_thread(_rows, frame, groups)


async def cycles_of(
    parts: Parts,
    holder: Holder,
    whole: Sequence[Cycle],
    versions: Sequence[Version],
    day: int,
    today: date,
    generation: int,
) -> bytes:
    """Each cycle with its allowances, as JSON text."""
    zone = parts.settings.zone
    frame = await parts.warehouse.frame(
        usage(
            holder,
            whole[0].start,
            whole[-1].end,
            parts.settings.business_timezone,
            starts=[cycle.start for cycle in whole],
            group_by=_ALLOWANCE_GROUPS,
            generation=generation,
        )
    )
    plans = {version.plan_id for version in versions if version.plan_id is not None}
    if not frame.is_empty():
        plans |= set(frame["plan_id"].cast(pl.String).unique())
        frame = frame.with_columns(
            pl.col("local_date").cast(pl.Date), *(pl.col(name).cast(pl.String) for name in _ALLOWANCE_GROUPS)
        )
    terms = await terms_of(parts, sorted(plans))
    shown = [
        {
            "from": cycle.start.isoformat(),
            "to": cycle.end.isoformat(),
            "bill_cycle_day": day,
            "is_over": cycle.end <= today,
            "allowances": [
                {**row, "subscriber_id": shown_subscriber(row["subscriber_id"])}
                for row in allowances(
                    frame if frame.is_empty() else frame.filter(pl.col("local_date") == cycle.start),
                    versions,
                    terms,
                    cycle,
                    zone,
                )
            ],
        }
        for cycle in whole
    ]
    return _json(shown)


async def explain(parts: Parts, holder: Holder, dates: Dates, generation: int) -> bytes:
    """Member ``explain`` as JSON text: formulas, what counts against allowances, and the earliest records."""
    records = await parts.warehouse.rows(
        usage_records(
            holder,
            dates.start,
            dates.end,
            parts.settings.business_timezone,
            generation=generation,
            limit=RECORDS,
        )
    )
    return _json(
        {
            "measures": explained(),
            "allowances": {service.name: counting(service) for service in SERVICES},
            "records": records,
        }
    )


def _rows(frame: pl.DataFrame, groups: Sequence[str]) -> bytes:
    if frame.is_empty():
        return b"[]"
    named = [pl.col(name).cast(pl.String) for name in groups]
    if "subscriber_id" in groups:
        at = list(groups).index("subscriber_id")
        known = named[at].str.contains(PSEUDONYM)
        named[at] = pl.when(known).then(named[at]).otherwise(pl.lit(MASKED)).alias("subscriber_id")
    shown = frame.select(
        pl.col("local_date").cast(pl.Date).cast(pl.String),
        *named,
        *(pl.col(name).cast(pl.Int64) for name in (*USAGE_MEASURES.all, *LATE_MEASURES)),
        listed_charges("charge_micros"),
    )
    return shown.select("local_date", *groups, *LATE_MEASURES, *usage_kpis()).write_json().encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
