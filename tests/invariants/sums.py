"""Aggregates of a generation, as a reader sums them, and what the plain model expects of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from telestream_domain import FAMILIES

from .corner import Corner, Record
from .model import cells, judge
from .traffic import Call

Logs = list[list[Call | bytes]]


def upserts(corner: Corner, generation: int) -> dict[tuple[str, bytes], Record]:
    """(family, key) → the last upsert, without markers."""
    topics = corner.generation(generation)
    found = {(family, key): value for family in FAMILIES for key, value in corner.latest(topics.agg(family)).items()}
    return {key: value for key, value in found.items() if value["marker_offset"] is None}


def found_sums(corner: Corner, generation: int) -> dict[str, dict[Any, Any]]:
    """Cells by quarter hour and records by verdict and rule, over all partitions and segments."""
    by_cell: dict[Any, tuple[int, int, int]] = {}
    quality: Counter[tuple[str, str]] = Counter()
    for (family, _), value in upserts(corner, generation).items():
        if family == "cell" and value["size_s"] == 900:
            key = round(value["window_start"].timestamp() * 1000), value["cell_id"]
            n, duration, charge = by_cell.get(key, (0, 0, 0))
            by_cell[key] = n + value["records"], duration + value["duration_ms"], charge + sum(value["charge_micros"])
        if family == "quality":
            quality[value["verdict"], value["rule"]] += value["records"] + value["reversals"]
    return {"cells": {key: sums for key, sums in by_cell.items() if any(sums)}, "quality": +quality}


def expected_sums(logs: Logs) -> dict[str, dict[Any, Any]]:
    """The same from the raw logs, by the model."""
    by_cell: dict[Any, tuple[int, int, int]] = {}
    for log in logs:
        for key, (n, duration, charge) in cells(log).items():
            before = by_cell.get(key, (0, 0, 0))
            by_cell[key] = before[0] + n, before[1] + duration, before[2] + charge
    quality = Counter((verdict, rule or "") for log in logs for verdict, rule, _ in judge(log))
    return {"cells": {key: sums for key, sums in by_cell.items() if any(sums)}, "quality": quality}
