"""Windows that changed after they were complete, in the order in which they last did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import physical

_GROUPS = {
    "cell": ("cell_id", 900),
    "region": ("region_id", 900),
    "plan": ("plan_id", 900),
    # a day of a subscriber names a person: the days are given, not whose they are
    "subscriber_day": ("toString(local_date)", 86_400),
}
AMENDED_FAMILIES = tuple(_GROUPS)
Place = tuple[int, int, int]
"""``late_ms``, ``window_ms`` and ``place`` of the last row of a page."""


def amendments(
    since: datetime,
    generations: Mapping[str, int],
    families: Sequence[str] = AMENDED_FAMILIES,
    *,
    after: Place | None = None,
    limit: int = 100,
) -> Query:
    """Windows of which a late record or a reversal came at or after ``since``, the first to change first.

    ``family``, ``type``, ``size_s``, ``window_ms``, ``group`` (of subscriber-days the local date, all subscribers
    together), ``windows`` (1; of subscriber-days how many), ``late_records``, ``reversals``, ``late_ms``, ``place``.
    """
    params: dict[str, Parameter] = {
        "since_ms": math.floor(since.timestamp() * 1000),
        "types": list(generations),
        "generations": list(generations.values()),
    }
    behind = ""
    if after is not None:
        behind = "WHERE (late_ms, window_ms, place) > ({late:Int64}, {window:Int64}, {place:Int64})\n"
        params |= {"late": after[0], "window": after[1], "place": after[2]}
    families_sql = "\nUNION ALL\n".join(_family(family) for family in families)
    sql = f"SELECT * FROM\n(\n{families_sql}\n)\n{behind}ORDER BY late_ms, window_ms, place\nLIMIT {int(limit)}"
    return Query(sql, params)


def _family(family: str) -> str:
    group, size_s = _GROUPS[family]
    of_person = family == "subscriber_day"
    key = "type, window_start" if of_person else f"type, {group}, window_start"
    table = physical(f"agg_{family}")
    active = (
        "generation IN {generations:Array(UInt32)} AND "
        "has(arrayZip({types:Array(String)}, {generations:Array(UInt32)}), (toString(type), generation)) "
        f"AND size_s = {size_s}"
    )
    touched = "late_ms >= {since_ms:Int64}"
    windows = "uniqExact(subscriber_id)" if of_person else "toUInt64(1)"
    # a newer state of a window is never less late, so the index may skip rows before the newest is chosen
    return f"""SELECT
    '{family}' AS family,
    toString(w.type) AS type,
    toUInt32({size_s}) AS size_s,
    toUnixTimestamp64Milli(w.window_start) AS window_ms,
    toString({group}) AS group,
    {windows} AS windows,
    sum(w.late_records) AS late_records,
    sum(w.reversals) AS reversals,
    max(w.late_ms) AS late_ms,
    toInt64(bitShiftRight(cityHash64('{family}', type, group), 2)) AS place
FROM (SELECT *, late_ms FROM {table} FINAL
      WHERE {active} AND ({key}) IN (SELECT {key} FROM {table} WHERE {active} AND {touched})
        {f"AND {touched}" if of_person else ""}) AS w
GROUP BY w.type, w.window_start, group"""
