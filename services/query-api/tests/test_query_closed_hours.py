"""Books with closed hours remembered equal books counted anew, while records and reversals go on coming."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from query_api.books import total
from query_api.closed_hours import Asked, Counter
from query_api.domain.closed import MAX_SPANS, Closed, ClosedHours, joined, missing, spans_of
from query_api.parts import Parts
from telestream_warehouse import NO_BOOKS, Books, Query, books_of, reconciliation

START = datetime(2026, 9, 1, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
PARTITIONS = 2
T = TypeVar("T")


def hour(number: int) -> datetime:
    return datetime(2026, 9, 1, tzinfo=UTC) + number * HOUR


def test_hours_to_count_again_are_few_spans() -> None:
    assert spans_of([hour(2), hour(1), hour(5), hour(1)]) == [(hour(1), hour(3)), (hour(5), hour(6))]
    assert spans_of([hour(2 * n) for n in range(MAX_SPANS + 1)]) == [(hour(0), hour(2 * MAX_SPANS + 1))]


def test_what_is_missing_and_what_is_known_then_fit_together() -> None:
    held = Closed(hour(3), hour(6), {}, {}, "", 0.0)
    assert missing(held, (hour(3), hour(6))) == []
    assert missing(held, (hour(1), hour(8))) == [(hour(1), hour(3)), (hour(6), hour(8))]
    assert joined(held, (hour(5), hour(8))) == (hour(3), hour(8))
    assert missing(held, (hour(8), hour(9))) == [(hour(8), hour(9))]
    assert joined(held, (hour(8), hour(9))) == (hour(8), hour(9))


def test_memory_is_bounded_and_keeps_what_was_asked_for_last() -> None:
    memory = ClosedHours(max_hours=10)
    for source in ("a", "b", "c"):
        memory.put(("cdr", 1, source), Closed(hour(0), hour(4), {hour(n): NO_BOOKS for n in range(4)}, {}, "", 0.0))
        memory.get(("cdr", 1, "a"))
    assert memory.hours == 8
    assert memory.get(("cdr", 1, "b")) is None
    assert memory.get(("cdr", 1, "a")) is not None


@dataclass
class Log:
    """A raw topic with times of its own, and what was judged of it, in a generation of its own."""

    world: Any
    topic: str
    generation: int
    chance: random.Random
    now: datetime = START
    judged: list[list[dict[str, Any]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    stored: list[set[int]] = field(default_factory=lambda: [set() for _ in range(PARTITIONS)])

    def append(self, records: int, minutes: float, reversals: int = 0) -> None:
        """Records that arrive over some minutes, and reversals of any stored before, through to the sink."""
        kinds = ["record"] * records + ["reversal"] * reversals
        self.chance.shuffle(kinds)
        rows, facts = [], []
        for number, kind in enumerate(kinds):
            at = self.now + timedelta(minutes=minutes) * number / len(kinds)
            partition = self.chance.randrange(PARTITIONS)
            undone = kind == "reversal" and self.stored[partition]
            row = self._reversal(partition) if undone else self._record(partition, at)
            self.judged[partition].append(row)
            self.world.producer.produce(self.topic, b"x", partition=partition, timestamp=int(at.timestamp() * 1000))
            rows.append(row)
            if row["verdict"] == "STORED":
                facts.append(self._fact(row))
        self.world.producer.flush(20)
        self.now += timedelta(minutes=minutes)
        self.world.insert("judgement_all", rows)
        if facts:
            self.world.insert("fact_cdr_all", facts)

    def asked(self, **more: Any) -> Asked:
        ends = {partition: len(self.judged[partition]) for partition in range(PARTITIONS)}
        question = {"source": None, "since": None, "until": None, "hourly": False, "positions": ends, **more}
        return Asked("cdr", self.generation, ends=ends, raw=self.topic, **question)

    def parts(self) -> Parts:
        now_ms = int((self.now + timedelta(minutes=3)).timestamp() * 1000)
        return replace(self.world.service.parts, now_ms=lambda: now_ms)

    def _record(self, partition: int, at: datetime) -> dict[str, Any]:
        offset = len(self.judged[partition])
        verdict, rule = self.chance.choices(
            [("STORED", ""), ("DUPLICATE", ""), ("DUPLICATE", "conflict"), ("REJECTED", "too_old")], [8, 1, 1, 1]
        )[0]
        if verdict == "STORED":
            self.stored[partition].add(offset)
        return {
            "generation": self.generation,
            "type": "cdr",
            "src_partition": partition,
            "src_offset": offset,
            "booked_offset": offset,
            "verdict": verdict,
            "sign": 1,
            "rule": rule,
            "source": self.chance.choice(["msc-1", "msc-2"]),
            "batch_id": 1,
            "appended_at": at,
            "duration_ms": self.chance.randrange(1000),
            "bytes": self.chance.randrange(1000),
            "charge_micros": self.chance.randrange(1000),
            "currency": self.chance.choice(["EUR", "USD"]),
        }

    def _reversal(self, partition: int) -> dict[str, Any]:
        original = self.chance.choice(sorted(self.stored[partition]))
        self.stored[partition].remove(original)
        return {**self.judged[partition][original], "src_offset": len(self.judged[partition]), "sign": -1}

    def _fact(self, row: dict[str, Any]) -> dict[str, Any]:
        shared = ("generation", "src_partition", "src_offset", "booked_offset", "appended_at", "source", "batch_id")
        return {
            **{name: row[name] for name in (*shared, "duration_ms", "charge_micros", "currency")},
            "withdrawn": int(row["sign"] < 0),
            "bytes_up": row["bytes"],
            "event_uid": f"{row['src_partition']}/{row['booked_offset']}",
            "started_at": row["appended_at"] - timedelta(minutes=2),
            "subscriber_id": f"k1.{row['booked_offset'] % 7}",
        }


@pytest.fixture
def log(world: Any) -> Log:
    topic = f"closed-{uuid.uuid4().hex[:8]}"
    config = {"message.timestamp.type": "CreateTime"}
    admin = AdminClient({"bootstrap.servers": world.service.settings.kafka})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(20)
    return Log(world, topic, random.randrange(1_000, 10**6), random.Random(7))


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def remembered(counter: Counter, asked: Asked) -> list[Books]:
    return await counter.books(asked, await counter.mark("cdr"))


def anew(log: Log, asked: Asked) -> list[Books]:
    query = reconciliation(
        "cdr",
        asked.src_next(),
        source_name=asked.source,
        since=asked.since,
        until=asked.until,
        by_hour=asked.hourly,
        generation=log.generation,
    )
    return [books_of(row) for row in log.world.clickhouse.rows(query)]


def same(found: list[Books], expected: list[Books], hourly: bool) -> None:
    if hourly:
        whole = {entry.hour: entry for entry in found if entry.accepted.records}
        assert whole == {entry.hour: entry for entry in expected}
    else:
        assert total(found) == total(expected)
    assert all(entry.balanced for entry in found)


@pytest.mark.stack
def test_remembered_books_are_those_counted_anew_while_records_and_reversals_come(log: Log) -> None:
    counter = Counter(log.parts())
    held = 0
    for _ in range(5):
        log.append(log.chance.randrange(20, 60), log.chance.choice([50, 130]), log.chance.randrange(6))
        counter.parts = log.parts()
        middle = START + (log.now - START) / 3
        for more in (
            {},
            {"hourly": True},
            {"source": "msc-2"},
            {"since": START + HOUR / 2, "until": middle, "hourly": True},
        ):
            asked = log.asked(**more)
            same(run(remembered(counter, asked)), anew(log, asked), asked.hourly)
        held = max(held, counter.memory.hours)
    assert held >= 8


@pytest.mark.stack
def test_a_question_at_an_older_position_is_not_answered_from_a_newer_one(log: Log) -> None:
    log.append(60, 150, 0)
    counter = Counter(log.parts())
    before = log.asked()
    run(remembered(counter, before))
    log.append(5, 5, 20)
    counter.parts = log.parts()
    run(remembered(counter, log.asked()))
    same(run(remembered(counter, before)), anew(log, before), hourly=False)


@pytest.mark.stack
def test_hours_whose_records_are_not_all_judged_are_not_remembered(log: Log) -> None:
    log.append(40, 90)
    behind = log.asked(positions={0: len(log.judged[0]) - 15, 1: len(log.judged[1])})
    counter = Counter(log.parts())
    same(run(remembered(counter, behind)), anew(log, behind), hourly=False)
    same(run(remembered(counter, log.asked())), anew(log, log.asked()), hourly=False)


@pytest.mark.stack
def test_a_row_deleted_from_a_closed_hour_shows_at_once_and_a_hole_until_it_is_mended(log: Log) -> None:
    log.append(60, 150)
    counter = Counter(log.parts())
    asked = log.asked()
    assert total(run(remembered(counter, asked))).balanced
    starts = dict.fromkeys(range(PARTITIONS), 0)

    async def judged() -> dict[int, int]:
        return await counter.judged(asked, starts, await counter.mark("cdr"))

    assert run(judged()) == run(judged()) == asked.ends
    lost = min(log.stored[0])
    where = f"generation = {log.generation} AND src_partition = 0 AND src_offset = {lost}"
    log.world.clickhouse.command(f"DELETE FROM fact_cdr_all WHERE {where}")
    assert not total(run(remembered(counter, asked))).balanced
    log.world.insert("fact_cdr_all", [log._fact(log.judged[0][lost])])
    counter.forget("cdr", log.generation)
    assert total(run(remembered(counter, asked))).balanced
    log.world.clickhouse.command(f"DELETE FROM judgement_all WHERE {where}")
    assert run(judged()) == {**asked.ends, 0: asked.ends[0] - 1}
    log.world.insert("judgement_all", [log.judged[0][lost]])
    assert run(judged()) == asked.ends


class Reading:
    """The warehouse, which also says how many rows it read."""

    def __init__(self, world: Any) -> None:
        self._world, self.rows_read = world, 0

    async def rows(self, query: Query) -> list[dict[str, Any]]:
        settings = self._world.service.settings
        params = {"database": settings.clickhouse_database, "wait_end_of_query": "1", **query.http_params()}
        answer = httpx.post(settings.clickhouse, params=params, content=f"{query.sql}\nFORMAT Null", timeout=30.0)
        self.rows_read += int(json.loads(answer.headers["x-clickhouse-summary"])["read_rows"])
        return self._world.clickhouse.rows(query)


@pytest.mark.stack
def test_a_second_request_reads_the_open_hours_only(log: Log) -> None:
    tables = [f"{log.world.clickhouse.database}.{name}" for name in ("judgement_all", "fact_cdr_all")]
    for table in tables:
        # so small parts would be merged into one, which production's old and large ones are not
        log.world.clickhouse.command(f"SYSTEM STOP MERGES {table}")
    for _ in range(3):
        log.append(3_000, 60)
    log.append(100, 10, 3)
    counter = Counter(log.parts())
    starts = dict.fromkeys(range(PARTITIONS), 0)

    def ask() -> tuple[Books, int]:
        reading = Reading(log.world)
        counter.parts = replace(log.parts(), warehouse=reading)

        async def both() -> Books:
            mark = await counter.mark("cdr")
            books = total(await counter.books(log.asked(), mark))
            await counter.judged(log.asked(), starts, mark)
            return books

        return run(both()), reading.rows_read

    first, read_first = ask()
    second, read_second = ask()
    assert first == second == total(anew(log, log.asked()))
    assert read_second * 4 < read_first, (read_first, read_second)
    for table in tables:
        log.world.clickhouse.command(f"SYSTEM START MERGES {table}")
