"""KPIs from windows: sums, never ratios."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from telestream_domain.sketch import estimate_sql
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import Generations, measures, source

GROUP_OF_FAMILY = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
QUARTER_HOUR_S = 900
HOUR_MS = 3_600_000
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
    generation: Generations = None,
) -> Query:
    """Sums of ``agg.<family>`` (cell, region, plan) for windows of ``since ≤ t < until``.

    One row per ``step_start`` (every ``step_s`` seconds, one of ``STEPS_S``; None: local days of ``time_zone``) and
    group (``cell_id``, ``region_id`` or ``plan_id``; left out if not ``by_group``; only ``groups`` if given), both
    record types in one row: the measures of the schema, ``freshest_event_end_at`` and ``charge_micros`` by currency.
    Steps below a quarter hour read the one-minute windows, which are kept for days only. Raises ValueError for a step
    that windows cannot be summed to.
    """
    group = GROUP_OF_FAMILY[family]
    keys = ["step_start", *([group] if by_group else [])]
    sums = ",\n    ".join(f"sum(w.{name}) AS {name}" for name in measures(family))
    where, params = _where(group, since, until, step_s, time_zone, groups)
    sql = f"""SELECT
    {_bucket(step_s)} AS step_start,
    {f"w.{group} AS {group}," if by_group else ""}
    {sums},
    sumMap(w.charge_micros) AS charge_micros,
    max(w.freshest_event_end_at) AS freshest_event_end_at
FROM {source(f"agg_{family}", generation)} AS w
WHERE {where}
GROUP BY {", ".join(keys)}
ORDER BY {", ".join(keys)}"""
    return Query(sql, params)


def busy_hours(
    family: str,
    since: datetime,
    until: datetime,
    *,
    time_zone: str = "UTC",
    groups: Sequence[str] | None = None,
    by_group: bool = True,
    generation: int | None = None,
) -> Query:
    """The hour with the greatest traffic of each local day of ``time_zone``, within ``since ≤ t < until``.

    One row per ``step_start`` (the day) and group: ``busy_hour_start`` (of equal hours the earliest that begins with
    calls; null without traffic), ``holding_ms`` of that hour, ``hour_ms``, and ``records`` of the day. Hours begin on
    quarter hours and end within their day.
    """
    group = GROUP_OF_FAMILY[family]
    keys = ["step_start", *([group] if by_group else [])]
    shown = f"{group}," if by_group else ""
    where, params = _where(group, since, until, None, time_zone, groups)
    # whatever hour is the busiest, one that begins at a quarter hour with calls is at least as busy; near midnight it
    # is moved back into its day, over quarter hours of which none that held calls was left out
    sql = f"""SELECT
    step_start,
    {shown}
    if(max(traffic) > 0, argMin(
        least(at, toDateTime(toStartOfDay(step_start + INTERVAL 30 HOUR, {{zone:String}}), 'UTC') - INTERVAL 1 HOUR),
        (-traffic, at)
    ), NULL) AS busy_hour_start,
    max(traffic) AS holding_ms,
    sum(records) AS records,
    {HOUR_MS} AS hour_ms
FROM
(
    SELECT
        step_start,
        {shown}
        at,
        records,
        sum(holding_ms) OVER (
            PARTITION BY {", ".join(keys)} ORDER BY toUnixTimestamp(at)
            RANGE BETWEEN CURRENT ROW AND {3 * QUARTER_HOUR_S} FOLLOWING
        ) AS traffic
    FROM
    (
        SELECT
            {_bucket(None)} AS step_start,
            {f"w.{group} AS {group}," if by_group else ""}
            toDateTime(w.window_start, 'UTC') AS at,
            sum(w.records) AS records,
            sum(w.holding_ms) AS holding_ms
        FROM {source(f"agg_{family}", generation)} AS w
        WHERE w.type = 'cdr' AND {where}
        GROUP BY {", ".join(keys)}, at
    )
)
GROUP BY {", ".join(keys)}
ORDER BY {", ".join(keys)}"""
    return Query(sql, params)


def distinct_subscribers(
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
    """How many subscribers had records, estimated (see ``telestream_domain.sketch``); steps as ``window_kpis``.

    One row per ``step_start`` and group: ``distinct_estimate``, ``records``, ``reversals`` (above 0 the estimate is an
    upper bound). Raises ValueError for a step below a quarter hour: minutes have no sketch.
    """
    if step_s is not None and step_s < QUARTER_HOUR_S:
        raise ValueError(f"subscribers are not counted by {step_s} s: a quarter hour or more")
    group = GROUP_OF_FAMILY[family]
    keys = ["step_start", *([group] if by_group else [])]
    where, params = _where(group, since, until, step_s, time_zone, groups)
    sql = f"""SELECT * EXCEPT (ranks), {estimate_sql("ranks")} AS distinct_estimate
FROM
(
    SELECT
        {_bucket(step_s)} AS step_start,
        {f"w.{group} AS {group}," if by_group else ""}
        maxMap(w.subscriber_registers, w.subscriber_ranks).2 AS ranks,
        sum(w.records) AS records,
        sum(w.reversals) AS reversals
    FROM {source(f"agg_{family}", generation)} AS w
    WHERE w.type = 'cdr' AND {where}
    GROUP BY {", ".join(keys)}
)
ORDER BY {", ".join(keys)}"""
    return Query(sql, params)


def _where(
    group: str, since: datetime, until: datetime, step_s: int | None, time_zone: str, groups: Sequence[str] | None
) -> tuple[str, dict[str, Parameter]]:
    if step_s is not None and step_s not in STEPS_S:
        raise ValueError(f"step {step_s} s is none of {', '.join(map(str, STEPS_S))}")
    size_s = QUARTER_HOUR_S if step_s is None or step_s >= QUARTER_HOUR_S else 60
    params: dict[str, Parameter] = {"since": since, "until": until, "zone": time_zone}
    where = (
        f"w.size_s = {size_s} AND w.window_start >= {{since:DateTime64(3, 'UTC')}}\n"
        "  AND w.window_start < {until:DateTime64(3, 'UTC')}"
    )
    if groups is not None:
        where += f" AND w.{group} IN {{groups:Array(String)}}"
        params["groups"] = list(groups)
    return where, params


def _bucket(step_s: int | None) -> str:
    if step_s is None:
        return "toDateTime(toStartOfDay(w.window_start, {zone:String}), 'UTC')"
    if step_s % 3600:
        return f"toStartOfInterval(w.window_start, INTERVAL {int(step_s)} SECOND, 'UTC')"
    # hours of the local clock, at the offset from UTC of that moment: an hour that exists twice is two steps
    local = "timeZoneOffset(toTimeZone(w.window_start, {zone:String}))"
    return f"toDateTime(intDiv(toUnixTimestamp(w.window_start) + {local}, {step_s}) * {step_s} - {local}, 'UTC')"
