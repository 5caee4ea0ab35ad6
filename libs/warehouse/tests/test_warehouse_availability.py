"""Seconds up, per cell and step: SQL against a plain walk over the events, on random and on awkward histories."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telestream_warehouse import ClickHouse, cell_availability

pytestmark = pytest.mark.stack

Insert = Callable[..., None]
START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Steps = list[tuple[datetime, datetime]]


def hours(count: int) -> Steps:
    return [(START + number * HOUR, START + (number + 1) * HOUR) for number in range(count)]


class Events:
    """Rows of ``fact_network_event_all``, offsets ascending in the order they are made."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, cell: str, minute: float, event_type: str, **fields: Any) -> None:
        offset = len(self.rows)
        self.rows.append(
            {
                "generation": 1,
                "booked_offset": offset,
                "withdrawn": 0,
                "src_partition": 0,
                "src_offset": offset,
                "appended_at": START + timedelta(seconds=offset),
                "event_uid": f"u{offset}",
                "occurred_at": START + timedelta(minutes=minute),
                "event_type": event_type,
                "cell_id": cell,
                "source": "oss",
                "severity": None,
                "alarm_id": None,
                "alarm_state": None,
                **fields,
            }
        )

    def alarm(self, cell: str, minute: float, alarm: str | None, state: str, severity: str | None) -> None:
        self.add(cell, minute, "ALARM", alarm_id=alarm, alarm_state=state, severity=severity)


def walked(rows: Sequence[dict[str, Any]], steps: Steps) -> dict[tuple[datetime, str], int]:
    """The model: milliseconds up per (step, cell), by walking through each cell's events in order of time."""
    since, until = steps[0][0], steps[-1][1]
    by_cell: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["occurred_at"], row["src_offset"])):
        if row["occurred_at"] < until:
            by_cell[row["cell_id"]].append(row)
    found = {}
    for cell, events in by_cell.items():
        holding: set[str] = set()
        down: list[tuple[datetime, datetime]] = []
        for index, row in enumerate(events):
            if row["event_type"] in ("CELL_DOWN", "CELL_UP"):
                (holding.add if row["event_type"] == "CELL_DOWN" else holding.discard)("cell")
            elif row["event_type"] == "ALARM" and row["alarm_id"] and row["alarm_state"]:
                is_down = row["alarm_state"] == "RAISED" and row["severity"] == "CRITICAL"
                (holding.add if is_down else holding.discard)("alarm " + row["alarm_id"])
            ends = events[index + 1]["occurred_at"] if index + 1 < len(events) else until
            if holding:
                down.append((row["occurred_at"], ends))
        seen = any(row["occurred_at"] >= since for row in events) or any(ends > since for _, ends in down)
        for start, end in steps if seen else []:
            lost = sum(
                (max(min(b, end) - max(a, start), timedelta()) for a, b in down),
                timedelta(),
            )
            found[start, cell] = (end - start - lost) // timedelta(milliseconds=1)
    return found


def asked(warehouse: ClickHouse, steps: Steps, **more: Any) -> dict[tuple[datetime, str], int]:
    rows = warehouse.rows(cell_availability(steps, **more))
    lengths = {start: (end - start) // timedelta(milliseconds=1) for start, end in steps}
    found = {}
    for row in rows:
        at = datetime.fromisoformat(row["step_start"])
        assert row["range_ms"] == lengths[at]
        found[at, row["cell_id"]] = row["available_ms"]
    return found


def test_random_histories_of_outages_equal_a_plain_walk(warehouse: ClickHouse, insert: Insert) -> None:
    chance = random.Random(13)
    for trial in range(6):
        events = Events()
        for _ in range(160):
            cell = f"208-01-{trial}-{chance.randint(1, 6)}"
            # before the range, in it and after it; on whole minutes, so that some fall together
            minute = chance.randint(-30 * 60, 14 * 60)
            kind = chance.choice(["CELL_DOWN", "CELL_UP", "ALARM", "ALARM", "ALARM", "SAMPLE"])
            if kind == "ALARM":
                state = chance.choice(["RAISED", "CLEARED", "RAISED", None])
                severity = chance.choice(["CRITICAL", "CRITICAL", "MAJOR", None])
                events.alarm(cell, minute, chance.choice(["a", "b", None]), str(state) if state else None, severity)  # type: ignore[arg-type]
            else:
                events.add(cell, minute, kind)
        chance.shuffle(events.rows)
        third = len(events.rows) // 3
        for first in range(0, len(events.rows), third):
            insert("fact_network_event_all", events.rows[first : first + third])
        insert("fact_network_event_all", events.rows[:third])
        uneven = [(START + timedelta(minutes=7), START + HOUR), *hours(12)[1:]]
        cells = sorted({row["cell_id"] for row in events.rows})
        for steps in (hours(12), uneven):
            expected = walked(events.rows, steps)
            assert expected
            assert asked(warehouse, steps, cells=cells) == expected
            assert asked(warehouse, steps, cells=cells, generation=1) == expected
        warehouse.command("TRUNCATE TABLE fact_network_event_all")


def test_hand_worked_outages(warehouse: ClickHouse, insert: Insert) -> None:
    events = Events()
    events.add("still-down", 30, "CELL_DOWN")
    events.add("long-down", -60 * 24 * 40, "CELL_DOWN")
    events.add("came-up", -90, "CELL_DOWN")
    events.add("came-up", 15, "CELL_UP")
    events.add("two-causes", 10, "CELL_DOWN")
    events.alarm("two-causes", 20, "x", "RAISED", "CRITICAL")
    events.add("two-causes", 30, "CELL_UP")
    events.alarm("two-causes", 70, "x", "CLEARED", None)
    events.alarm("minor", 5, "y", "RAISED", "MINOR")
    events.alarm("eased", 0, "z", "RAISED", "CRITICAL")
    events.alarm("eased", 6, "z", "RAISED", "MAJOR")
    events.add("healthy", 50, "SAMPLE")
    events.add("silent", -60, "SAMPLE")
    insert("fact_network_event_all", events.rows)
    found = asked(warehouse, hours(2))
    seconds = {
        cell: [found[start, cell] / 1000 for start, _ in hours(2)] for cell in sorted({name for _, name in found})
    }
    assert seconds == {
        "still-down": [1800, 0],
        "long-down": [0, 0],
        "came-up": [2700, 3600],
        "two-causes": [600, 3000],
        "minor": [3600, 3600],
        "eased": [3240, 3600],
        "healthy": [3600, 3600],
    }


def test_an_outage_that_was_withdrawn_or_superseded_does_not_count(warehouse: ClickHouse, insert: Insert) -> None:
    events = Events()
    events.add("c", 10, "CELL_DOWN")
    events.add("c", 50, "SAMPLE")
    insert("fact_network_event_all", events.rows)
    insert("fact_network_event_all", [{**events.rows[0], "src_offset": 9, "withdrawn": 1}])
    insert("fact_network_event_all", events.rows[:1])
    assert asked(warehouse, hours(1)) == {(START, "c"): 3_600_000}
