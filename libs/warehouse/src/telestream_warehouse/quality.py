"""What is known of sources: verdicts, warnings and latency by hour of arrival, and when they were last heard of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from telestream_domain import TYPES
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import FACTS, physical


def step_of(step: str, time_zone: str, column: str) -> str:
    """SQL: the epoch milliseconds at which ``column``'s hour (UTC), or local day of ``time_zone``, begins. ``column``
    is an hour of arrival: one that lies in two local days counts in the day it begins in. ``step`` 'all': null."""
    if step == "hour":
        return f"toUnixTimestamp64Milli(toDateTime64(toStartOfHour({column}), 3, 'UTC'))"
    if step == "day":
        hour = f"toStartOfHour({column})"
        return f"toInt64(toUnixTimestamp(toStartOfDay({hour}, '{_zone(time_zone)}'))) * 1000"
    return "NULL"


def judged_by_step(
    since: datetime,
    until: datetime,
    generations: Mapping[str, int],
    *,
    step: str = "hour",
    time_zone: str = "UTC",
    by_source: bool = True,
    by_type: bool = False,
    sources: Sequence[str] | None = None,
) -> Query:
    """Judged records of hours of arrival in ``since ≤ t < until``, of the types in ``generations``.

    One row per ``step_start`` (epoch ms; null for ``step`` 'all'), ``source`` and ``type`` (each '' if not asked for),
    ``verdict`` and ``rule``: ``records``, ``reversals`` (at their original's hour), ``warned``, ``latency_ms``,
    ``latency_buckets`` and ``warning_counts`` by code.
    """
    params: dict[str, Parameter] = {
        "since": since,
        "until": until,
        "types": list(generations),
        "generations": list(generations.values()),
    }
    chosen = ""
    if sources is not None:
        chosen = " AND source IN {sources:Array(String)}"
        params["sources"] = list(sources)
    sql = f"""SELECT
    {step_of(step, time_zone, "window_start")} AS step_start,
    {"toString(q.source)" if by_source else "''"} AS source,
    {"toString(q.type)" if by_type else "''"} AS type,
    toString(q.verdict) AS verdict,
    toString(q.rule) AS rule,
    sum(q.records) AS records,
    sum(q.reversals) AS reversals,
    sum(q.warned) AS warned,
    sum(q.latency_ms) AS latency_ms,
    sumForEach(q.latency_buckets) AS latency_buckets,
    mapFromArrays(sumMap(q.warning_codes, q.warning_counts).1, sumMap(q.warning_codes, q.warning_counts).2)
        AS warning_counts
FROM (SELECT * FROM {physical("agg_quality")} FINAL
      WHERE generation IN {{generations:Array(UInt32)}} AND size_s = 3600
        AND has(arrayZip({{types:Array(String)}}, {{generations:Array(UInt32)}}), (toString(type), generation))
        AND window_start >= {{since:DateTime64(3, 'UTC')}} AND window_start < {{until:DateTime64(3, 'UTC')}}{chosen}
     ) AS q
GROUP BY ALL
ORDER BY step_start, source, type, verdict, rule"""
    return Query(sql, params)


def source_hours(generations: Mapping[str, int], sources: Sequence[str] | None = None) -> Query:
    """Per ``source`` of all times and ``type``: ``first_hour`` and ``last_hour`` of arrival (epoch ms), ``records``."""
    params: dict[str, Parameter] = {"types": list(generations), "generations": list(generations.values())}
    chosen = ""
    if sources is not None:
        chosen = " AND source IN {sources:Array(String)}"
        params["sources"] = list(sources)
    sql = f"""SELECT
    toString(q.source) AS source,
    toString(q.type) AS type,
    toUnixTimestamp64Milli(min(q.window_start)) AS first_hour,
    toUnixTimestamp64Milli(max(q.window_start)) AS last_hour,
    sum(q.records) AS records
FROM (SELECT * FROM {physical("agg_quality")} FINAL
      WHERE generation IN {{generations:Array(UInt32)}} AND size_s = 3600 AND source != ''
        AND has(arrayZip({{types:Array(String)}}, {{generations:Array(UInt32)}}), (toString(type), generation)){chosen}
     ) AS q
GROUP BY ALL
HAVING records > 0
ORDER BY source, type"""
    return Query(sql, params)


def freshness(record_type: str, generation: int, source: str, last_hour: datetime) -> Query:
    """One row: ``last_arrival`` and ``freshest_event_end`` (never past its arrival) in epoch ms, null where there is
    none, of what a source sent since ``last_hour``."""
    time = TYPES[record_type].time_field
    ends = f"{time} + INTERVAL ifNull(holding_ms, ifNull(duration_ms, 0)) MILLISECOND" if record_type == "cdr" else time
    sql = f"""SELECT
    (SELECT if(count() = 0, NULL, toUnixTimestamp64Milli(max(appended_at))) FROM {physical("judgement")}
     WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND sign = 1 AND source = {{source:String}}
       AND appended_at >= {{since:DateTime64(3, 'UTC')}}) AS last_arrival,
    (SELECT if(count() = 0, NULL, toUnixTimestamp64Milli(max(least({ends}, appended_at))))
     FROM {physical(FACTS[record_type])}
     WHERE generation = {{generation:UInt32}} AND source = {{source:String}} AND withdrawn = 0
       AND appended_at >= {{since:DateTime64(3, 'UTC')}}) AS freshest_event_end"""
    return Query(sql, {"generation": generation, "type": record_type, "source": source, "since": last_hour})


def rejected_samples(
    record_type: str, generation: int, source: str, since: datetime, until: datetime, per_rule: int = 5
) -> Query:
    """The newest ``per_rule`` dead letters by rule of a source: ``rule``, ``reason``, ``field``, ``batch_id``,
    ``line``, ``appended_at`` (epoch ms), and ``original`` in base64."""
    sql = f"""SELECT toString(rule) AS rule, reason, toString(field) AS field, batch_id, line,
    toUnixTimestamp64Milli(d.appended_at) AS appended_at, base64Encode(original) AS original
FROM (SELECT * FROM {physical("dead_letter")} FINAL
      WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND source = {{source:String}}
        AND appended_at >= {{since:DateTime64(3, 'UTC')}} AND appended_at < {{until:DateTime64(3, 'UTC')}}) AS d
ORDER BY d.appended_at DESC, src_partition DESC, src_offset DESC
LIMIT {int(per_rule)} BY d.rule"""
    return Query(sql, {"generation": generation, "type": record_type, "source": source, "since": since, "until": until})


def _zone(name: str) -> str:
    if not all(letter.isalnum() or letter in "/_+-" for letter in name):
        raise ValueError(f"{name!r} is not a time zone")
    return name
