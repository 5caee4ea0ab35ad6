"""Withdrawal through the whole pipeline: reversals are put into the raw topic by hand, nobody sends them yet."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from faust_batch import Source, read_partition
from telestream_contracts import decode_record, encode_record, load_schema, schema_id_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

CDR = load_schema("cdr")
TOPIC = "telestream.cdr.raw"
PARTITIONS = 4
NUMBERS = [f"+3361234{n:04d}" for n in range(20)]


class World:
    """The records of one source of the running stack."""

    def __init__(self, stack: Any) -> None:
        self.stack, self.name = stack, f"rev-{uuid.uuid4().hex[:8]}"
        self.url = {entry["name"]: str(entry["url"]) for entry in stack.status()["services"]}
        self.kafka = self.url["kafka"]
        self.http = httpx.Client(headers={"X-API-Key": stack.api_key}, timeout=60)
        self.producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 5})
        self.at = datetime.now(UTC) - timedelta(minutes=30)

    def post(self, path: str, records: Sequence[dict[str, Any]]) -> None:
        url = f"{self.url['ingest-gateway']}{path}"
        answer = self.http.post(url, params={"source": self.name}, json=list(records))
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == len(records), answer.text

    def plan_of_all(self, plan: str) -> None:
        """From long ago on, everybody has this plan."""
        since = (self.at - timedelta(days=100)).isoformat()
        customers = [
            {"msisdn": number, "customer_id": f"{self.name}-{n}", "plan_id": f"{self.name}-{plan}", "valid_from": since}
            for n, number in enumerate(NUMBERS)
        ]
        self.post("/v1/reference/customer", customers)

    def calls(self, numbers: Sequence[int]) -> None:
        self.post(
            "/v1/events/cdr",
            [
                {
                    "event_id": f"{self.name}-{n}",
                    "started_at": (self.at + timedelta(seconds=n)).isoformat(),
                    "record_type": "VOICE",
                    "status": "COMPLETED",
                    "msisdn": NUMBERS[n % len(NUMBERS)],
                    "cell_id": "208-01-77",
                    "duration_ms": 1_000 + n,
                    "charge_micros": 10 * n,
                    "currency": "EUR",
                }
                for n in numbers
            ],
        )

    def raw(self) -> list[tuple[int, int, bytes, bytes]]:
        """(partition, offset, key, value) of this source's records."""
        return [
            (partition, offset, key, value)
            for partition in range(PARTITIONS)
            for batch in read_partition(self.kafka, Source(TOPIC, partition), None, client_options={"log_level": "4"})
            for offset, key, value in zip(batch.offsets.tolist(), batch.keys, batch.values, strict=True)
            if decode_record(value, CDR)["source"] == self.name
        ]

    def reverse(self, records: Sequence[tuple[int, int, bytes, bytes]], **changes: Any) -> None:
        for partition, offset, key, value in records:
            record = decode_record(value, CDR) | {"reverses_offset": offset, "ingested_at": datetime.now(UTC)} | changes
            self.producer.produce(TOPIC, encode_record(record, CDR, schema_id_of(value) or 0), key, partition)
        assert self.producer.flush(30) == 0

    def books(self, **options: Any) -> dict[str, Any]:
        url = f"{self.url['query-api']}/v1/reconciliation"
        answer = self.http.get(url, params={"type": "cdr", "source": self.name, **options})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    def sql(self, statement: str) -> list[dict[str, Any]]:
        text = f"{statement} FORMAT JSONEachRow"
        answer = httpx.post(self.url["clickhouse"], params={"database": "telestream"}, content=text, timeout=60)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def sums(self, view: str, more: str = "") -> dict[str, list[int]]:
        """Plan → records, duration and charge; plans of which nothing is left are left out."""
        charge = "charge_micros" if view in ("fact_cdr", "fact_customer_usage_daily") else "charge_micros['EUR']"
        count = "count()" if view == "fact_cdr" else "sum(records)"
        rows = self.sql(
            f"SELECT plan_id, {count} AS n, sum(duration_ms) AS d, sum({charge}) AS c FROM {view} "
            f"WHERE startsWith(assumeNotNull(plan_id), '{self.name}') {more} GROUP BY plan_id"
        )
        found = {row["plan_id"].removeprefix(f"{self.name}-"): [int(row[k]) for k in "ndc"] for row in rows}
        return {plan: sums for plan, sums in found.items() if any(sums)}

    def everywhere(self) -> list[dict[str, list[int]]]:
        """The same question to facts, both sizes of windows and subscriber-days."""
        return [
            self.sums("fact_cdr"),
            self.sums("agg_plan", "AND size_s = 60"),
            self.sums("agg_plan", "AND size_s = 900"),
            self.sums("fact_customer_usage_daily"),
        ]

    def kill(self, service: str) -> None:
        os.kill(self.stack.service(service)["pid"], signal.SIGKILL)


def until(wanted: Any, found: Callable[[], Any], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while (last := found()) != wanted:
        assert time.monotonic() < deadline, f"wanted {wanted}, last was {last}"
        time.sleep(0.5)


def sums_of(numbers: Sequence[int]) -> list[int]:
    return [len(numbers), sum(1_000 + n for n in numbers), sum(10 * n for n in numbers)]


def test_what_is_withdrawn_leaves_facts_aggregates_and_books_and_can_be_sent_again(stack: Any) -> None:
    world = World(stack)

    def settled(accepted: int, stored: int, withdrawn: int, duplicates: int) -> Callable[[], Any]:
        wanted = (accepted, stored, withdrawn, duplicates, True, 0)

        def look() -> Any:
            books = world.books()
            found = tuple(books[k] for k in ("accepted", "stored", "withdrawn", "duplicates", "balanced", "in_flight"))
            return True if found == wanted else (found, wanted)

        return look

    world.plan_of_all("before")
    world.calls(range(200))
    until(True, settled(200, 200, 0, 0))
    until([{"before": sums_of(range(200))}] * 4, world.everywhere)

    # reference changes, and reversals claim what they like: withdrawn is what was stored
    world.plan_of_all("after")
    number = {decode_record(value, CDR)["duration_ms"] - 1_000: (p, o, k, value) for p, o, k, value in world.raw()}
    gone, left = range(120), range(120, 200)
    world.reverse([number[n] for n in gone], charge_micros=-5, duration_ms=7, cell_id="999-99-9", source="claims")
    until(True, settled(200, 80, 120, 0))
    until([{"before": sums_of(left)}] * 4, world.everywhere)
    assert world.books(by="hour")["withdrawn"] == 120

    # a second time, of another uid, of what is not there: without effect, also in a worker that has just begun
    world.kill("cdr-enricher")
    world.reverse([number[n] for n in range(30)])
    world.reverse([number[150]], event_uid="somebody-elses-uid-000")
    world.reverse([(p, o + 10_000_000, k, v) for p, o, k, v in (number[151],)])
    # what was withdrawn is stored again, with what is known now; what stands is repeated
    world.calls(range(60, 140))
    until(True, settled(280, 140, 120, 20))
    until([{"before": sums_of(left), "after": sums_of(range(60, 120))}] * 4, world.everywhere)

    world.kill("window-aggregator")
    first = {record[:2] for record in number.values()}
    calls = [r for r in world.raw() if decode_record(r[3], CDR)["reverses_offset"] is None]
    second = [r for r in calls if r[:2] not in first]
    assert len(second) == 80
    world.reverse(second)  # the 20 duplicates among them undo nothing
    world.kill("warehouse-sink")
    until(True, settled(280, 80, 180, 20))
    until([{"before": sums_of(left)}] * 4, world.everywhere)
    assert world.sql(f"SELECT count() AS n FROM duplicate WHERE source = '{world.name}'") == [{"n": 20}]
