"""Two generations side by side: what each judged and stored of the same raw offsets, in slices of bounded size.

Every question is about ``Span``s of raw offsets that both have judged and stored. A record is the same one in both if
it stands at the same raw offset. Rows that are written twice count once, whatever the state of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from telestream_domain import SEGMENT_BITS
from telestream_warehouse.compare_spans import BOTH, OTHER, ROWS, THIS, Pair, Span, differing, within
from telestream_warehouse.quality import step_of
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import physical
from telestream_warehouse.windows import QUARTER_HOUR_S


def judged_from(
    record_type: str, generation: int, since: datetime | None = None, until: datetime | None = None
) -> Query:
    """Per ``partition``: ``first``, the first raw offset judged; ``since`` and ``until``, the first offsets that
    arrived then or later (null: none has, or not asked for)."""
    params: dict[str, Parameter] = {"type": record_type, "generation": generation}
    bounds = {"since": since, "until": until}
    columns = []
    for name, at in bounds.items():
        if at is None:
            columns.append(f"NULL AS {name}")
            continue
        params[name] = at
        # a reversal bears the arrival of its original
        columns.append(
            f"minOrNullIf(src_offset, sign = 1 AND appended_at >= {{{name}:DateTime64(3, 'UTC')}}) AS {name}"
        )
    return Query(
        f"SELECT src_partition AS partition, min(src_offset) AS first, {', '.join(columns)} "
        f"FROM {physical('judgement')} WHERE generation = {{generation:UInt32}} AND type = {{type:String}} "
        "GROUP BY partition ORDER BY partition",
        params,
    )


By = Literal["day", "source", "rule", "all"]


def compared_totals(pair: Pair, spans: Sequence[Span], by: By = "all", time_zone: str = "UTC") -> Query:
    """Judged records per ``generation``, ``group`` (by 'day': epoch ms of the local day of arrival as text; else text,
    '' for 'all'), ``verdict``, ``sign``, ``rule`` and ``currency``: ``records``, ``warned``, ``duration_ms``,
    ``bytes``, ``charge_micros``, ``first_arrival`` and ``last_arrival`` (epoch ms), and ``fingerprint``: generations of
    which all fingerprints, put together by exclusive or, are equal judged alike."""
    group = {
        "all": "''",
        "day": f"toString({step_of('day', time_zone, 'j.appended_at')})",
        "source": "toString(j.source)",
        "rule": "toString(j.rule)",
    }[by]
    sql = f"""SELECT
    j.generation AS generation,
    {group} AS group,
    toString(j.verdict) AS verdict,
    j.sign AS sign,
    toString(j.rule) AS rule,
    toString(j.currency) AS currency,
    count() AS records,
    sum(j.warned) AS warned,
    sum(j.duration_ms) AS duration_ms,
    sum(j.bytes) AS bytes,
    sum(j.charge_micros) AS charge_micros,
    min(toUnixTimestamp64Milli(j.appended_at)) AS first_arrival,
    max(toUnixTimestamp64Milli(j.appended_at)) AS last_arrival,
    groupBitXor(cityHash64(j.src_partition, j.src_offset, {_JUDGED})) AS fingerprint
FROM {physical("judgement")} AS j FINAL
WHERE {BOTH} AND type = {{type:String}} AND ({within("src_offset", spans)})
GROUP BY ALL{ROWS}"""
    return Query(sql, pair.params)


_VALUES = "j.duration_ms, j.bytes, j.charge_micros, j.currency, j.source"
_JUDGED = f"j.verdict, j.sign, j.rule, j.warned, j.booked_offset, {_VALUES}"


def verdict_differences(pair: Pair, spans: Sequence[Span]) -> Query:
    """Records that were not judged alike, by ``partition`` and ``offset``.

    ``this_there`` and ``other_there`` (0: one has no row), then of each side ``…_verdict``, ``…_rule``, ``…_warned``
    and ``…_original`` (of a duplicate, null else); ``sign``, ``booked_offset`` and the sums as they were read;
    ``booked_alike`` and ``values_alike``.
    """
    sides = ",\n        ".join(
        f"countIf({of}) > 0 AS {side}_there, anyIf(toString(j.verdict), {of}) AS {side}_verdict, "
        f"anyIf(toString(j.rule), {of}) AS {side}_rule, maxIf(j.warned, {of}) AS {side}_warned"
        for side, of in (("this", THIS), ("other", OTHER))
    )
    where = f"{BOTH} AND type = {{type:String}} AND ({within('src_offset', spans)})"
    places = differing(f"{physical('judgement')} AS j", where, "src_offset", f"cityHash64({_JUDGED})")
    sql = f"""SELECT j.*, d.this_original AS this_original, d.other_original AS other_original
FROM
(
    SELECT
        src_partition AS partition,
        src_offset AS offset,
        {sides},
        max(j.sign) AS sign,
        max(j.booked_offset) AS booked_offset,
        min(j.booked_offset) = max(j.booked_offset) AS booked_alike,
        min(cityHash64({_VALUES})) = max(cityHash64({_VALUES})) AS values_alike,
        any(toString(j.source)) AS source,
        any(j.duration_ms) AS duration_ms,
        any(j.bytes) AS bytes,
        any(j.charge_micros) AS charge_micros,
        any(toString(j.currency)) AS currency
    FROM {physical("judgement")} AS j
    WHERE {where} AND (src_partition, src_offset) IN ({places})
    GROUP BY partition, offset
) AS j
LEFT JOIN
(
    SELECT
        src_partition AS partition,
        src_offset AS offset,
        anyIf(first_offset, {THIS}) AS this_original,
        anyIf(first_offset, {OTHER}) AS other_original
    FROM {physical("duplicate")}
    WHERE {where}
    GROUP BY partition, offset
) AS d USING (partition, offset)
ORDER BY partition, offset{ROWS}"""
    return Query(sql, pair.params)


def stored_by_segment(record_type: str, generation: int, spans: Sequence[Span]) -> Query:
    """What the books of one generation say is stored, per ``partition`` and ``segment``: ``records`` and ``bytes``
    (reversals taken out) and ``charge_micros`` by currency."""
    sql = f"""SELECT
    src_partition AS partition,
    bitShiftRight(src_offset, {SEGMENT_BITS}) AS segment,
    sum(toInt64(j.sign)) AS records,
    sum(j.sign * j.bytes) AS bytes,
    sumMap(map(toString(j.currency), j.sign * j.charge_micros)) AS charge_micros
FROM {physical("judgement")} AS j FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND verdict = 'STORED'
  AND ({within("src_offset", spans)})
GROUP BY partition, segment"""
    return Query(sql, {"generation": generation, "type": record_type})


def windows_by_segment(record_type: str, family: str, generation: int, spans: Sequence[Span]) -> Query:
    """The same of one family's quarter hours, for the segments that ``spans`` lie in."""
    records = "records" if record_type == "cdr" else "events"
    moved = "w.bytes_up + w.bytes_down" if record_type == "cdr" else "toInt64(0)"
    charge = "sumMap(w.charge_currencies, w.charge_micros)"
    segments = " OR ".join(
        f"(partition = {int(span.partition)} AND segment >= {span.first >> SEGMENT_BITS} "
        f"AND segment <= {(span.end - 1) >> SEGMENT_BITS})"
        for span in spans
        if len(span)
    )
    sql = f"""SELECT partition, segment, sum(w.{records}) AS records, sum({moved}) AS bytes,
    mapFromArrays({charge}.1, {charge}.2) AS charge_micros
FROM {physical(f"agg_{family}")} AS w FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND size_s = {QUARTER_HOUR_S}
  AND ({segments or "0"})
GROUP BY partition, segment"""
    return Query(sql, {"generation": generation, "type": record_type})


def last_written(record_type: str, generation: int) -> Query:
    """``written_ms``: when the sink last wrote judged records of this type (epoch)."""
    return Query(
        "SELECT toUnixTimestamp64Milli(max(written_at)) AS written_ms FROM sink_position "
        "WHERE kind = 'enriched' AND subject = {type:String} AND generation = {generation:UInt32}",
        {"type": record_type, "generation": generation},
    )


def judged_otherwise(pair: Pair, partition: int, offsets: Sequence[int]) -> Query:
    """``offset`` of those of ``offsets`` that were not judged alike."""
    sql = f"""SELECT src_offset AS offset FROM {physical("judgement")}
WHERE {BOTH} AND type = {{type:String}} AND src_partition = {int(partition)} AND src_offset IN {{offsets:Array(UInt64)}}
GROUP BY offset HAVING uniqExact(generation) = 1 OR uniqExact(verdict, sign, rule) > 1"""
    return Query(sql, {**pair.params, "offsets": [int(offset) for offset in offsets]})
