"""I8: every accepted record is stored, a duplicate, rejected or in flight; the books say so, and can say otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from telestream_domain import TYPES
from telestream_warehouse import books_of, reconciliation

from .corner import Corner, until
from .pipeline import Pipeline

pytestmark = pytest.mark.stack
HEADER = "event_id,started_at,record_type,status,msisdn,duration_ms,charge_micros,currency\n"
Told = dict[str, dict[str, Any]]


def cdr(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": name,
        "started_at": "2026-11-20T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": f"+4917012{int(name.rsplit('-')[-1]):05d}",
        "duration_ms": 1000,
    } | fields


def check_books(pipeline: Pipeline, told: Told) -> None:
    """The books of every type, partition, source, hour and file balance, and equal what was sent.

    A reversal takes a place in raw and is booked at its original.
    """
    corner = pipeline.corner
    for record_type in TYPES:
        ends = corner.ends(corner.topics.raw(record_type))
        whole = pipeline.books(type=record_type, by="hour")
        assert whole["balanced"], f"{record_type} does not balance: {whole}"
        reversals = _reversals(corner, record_type)
        assert whole["accepted"] + sum(reversals.values()) == sum(ends.values()), "not raw's offset arithmetic"
        assert whole["accepted"] == sum(hour["accepted"] for hour in whole["hours"])
        assert all(hour["balanced"] for hour in whole["hours"])
        for partition, end in ends.items():
            below = [end if number == partition else 0 for number in ends]
            assert corner.warehouse is not None
            part = books_of(corner.warehouse.rows(reconciliation(record_type, below))[0])
            assert part.balanced, f"partition {partition} of {record_type} does not balance"
            assert part.accepted.records == end - reversals[partition]
    for source, expected in told.items():
        found = pipeline.books(source=source, type=expected["type"])
        seen = {
            "accepted": found["accepted"],
            "stored": found["stored"],
            "duplicates": found["duplicates"],
            "conflicts": found["conflicts"],
            "rejected": found["rejected"],
            "withdrawn": found["withdrawn"],
        }
        assert seen == {"withdrawn": 0} | {name: expected[name] for name in seen if name in expected}, (
            f"{source} is not as it was sent"
        )
        assert found["balanced"]
    for entry in pipeline.client.get(f"{pipeline.gateway.http}/v1/files").json()["data"]:
        found = pipeline.books(type=entry["type"], batch=str(entry["file_id"]))
        assert found["accepted"] == entry["accepted"], "the gateway's ledger and the judged records differ"
        assert found["balanced"]


def _reversals(corner: Corner, record_type: str) -> dict[int, int]:
    """How many raw records of each partition are reversals."""
    topic = corner.topics.raw(record_type)
    return {
        partition: sum(record["reverses_offset"] is not None for record in corner.records(topic, partition))
        for partition in range(corner.partitions)
    }


@pytest.fixture(scope="module")
def pipeline(corner: Corner) -> Iterator[Pipeline]:
    made = Pipeline(corner)
    yield made
    made.close()


@pytest.fixture(scope="module")
def told(pipeline: Pipeline) -> Told:
    """What was sent, by source, counted by hand."""
    rows = [f"f-{n},2026-11-20T08:00:00Z,VOICE,COMPLETED,+4917013{n:05d},{n},{n},EUR" for n in range(200)]
    rows[7] = rows[7].replace(",7,7,EUR", ",-7,7,EUR")
    rows[8] = rows[8].replace("2026-11-20", "2020-01-01")
    rows[9] = rows[9].replace("VOICE", "VOCAL")
    content = (HEADER + "\n".join([*rows, *rows[:20]]) + "\n").encode()
    entry = pipeline.load("exchange", "day.csv", content, type="cdr")
    assert (entry["rows"], entry["accepted"]) == (220, 218)
    live = [cdr(f"live-{n}") for n in range(50)]
    answer = pipeline.post("/v1/events/cdr?source=live", *live, cdr("live-3", duration_ms=-1), {"event_id": "x"})
    assert (answer.json()["accepted"], answer.json()["refused"]) == (51, 1)
    pipeline.post("/v1/events/cdr?source=live", *live[:10], cdr("live-11", duration_ms=5))
    samples = [
        {
            "event_id": f"n-{n}",
            "occurred_at": "2026-11-20T08:00:00Z",
            "event_type": "SAMPLE",
            "cell_id": f"262-01-{n % 3}",
            "packet_loss_ratio": n / 50,
        }
        for n in range(60)
    ]
    pipeline.post("/v1/events/network?source=probe", *samples, *samples[:6])
    pipeline.settle()
    return {
        # rows 7 and 8 are rejected each time they come, row 9 is refused each time, 17 others come twice
        "exchange": {
            "type": "cdr",
            "accepted": 218,
            "stored": 197,
            "duplicates": 17,
            "conflicts": 0,
            "rejected": {"negative_value": 2, "too_old": 2},
        },
        "live": {
            "type": "cdr",
            "accepted": 62,
            "stored": 50,
            "duplicates": 11,
            "conflicts": 1,
            "rejected": {"negative_value": 1},
        },
        "probe": {
            "type": "network",
            "accepted": 66,
            "stored": 51,
            "duplicates": 6,
            "conflicts": 0,
            "rejected": {"ratio_out_of_range": 9},
        },
    }


def test_everything_that_was_accepted_is_somewhere(pipeline: Pipeline, told: Told) -> None:
    check_books(pipeline, told)


@pytest.mark.parametrize(
    ("table", "where", "seen"),
    [
        ("fact_cdr_all", "source = 'live'", "cdr does not balance"),
        ("fact_network_event_all", "source = 'probe'", "network does not balance"),
        ("judgement_all", "source = 'exchange' AND verdict = 'DUPLICATE'", "cdr does not balance"),
        ("judgement_all", "source = 'exchange' AND verdict = 'STORED'", "cdr does not balance"),
    ],
)
def test_control_one_row_taken_out_by_hand_is_missed(
    pipeline: Pipeline, told: Told, table: str, where: str, seen: str
) -> None:
    corner = pipeline.corner
    warehouse = corner.warehouse
    assert warehouse is not None
    place = f"(src_partition, src_offset) IN (SELECT src_partition, src_offset FROM {table} WHERE {where} LIMIT 1)"
    aside = f"aside_{table}_{abs(hash(where))}"
    warehouse.command(f"CREATE TABLE {aside} AS {table} ENGINE = Memory")
    warehouse.command(f"INSERT INTO {aside} SELECT * FROM {table} WHERE {place} AND {where}")
    warehouse.command(
        f"ALTER TABLE {table} DELETE WHERE (src_partition, src_offset) IN "
        f"(SELECT src_partition, src_offset FROM {aside}) AND {where} SETTINGS mutations_sync = 2"
    )
    try:
        with pytest.raises(AssertionError, match=seen):
            check_books(pipeline, told)
    finally:
        warehouse.command(f"INSERT INTO {table} SELECT * FROM {aside}")
        warehouse.command(f"DROP TABLE {aside}")
    check_books(pipeline, told)


def test_what_a_dead_sink_has_not_taken_is_in_flight_and_not_lost(pipeline: Pipeline, told: Told) -> None:
    pipeline.workers[-1].stop()
    sent = [cdr(f"later-{n}") for n in range(30)]
    pipeline.post("/v1/events/cdr?source=later", *sent)
    pipeline.corner.judged()
    books = pipeline.books(type="cdr")
    assert books["in_flight"] == 30
    assert books["balanced"]
    pipeline.workers[-1] = pipeline.corner.start("warehouse-sink")
    until(lambda: pipeline.books(type="cdr")["in_flight"] == 0, "nothing in flight")
    told["later"] = {
        "type": "cdr",
        "accepted": 30,
        "stored": 30,
        "duplicates": 0,
        "conflicts": 0,
        "rejected": {},
    }
    check_books(pipeline, told)


def test_what_is_withdrawn_is_booked_at_its_original_and_once(pipeline: Pipeline, told: Told) -> None:
    """Reversals by hand: of stored records, twice each, and of what was never stored."""
    corner = pipeline.corner
    topic = corner.topics
    withdrawn = 0
    for partition in range(corner.partitions):
        raw = corner.records(topic.raw("cdr"), partition)
        judged = corner.records(topic.enriched("cdr"), partition)
        stored = [r["src_offset"] for r in judged if r["source"] == "live" and r["verdict"] == "STORED"][:5]
        other = [r["src_offset"] for r in judged if r["source"] == "live" and r["verdict"] != "STORED"][:3]
        withdrawn += len(stored)
        corner.send(
            "cdr", partition, [raw[offset] | {"reverses_offset": offset} for offset in (*stored, *stored, *other)]
        )
    assert withdrawn
    pipeline.settle()
    told["live"] |= {"stored": 50 - withdrawn, "withdrawn": withdrawn}
    check_books(pipeline, told)
    with pytest.raises(AssertionError, match="is not as it was sent"):
        check_books(pipeline, told | {"live": told["live"] | {"withdrawn": withdrawn + 1}})
