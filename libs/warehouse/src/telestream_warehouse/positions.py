"""How far the sink has written."""

from __future__ import annotations

from telestream_warehouse.query import Query
from telestream_warehouse.tables import source


def positions() -> Query:
    """Every position: ``topic``, ``partition``, ``topic_id``, ``generation``, ``kind`` (enriched, rejected, agg, ref),
    ``subject`` (type, family or entity), ``next_offset`` in that topic, ``src_next`` (enriched: raw offsets below it
    are written; else null), ``written_at``."""
    return Query(
        "SELECT topic, partition, topic_id, generation, kind, subject, next_offset, src_next, written_at "
        "FROM sink_position FINAL ORDER BY topic, partition, topic_id"
    )


def judged_positions(record_type: str, generation: int) -> Query:
    """``partition``, ``src_next``: raw offsets below it are judged and in all tables, for each enriched partition."""
    sql = (
        "SELECT partition, max(src_next) AS src_next FROM sink_position "
        "WHERE kind = 'enriched' AND subject = {type:String} AND generation = {generation:UInt32} "
        "GROUP BY partition ORDER BY partition"
    )
    return Query(sql, {"type": record_type, "generation": generation})


def judged_rows(record_type: str, generation: int | None = None) -> Query:
    """``partition``, ``rows``, ``first``, ``next``: what is judged, to hold against raw's offset arithmetic:
    without a hole ``rows = next - first``."""
    sql = (
        "SELECT src_partition AS partition, count() AS rows, min(src_offset) AS first, max(src_offset) + 1 AS next "
        f"FROM {source('judgement', generation)} WHERE type = {{type:String}} GROUP BY partition ORDER BY partition"
    )
    return Query(sql, {"type": record_type})
