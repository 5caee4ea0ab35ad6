"""A generation as answers have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from query_api.domain.ranges import iso
from query_api.generations_control import active_of
from telestream_opstore import Derivation
from telestream_warehouse import Span


def shown(row: Derivation, history: Sequence[Span]) -> dict[str, Any]:
    """The row, and when it was what people saw."""
    active, plan = active_of(history), row.plan
    return {
        "generation": row.generation,
        "types": list(row.types),
        "state": str(row.state),
        "active": [name for name, generation in active.items() if generation == row.generation],
        "compare_only": row.compare_only,
        "reason": row.reason,
        "actor": row.actor,
        "created_at": iso(row.created_at),
        "caught_up_at": _iso(row.caught_up_at),
        "decided_at": _iso(row.decided_at),
        "dropped_at": _iso(row.dropped_at),
        "problem": row.problem,
        "active_spans": [
            {"type": span.type, "from": iso(span.since), "to": _iso(span.until)}
            for span in history
            if span.generation == row.generation
        ],
        "starts": _by_partition(plan.starts),
        "ends": _by_partition(plan.ends),
        "reference": _by_partition(plan.reference),
        "only_to_ends": plan.only_to_ends,
        "rules": plan.rules,
        "versions": plan.versions,
        "asked": plan.asked,
    }


def _by_partition(offsets: Mapping[str, Mapping[int, int]]) -> dict[str, dict[str, int]]:
    return {name: {str(partition): offset for partition, offset in sorted(of.items())} for name, of in offsets.items()}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else iso(at)
