"""The whole process against real Kafka and a real registry."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer

from faust_batch import Source, read_partition
from telestream_contracts import (
    Registry,
    apply_topics,
    decode,
    decode_record,
    encode_record,
    enriched_schema,
    load_schema,
)
from telestream_domain import Topics

pytestmark = pytest.mark.stack

PARTITIONS = 2
QUIET = {"log_level": "4"}
DEADLINE_S = 90.0


@dataclass
class Expected:
    """What a plain reading of the rules says of every record of one partition."""

    verdicts: list[tuple[str, str | None, int | None]] = field(default_factory=list)
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)

    def judge(self, uid: str, charge: int, *, readable: bool = True) -> None:
        offset = len(self.verdicts)
        if not readable:
            self.verdicts.append(("REJECTED", "undecodable", None))
        elif charge < 0:
            self.verdicts.append(("REJECTED", "negative_value", None))
        elif uid in self.stored:
            first, content = self.stored[uid]
            self.verdicts.append(("DUPLICATE", None if content == charge else "conflict", first))
        else:
            self.stored[uid] = (offset, charge)
            self.verdicts.append(("STORED", None, None))


class Installation:
    """Topics, schemas and an enricher process of one test."""

    def __init__(self, parts: Any, prefix: str, log: Path) -> None:
        self.parts, self.topics, self.log = parts, Topics(prefix), log
        registry = Registry(parts.registry)
        apply_topics(parts.kafka, self.topics, partitions=PARTITIONS)
        self.ids = registry.register_all(self.topics)
        self.producer = Producer({"bootstrap.servers": parts.kafka, "enable.idempotence": True, "linger.ms": 2})
        self.expected = [Expected() for _ in range(PARTITIONS)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.admin_port = free.getsockname()[1]

    def send(self, topic: str, partition: int, value: bytes | None, key: str = "k") -> None:
        self.producer.produce(topic, value, key, partition)

    def refer(self, entity: str, record: dict[str, Any], partition: int = 0) -> None:
        schema = load_schema(entity)
        base = {entry["name"]: None for entry in schema["fields"]}
        common = {"deleted": False, "source": "crm", "batch_id": 1, "line": 1, "ingested_at": 0}
        topic = self.topics.ref(entity)
        self.send(topic, partition, encode_record(base | common | record, schema, self.ids[topic]))
        self.producer.flush()

    def call(self, partition: int, uid: str, charge: int = 5, **changes: Any) -> None:
        now = self.started_at
        record = {entry["name"]: None for entry in load_schema("cdr")["fields"]} | {
            "event_uid": uid,
            "started_at": now,
            "record_type": "VOICE",
            "status": "COMPLETED",
            "subscriber_id": "k1.alice",
            "subscriber_kind": "MSISDN",
            "cell_id": "208-01-7",
            "duration_ms": 1_000,
            "charge_micros": charge,
            "is_partial": False,
            "source": "switch",
            "batch_id": 1,
            "line": 1,
            "ingested_at": now,
            "ext": {},
        }
        raw = self.topics.raw("cdr")
        self.send(raw, partition, encode_record(record | changes, load_schema("cdr"), self.ids[raw]))
        self.expected[partition].judge(uid, charge)

    def junk(self, partition: int) -> None:
        self.send(self.topics.raw("cdr"), partition, b"\x00junk")
        self.expected[partition].judge("", 0, readable=False)

    started_at = int(time.time() * 1000) - 60_000

    def start(self, runner: str) -> subprocess.Popen[bytes]:
        environment = (
            os.environ
            | self.parts.environment()
            | {
                "TELESTREAM_TOPIC_PREFIX": self.topics.prefix,
                "TELESTREAM_RUNNER": runner,
                "TELESTREAM_ADMIN_PORT": str(self.admin_port),
                "TELESTREAM_LOG_FORMAT": "json",
                "TELESTREAM_STATE_DIR": str(self.log.parent / "state"),
                # small, so that segments close all the time
                "TELESTREAM_DEDUP_SEGMENT_BITS": "7",
            }
        )
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "cdr_enricher"], env=environment, stdout=log, stderr=log)

    def wait_judged(self, process: subprocess.Popen[bytes]) -> None:
        wanted = sum(len(expected.verdicts) for expected in self.expected)
        deadline = time.monotonic() + DEADLINE_S
        while sum(len(self.judged(partition)) for partition in range(PARTITIONS)) < wanted:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.3)

    def wait_settled(self, process: subprocess.Popen[bytes], counted: str) -> None:
        """Until it is ready, ``/metrics`` says ``counted``, nothing lies before it, and ``progress`` says so."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            ready, _ = self._asked("readyz")
            _, metrics = self._asked("metrics")
            lag = [line for line in metrics.splitlines() if line.startswith("telestream_enricher_lag_records{")]
            nothing_before = len(lag) == 2 * PARTITIONS and all(line.endswith(" 0.0") for line in lag)
            if ready == 200 and nothing_before and counted in metrics and self._progress_is_told():
                return
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{ready}, {metrics}\n{self.log.read_text()}"
            time.sleep(0.3)

    def progress(self) -> dict[bytes | None, dict[str, Any]]:
        """The last word on every partition."""
        keys, values = self.read(self.topics.progress, 0)
        return dict(zip(keys, (decode_record(value, load_schema("progress")) for value in values), strict=True))

    def _progress_is_told(self) -> bool:
        told = self.progress()
        return all(
            told.get(f"cdr/{partition}".encode(), {}).get("next_offset") == len(expected.verdicts)
            for partition, expected in enumerate(self.expected)
        )

    def _asked(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    def read(self, topic: str, partition: int) -> tuple[list[bytes | None], list[bytes]]:
        keys, values = [], []
        for batch in read_partition(self.parts.kafka, Source(topic, partition), None, client_options=QUIET):
            keys.extend(batch.keys)
            values.extend(value for value in batch.values if value is not None)
        return keys, values

    def judged(self, partition: int) -> pl.DataFrame:
        return decode(self.read(self.topics.enriched("cdr"), partition)[1], enriched_schema("cdr"))

    def check_exact(self) -> None:
        """Every raw record has one judgement, in order, and it is the one a plain reading gives."""
        for partition, expected in enumerate(self.expected):
            judged = self.judged(partition)
            assert judged["src_offset"].to_list() == list(range(len(expected.verdicts)))
            assert judged.select("verdict", "rule", "first_offset").rows() == expected.verdicts
            _, letters = self.read(self.topics.rejected("cdr"), partition)
            found = [decode_record(letter, load_schema("dead_letter")) for letter in letters]
            wanted = [offset for offset, (verdict, *_) in enumerate(expected.verdicts) if verdict == "REJECTED"]
            assert [letter["src_offset"] for letter in found] == wanted


@pytest.fixture
def installation(parts: Any, topic_prefix: str, tmp_path: Path) -> Iterator[Installation]:
    return Installation(parts, topic_prefix, tmp_path / "enricher.log")


@contextlib.contextmanager
def running(installation: Installation, runner: str) -> Iterator[subprocess.Popen[bytes]]:
    process = installation.start(runner)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def mixed(installation: Installation, rng: random.Random, count: int, uids: int) -> None:
    for _ in range(count):
        partition, uid = rng.randrange(PARTITIONS), f"u{rng.randrange(uids)}"
        kind = rng.random()
        if kind < 0.02:
            installation.junk(partition)
        else:
            installation.call(partition, uid, -1 if kind < 0.05 else rng.choice((5, 5, 5, 6)))
        installation.producer.poll(0)
    installation.producer.flush()


@pytest.mark.parametrize("runner", ["plain", "faust"])
def test_raw_becomes_enriched_exactly_and_a_stop_is_orderly(installation: Installation, runner: str) -> None:
    at = installation.started_at
    installation.refer("cell", {"cell_id": "208-01-7", "valid_from": 0, "region_id": "north", "technology": "LTE"})
    alice = {"identifier": "k1.alice", "identifier_kind": "MSISDN", "valid_from": 0} | {"customer_id": "C1"}
    for partition in range(PARTITIONS):  # her calls are sent to all of them here
        installation.refer("customer", alice, partition)
    mixed(installation, random.Random(3), 1_500, 1_000)
    with running(installation, runner) as process:
        installation.wait_judged(process)
        # accepted before the call, so it is there for it, whatever was read before
        installation.refer(
            "customer",
            {"identifier": "k1.new", "identifier_kind": "MSISDN", "valid_from": 0, "customer_id": "C9"},
            partition=1,
        )
        installation.call(1, "late", subscriber_id="k1.new", started_at=at)
        network = load_schema("network")
        event = {entry["name"]: None for entry in network["fields"]} | {
            "event_uid": "n1",
            "occurred_at": at,
            "event_type": "SAMPLE",
            "cell_id": "208-01-7",
            "source": "probe",
            "batch_id": 1,
            "line": 1,
            "ingested_at": at,
            "ext": {},
        }
        raw = installation.topics.raw("network")
        installation.send(raw, 0, encode_record(event, network, installation.ids[raw]))
        installation.producer.flush()
        installation.wait_judged(process)
        installation.wait_settled(process, 'telestream_enricher_records_total{type="network",verdict="STORED"} 1.0')
        process.terminate()
        assert process.wait(30) == 0, installation.log.read_text()

    installation.check_exact()
    for partition in range(PARTITIONS):
        stored = installation.judged(partition).filter(pl.col("rule").fill_null("") != "undecodable")
        assert set(stored["region_id"]) == {"north"}
        assert set(stored["customer_id"]) <= {"C1", "C9"}
    assert installation.judged(1).row(-1, named=True)["customer_id"] == "C9"
    _, values = installation.read(installation.topics.enriched("network"), 0)
    assert decode(values, enriched_schema("network"))["region_id"].to_list() == ["north"]
    check_progress(installation)


def check_progress(installation: Installation) -> None:
    latest = installation.progress()
    assert set(latest) == {f"{name}/{n}".encode() for name in ("cdr", "network") for n in range(PARTITIONS)}
    for partition, expected in enumerate(installation.expected):
        record = latest[f"cdr/{partition}".encode()]
        assert record["next_offset"] == record["raw_end"] == len(expected.verdicts)
        assert record["sources"] == ["switch"]
        assert record["watermark"] is not None
        assert record["reference_positions"][f"{installation.topics.ref('cell')}/0"] == 1


def test_killed_at_any_moment_nothing_is_lost_or_doubled_and_duplicates_are_still_found(
    installation: Installation,
) -> None:
    rng = random.Random(11)
    for life in range(3):
        process = installation.start("faust")
        try:
            mixed(installation, rng, 1_000, 1_500)
            # from before its first round to well into its work
            time.sleep(rng.uniform(1.5, 6.0))
            mixed(installation, rng, 200, 1_500)
        finally:
            process.kill()
            process.wait()
        if life == 1:
            shutil.rmtree(installation.log.parent / "state" / "dedup", ignore_errors=True)
    mixed(installation, rng, 500, 1_500)
    with running(installation, "faust") as process:
        installation.wait_judged(process)
        process.terminate()
        assert process.wait(30) == 0, installation.log.read_text()
    installation.check_exact()


def test_a_position_that_was_set_from_outside_stops_it_with_one_clear_line(installation: Installation) -> None:
    mixed(installation, random.Random(1), 50, 50)
    with running(installation, "plain") as process:
        installation.wait_judged(process)
        process.terminate()
        assert process.wait(30) == 0
    _move_position(installation)
    with running(installation, "plain") as process:
        assert process.wait(60) == 1
    stopped = [line for line in installation.log.read_text().splitlines() if '"event": "stopped"' in line]
    assert len(stopped) == 1
    reason = json.loads(stopped[0])["reason"]
    assert f"{installation.topics.raw('cdr')}[0]" in reason
    assert "derive a new generation" in reason


def _move_position(installation: Installation) -> None:
    from confluent_kafka import Consumer, TopicPartition

    group = f"{installation.topics.prefix}cdr-enricher.g1"
    client = Consumer({"bootstrap.servers": installation.parts.kafka, "group.id": group, "log_level": 3})
    # static members stay in the group until their session ends
    deadline = time.monotonic() + 40
    while True:
        try:
            client.commit(offsets=[TopicPartition(installation.topics.raw("cdr"), 0, 3)], asynchronous=False)
            break
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(1)
    client.close()


def test_missing_schemas_stop_it_with_one_clear_line(parts: Any, topic_prefix: str, tmp_path: Path) -> None:
    environment = os.environ | parts.environment() | {"TELESTREAM_TOPIC_PREFIX": topic_prefix}
    apply_topics(parts.kafka, Topics(topic_prefix), partitions=PARTITIONS)
    done = subprocess.run([sys.executable, "-m", "cdr_enricher"], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"telestream schemas register" in done.stderr
    assert b"Traceback" not in done.stderr
