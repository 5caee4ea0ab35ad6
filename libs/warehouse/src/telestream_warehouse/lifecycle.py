"""How long rows live, by table. Constants, not settings: books are only true while what they count is there.

Nothing that the books count expires by itself. A fact that a TTL took away would be missing in ``stored`` and so make
``balanced`` false, unless it were counted as expired; as long as ``FACT_TTL`` is None, ``expired`` is 0 by definition.
Space is given back by dropping a generation, and one person's data by erasure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from telestream_warehouse.query import Query

FACT_TTL: timedelta | None = None
"""Facts are kept for as long as their generation. Who gives them a TTL must book hours of arrival wholly past it
as expired (records − reversals of STORED in ``agg_quality``), and never leave part of an hour."""

MINUTE_WINDOWS_TTL = timedelta(days=14)
"""One-minute windows are for now: hours, days and bills are sums of quarter hours."""


@dataclass(frozen=True, slots=True)
class Retention:
    """``ttl`` None: for ever, that is until its generation is dropped. ``rows``: which rows it takes, if not all."""

    ttl: timedelta | None
    why: str
    rows: str = ""


_MINUTES = Retention(
    MINUTE_WINDOWS_TTL, "one-minute windows serve what happens now; quarter hours stay for ever", "size_s = 60"
)

RETENTION: Mapping[str, Retention] = {
    "fact_cdr_all": Retention(FACT_TTL, "the books count stored here"),
    "fact_network_event_all": Retention(FACT_TTL, "the books count stored here"),
    "judgement_all": Retention(None, "the books count accepted, duplicates, rejected and withdrawn here"),
    "duplicate_all": Retention(None, "what a duplicate said can be asked for as long as its judgement"),
    "dead_letter_all": Retention(None, "holds the only readable copy once raw's retention has passed"),
    "agg_cell_all": _MINUTES,
    "agg_region_all": _MINUTES,
    "agg_plan_all": _MINUTES,
    "agg_subscriber_day_all": Retention(None, "bills and usage are asked for years later"),
    "agg_quality_all": Retention(None, "a row per source, hour, verdict and rule: small"),
}


def ttls() -> Query:
    """``name``, ``ttl`` of each table of ``RETENTION``: the TTL clause as ClickHouse has it, '' if there is none."""
    return Query(
        "SELECT name, extract(create_table_query, '\\\\sTTL (.*?)(?: SETTINGS|$)') AS ttl FROM system.tables "
        "WHERE database = currentDatabase() AND name IN {tables:Array(String)}",
        {"tables": list(RETENTION)},
    )


def differing_ttls(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each table whose TTL is not what ``RETENTION`` says; of rows that ``ttls`` gave.

    A TTL that somebody set by hand on a table of the books makes them false as soon as it takes a row away.
    """
    found = []
    for row in rows:
        name, ttl = str(row["name"]), str(row["ttl"]).strip()
        wanted = _clause(RETENTION[name])
        if ttl != wanted:
            found.append(f"{name}: TTL is {ttl or 'none'}, should be {wanted or 'none'}")
    return sorted(found)


def _clause(retention: Retention) -> str:
    if retention.ttl is None:
        return ""
    rows = f" WHERE {retention.rows}" if retention.rows else ""
    return f"toDateTime(window_start) + toIntervalDay({retention.ttl.days}){rows}"
