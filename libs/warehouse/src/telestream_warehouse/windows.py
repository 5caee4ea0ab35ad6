"""KPIs from windows: sums, never ratios."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import measures, source

GROUP_OF_FAMILY = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
QUARTER_HOUR_S = 900
STEPS_S = (60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200)


def window_kpis(
    family: str,
    since: datetime,
    until: datetime,
    *,
    step_s: int | None = 3600,
    time_zone: str = "UTC",
    groups: Sequence[str] | None = None,
    by_group: bool = True,
    generation: int | None = None,
) -> Query:
    """Sums of ``agg.<family>`` (cell, region, plan) for windows of ``since ≤ t < until``.

    One row per ``step_start`` (every ``step_s`` seconds, one of ``STEPS_S``; None: local days of ``time_zone``) and
    group (``cell_id``, ``region_id`` or ``plan_id``; left out if not ``by_group``; only ``groups`` if given), both
    record types in one row: the measures of the schema, ``freshest_event_end_at`` and ``charge_micros`` by currency.
    Steps below a quarter hour read the one-minute windows, which are kept for days only. Raises ValueError for a step
    that windows cannot be summed to.
    """
    if step_s is not None and step_s not in STEPS_S:
        raise ValueError(f"step {step_s} s is none of {', '.join(map(str, STEPS_S))}")
    group = GROUP_OF_FAMILY[family]
    size_s = QUARTER_HOUR_S if step_s is None or step_s >= QUARTER_HOUR_S else 60
    bucket = (
        "toStartOfDay(w.window_start, {zone:String})"
        if step_s is None
        else f"toStartOfInterval(w.window_start, INTERVAL {_interval(step_s)}, {{zone:String}})"
    )
    params: dict[str, Parameter] = {"since": since, "until": until, "zone": time_zone}
    where = ""
    if groups is not None:
        where = f" AND w.{group} IN {{groups:Array(String)}}"
        params["groups"] = list(groups)
    keys = ["step_start", *([group] if by_group else [])]
    sums = ",\n    ".join(f"sum(w.{name}) AS {name}" for name in measures(family))
    sql = f"""SELECT
    {bucket} AS step_start,
    {f"w.{group} AS {group}," if by_group else ""}
    {sums},
    sumMap(w.charge_micros) AS charge_micros,
    max(w.freshest_event_end_at) AS freshest_event_end_at
FROM {source(f"agg_{family}", generation)} AS w
WHERE w.size_s = {size_s} AND w.window_start >= {{since:DateTime64(3, 'UTC')}}
  AND w.window_start < {{until:DateTime64(3, 'UTC')}}{where}
GROUP BY {", ".join(keys)}
ORDER BY {", ".join(keys)}"""
    return Query(sql, params)


def _interval(step_s: int) -> str:
    # seconds are counted from UTC's midnight, hours from the zone's: they differ where it is half an hour off
    return f"{step_s // 3600} HOUR" if step_s % 3600 == 0 else f"{int(step_s)} SECOND"
