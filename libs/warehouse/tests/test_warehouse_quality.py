"""Numbers of switches, quality by hour, and amended windows, against plain references on random rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from telestream_domain.gaps import gaps_of
from telestream_warehouse import (
    ClickHouse,
    amendments,
    judged_by_step,
    missing_numbers,
    node_numbers,
    numbers_by_step,
    step_of,
)

pytestmark = pytest.mark.stack
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
END = START + timedelta(days=1)
HOUR_MS = 3_600_000
BOTH = {"cdr": 1, "network": 1}


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def rows(warehouse: ClickHouse, table: str, found: list[dict[str, Any]]) -> None:
    warehouse.insert(table, pa.RecordBatch.from_pylist(found))


@pytest.fixture
def numbered(warehouse: ClickHouse, judgement: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """3,000 records of two switches, whose counters have holes; one of them starts anew. All verdicts, some twice."""
    chance = random.Random(11)
    books: list[dict[str, Any]] = []
    counters = {"MSC1": 700_000_000, "MSC2": 40}
    for offset in range(3_000):
        node = chance.choice(list(counters))
        counters[node] += 1 + (chance.random() < 0.05) * chance.randrange(40)
        if offset == 1_500:
            counters["MSC1"] = 1
        verdict = chance.choices(["STORED", "DUPLICATE", "REJECTED"], [8, 1, 1])[0]
        at = START + timedelta(seconds=20 * offset + chance.randrange(40))
        where = {"node_id": node, "node_seq": counters[node], "appended_at": at, "source": f"s-{node[-1]}"}
        books.append(judgement(offset, verdict, **where))
        if chance.random() < 0.05:
            books.append(judgement(offset, "DUPLICATE", partition=1, **where))
    books.append(judgement(5_000, booked_offset=1, sign=-1, node_id="MSC1", node_seq=5, appended_at=START))
    rows(warehouse, "judgement_all", books)
    return books[:-1]


def reference(books: list[dict[str, Any]]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for row in books:
        at = found.setdefault(row["node_id"], {})
        at[row["node_seq"]] = min(at.get(row["node_seq"], 2**62), ms(row["appended_at"]))
    return found


def test_gaps_of_switches_are_those_of_the_plain_reference(
    warehouse: ClickHouse, numbered: list[dict[str, Any]]
) -> None:
    found = {row["node_id"]: row for row in warehouse.rows(node_numbers(START, END, 1))}
    holes = warehouse.rows(missing_numbers(START, END, 1, limit=10_000))
    assert set(found) == {"MSC1", "MSC2"}
    for node, numbers in reference(numbered).items():
        gaps = gaps_of(numbers)
        row = found[node]
        assert (row["first"], row["last"], row["present"]) == (gaps.first, gaps.last, gaps.present)
        assert (row["missing"], row["restarts"], row["reused"]) == (gaps.missing, gaps.restarts, 0)
        assert sorted((hole["first"], hole["last"]) for hole in holes if hole["node_id"] == node) == list(gaps.ranges)
    assert found["MSC1"]["restarts"] == 1
    assert len(warehouse.rows(missing_numbers(START, END, 1, limit=3))) == 3
    assert [row["node_id"] for row in warehouse.rows(node_numbers(START, END, 1, ["s-2"]))] == ["MSC2"]


def test_missing_numbers_by_hour_add_up_to_those_of_the_whole(
    warehouse: ClickHouse, numbered: list[dict[str, Any]]
) -> None:
    by_hour = warehouse.rows(
        numbers_by_step(START, END, 1, step_of("hour", "UTC", "at"), by_source=True, margin_s=3600)
    )
    for row in warehouse.rows(node_numbers(START, END, 1)):
        own = [entry for entry in by_hour if entry["source"] == row["source"]]
        assert sum(entry["present"] for entry in own) == row["present"]
        assert sum(entry["missing"] for entry in own) == row["missing"]
    # a hole at the edge is filled by what came within the margin
    cut = START + timedelta(hours=2)
    half = numbers_by_step(cut, END, 1, step_of("hour", "UTC", "at"), by_source=True, margin_s=3600)
    kept = {(row["step_start"], row["source"]): row for row in by_hour}
    assert all(kept[row["step_start"], row["source"]] == row for row in warehouse.rows(half))


def test_a_number_that_two_records_hold_shows_that_the_counter_came_round(
    warehouse: ClickHouse, judgement: Callable[..., dict[str, Any]]
) -> None:
    seqs = [1, 2, 3, 1, 2, 3]
    rows(warehouse, "judgement_all", [judgement(n, node_id="N", node_seq=seq) for n, seq in enumerate(seqs)])
    [found] = warehouse.rows(node_numbers(START, END, 1))
    assert (found["present"], found["missing"], found["reused"]) == (3, 0, 3)


def quality(hour: datetime, **fields: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 3600,
        "window_start": hour,
        "source": "msc-1",
        "verdict": "STORED",
        "rule": "",
        "partition": 0,
        "segment": 0,
        "src_to": 9,
        "records": 5,
        "reversals": 1,
        "warned": 2,
        "latency_ms": 100,
        "latency_buckets": [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0],
        "warning_codes": ["voice_with_bytes"],
        "warning_counts": [2],
        **fields,
    }


def test_quality_sums_the_newest_state_over_partitions_and_days_of_a_zone(warehouse: ClickHouse) -> None:
    rows(warehouse, "agg_quality_all", [quality(START, src_to=3, records=4)])
    rows(warehouse, "agg_quality_all", [quality(START), quality(START, partition=1, source="msc-2")])
    rows(warehouse, "agg_quality_all", [quality(START, generation=2), quality(START, type="network", records=7)])
    late = datetime(2026, 3, 1, 19, 0, tzinfo=UTC)  # the next day in Kolkata
    rows(warehouse, "agg_quality_all", [quality(late, warning_codes=["a"], warning_counts=[1])])
    [one] = warehouse.rows(judged_by_step(START, START + timedelta(hours=1), {"cdr": 1}, sources=["msc-1"]))
    assert (one["records"], one["reversals"], one["warned"]) == (5, 1, 2)
    assert one["latency_buckets"][:3] == [1, 2, 3]
    both = warehouse.rows(judged_by_step(START, END, BOTH, step="all", by_source=False, by_type=True))
    assert {row["type"]: row["records"] for row in both} == {"cdr": 15, "network": 7}
    days = warehouse.rows(judged_by_step(START, END, {"cdr": 1}, step="day", time_zone="Asia/Kolkata", by_source=False))
    assert [(row["step_start"], row["records"]) for row in days] == [
        (ms(datetime(2026, 2, 28, 18, 30, tzinfo=UTC)), 10),
        (ms(datetime(2026, 3, 1, 18, 30, tzinfo=UTC)), 5),
    ]
    assert days[1]["warning_counts"] == {"a": 1}


def window(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 900,
        "window_start": START + timedelta(minutes=15 * (number % 40)),
        "region_id": f"R{number}",
        "partition": 0,
        "segment": 0,
        "src_to": 10,
        "late_records": 0,
        "reversals": 0,
        "late_at": None,
        **fields,
    }


def test_amended_windows_are_paged_in_the_order_they_changed(warehouse: ClickHouse) -> None:
    chance = random.Random(3)
    changed = {}
    found = []
    for number in range(200):
        late = number % 3 == 0
        at = END + timedelta(milliseconds=chance.randrange(60))
        found.append(window(number, late_records=int(late), late_at=at if late else None))
        if late:
            changed[f"R{number}"] = at
    rows(warehouse, "agg_region_all", found)
    # an older state, another segment's share from before, a minute window, another generation
    before = START + timedelta(hours=1)
    others = [window(0, src_to=5, late_records=9, late_at=before), window(3, segment=1, late_records=4, late_at=before)]
    others += [window(6, size_s=60, late_records=7, late_at=END), window(9, generation=2, late_records=7, late_at=END)]
    others.append(window(12, partition=1, reversals=2, late_at=before))
    rows(warehouse, "agg_region_all", others)
    seen: list[dict[str, Any]] = []
    after = None
    while True:
        page = warehouse.rows(amendments(END, BOTH, ["region"], after=after, limit=7))
        seen += page
        if len(page) < 7:
            break
        after = (page[-1]["late_ms"], page[-1]["window_ms"], page[-1]["place"])
    assert {row["group"]: row["late_ms"] for row in seen} == {group: ms(at) for group, at in changed.items()}
    assert len(seen) == len(changed)
    assert [row["late_ms"] for row in seen] == sorted(row["late_ms"] for row in seen)
    by_group = {row["group"]: row for row in seen}
    assert by_group["R0"]["late_records"] == 1
    assert by_group["R3"]["late_records"] == 5
    assert (by_group["R12"]["late_records"], by_group["R12"]["reversals"]) == (1, 2)
    assert warehouse.rows(amendments(END + timedelta(seconds=1), BOTH)) == []


def test_amended_days_of_subscribers_name_nobody(warehouse: ClickHouse) -> None:
    day = {
        "generation": 1,
        "type": "cdr",
        "size_s": 86_400,
        "window_start": datetime(2026, 3, 1, tzinfo=UTC),
        "local_date": datetime(2026, 3, 1).date(),
        "partition": 0,
        "segment": 0,
        "src_to": 1,
        "late_records": 2,
        "late_at": END,
    }
    rows(warehouse, "agg_subscriber_day_all", [{**day, "subscriber_id": f"k1.{n}"} for n in range(3)])
    [found] = warehouse.rows(amendments(START, BOTH))
    assert (found["group"], found["windows"], found["late_records"]) == ("2026-03-01", 3, 6)
    assert "k1." not in str(found)
