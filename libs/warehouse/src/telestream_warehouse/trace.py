"""What became of one record: every row that carries its uid, or stands at a position where it was judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from telestream_domain import TYPES
from telestream_warehouse.query import Query
from telestream_warehouse.tables import FACTS, physical

_ORIGIN = "source, batch_id, line, appended_at"
_FACT = {
    "cdr": "subscriber_id, subscriber_kind, record_type AS kind, status, cell_id, last_cell_id, customer_id, plan_id, "
    "segment, customer_region_id, roaming, ifNull(direction, '') AS direction, ifNull(currency, '') AS currency, "
    "toString(local_date) AS local_date",
    "network": "event_type AS kind, cell_id",
}
_REFERENCE = {
    "customer": ("identifier", "customer_id, plan_id, segment, region_id, status"),
    "cell": ("cell_id", "name, region_id, technology, vendor"),
    "region": ("region_id", "name, country"),
    "plan": ("plan_id", "name, payment, currency"),
}
GROUP = {"cell": "cell_id", "region": "region_id", "plan": "plan_id", "subscriber_day": "subscriber_id"}
"""Family → the first group of its windows, by which they are found."""


def traced_facts(record_type: str, event_uid: str, generation: int, limit: int) -> Query:
    """Rows of the fact table with this uid, withdrawn ones too (``withdrawn`` 1: ``src_offset`` is the reversal's,
    ``booked_offset`` what it undid), by arrival. Of what was withdrawn the first row may be merged away already."""
    time = TYPES[record_type].time_field
    # without FINAL, which would hide what was withdrawn
    sql = f"""SELECT src_partition, src_offset, booked_offset, withdrawn, {_ORIGIN}, {time} AS event_at,
    rules_version, warnings, region_id, technology, vendor, {_FACT[record_type]}
FROM {physical(FACTS[record_type])}
WHERE generation = {{generation:UInt32}} AND event_uid = {{uid:String}}
ORDER BY appended_at, src_partition, src_offset
LIMIT 1 BY src_partition, src_offset
LIMIT {int(limit)}"""
    return Query(sql, {"generation": generation, "uid": event_uid})


def traced_duplicates(record_type: str, event_uid: str, generation: int, limit: int) -> Query:
    """Duplicates with this uid, by arrival: where they stood, and ``first_offset``, what they repeat."""
    sql = f"""SELECT src_partition, src_offset, {_ORIGIN}, event_at, rule, first_offset
FROM {physical("duplicate")} FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND event_uid = {{uid:String}}
ORDER BY appended_at, src_partition, src_offset
LIMIT {int(limit)}"""
    return Query(sql, {"generation": generation, "type": record_type, "uid": event_uid})


def traced_dead_letters(record_type: str, event_uid: str, generation: int, limit: int) -> Query:
    """Rejected records with this uid, by arrival."""
    sql = f"""SELECT src_partition, src_offset, {_ORIGIN}, rule, reason, field, rules_version
FROM {physical("dead_letter")} FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND event_uid = {{uid:String}}
ORDER BY appended_at, src_partition, src_offset
LIMIT {int(limit)}"""
    return Query(sql, {"generation": generation, "type": record_type, "uid": event_uid})


def booked_at(
    record_type: str, partitions: Collection[int], offsets: Collection[int], generation: int, limit: int
) -> Query:
    """The books of these raw positions, and of the reversals that name them (``sign`` -1; STORED: it took effect)."""
    sql = f"""SELECT src_partition, src_offset, booked_offset, verdict, sign, rule, source, batch_id, appended_at
FROM {physical("judgement")} FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}}
  AND src_partition IN {{partitions:Array(UInt32)}} AND booked_offset IN {{offsets:Array(UInt64)}}
ORDER BY src_partition, src_offset
LIMIT {int(limit)}"""
    return Query(
        sql,
        {
            "generation": generation,
            "type": record_type,
            "partitions": sorted(set(partitions)),
            "offsets": sorted(set(offsets)),
        },
    )


def windows_at(
    family: str,
    record_type: str,
    groups: Sequence[str],
    starts: Sequence[datetime],
    partition: int,
    segments: Collection[int],
    generation: int,
) -> Query:
    """``size_s``, ``start_ms``, ``group``, ``segment``, ``src_to`` of windows: the last raw offset that each includes.
    Of subscriber-days also their other groups."""
    group = GROUP[family]
    keys = f"size_s, window_start, {group}, segment"
    more = ", plan_id, roaming, direction, currency" if family == "subscriber_day" else ""
    sql = f"""SELECT size_s, toUnixTimestamp64Milli(window_start) AS start_ms, {group} AS group, segment{more},
    max(src_to) AS src_to
FROM {physical(f"agg_{family}")}
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND {group} IN {{groups:Array(String)}}
  AND window_start IN {{starts:Array(DateTime64(3, 'UTC'))}} AND partition = {{partition:UInt32}}
  AND segment IN {{segments:Array(UInt64)}}
GROUP BY {keys}{more}"""
    return Query(
        sql,
        {
            "generation": generation,
            "type": record_type,
            "groups": list(groups),
            "starts": list(starts),
            "partition": partition,
            "segments": sorted(set(segments)),
        },
    )


def reference_in_force(entity: str, identifier: str, at: datetime) -> Query:
    """The version of a customer (by identifier), cell, region or plan in force at that time, as known now; no row if
    there is none. ``deleted``: it says that there is none."""
    key, fields = _REFERENCE[entity]
    sql = f"""SELECT valid_from, deleted, {fields}
FROM reference_{entity} FINAL
WHERE {key} = {{identifier:String}} AND valid_from <= {{at:DateTime64(3, 'UTC')}}
ORDER BY valid_from DESC LIMIT 1"""
    return Query(sql, {"identifier": identifier, "at": at})
