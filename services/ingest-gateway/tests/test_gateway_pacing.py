"""A backfill gives way: the arithmetic, then on a real broker with somebody who keeps up, and with nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer

from ingest_gateway.domain.pacing import HISTORY_S, SLACK, Look, Owed, Pace, remembered, wait_s
from telestream_domain import group_id

from .conftest import Running

RAW = ("raw", 0)
LOOKS = [Look(10.0, {RAW: 0}), Look(11.0, {RAW: 1_000}), Look(12.0, {RAW: 3_000}), Look(13.0, {RAW: 3_000})]


@pytest.mark.parametrize(
    ("committed", "waits"),
    [
        (3_000, 0.0),
        (3_000 - SLACK, 0.0),
        (2_000, 1.5),
        (1_000, 2.0),
        (500, 2.5),
        (0, 3.0),
        (4_000, 0.0),  # asked a moment later
    ],
)
def test_a_record_waits_since_its_offset_was_the_end_of_the_log(committed: int, waits: float) -> None:
    assert wait_s(LOOKS, {RAW: committed}) == pytest.approx(waits)


def test_the_slowest_partition_counts_and_who_never_committed_waits_since_the_first_look() -> None:
    other = ("raw", 1)
    looks = [Look(0.0, {RAW: 50, other: 50}), Look(1.0, {RAW: 100, other: 150})]
    assert wait_s(looks, {RAW: 100, other: 100}) == pytest.approx(0.5)
    assert wait_s(looks, {RAW: 100}) == pytest.approx(1.0)
    assert wait_s([Look(0.0, {RAW: 0})], {}) == 0.0
    assert wait_s([Look(0.0, {})], {}) == 0.0


def test_looks_are_remembered_as_long_as_they_matter() -> None:
    looks: list[Look] = []
    for at in range(100):
        looks = remembered(looks, Look(float(at), {RAW: at * 100}))
    assert looks[0].at == 99 - HISTORY_S
    assert wait_s(looks, {RAW: 0}) == HISTORY_S


def test_the_pace_grows_while_nobody_waits_and_falls_fast_but_never_below_its_floor() -> None:
    pace = Pace(wait_s=0.8, floor=500.0, rate=500.0)
    for _ in range(60):
        pace = pace.after(0.2, held=True)
    assert pace.rate > 20_000
    assert pace.after(0.2, held=False).rate == pace.rate  # what holds nothing up need not grow
    settled = pace.after(0.8, held=True)
    assert settled.rate < pace.rate
    assert settled.after(0.8, held=True).rate == pytest.approx(settled.rate)
    assert settled.after(0.7, held=True).rate > settled.rate
    assert settled.after(1.0, held=True).rate < settled.rate
    assert settled.after(60.0, held=True).rate == pytest.approx(settled.rate / 2)
    assert settled.after(None, held=True).rate == 500.0
    for _ in range(60):
        pace = pace.after(60.0, held=True)
    assert pace.rate == 500.0


@pytest.mark.parametrize("late", [2, 3, 4])
def test_where_capacity_ends_live_records_wait_as_long_as_is_wanted_and_no_longer(late: int) -> None:
    # a pipeline of 30,000 records a second with 2,000 live ones, looked at four times a second
    pace, backlog, seen = Pace(wait_s=0.8, floor=500.0, rate=500.0), 0.0, [0.2] * late
    rates = []
    for _ in range(400):
        backlog = max(0.0, backlog + (pace.rate + 2_000 - 30_000) / 4)
        seen.append(0.2 + backlog / 30_000)
        pace = pace.after(seen[-late], held=True)
        rates.append(pace.rate)
    assert max(seen) < 1.0
    assert sum(seen[100:]) / len(seen[100:]) == pytest.approx(0.8, abs=0.05)
    assert sum(rates[100:]) / 300 == pytest.approx(28_000, rel=0.02)


def test_what_was_sent_ahead_is_worked_off_at_the_pace() -> None:
    owed = Owed(1_000.0, at=5.0)
    assert owed.after(6.0, rate=400.0) == Owed(600.0, 6.0)
    assert owed.after(9.0, rate=400.0) == Owed(0.0, 9.0)


def csv_of(rows: int, name: str) -> bytes:
    head = "event_id,started_at,record_type,status,msisdn,duration_ms,node_id\n"
    return (
        head + "".join(f"{name}{n},2026-01-02T03:04:05Z,VOICE,COMPLETED,+49160{n:07d},1000,n\n" for n in range(rows))
    ).encode()


@contextmanager
def somebody_keeps_up(gateway: Running) -> Iterator[None]:
    """A member of the enricher's group that reads raw CDRs and commits."""
    consumer = Consumer(
        {
            "bootstrap.servers": gateway.parts.kafka,
            "group.id": group_id("cdr-enricher", gateway.topics),
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 100,
        }
    )
    consumer.subscribe([gateway.topics.raw("cdr")])
    done = threading.Event()

    def follow() -> None:
        while not done.is_set():
            consumer.consume(10_000, timeout=0.1)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        consumer.close()


@pytest.mark.stack
def test_a_backfill_goes_at_its_floor_while_nobody_keeps_up_and_through_once_somebody_does(
    own_gateway: Callable[..., Running],
) -> None:
    gateway = own_gateway(backfill_floor="1000").start()
    rows = 16_000
    url = "/v1/files/one/years.csv?type=cdr&allow_age_days=4000&priority=backfill"
    answers = []
    sending = threading.Thread(target=lambda: answers.append(gateway.client.put(url, content=csv_of(rows, "y"))))
    sending.start()

    def entry() -> dict[str, int]:
        found: dict[str, int] = gateway.client.get("/v1/files").json()["data"][0]
        return found

    deadline = time.monotonic() + 30
    while not (files := gateway.client.get("/v1/files").json()["data"]) or not files[0]["rows"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began, before = time.monotonic(), entry()["rows"]
    time.sleep(5)
    after = entry()
    # one block more than its share may have been sent ahead
    assert before <= after["rows"] <= before + 1_000 * (time.monotonic() - began) * 1.3 + 5_000
    assert (after["state"], after["priority"]) == ("LOADING", "backfill")
    plain = gateway.client.put("/v1/files/one/plain.csv?type=cdr", content=csv_of(rows, "p"))
    assert (plain.json()["rows"], plain.json()["priority"]) == (rows, "live")
    assert entry()["state"] == "LOADED"
    with somebody_keeps_up(gateway):
        sending.join(60)
    assert [answer.status_code for answer in answers] == [202]
    assert answers[0].json()["accepted"] == rows
    assert len(gateway.lines(answers[0].json()["file_id"])) == rows


@pytest.mark.stack
def test_a_priority_that_does_not_exist_is_refused(gateway: Running) -> None:
    answer = gateway.client.put("/v1/files/one/x.csv?type=cdr&priority=slow", content=csv_of(1, "x"))
    assert answer.status_code == 422
    assert "priority" in answer.text
