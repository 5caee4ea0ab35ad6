"""What a generation holds in ClickHouse, what it costs, and its removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from telestream_domain import Topics
from telestream_warehouse.query import Query
from telestream_warehouse.tables import source

_OF_PARTITION = "toUInt32OrZero(extract(partition, '^\\\\(?([0-9]+)'))"
"""Every table that depends on a generation is partitioned by it first."""

_BY_GENERATION = (
    "database = currentDatabase() AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() "
    "AND match(partition_key, '^\\\\(?generation\\\\b'))"
)


def costs() -> Query:
    """``generation``, ``table``, ``rows``, ``bytes_on_disk`` of every generation that has rows."""
    return Query(
        f"SELECT {_OF_PARTITION} AS generation, table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes_on_disk "
        f"FROM system.parts WHERE active AND {_BY_GENERATION} GROUP BY generation, table ORDER BY generation, table"
    )


def held_partitions(generation: int) -> Query:
    """``table``, ``partition_id`` of all that one generation has, in every table."""
    return Query(
        f"SELECT DISTINCT table, partition_id FROM system.parts WHERE active AND {_BY_GENERATION} "
        f"AND {_OF_PARTITION} = {{generation:UInt32}} ORDER BY table, partition_id",
        {"generation": generation},
    )


def drop_partitions(rows: Iterable[Mapping[str, Any]]) -> list[Query]:
    """Statements that remove what ``held_partitions`` gave; each may be done again."""
    partitions: dict[str, list[str]] = {}
    for row in rows:
        partitions.setdefault(str(row["table"]), []).append(str(row["partition_id"]))
    return [
        Query(f"ALTER TABLE {table} " + ", ".join(f"DROP PARTITION ID '{name}'" for name in names))
        for table, names in partitions.items()
    ]


def held_positions(topics: Topics) -> Query:
    """One row ``positions``: how many the sink has of this generation's own topics."""
    return Query("SELECT count() AS positions FROM sink_position WHERE endsWith(topic, {suffix:String})", _own(topics))


def drop_positions(topics: Topics) -> Query:
    """Remove them, and wait until that is done; those of reference topics, which all share, stay."""
    sql = "ALTER TABLE sink_position DELETE WHERE endsWith(topic, {suffix:String}) SETTINGS mutations_sync = 2"
    return Query(sql, _own(topics))


def derived_positions(generation: int) -> Query:
    """``topic``, ``partition``, ``next_offset``, of this generation's own topics but the enriched ones: aggregates and
    dead letters below it are in ClickHouse."""
    sql = (
        "SELECT topic, partition, max(next_offset) AS next_offset FROM sink_position "
        "WHERE generation = {generation:UInt32} AND kind IN ('agg', 'rejected') GROUP BY topic, partition"
    )
    return Query(sql, {"generation": generation})


def first_judged(record_type: str, generation: int) -> Query:
    """``partition``, ``first``: the first raw offset this generation judged."""
    sql = (
        "SELECT src_partition AS partition, min(src_offset) AS first FROM judgement_all "
        "WHERE generation = {generation:UInt32} AND type = {type:String} GROUP BY partition ORDER BY partition"
    )
    return Query(sql, {"generation": generation, "type": record_type})


def verdicts_between(record_type: str, first: Sequence[int], end: Sequence[int], generation: int) -> Query:
    """One row ``accepted``, ``rejected``: records of raw offsets ``first[partition]`` ≤ offset < ``end[partition]``."""
    sql = (
        f"SELECT count() AS accepted, countIf(verdict = 'REJECTED') AS rejected "
        f"FROM {source('judgement', generation)} WHERE type = {{type:String}} AND sign = 1 "
        "AND src_offset >= {first:Array(UInt64)}[src_partition + 1] "
        "AND src_offset < {end:Array(UInt64)}[src_partition + 1]"
    )
    return Query(sql, {"type": record_type, "first": list(first), "end": list(end)})


def _own(topics: Topics) -> dict[str, str]:
    return {"suffix": f".g{topics.generation}"}
