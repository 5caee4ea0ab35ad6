"""A reversal takes its original out of what people query, and the books say where it went."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from telestream_contracts import arrow_schema, enriched_schema
from telestream_devstack import Parts
from telestream_domain import TYPES
from telestream_warehouse import ClickHouse, Query, books_of, migrate, reconciliation
from warehouse_sink.domain.rows import DUPLICATE, JUDGEMENT, judged_rows

START = datetime(2026, 3, 1, 10, tzinfo=UTC)
FACT = {"cdr": "fact_cdr", "network": "fact_network_event"}
TABLES = ("fact_cdr_all", "fact_network_event_all", "judgement_all", "duplicate_all")
Record = dict[str, Any]


def columns(record_type: str, records: Sequence[Record]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(records), schema=arrow_schema(enriched_schema(record_type)))


def history(make_record: Callable[..., Record], record_type: str, rng: random.Random, count: int) -> list[Record]:
    """Judged records of one partition, a third of them reversals; and never two stored ones of a uid that stand."""
    schema, judged = enriched_schema(record_type), list[Record]()
    standing: dict[str, Record] = {}
    for offset in range(count):
        place = {"src_partition": 1, "src_offset": offset}
        if rng.random() < 0.3 and standing:
            uid = rng.choice(sorted(standing))
            original = standing.pop(uid)
            judged.append(original | place | {"sign": -1, "reverses_offset": original["src_offset"]})
            continue
        uid = f"{rng.randrange(15):022d}"
        at = START + timedelta(days=40 * int(uid) % 200, minutes=7 * int(uid))
        arrived = START + timedelta(days=200, minutes=9 * offset)
        record = make_record(
            schema,
            **place,
            appended_at=arrived,
            sign=1,
            event_uid=uid,
            source=f"msc{offset % 2}",
            batch_id=offset % 3,
            cell_id=f"208-01-{int(uid) % 4}",
            **{TYPES[record_type].time_field: at},
        )
        if record_type == "cdr":
            record |= {"subscriber_id": f"s{int(uid) % 5}", "duration_ms": offset, "bytes_up": 1, "currency": "EUR"}
            record |= {"charge_micros": rng.choice((None, 7 * offset))}
        what = rng.random()
        if what < 0.15:
            reversal = {"verdict": "DUPLICATE", "sign": -1, "reverses_offset": rng.randrange(offset + 3)}
            judged.append(record | reversal)
        elif what < 0.25:
            judged.append(record | {"verdict": "REJECTED", "rule": "negative_value"})
        elif uid in standing:
            judged.append(record | {"verdict": "DUPLICATE", "first_offset": standing[uid]["src_offset"]})
        else:
            standing[uid] = record | {"verdict": "STORED"}
            judged.append(standing[uid])
    return judged


def standing_at(judged: Sequence[Record]) -> list[int]:
    stored = {r["src_offset"] for r in judged if r["verdict"] == "STORED" and r["sign"] > 0}
    return sorted(stored - {r["reverses_offset"] for r in judged if r["verdict"] == "STORED" and r["sign"] < 0})


class Warehouse:
    def __init__(self, url: str, database: str, record_type: str) -> None:
        migrate(url, database)
        self.client, self.record_type = ClickHouse(url, database), record_type
        self.merges("STOP")

    def merges(self, word: str) -> None:
        for table in TABLES:
            self.client.command(f"SYSTEM {word} MERGES {self.client.database}.{table}")

    def insert(self, records: Sequence[Record]) -> None:
        """As the sink: a block per table."""
        for table, rows in judged_rows(self.record_type, 1, columns(self.record_type, records)).items():
            self.client.insert(table, pa.Table.from_batches([rows]))

    def offsets(self, view: str, order: str = "src_offset") -> list[int]:
        return [
            int(row["src_offset"]) for row in self.client.rows(Query(f"SELECT src_offset FROM {view} ORDER BY {order}"))
        ]

    def check_books(self, judged: Sequence[Record], below: int, **options: Any) -> None:
        """The books at a position, against counting in plain words."""
        known = [r for r in judged if r["src_offset"] < below]
        if "source_name" in options:
            known = [r for r in known if r["source"] == options["source_name"]]
        if "batch_id" in options:
            known = [r for r in known if r["batch_id"] == options["batch_id"]]
        own = [r for r in known if r["sign"] > 0]
        stands = set(standing_at(known))
        found = books_of(self.client.rows(reconciliation(self.record_type, [0, below], **options))[0])
        assert found.balanced
        assert found.accepted.records == len(own)
        assert found.stored.records == len(stands)
        assert found.withdrawn.records == sum(r["verdict"] == "STORED" for r in own) - len(stands)
        assert found.duplicates.records == sum(r["verdict"] == "DUPLICATE" for r in own)
        assert found.rejected.records == sum(r["verdict"] == "REJECTED" for r in own)
        if self.record_type == "cdr":
            assert found.stored.duration_ms == sum(r["duration_ms"] for r in own if r["src_offset"] in stands)


@pytest.fixture
def warehouse(parts: Parts, clickhouse_database: str) -> Iterator[Callable[[str], Warehouse]]:
    made: list[Warehouse] = []

    def make(record_type: str) -> Warehouse:
        made.append(Warehouse(parts.clickhouse, clickhouse_database, record_type))
        return made[-1]

    yield make
    for one in made:
        one.merges("START")
        one.client.close()


def test_a_reversal_without_effect_stands_in_the_books_alone(make_record: Callable[..., Record]) -> None:
    schema = enriched_schema("cdr")
    rows = judged_rows(
        "cdr",
        1,
        columns(
            "cdr",
            [
                make_record(schema, src_offset=4, verdict="DUPLICATE", sign=1, first_offset=1),
                make_record(schema, src_offset=5, verdict="DUPLICATE", sign=-1, reverses_offset=1),
            ],
        ),
    )
    assert set(rows) == {JUDGEMENT, DUPLICATE}
    assert rows[JUDGEMENT]["src_offset"].to_pylist() == [4, 5]
    assert rows[DUPLICATE]["src_offset"].to_pylist() == [4]
    only = judged_rows("cdr", 1, columns("cdr", [make_record(schema, verdict="DUPLICATE", sign=-1)]))
    assert set(only) == {JUDGEMENT}


@pytest.mark.stack
@pytest.mark.parametrize("record_type", ["cdr", "network"])
def test_in_whatever_order_and_however_often_blocks_come_the_answers_are_the_same(
    warehouse: Callable[[str], Warehouse], make_record: Callable[..., Record], record_type: str
) -> None:
    rng = random.Random(7)
    w, judged = warehouse(record_type), history(make_record, record_type, rng, 240)
    assert sum(r["sign"] < 0 and r["verdict"] == "STORED" for r in judged) > 40
    blocks = [judged[at : at + 40] for at in range(0, 240, 40)]
    # originals after their reversals, and all of them twice
    for block in rng.sample(blocks, len(blocks)) + rng.sample(blocks, len(blocks)):
        w.insert(block)
    seen = []
    for state in ("pending", "merged"):
        if state == "merged":
            w.merges("START")
            for table in TABLES:
                w.client.command(f"OPTIMIZE TABLE {table} FINAL")
        seen.append(w.offsets(FACT[record_type]))
        assert seen[-1] == standing_at(judged)
        duplicates = [r["src_offset"] for r in judged if r["verdict"] == "DUPLICATE" and r["sign"] > 0]
        assert w.offsets("duplicate") == duplicates
        for below in (1, 100, 240):
            w.check_books(judged, below)
        w.check_books(judged, 240, source_name="msc1")
        w.check_books(judged, 150, batch_id=2)
    # a range written once more, after everything was merged
    w.insert(judged[60:140])
    w.insert(judged[0:20])
    assert w.offsets(FACT[record_type]) == seen[0]
    w.check_books(judged, 240)


@pytest.mark.stack
def test_books_by_hour_show_what_was_withdrawn_in_the_hour_its_original_arrived(
    warehouse: Callable[[str], Warehouse], make_record: Callable[..., Record]
) -> None:
    w, schema = warehouse("cdr"), enriched_schema("cdr")
    original = make_record(
        schema, src_partition=1, appended_at=START, verdict="STORED", sign=1, started_at=START, source="a", batch_id=5
    )
    later = original | {"src_offset": 1, "appended_at": START + timedelta(hours=2), "event_uid": "x", "batch_id": 6}
    reversal = original | {"src_offset": 2, "sign": -1, "reverses_offset": 0}
    w.insert([original, later, reversal])
    hours = [books_of(row) for row in w.client.rows(reconciliation("cdr", [0, 3], by_hour=True))]
    assert [(h.hour, h.accepted.records, h.stored.records, h.withdrawn.records, h.balanced) for h in hours] == [
        ("2026-03-01T10:00:00Z", 1, 0, 1, True),
        ("2026-03-01T12:00:00Z", 1, 1, 0, True),
    ]
    (file,) = w.client.rows(reconciliation("cdr", [0, 3], batch_id=5))
    assert (books_of(file).withdrawn.records, books_of(file).accepted.records) == (1, 1)
