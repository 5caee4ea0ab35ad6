from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telestream_warehouse import (
    PUBLISHED_VIEWS,
    ClickHouse,
    Cursor,
    Query,
    activate,
    active_generations,
    dead_letters,
    window_kpis,
)

pytestmark = pytest.mark.stack

Row = Callable[..., dict[str, Any]]
Insert = Callable[..., None]
DAY = datetime(2026, 3, 1, tzinfo=UTC)


def window(minute: int, segment: int, src_to: int, records: int, **fields: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 900,
        "window_start": DAY + timedelta(minutes=minute),
        "cell_id": "208-01-1",
        "partition": 0,
        "segment": segment,
        "src_to": src_to,
        "records": records,
        "attempts": records,
        "charge_currencies": ["EUR"],
        "charge_micros": [100 * records],
        "freshest_event_end_at": DAY + timedelta(minutes=minute, seconds=records),
        **fields,
    }


def subscriber_day(subscriber: str, day: datetime, records: int, **fields: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 86400,
        "window_start": day,
        "local_date": day.date(),
        "subscriber_id": subscriber,
        "plan_id": "P1",
        "roaming": "HOME",
        "direction": "MO",
        "currency": "EUR",
        "partition": 0,
        "segment": 0,
        "src_to": 1,
        "records": records,
        "charge_micros": 10 * records,
        **fields,
    }


def customer(
    identifier: str, valid_from: datetime, offset: int, customer_id: str | None, **fields: Any
) -> dict[str, Any]:
    return {
        "src_partition": 0,
        "src_offset": offset,
        "identifier": identifier,
        "valid_from": valid_from,
        "deleted": customer_id is None,
        "customer_id": customer_id,
        "plan_id": "P1",
        **fields,
    }


def answers(warehouse: ClickHouse) -> dict[str, list[dict[str, Any]]]:
    """What every view says, in a fixed order."""
    views = [view for view in PUBLISHED_VIEWS if view != "dim_time"]
    return {view: sorted(warehouse.rows(Query(f"SELECT * FROM {view}")), key=repr) for view in views}


def some_of_everything(fact: Row, judgement: Row, generation: int = 1) -> list[tuple[str, list[dict[str, Any]]]]:
    blocks: list[tuple[str, list[dict[str, Any]]]] = []
    for first in (0, 5, 10):
        offsets = range(first, first + 5)
        blocks.append(("fact_cdr_all", [fact(offset, generation=generation) for offset in offsets]))
        blocks.append(("judgement_all", [judgement(offset, generation=generation) for offset in offsets]))
        segment = first // 10
        blocks.append(("agg_cell_all", [window(0, segment, first, first + 1, generation=generation)]))
        blocks.append(
            ("agg_subscriber_day_all", [subscriber_day("s1", DAY, first, src_to=first, generation=generation)])
        )
    blocks.append(("reference_customer", [customer("s1", DAY - timedelta(days=9), 1, "C1")]))
    blocks.append(("reference_customer", [customer("s1", DAY - timedelta(days=9), 2, "C2")]))
    return blocks


def test_inserting_any_range_again_changes_no_answer_merged_or_not(
    warehouse: ClickHouse, insert: Insert, fact: Row, judgement: Row
) -> None:
    blocks = some_of_everything(fact, judgement)
    for table, rows in blocks:
        insert(table, rows)
    expected = answers(warehouse)
    assert len(expected["fact_cdr"]) == 15
    chance = random.Random(5)
    for table, rows in chance.choices(blocks, k=12):
        start = chance.randrange(len(rows))
        insert(table, rows[start:])
    assert answers(warehouse) == expected
    for table in {table for table, _ in blocks}:
        warehouse.command(f"SYSTEM START MERGES {warehouse.database}.{table}")
        warehouse.command(f"OPTIMIZE TABLE {table} FINAL")
    assert answers(warehouse) == expected


def test_a_second_generation_beside_the_first_changes_no_answer(
    warehouse: ClickHouse, insert: Insert, fact: Row, judgement: Row
) -> None:
    for table, rows in some_of_everything(fact, judgement):
        insert(table, rows)
    expected = answers(warehouse)
    for table, rows in some_of_everything(fact, judgement, generation=2):
        insert(table, [{**row, "records": 77} if "records" in row else row for row in rows])
    assert answers(warehouse) == expected


def test_one_insert_switches_all_views_and_another_switches_them_back(
    warehouse: ClickHouse, insert: Insert, fact: Row, judgement: Row
) -> None:
    for table, rows in some_of_everything(fact, judgement):
        insert(table, rows)
    expected = answers(warehouse)
    for table, rows in some_of_everything(fact, judgement, generation=2)[:2]:
        insert(table, rows)
    warehouse.command(activate({"cdr": 2}, "trial"))
    assert warehouse.rows(active_generations()) == [
        {"type": "cdr", "generation": 2},
        {"type": "network", "generation": 1},
    ]
    switched = answers(warehouse)
    assert {row["generation"] for row in switched["fact_cdr"]} == {2}
    assert (len(switched["fact_cdr"]), len(switched["judgement"]), switched["agg_cell"]) == (5, 5, [])
    warehouse.command(activate({"cdr": 1}, "back"))
    assert answers(warehouse) == expected


def test_every_view_of_one_statement_sees_the_same_activation(warehouse: ClickHouse) -> None:
    # the scalar subquery is evaluated once for a statement, however many views hold it
    sql = "SELECT (SELECT generateUUIDv4()) AS one"
    for name in ("probe_a", "probe_b"):
        warehouse.command(f"CREATE VIEW {name} AS {sql}")
    row = warehouse.rows(Query("SELECT a.one AS a, b.one AS b FROM probe_a AS a CROSS JOIN probe_b AS b"))[0]
    assert row["a"] == row["b"]


def test_a_reversal_takes_its_fact_out_of_the_view_also_when_the_original_is_written_again(
    warehouse: ClickHouse, insert: Insert, fact: Row
) -> None:
    insert("fact_cdr_all", [fact(1), fact(2)])
    insert("fact_cdr_all", [fact(1, src_offset=9, booked_offset=1, withdrawn=1)])
    insert("fact_cdr_all", [fact(1)])
    assert [row["src_offset"] for row in warehouse.rows(Query("SELECT src_offset FROM fact_cdr"))] == [2]


def test_two_partitions_with_the_same_offsets_do_not_collide(warehouse: ClickHouse, insert: Insert, fact: Row) -> None:
    insert("fact_cdr_all", [fact(1, partition=partition, event_uid="same") for partition in range(3)])
    assert len(warehouse.rows(Query("SELECT 1 FROM fact_cdr"))) == 3


def test_a_window_is_the_sum_over_segments_and_partitions_of_their_last_states(
    warehouse: ClickHouse, insert: Insert
) -> None:
    insert("agg_cell_all", [window(0, 0, 10, 4), window(0, 1, 300_000, 2), window(15, 1, 300_000, 5)])
    insert("agg_cell_all", [window(0, 0, 20, 6), window(0, 0, 5, 1), window(0, 0, 7, 3, partition=1)])
    insert("agg_cell_all", [window(0, 0, 3, 0, type="network", events=9)])
    rows = warehouse.rows(Query("SELECT * FROM fact_cell_kpi ORDER BY window_start"))
    assert [(row["records"], row["events"], row["charge_micros"]) for row in rows] == [
        (11, 9, {"EUR": 1100}),
        (5, 0, {"EUR": 500}),
    ]
    hour = warehouse.rows(window_kpis("cell", DAY, DAY + timedelta(hours=1), groups=["208-01-1"]))
    assert [(row["step_start"], row["cell_id"], row["records"], row["events"]) for row in hour] == [
        ("2026-03-01T00:00:00Z", "208-01-1", 16, 9)
    ]
    assert hour[0]["freshest_event_end_at"] == "2026-03-01T00:15:05.000Z"
    pinned = warehouse.rows(window_kpis("cell", DAY, DAY + timedelta(hours=1), groups=["208-01-1"], generation=1))
    assert pinned == hour


def test_local_days_of_a_zone_are_sums_of_quarter_hours(warehouse: ClickHouse, insert: Insert) -> None:
    insert("agg_cell_all", [window(minute, 0, 1, 1) for minute in range(0, 24 * 60, 15)])
    rows = warehouse.rows(
        window_kpis("cell", DAY, DAY + timedelta(days=1), step_s=None, time_zone="Asia/Kolkata", by_group=False)
    )
    assert [row["records"] for row in rows] == [74, 22]


def test_versions_of_a_customer_follow_one_another_and_the_later_offset_wins(
    warehouse: ClickHouse, insert: Insert
) -> None:
    first, second, third = DAY, DAY + timedelta(days=2), DAY + timedelta(days=4)
    insert("reference_customer", [customer("s1", second, 5, "C2"), customer("s1", first, 1, "C0")])
    insert("reference_customer", [customer("s1", first, 9, "C1"), customer("s1", third, 7, None)])
    rows = warehouse.rows(Query("SELECT customer_id, valid_from, valid_to FROM dim_customer ORDER BY valid_from"))
    assert [(row["customer_id"], row["valid_from"][:10], row["valid_to"][:10]) for row in rows] == [
        ("C1", "2026-03-01", "2026-03-03"),
        ("C2", "2026-03-03", "2026-03-05"),
    ]
    assert warehouse.rows(Query("SELECT * FROM dim_customer_current")) == []
    insert("reference_customer", [customer("s1", third + timedelta(days=1), 8, "C4")])
    current = warehouse.rows(Query("SELECT customer_id, valid_to FROM dim_customer_current"))
    assert current == [{"customer_id": "C4", "valid_to": "2299-12-31T00:00:00.000Z"}]


def test_dead_letters_come_page_by_page_newest_first_with_their_bytes(warehouse: ClickHouse, insert: Insert) -> None:
    letters = [
        {
            "generation": 1,
            "type": "cdr",
            "src_topic": "cdr.raw",
            "src_partition": offset % 2,
            "src_offset": offset,
            "appended_at": DAY + timedelta(seconds=offset // 3),
            "rule": "too_old" if offset % 4 else "negative_value",
            "reason": "because",
            "original": b"\x00\xff" + bytes([offset]),
        }
        for offset in range(10)
    ]
    insert("dead_letter_all", letters)
    insert("dead_letter_all", letters[3:6])
    seen: list[int] = []
    after = None
    while page := warehouse.rows(dead_letters(record_type="cdr", after=after, limit=3)):
        seen += [row["src_offset"] for row in page]
        last = page[-1]
        at = datetime.fromisoformat(last["appended_at"])
        after = Cursor(at, last["type"], last["src_partition"], last["src_offset"])
    assert sorted(seen) == list(range(10))
    assert seen[0] == 9
    only = warehouse.rows(dead_letters(rule="negative_value", generation=1))
    assert [row["src_offset"] for row in only] == [8, 4, 0]
    assert only[-1]["original"] == "AP8A"


def granules_read(warehouse: ClickHouse, condition: str, step: str) -> tuple[int, int]:
    """Granules left by a step of the plan, and granules before it."""
    plan = warehouse.rows(Query(f"EXPLAIN indexes = 1 SELECT count() FROM fact_cdr WHERE {condition}"))
    text = "\n".join(row["explain"] for row in plan)
    found = re.search(rf"^\s*{step}\n(?:.*\n)*?\s*Granules: (\d+)/(\d+)", text, re.MULTILINE)
    assert found, text
    return int(found[1]), int(found[2])


def test_facts_of_a_subscriber_are_found_by_key(warehouse: ClickHouse, insert: Insert, fact: Row) -> None:
    insert(
        "fact_cdr_all",
        [
            fact(n, subscriber_id=f"s{n // 100:05d}", cell_id=f"c{n // 1000}", event_uid=str(n), started_at=DAY)
            for n in range(60_000)
        ],
    )
    left, all_granules = granules_read(warehouse, "subscriber_id = 's00300'", "PrimaryKey")
    assert left <= 2 < 7 <= all_granules
