"""The books on real parts: judged rows, facts and raw offsets are counted apart, so a lost row shows."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

pytestmark = pytest.mark.stack
HOURS = (datetime(2026, 9, 1, 10, 20, tzinfo=UTC), datetime(2026, 9, 1, 11, 5, tzinfo=UTC))


def judged(partition: int, offset: int, **more: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "src_partition": partition,
        "src_offset": offset,
        "booked_offset": offset,
        "verdict": "STORED",
        "sign": 1,
        "rule": "",
        "warned": 0,
        "source": "msc-1",
        "batch_id": 7,
        "appended_at": HOURS[0],
        "duration_ms": 1000 * (offset + 1),
        "bytes": 10,
        "charge_micros": 250_000,
        "currency": "EUR",
        **more,
    }


def fact(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "generation": 1,
        "booked_offset": row["booked_offset"],
        "withdrawn": 0,
        "src_partition": row["src_partition"],
        "src_offset": row["src_offset"],
        "appended_at": row["appended_at"],
        "event_uid": uuid.uuid5(uuid.NAMESPACE_OID, f"{row['src_partition']}/{row['src_offset']}").hex[:22],
        "started_at": HOURS[0],
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.BBBBBBBBBBBBBBBBBBBBBB",
        "duration_ms": row["duration_ms"],
        "bytes_up": row["bytes"],
        "charge_micros": row["charge_micros"],
        "currency": row["currency"],
        "source": row["source"],
        "batch_id": row["batch_id"],
        "ingested_at": row["appended_at"],
    }


@pytest.fixture(scope="module")
def books(world: Any) -> list[dict[str, Any]]:
    """Eight records in partition 0, three in partition 2; two more in partition 2 are not judged yet."""
    rows = [judged(0, offset) for offset in range(4)]
    rows.append(judged(0, 4, verdict="DUPLICATE", source="msc-2", appended_at=HOURS[1]))
    rows.append(judged(0, 5, verdict="DUPLICATE", rule="conflict"))
    rows.append(judged(0, 6, verdict="REJECTED", rule="negative_value", duration_ms=-5))
    rows.append(judged(0, 7, verdict="REJECTED", rule="too_old", appended_at=HOURS[1]))
    rows += [judged(2, offset, source="msc-2", batch_id=8, appended_at=HOURS[1], currency="USD") for offset in range(3)]
    world.produce(world.topics.raw("cdr"), 0, [b"x"] * 8)
    world.produce(world.topics.raw("cdr"), 2, [b"x"] * 5)
    world.insert("judgement_all", rows)
    world.insert("fact_cdr_all", [fact(row) for row in rows if row["verdict"] == "STORED"])
    world.sunk_to("cdr", [8, 0, 3, 0])
    return rows


def test_every_accepted_record_is_somewhere(world: Any, books: Any) -> None:
    found = world.data("/v1/reconciliation", type="cdr")
    assert found["accepted"] == 13
    assert found["stored"] == 7
    assert found["duplicates"] == 2
    assert found["conflicts"] == 1
    assert found["rejected"] == {"negative_value": 1, "too_old": 1}
    assert (found["withdrawn"], found["erased"], found["expired"]) == (0, 0, 0)
    assert found["in_flight"] == 2
    assert found["in_flight_scope"] == "exact"
    assert found["balanced"] is True
    assert found["holes"] == []
    assert found["sums"]["stored"] == {
        "records": 7,
        "duration_ms": 1000 * (1 + 2 + 3 + 4 + 1 + 2 + 3),
        "bytes": 70,
        "charges": [{"currency": "EUR", "amount": "1.000000"}, {"currency": "USD", "amount": "0.750000"}],
    }


def test_a_source_and_a_file_have_books_of_their_own(world: Any, books: Any) -> None:
    of_source = world.data("/v1/reconciliation", type="cdr", source="msc-2")
    assert (of_source["stored"], of_source["duplicates"], of_source["rejected"]) == (3, 1, {})
    assert of_source["balanced"] is True
    assert of_source["in_flight_scope"] == "type"
    assert of_source["accepted"] == 4 + of_source["in_flight"]
    of_file = world.data("/v1/reconciliation", type="cdr", batch=8)
    assert (of_file["stored"], of_file["duplicates"]) == (3, 0)


def test_hours_of_arrival_add_up_to_the_whole(world: Any, books: Any) -> None:
    found = world.data("/v1/reconciliation", type="cdr", by="hour")
    hours = found["hours"]
    assert [hour["hour"] for hour in hours][:2] == ["2026-09-01T10:00:00.000Z", "2026-09-01T11:00:00.000Z"]
    for name in ("accepted", "stored", "duplicates", "conflicts", "in_flight"):
        assert sum(hour[name] for hour in hours) == found[name]
    assert all(hour["balanced"] for hour in hours)
    first = world.data("/v1/reconciliation", type="cdr", from_="2026-09-01T10:00:00Z", to="2026-09-01T11:00:00Z")
    assert (first["stored"], first["duplicates"], first["rejected"]) == (4, 1, {"negative_value": 1})
    assert first["balanced"] is True


def test_a_stored_row_that_is_taken_out_shows_until_it_is_put_back(world: Any, books: Any) -> None:
    database = world.clickhouse.database
    row = next(row for row in books if row["src_offset"] == 2 and row["src_partition"] == 0)
    world.clickhouse.command(f"DELETE FROM {database}.fact_cdr_all WHERE src_partition = 0 AND src_offset = 2")
    # a DELETE waits for merges, so they stop only now
    world.clickhouse.command(f"SYSTEM STOP MERGES {database}.fact_cdr_all")
    found = world.data("/v1/reconciliation", type="cdr")
    assert found["balanced"] is False
    assert found["stored"] == 6
    assert found["accepted"] == 13
    world.insert("fact_cdr_all", [fact(row)])
    again = world.data("/v1/reconciliation", type="cdr")
    assert again["balanced"] is True
    assert again["stored"] == 7
    world.clickhouse.command(f"SYSTEM START MERGES {database}.fact_cdr_all")


def test_a_judged_row_that_is_missing_is_a_hole(world: Any, books: Any) -> None:
    database = world.clickhouse.database
    row = next(row for row in books if row["verdict"] == "DUPLICATE")
    where = f"src_partition = {row['src_partition']} AND src_offset = {row['src_offset']}"
    world.clickhouse.command(f"DELETE FROM {database}.judgement_all WHERE {where}")
    found = world.data("/v1/reconciliation", type="cdr")
    assert found["balanced"] is False
    assert found["holes"] == [{"partition": 0, "judged_offsets": 8, "judged_rows": 7}]
    world.insert("judgement_all", [row])
    assert world.data("/v1/reconciliation", type="cdr")["balanced"] is True


def test_a_row_that_was_altered_shows_in_the_sums(world: Any, books: Any) -> None:
    row = next(row for row in books if row["src_offset"] == 1 and row["src_partition"] == 0)
    world.insert("fact_cdr_all", [{**fact(row), "charge_micros": 1}])
    assert world.data("/v1/reconciliation", type="cdr")["balanced"] is False
    world.insert("fact_cdr_all", [fact(row)])
    assert world.data("/v1/reconciliation", type="cdr")["balanced"] is True


def test_rows_beyond_the_position_are_not_in_the_books_yet(world: Any, books: Any) -> None:
    ahead = judged(2, 3, source="msc-2", batch_id=8, appended_at=HOURS[1])
    world.insert("fact_cdr_all", [fact(ahead)])
    found = world.data("/v1/reconciliation", type="cdr")
    assert (found["stored"], found["in_flight"], found["balanced"]) == (7, 2, True)


def test_a_type_without_records_has_empty_books(world: Any) -> None:
    found = world.data("/v1/reconciliation", type="network")
    assert found["accepted"] == found["in_flight"] == 0
    assert found["balanced"] is True
