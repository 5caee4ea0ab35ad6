"""Which generation of each type people see."""

from __future__ import annotations

from collections.abc import Mapping

from telestream_warehouse.query import Query


def active_generations() -> Query:
    """One row ``type``, ``generation`` for each type."""
    return Query("SELECT type, generation FROM active_generation ORDER BY type")


def activate(generations: Mapping[str, int], reason: str) -> Query:
    """Switch every view to these generations at once; types that are not named keep theirs. A command, not a read."""
    sql = (
        "INSERT INTO activation SELECT max(version) + 1, "
        "mapUpdate(argMax(generations, version), {generations:Map(String, UInt32)}), now64(3), {reason:String} "
        "FROM activation"
    )
    return Query(sql, {"generations": dict(generations), "reason": reason})
