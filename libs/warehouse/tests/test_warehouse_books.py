from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from telestream_warehouse import Books, ClickHouse, Sums, books_of, judged_positions, judged_rows, reconciliation

pytestmark = pytest.mark.stack

Row = Callable[..., dict[str, Any]]
Insert = Callable[..., None]


@pytest.fixture
def loaded(insert: Insert, fact: Row, judgement: Row) -> None:
    """Ten records on partition 0 (offset 3 a duplicate, 4 a conflict, 5 and 6 rejected), two on partition 1."""
    verdicts = {3: ("DUPLICATE", ""), 4: ("DUPLICATE", "conflict"), 5: ("REJECTED", "too_old")}
    verdicts[6] = ("REJECTED", "negative_value")
    books = []
    for offset in range(10):
        verdict, rule = verdicts.get(offset, ("STORED", ""))
        books.append(judgement(offset, verdict, rule=rule))
    insert("judgement_all", books)
    insert("fact_cdr_all", [fact(offset) for offset in range(10) if offset not in verdicts])
    insert("judgement_all", [judgement(offset, partition=1, source="msc2", batch_id=8) for offset in range(2)])
    insert("fact_cdr_all", [fact(offset, partition=1, source="msc2", batch_id=8) for offset in range(2)])


def books(warehouse: ClickHouse, src_next: tuple[int, ...] = (10, 2), **options: Any) -> Books:
    return books_of(warehouse.rows(reconciliation("cdr", src_next, **options))[0])


def take_out(warehouse: ClickHouse, table: str, offset: int) -> None:
    """By hand. A table whose merges are stopped does not mutate either, so they run for that long."""
    name = f"{warehouse.database}.{table}"
    warehouse.command(f"SYSTEM START MERGES {name}")
    where = f"src_partition = 0 AND src_offset = {offset}"
    warehouse.command(f"ALTER TABLE {table} DELETE WHERE {where} SETTINGS mutations_sync = 2")
    warehouse.command(f"SYSTEM STOP MERGES {name}")


def test_the_books_say_what_became_of_every_record(warehouse: ClickHouse, loaded: None) -> None:
    found = books(warehouse)
    assert found.accepted.records == 12
    assert found.stored.records == 8
    assert (found.duplicates.records, found.conflicts) == (2, 1)
    assert found.rejected_by_code == {"too_old": 1, "negative_value": 1}
    assert found.accepted.duration_ms == sum(1000 + offset for offset in [*range(10), 0, 1])
    assert found.accepted.charge_micros == {"EUR": 10 * (45 + 1)}
    assert found.balanced


def test_a_stored_row_that_is_missing_unbalances_the_books_and_the_same_row_balances_them_again(
    warehouse: ClickHouse, insert: Insert, fact: Row, loaded: None
) -> None:
    take_out(warehouse, "fact_cdr_all", 7)
    found = books(warehouse)
    assert (found.stored.records, found.balanced) == (7, False)
    insert("fact_cdr_all", [fact(7)])
    assert books(warehouse).balanced
    take_out(warehouse, "fact_cdr_all", 8)
    assert not books(warehouse).balanced
    insert("fact_cdr_all", [fact(8)])
    assert books(warehouse).balanced


def test_a_row_with_another_duration_unbalances_the_sums_alone(
    warehouse: ClickHouse, insert: Insert, fact: Row, loaded: None
) -> None:
    insert("fact_cdr_all", [fact(7, duration_ms=5)])
    found = books(warehouse)
    assert found.accepted.records == 12
    assert found.stored.records == 8
    assert not found.balanced


def test_books_at_a_position_ignore_what_lies_above_it(warehouse: ClickHouse, loaded: None) -> None:
    found = books(warehouse, (8, 0))
    assert (found.accepted.records, found.stored.records, found.balanced) == (8, 4, True)
    assert books(warehouse, ()).accepted == Sums()


def test_books_of_a_source_a_batch_or_an_hour_of_arrival(warehouse: ClickHouse, loaded: None, fact: Row) -> None:
    assert books(warehouse, source_name="msc2").accepted.records == 2
    assert books(warehouse, batch_id=7).accepted.records == 10
    arrived = fact(0)["appended_at"]
    some = books(warehouse, since=arrived + timedelta(seconds=37), until=arrived + timedelta(seconds=5 * 37))
    assert (some.accepted.records, some.balanced) == (5, True)
    hours = [books_of(row) for row in warehouse.rows(reconciliation("cdr", (10, 2), by_hour=True))]
    assert [(hour.hour, hour.accepted.records) for hour in hours] == [("2026-03-01T10:00:00Z", 12)]
    assert all(hour.balanced for hour in hours)


def test_a_reversal_moves_its_original_from_stored_to_withdrawn_and_adds_nothing(
    warehouse: ClickHouse, insert: Insert, fact: Row, judgement: Row, loaded: None
) -> None:
    reversal = {"src_offset": 10, "booked_offset": 2}
    insert("fact_cdr_all", [fact(2, **reversal, withdrawn=1)])
    insert("judgement_all", [judgement(2, **reversal, sign=-1)])
    before, after = books(warehouse, (10, 2)), books(warehouse, (11, 2))
    assert (before.stored.records, before.withdrawn.records, before.balanced) == (8, 0, True)
    assert (after.stored.records, after.withdrawn.records, after.balanced) == (7, 1, True)
    assert after.accepted.records == 12
    insert("fact_cdr_all", [fact(2)])
    assert books(warehouse, (11, 2)) == after


def test_books_of_a_named_generation_do_not_see_another(
    warehouse: ClickHouse, insert: Insert, fact: Row, judgement: Row, loaded: None
) -> None:
    insert("judgement_all", [judgement(offset, generation=2) for offset in range(3)])
    insert("fact_cdr_all", [fact(offset, generation=2) for offset in range(3)])
    assert books(warehouse).accepted.records == 12
    assert books(warehouse, generation=1) == books(warehouse)
    second = books(warehouse, generation=2)
    assert (second.accepted.records, second.stored.records, second.balanced) == (3, 3, True)


def test_judged_rows_show_a_hole_in_the_offsets(warehouse: ClickHouse, loaded: None) -> None:
    whole = {"partition": 0, "rows": 10, "first": 0, "next": 10}
    assert warehouse.rows(judged_rows("cdr"))[0] == whole
    take_out(warehouse, "judgement_all", 4)
    assert warehouse.rows(judged_rows("cdr"))[0] == {**whole, "rows": 9}


def test_the_farthest_position_counts(warehouse: ClickHouse, insert: Insert) -> None:
    place = {
        "topic": "cdr.enriched.g1",
        "partition": 0,
        "topic_id": "a",
        "generation": 1,
        "kind": "enriched",
        "subject": "cdr",
    }
    for end in (10, 30, 20):
        insert("sink_position", [{**place, "next_offset": end, "src_next": end}])
    assert warehouse.rows(judged_positions("cdr", 1)) == [{"partition": 0, "src_next": 30}]


def test_network_events_are_booked_too(warehouse: ClickHouse, insert: Insert, judgement: Row) -> None:
    nothing = {"duration_ms": 0, "bytes": 0, "charge_micros": 0, "currency": ""}
    insert("judgement_all", [judgement(offset, **nothing) | {"type": "network"} for offset in range(3)])
    rows = [
        {
            "generation": 1,
            "booked_offset": offset,
            "withdrawn": 0,
            "src_partition": 0,
            "src_offset": offset,
            "cell_id": "c",
            "event_uid": str(offset),
        }
        for offset in range(3)
    ]
    insert("fact_network_event_all", rows)
    found = books_of(warehouse.rows(reconciliation("network", [3]))[0])
    assert (found.accepted.records, found.stored.records, found.balanced) == (3, 3, True)
