"""What a customer used, by local day and its sums: whose use it is, and from which records it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from telestream_domain import LATENESS_MS, shown_subscriber_sql
from telestream_warehouse.contributions import CONTRIBUTIONS
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import measures, source

GROUPS = ("subscriber_id", "plan_id", "roaming", "direction")

LATENESS_MIN = LATENESS_MS // 60_000
"""Minutes after the end of a day from which a record is late: as the aggregator counts."""


def _count(condition: str) -> str:
    return f"toInt64({condition})"


FACT_MEASURES: Mapping[str, str] = {
    **CONTRIBUTIONS["cdr"],
    "records": "toInt64(1)",
    "sms": _count("f.record_type = 'SMS'"),
    "mms": _count("f.record_type = 'MMS'"),
    "data_records": _count("f.record_type = 'DATA'"),
    "ussd": _count("f.record_type = 'USSD'"),
    "others": _count("f.record_type = 'OTHER'"),
    "sms_segments": "toInt64(if(f.record_type = 'SMS', ifNull(f.segments, 1), 0))",
}
"""Measure → what one row ``f`` of ``fact_cdr`` adds to it."""

_FROM_FACTS = tuple(name for name in measures("subscriber_day") if name in FACT_MEASURES)
_MARGIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose use is asked for: of a customer, or of one identifier whoever held it."""

    customer_id: str | None = None
    subscriber_id: str | None = None

    @property
    def params(self) -> dict[str, Parameter]:
        if self.customer_id is not None:
            return {"customer": self.customer_id}
        return {"subscriber": self.subscriber_id}

    @property
    def identifiers(self) -> str:
        """All that may matter, of whatever version; found by an index."""
        if self.customer_id is None:
            return "({subscriber:String})"
        return "(SELECT identifier FROM reference_customer WHERE customer_id = {customer:String})"


def usage(
    holder: Holder,
    since: date,
    until: date,
    time_zone: str,
    *,
    starts: Sequence[date] | None = None,
    group_by: Sequence[str] = (),
    generation: int | None = None,
) -> Query:
    """Per step and ``group_by`` (some of ``GROUPS``): the measures of ``agg.subscriber_day``, and ``charge_micros`` as
    a map by currency, of local dates of ``since ≤ date < until`` in the business ``time_zone``.

    ``local_date`` is the first date of a step: one of ``starts`` (ascending, the first no later than ``since``), or
    each day. A customer's day is what its identifiers used while it held them: on a day on which an identifier changes
    hands it is counted from the stored records, where reversals are not seen. A number's first day belongs wholly to
    its first holder. Raises KeyError for another group.
    """
    wrong = [name for name in group_by if name not in GROUPS]
    if wrong:
        raise KeyError(f"usage cannot be grouped by {', '.join(wrong)}: one of {', '.join(GROUPS)}")
    keys = ["local_date", *group_by]
    params: dict[str, Parameter] = {
        **holder.params,
        "since": since,
        "until": until,
        "first": since - _MARGIN,
        "last": until + _MARGIN,
    }
    step = "u.local_date"
    if starts is not None:
        step = "arrayMax(arrayFilter(start -> start <= u.local_date, {starts:Array(Date32)}))"
        params["starts"] = list(starts)
    parts = [_days(holder, generation)]
    if holder.customer_id is not None:
        params["zone"] = time_zone
        parts.append(_of_changed_days(holder, generation))
    shown = ",\n    ".join(f"sum(u.{name}) AS {name}" for name in measures("subscriber_day"))
    groups = "".join(f", u.{name} AS {name}" for name in group_by)
    union = "\nUNION ALL\n".join(parts)
    # the step's name must not hide the column it is made of
    sql = f"""SELECT step_start AS local_date, * EXCEPT (step_start)
FROM
(
    SELECT
    {step} AS step_start{groups},
    {shown},
    sumMap(map(toString(u.currency), u.charge_micros)) AS charge_micros
    FROM
(
{union}
) AS u
    GROUP BY {", ".join(["step_start", *group_by])}
)
ORDER BY {", ".join(keys)}"""
    return Query(sql, params)


def usage_per_day(
    customer_id: str,
    since: date,
    until: date,
    *,
    time_zone: str = "UTC",
    group_by: Sequence[str] = (),
    generation: int | None = None,
) -> Query:
    """``usage`` of a customer by local day."""
    return usage(Holder(customer_id), since, until, time_zone, group_by=group_by, generation=generation)


def usage_records(
    holder: Holder, since: date, until: date, time_zone: str, *, generation: int | None = None, limit: int = 10
) -> Query:
    """The earliest stored records that ``usage`` counts: what they are, where they came from, and ``adds``, what each
    adds to the measures. A subscriber is shown by a pseudonym only."""
    adds = ", ".join(f"'{name}', {FACT_MEASURES[name]}" for name in _FROM_FACTS)
    params: dict[str, Parameter] = {
        **holder.params,
        "since": since,
        "until": until,
        "first": since - _MARGIN,
        "last": until + _MARGIN,
    }
    joined = ""
    if holder.customer_id is not None:
        params["zone"] = time_zone
        joined = _held_at(holder, "f.subscriber_id", "toInt64(toUnixTimestamp64Milli(f.started_at))", "begins_ms")
    mine = "AND v.holder = {customer:String}" if joined else ""
    sql = f"""SELECT
    f.started_at AS started_at,
    f.event_uid AS event_uid,
    toString(f.record_type) AS record_type,
    toString(f.status) AS status,
    {shown_subscriber_sql("f.subscriber_id")} AS subscriber_id,
    ifNull(toString(f.plan_id), '') AS plan_id,
    toString(f.roaming) AS roaming,
    ifNull(toString(f.direction), '') AS direction,
    toString(f.source) AS source,
    f.batch_id AS batch_id,
    f.line AS line,
    f.src_partition AS partition,
    f.src_offset AS offset,
    ifNull(toString(f.currency), '') AS currency,
    ifNull(f.charge_micros, 0) AS charge_micros,
    mapFilter((name, added) -> added != 0, map({adds})) AS adds
FROM {_facts(holder, generation)} AS f
{joined}
WHERE f.local_date >= {{since:Date32}} AND f.local_date < {{until:Date32}} {mine}
ORDER BY started_at, partition, offset
LIMIT {int(limit)}"""
    return Query(sql, params)


def holdings(holder: Holder) -> Query:
    """All versions of the identifiers: ``identifier``, ``identifier_kind``, ``valid_from``, ``valid_to``, ``holder``
    (null: deleted), ``plan_id``, ``bill_cycle_day``, ``event`` (the same of identifiers that one event named)."""
    sql = f"""SELECT
    identifier,
    toString(identifier_kind) AS identifier_kind,
    valid_from,
    valid_to,
    holder,
    toString(plan_id) AS plan_id,
    bill_cycle_day,
    concat(toString(source), '/', toString(batch_id), '/', toString(line)) AS event
FROM {_versions(holder)}
ORDER BY identifier, valid_from"""
    return Query(sql, holder.params)


def plan_terms(plan_ids: Sequence[str]) -> Query:
    """All versions of these plans: ``plan_id``, ``valid_from``, ``valid_to``, ``name`` and the three allowances."""
    return Query(
        "SELECT plan_id, valid_from, valid_to, name, voice_allowance_s, sms_allowance, data_allowance_bytes "
        "FROM dim_service_plan_version WHERE plan_id IN {plans:Array(String)} ORDER BY plan_id, valid_from",
        {"plans": list(plan_ids)},
    )


def _versions(holder: Holder) -> str:
    # a window function over all customers would cost more than all the rest: identifiers are chosen inside
    window = "(PARTITION BY identifier ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)"
    return f"""(
    SELECT
        *,
        if(deleted, NULL, customer_id) AS holder,
        lagInFrame(holder) OVER {window} AS before,
        row_number() OVER {window} AS version,
        leadInFrame(valid_from, 1, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')) OVER {window} AS valid_to
    FROM reference_customer FINAL
    WHERE identifier IN {holder.identifiers}
)"""


def _changed(holder: Holder) -> str:
    return f"""(
    SELECT identifier, toDate32(valid_from, {{zone:String}})
    FROM {_versions(holder)}
    WHERE version > 1 AND ifNull(holder, '') != ifNull(before, '')
      AND toStartOfDay(valid_from, {{zone:String}}) != valid_from
)"""


def _held_at(holder: Holder, identifier: str, at: str, begins: str) -> str:
    """Joins the version ``v`` that held at a moment or on a date, both given as whole numbers."""
    # of several that begin on one date the last holds from then on
    last = "WHERE begins_day != toInt64(toInt32(toDate32(valid_to, {zone:String})))" if begins == "begins_day" else ""
    return f"""ASOF JOIN
(
    SELECT
        identifier,
        holder,
        toInt64(toUnixTimestamp64Milli(valid_from)) AS begins_ms,
        toInt64(toInt32(toDate32(valid_from, {{zone:String}}))) AS begins_day
    FROM {_versions(holder)}
    {last}
) AS v
ON {identifier} = v.identifier AND {at} >= v.{begins}"""


def _days(holder: Holder, generation: int | None) -> str:
    joined, mine = "", ""
    if holder.customer_id is not None:
        joined = _held_at(holder, "a.subscriber_id", "a.day", "begins_day")
        mine = f"""WHERE v.holder = {{customer:String}}
  AND (a.subscriber_id, a.local_date) NOT IN {_changed(holder)}"""
    return f"""SELECT {_columns("a")}
FROM
(
    SELECT *, toInt64(toInt32(local_date)) AS day
    FROM {source("agg_subscriber_day", generation)}
    WHERE subscriber_id IN {holder.identifiers} AND type = 'cdr' AND size_s = 86400
      AND window_start >= toDateTime64({{first:Date32}}, 3, 'UTC')
      AND window_start < toDateTime64({{last:Date32}}, 3, 'UTC')
      AND local_date >= {{since:Date32}} AND local_date < {{until:Date32}}
) AS a
{joined}
{mine}"""


def _columns(row: str) -> str:
    keys = ("local_date", "subscriber_id", "plan_id", "roaming", "direction", "currency")
    return ", ".join(f"{row}.{name} AS {name}" for name in (*keys, *measures("subscriber_day"), "charge_micros"))


def _of_changed_days(holder: Holder, generation: int | None) -> str:
    late = f"toDateTime(addDays(f.local_date, 1), {{zone:String}}) + INTERVAL {LATENESS_MIN} MINUTE"
    adds: dict[str, Any] = {
        **{name: FACT_MEASURES[name] for name in _FROM_FACTS},
        "late_records": f"toInt64(f.appended_at > {late})",
    }
    sums = ",\n    ".join(f"{adds.get(name, 'toInt64(0)')} AS {name}" for name in measures("subscriber_day"))
    return f"""SELECT
    assumeNotNull(f.local_date) AS local_date,
    f.subscriber_id AS subscriber_id,
    ifNull(f.plan_id, '') AS plan_id,
    f.roaming AS roaming,
    ifNull(f.direction, '') AS direction,
    ifNull(f.currency, '') AS currency,
    {sums},
    toInt64(ifNull(f.charge_micros, 0)) AS charge_micros
FROM {_facts(holder, generation)} AS f
{_held_at(holder, "f.subscriber_id", "toInt64(toUnixTimestamp64Milli(f.started_at))", "begins_ms")}
WHERE v.holder = {{customer:String}}
  AND f.local_date >= {{since:Date32}} AND f.local_date < {{until:Date32}}
  AND (f.subscriber_id, assumeNotNull(f.local_date)) IN {_changed(holder)}"""


def _facts(holder: Holder, generation: int | None) -> str:
    return f"""(
    SELECT * FROM {source("fact_cdr", generation)}
    WHERE subscriber_id IN {holder.identifiers} AND subscriber_kind != 'NONE'
      AND started_at >= toDateTime64({{first:Date32}}, 3, 'UTC')
      AND started_at < toDateTime64({{last:Date32}}, 3, 'UTC')
)"""
