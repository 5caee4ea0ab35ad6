"""Questions that only this service asks, as values; the others are in the warehouse library."""

from __future__ import annotations

from collections.abc import Mapping

from telestream_warehouse import Query, source


def in_milliseconds(query: Query, column: str) -> Query:
    """The same rows with ``column`` as instants: a step's start is a DateTime, which Arrow carries as a bare number."""
    sql = f"SELECT * REPLACE (toDateTime64({column}, 3, 'UTC') AS {column}) FROM (\n{query.sql}\n)"
    return Query(sql, query.params)


def known_customer(customer_id: str) -> Query:
    """One row ``known``: whether any version names this customer."""
    return Query(
        "SELECT count() > 0 AS known FROM reference_customer WHERE customer_id = {customer:String}",
        {"customer": customer_id},
    )


def known_subscriber(subscriber_id: str, generation: int) -> Query:
    """One row ``known``: whether this identifier is a customer's or ever used anything."""
    return Query(
        "SELECT (SELECT count() FROM dim_customer WHERE identifier = {subscriber:String}) + "
        "(SELECT count() FROM (SELECT 1 FROM agg_subscriber_day_all WHERE generation = {generation:UInt32} "
        "AND type = 'cdr' AND size_s = 86400 AND subscriber_id = {subscriber:String} LIMIT 1)) > 0 AS known",
        {"subscriber": subscriber_id, "generation": generation},
    )


def customer_of(subscriber_id: str) -> Query:
    """``customer_id`` of who holds this identifier now; no row if nobody."""
    return Query(
        "SELECT customer_id FROM dim_customer_current WHERE identifier = {subscriber:String} "
        "AND customer_id IS NOT NULL LIMIT 1",
        {"subscriber": subscriber_id},
    )


def cell_of(cell_id: str) -> Query:
    """What is known of a cell now; no row if nothing."""
    return Query(
        "SELECT name, region_id, latitude, longitude, technology, vendor FROM dim_cell "
        "WHERE cell_id = {cell:String} LIMIT 1",
        {"cell": cell_id},
    )


def judged_below(record_type: str, starts: Mapping[int, int], positions: Mapping[int, int], generation: int) -> Query:
    """``partition``, ``rows``: judged records from raw's start up to the position."""
    last = max([*starts, *positions, 0])
    return Query(
        f"SELECT src_partition AS partition, count() AS rows FROM {source('judgement', generation)} "
        "WHERE type = {type:String} AND src_offset >= {first:Array(UInt64)}[src_partition + 1] "
        "AND src_offset < {next:Array(UInt64)}[src_partition + 1] GROUP BY partition",
        {
            "type": record_type,
            "first": [starts.get(number, 0) for number in range(last + 1)],
            "next": [positions.get(number, 0) for number in range(last + 1)],
        },
    )
