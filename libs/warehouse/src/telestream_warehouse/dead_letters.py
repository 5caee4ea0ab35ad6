"""Dead letters, newest first, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import Generations, source


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of the page before."""

    appended_at: datetime
    record_type: str
    src_partition: int
    src_offset: int


def dead_letters(
    *,
    record_type: str | None = None,
    rule: str | None = None,
    source_name: str | None = None,
    batch_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: Cursor | None = None,
    limit: int = 100,
    generation: Generations = None,
) -> Query:
    """At most ``limit`` rows that arrived in ``since ≤ t < until``, newest first, behind ``after``: the fields of the
    dead letter, its ``original`` bytes in base64."""
    where, params = ["1"], dict[str, Parameter]()
    for condition, name, value in (
        ("type = {type:String}", "type", record_type),
        ("rule = {rule:String}", "rule", rule),
        ("source = {source:String}", "source", source_name),
        ("batch_id = {batch:Int64}", "batch", batch_id),
        ("appended_at >= {since:DateTime64(3, 'UTC')}", "since", since),
        ("appended_at < {until:DateTime64(3, 'UTC')}", "until", until),
    ):
        if value is not None:
            where.append(condition)
            params[name] = value
    if after is not None:
        where.append(
            "(appended_at, type, src_partition, src_offset) < "
            "({at:DateTime64(3, 'UTC')}, {after_type:String}, {partition:UInt32}, {offset:UInt64})"
        )
        params |= {
            "at": after.appended_at,
            "after_type": after.record_type,
            "partition": after.src_partition,
            "offset": after.src_offset,
        }
    sql = f"""SELECT * EXCEPT (original), base64Encode(original) AS original
FROM {source("dead_letter", generation)}
WHERE {" AND ".join(where)}
ORDER BY appended_at DESC, type DESC, src_partition DESC, src_offset DESC
LIMIT {int(limit)}"""
    return Query(sql, params)
