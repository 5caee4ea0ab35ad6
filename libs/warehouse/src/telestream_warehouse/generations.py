"""Which generation of each type people see, and saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telestream_warehouse.query import Query


@dataclass(frozen=True, slots=True)
class Span:
    """``generation`` was what people saw of a type in ``since ≤ t < until``; ``until`` None: it is so now."""

    type: str
    generation: int
    since: datetime
    until: datetime | None


def active_generations() -> Query:
    """One row ``type``, ``generation`` for each type."""
    return Query("SELECT type, generation FROM active_generation ORDER BY type")


def activate(generations: Mapping[str, int], reason: str) -> Query:
    """Switch every view to these generations at once; types that are not named keep theirs. A command, not a read.

    Two at the same time may both be lost to one another: let one go at a time. Doing it again changes nothing.
    """
    sql = (
        "INSERT INTO activation SELECT max(version) + 1, "
        "mapUpdate(argMax(generations, version), {generations:Map(String, UInt32)}), now64(3), {reason:String} "
        "FROM activation"
    )
    return Query(sql, {"generations": dict(generations), "reason": reason})


def activations() -> Query:
    """Every activation, the oldest first: ``version``, ``generations`` by type, ``activated_at``, ``reason``."""
    return Query("SELECT version, generations, activated_at, reason FROM activation ORDER BY version")


def known_generations(at: datetime | None = None) -> Query:
    """``what``, ``type``, ``generation`` at one moment: 'active', what people see; 'then', what they saw at ``at`` (no
    row: nothing yet); 'rows', what there are rows of."""
    active = "SELECT 'active' AS what, type, generation FROM active_generation"
    rows = (
        "SELECT DISTINCT 'rows' AS what, toString(subject) AS type, generation FROM sink_position "
        "WHERE kind = 'enriched'"
    )
    if at is None:
        return Query(f"{active}\nUNION ALL\n{rows}")
    then = (
        "SELECT 'then' AS what, mapping.1 AS type, mapping.2 AS generation FROM (SELECT arrayJoin(CAST("
        "argMax(generations, version), 'Array(Tuple(String, UInt32))')) AS mapping FROM activation "
        "WHERE activated_at <= {at:DateTime64(3, 'UTC')})"
    )
    return Query(f"{active}\nUNION ALL\n{rows}\nUNION ALL\n{then}", {"at": at})


def spans(rows: Iterable[Mapping[str, Any]]) -> list[Span]:
    """When each generation was what people saw, by type and time; from the rows of ``activations``."""
    found: dict[str, list[Span]] = {}
    for row in rows:
        at = datetime.fromisoformat(str(row["activated_at"]))
        for record_type, generation in row["generations"].items():
            held = found.setdefault(record_type, [])
            if held and held[-1].generation == generation:
                continue
            if held:
                held[-1] = Span(record_type, held[-1].generation, held[-1].since, at)
            held.append(Span(record_type, int(generation), at, None))
    return [span for record_type in sorted(found) for span in found[record_type]]


def previous(found: Iterable[Span], record_type: str) -> int | None:
    """What people saw of a type before what they see now; None if nothing. Going back twice is where one began."""
    own = [span.generation for span in found if span.type == record_type]
    return own[-2] if len(own) > 1 else None
