"""The stored rows of two generations side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from telestream_domain import TYPES
from telestream_warehouse.compare_spans import BOTH, OTHER, ROWS, THIS, Pair, Span, differing, within
from telestream_warehouse.contributions import CONTRIBUTIONS
from telestream_warehouse.quality import step_of
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import FACTS, physical
from telestream_warehouse.windows import QUARTER_HOUR_S

Arrived = tuple[datetime, datetime] | None

REFERENCE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "cdr": (
        *("region_id", "technology", "vendor"),
        *("customer_id", "plan_id", "segment", "customer_region_id", "roaming"),
    ),
    "network": ("region_id", "technology", "vendor"),
}
"""Type → what reference data adds to a record."""

OWN_COLUMNS: Mapping[str, tuple[str, ...]] = {"cdr": ("warnings", "local_date"), "network": ("warnings",)}
"""Type → what else a fact has from its judgement."""


def fact_differences(pair: Pair, spans: Sequence[Span], arrived: Arrived = None) -> Query:
    """Stored records that stand in one only, or whose enriched columns differ, by ``partition`` and ``offset``.

    ``this_there``, ``other_there``, ``region_id`` (this one's, else the other's; '' unknown), ``source`` and the sums;
    ``columns``: a bit for each of ``compared_columns`` that differs; ``codes``: warnings that only one gives.
    ``arrived``: when the first and the last of them did, by which parts of the table are skipped.
    """
    columns = compared_columns(pair.record_type)
    where = f"{BOTH} AND ({within('booked_offset', spans)}){_between(arrived)}"
    fact = physical(FACTS[pair.record_type])
    places = differing(f"{fact} AS f", where, "booked_offset", f"cityHash64({', '.join(map(_text, columns))})")
    mask = " + ".join(
        f"bitShiftLeft(toUInt16(min(cityHash64({_text(name)})) != max(cityHash64({_text(name)}))), {bit})"
        for bit, name in enumerate(columns)
    )
    sums = _fact_sums(pair.record_type)
    sql = f"""SELECT
    src_partition AS partition,
    booked_offset AS offset,
    countIf({THIS}) > 0 AS this_there,
    countIf({OTHER}) > 0 AS other_there,
    any(toString(f.source)) AS source,
    if(this_there, anyIf({_text("region_id")}, {THIS}), any({_text("region_id")})) AS region_id,
    any({sums["duration_ms"]}) AS duration_ms,
    any({sums["bytes"]}) AS bytes,
    any({sums["charge_micros"]}) AS charge_micros,
    any({sums["currency"]}) AS currency,
    if(this_there AND other_there, {mask}, 0) AS columns,
    arraySymmetricDifference(anyIf(f.warnings, {THIS}), anyIf(f.warnings, {OTHER})) AS only_one,
    if(bitTest(columns, 0), only_one, []) AS codes
FROM {fact} AS f
WHERE {where} AND (src_partition, booked_offset) IN ({places})
GROUP BY partition, offset
ORDER BY partition, offset{ROWS}"""
    return Query(sql, {"this": pair.this, "other": pair.other, **_times(arrived)})


def rules_versions(pair: Pair, spans: Sequence[Span], arrived: Arrived = None) -> Query:
    """``versions`` of the rules that stored records were judged by, per ``generation``."""
    sql = f"""SELECT generation, arraySort(groupUniqArray(rules_version)) AS versions
FROM {physical(FACTS[pair.record_type])}
WHERE {BOTH} AND ({within("booked_offset", spans)}){_between(arrived)}
GROUP BY generation ORDER BY generation"""
    return Query(sql, {"this": pair.this, "other": pair.other, **_times(arrived)})


def compared_columns(record_type: str) -> tuple[str, ...]:
    """The columns of a fact that two generations may see differently; warnings first."""
    return (*OWN_COLUMNS[record_type], *REFERENCE_COLUMNS[record_type])


def region_totals(pair: Pair, spans: Sequence[Span]) -> Query:
    """What stands stored per ``generation`` and ``region_id`` ('': unknown) and ``currency``: ``records`` and sums.

    A reversal counts −1 at its own offset, as in the books.
    """
    sums = ", ".join(
        f"sum(f.weight * {sql}) AS {name}" for name, sql in _fact_sums(pair.record_type).items() if name != "currency"
    )
    currency = _fact_sums(pair.record_type)["currency"]
    sql = f"""SELECT
    f.generation AS generation, {_text("region_id")} AS group, {currency} AS currency, sum(f.weight) AS records,
    {sums}
FROM {_weighed(pair.record_type, spans)} AS f
GROUP BY ALL{ROWS}"""
    return Query(sql, {"this": pair.this, "other": pair.other})


def compared_kpis(pair: Pair, spans: Sequence[Span]) -> Query:
    """Per ``generation`` and quarter hour of events (``quarter_ms``, epoch): ``records`` and the measures of
    ``CONTRIBUTIONS``, from the facts, so that both are counted up to the same raw offset."""
    time = TYPES[pair.record_type].time_field
    measures = {name: sql for name, sql in CONTRIBUTIONS[pair.record_type].items() if name not in _NO_SUMS}
    sums = ",\n    ".join(f"sum(f.weight * {sql}) AS {name}" for name, sql in measures.items())
    sql = f"""SELECT
    generation,
    intDiv(toUnixTimestamp64Milli(f.{time}), {QUARTER_HOUR_S * 1000}) * {QUARTER_HOUR_S * 1000} AS quarter_ms,
    sum(f.weight) AS records,
    {sums}
FROM {_weighed(pair.record_type, spans)} AS f
GROUP BY ALL{ROWS}"""
    return Query(sql, {"this": pair.this, "other": pair.other})


_NO_SUMS = frozenset({"distinct_estimate", "outage_events"})


def compared_subscribers(pair: Pair, spans: Sequence[Span], time_zone: str) -> Query:
    """Estimates of distinct subscribers per ``generation`` and local day of events (``day_ms``), over all ``spans`` at
    once in little memory: ``subscribers`` and ``reversals`` (above 0 it is an upper bound)."""
    day = step_of("day", time_zone, "started_at")
    sql = f"""SELECT generation, {day} AS day_ms,
    uniqCombined64If(subscriber_id, subscriber_kind != 'NONE') AS subscribers, countIf(withdrawn = 1) AS reversals
FROM {physical(FACTS[pair.record_type])}
WHERE {BOTH} AND ({within("booked_offset", spans)})
GROUP BY ALL{ROWS}"""
    return Query(sql, {"this": pair.this, "other": pair.other})


def _between(arrived: Arrived) -> str:
    if arrived is None:
        return ""
    first, last = "{first_arrival:DateTime64(3, 'UTC')}", "{last_arrival:DateTime64(3, 'UTC')}"
    return f" AND appended_at >= {first} AND appended_at <= {last}"


def _times(arrived: Arrived) -> dict[str, Parameter]:
    return {} if arrived is None else {"first_arrival": arrived[0], "last_arrival": arrived[1]}


def _weighed(record_type: str, spans: Sequence[Span]) -> str:
    """Facts with ``weight``: 1 at the offset of the record, −1 at that of its reversal, each once and within
    ``spans``. The reversal's row stands for both: once parts are merged, it is the only one left."""
    return f"""(
    SELECT * EXCEPT place, place.2 AS weight
    FROM
    (
        SELECT *, arrayJoin(if(withdrawn = 1, [(booked_offset, toInt64(1)), (src_offset, toInt64(-1))],
                               [(booked_offset, toInt64(1))])) AS place
        FROM {physical(FACTS[record_type])}
        WHERE {BOTH} AND ({within("booked_offset", spans)} OR (withdrawn = 1 AND ({within("src_offset", spans)})))
    )
    WHERE {within("place.1", spans)}
    LIMIT 1 BY generation, src_partition, booked_offset, place.2
)"""


def _text(name: str) -> str:
    return "f.warnings" if name == "warnings" else f"ifNull(toString(f.{name}), '')"


def _fact_sums(record_type: str) -> dict[str, str]:
    if record_type == "cdr":
        return {
            "duration_ms": "ifNull(f.duration_ms, 0)",
            "bytes": "ifNull(f.bytes_up, 0) + ifNull(f.bytes_down, 0)",
            "charge_micros": "ifNull(f.charge_micros, 0)",
            "currency": "toString(ifNull(f.currency, ''))",
        }
    return {"duration_ms": "toInt64(0)", "bytes": "toInt64(0)", "charge_micros": "toInt64(0)", "currency": "''"}
