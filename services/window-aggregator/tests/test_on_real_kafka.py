"""The process itself, on real Kafka and a real registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from faust_batch import TopicTail
from telestream_contracts import Registry, apply_topics, decode_record
from telestream_devstack import Parts, reserve_base
from telestream_domain import FAMILIES, SUBSCRIBER_DAY_SEGMENT_BITS, Topics

pytestmark = pytest.mark.stack

FAST = {
    "TELESTREAM_QUARTER_FLUSH_S": "0.7",
    "TELESTREAM_CELL_MINUTE_FLUSH_S": "0.4",
    "TELESTREAM_SUBSCRIBER_DAY_FLUSH_S": "1.1",
    "TELESTREAM_IDLE_FLUSH_S": "1.5",
}
BEFORE_BORDER = (1 << SUBSCRIBER_DAY_SEGMENT_BITS) - 700
"""So that segments of both widths close in the middle of the test."""


def _judged(record: dict[str, Any]) -> Any:
    """Notes in the record when Kafka took it in: that is when a reversal came."""

    def note(_: Any, message: Any) -> None:
        record["judged_ms"] = message.timestamp()[1]

    return note


class Installation:
    """Topics of a test's own, a producer of judged records, and what stands in ``agg.*``."""

    def __init__(self, parts: Parts, prefix: str, partitions: int, tmp_path: Path, make: Any, model: Any) -> None:
        self.topics = Topics(prefix)
        self.parts, self.tmp_path, self.make, self.model = parts, tmp_path, make, model
        apply_topics(parts.kafka, self.topics, partitions)
        registry = Registry(parts.registry)
        self.ids = registry.register_all(self.topics)
        self.schema_of = registry.schema
        self.partitions = partitions
        self.records: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self.producer = Producer(
            {"bootstrap.servers": parts.kafka, "transactional.id": f"{prefix}test", "transaction.timeout.ms": 20_000}
        )
        self.producer.init_transactions(30)
        self.tail = TopicTail(parts.kafka, [self.topics.agg(family) for family in FAMILIES])
        self.latest: dict[tuple[str, bytes], bytes] = {}
        self.admin_port = reserve_base() + 103
        self.processes: list[subprocess.Popen[bytes]] = []

    def write(self, count: int, seed: int) -> None:
        """``count`` more judged records to every partition of both types, in one transaction."""
        self.producer.begin_transaction()
        for record_type in ("cdr", "network"):
            topic = self.topics.enriched(record_type)
            for partition in range(self.partitions):
                known = self.records.setdefault((record_type, partition), [])
                first = BEFORE_BORDER + len(known)
                found = self.make(record_type, count, seed, first=first, partition=partition)
                known += found
                values = self.model.values_of(found, record_type, self.ids[topic])
                for record, value in zip(found, values, strict=True):
                    self.producer.produce(topic, value, partition=partition, on_delivery=_judged(record))
                self.producer.flush()
        self.producer.commit_transaction(30)

    def start(self, runner: str, instance: int = 0) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **self.parts.environment(),
            **FAST,
            "TELESTREAM_TOPIC_PREFIX": self.topics.prefix,
            "TELESTREAM_RUNNER": runner,
            "TELESTREAM_INSTANCE": str(instance),
            "TELESTREAM_ADMIN_PORT": str(self.admin_port + instance),
            "TELESTREAM_LOG_FORMAT": "json",
        }
        log = (self.tmp_path / f"worker-{instance}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "window_aggregator"], env=environment, stdout=log, stderr=log, cwd=self.tmp_path
        )
        self.processes.append(process)
        return process

    def logged(self) -> str:
        return "\n".join(path.read_text()[-3_000:] for path in self.tmp_path.glob("worker-*.log"))

    def catch_up(self) -> None:
        family_of = {self.topics.agg(family): family for family in FAMILIES}
        for batch in self.tail.catching_up():
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None
                assert value is not None
                self.latest[family_of[batch.source.topic], key] = value

    def windows(self) -> dict[Any, Any]:
        self.catch_up()
        schemas = {family: self.schema_of(self.ids[self.topics.agg(family)]) for family in FAMILIES}
        decoded = [(family, decode_record(value, schemas[family])) for (family, _), value in self.latest.items()]
        return dict(self.model.as_window(f, v) for f, v in decoded if v["marker_offset"] is None)

    def expected(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for (record_type, _), records in self.records.items():
            found |= self.model.expected(records, record_type, 18, 20)
        return found

    def wait_for(self, wanted: Callable[[], bool], what: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not wanted():
            died = [p.pid for p in self.processes if p.poll() not in (None, 0, -signal.SIGKILL)]
            assert not died, self.logged()
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{self.logged()}"
            time.sleep(0.3)

    def wait_until_complete(self) -> None:
        expected = self.expected()
        self.wait_for(lambda: self.windows() == expected, "all aggregates as in the model")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.tail.close()


@pytest.fixture
def install(
    parts: Parts, topic_prefix: str, tmp_path: Path, some: Any, model: Any
) -> Iterator[Callable[[int], Installation]]:
    made: list[Installation] = []

    def make(partitions: int) -> Installation:
        made.append(Installation(parts, topic_prefix, partitions, tmp_path, some, model))
        return made[-1]

    yield make
    for installation in made:
        installation.close()


@pytest.mark.parametrize(("runner", "partitions"), [("faust", 4), ("plain", 3)])
def test_a_worker_killed_in_the_middle_and_started_again_gives_exactly_the_model_s_aggregates(
    install, runner, partitions
):
    one = install(partitions)
    worker = one.start(runner)
    one.write(400, seed=1)
    one.wait_for(lambda: len(one.windows()) > 0, "first aggregates")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    one.write(500, seed=2)
    worker = one.start(runner)
    one.write(100, seed=3)
    time.sleep(2.5)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker = one.start(runner)
    one.write(150, seed=4)
    one.wait_until_complete()
    # a machine that gave it no time for 3 s makes it ask the broker again before it calls itself ready
    one.wait_for(lambda: httpx.get(f"http://127.0.0.1:{one.admin_port}/readyz").status_code == 200, "ready again", 30)
    assert "telestream_aggregator_upserts_total" in httpx.get(f"http://127.0.0.1:{one.admin_port}/metrics").text
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, one.logged()


def test_partitions_move_between_two_workers_and_nothing_is_lost_or_doubled(install):
    one = install(4)
    one.start("faust", 0)
    one.write(300, seed=1)
    one.wait_for(lambda: len(one.windows()) > 0, "first aggregates")
    second = one.start("faust", 1)
    for seed in range(2, 8):
        one.write(60, seed)
        time.sleep(1)
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0, one.logged()
    one.write(60, seed=9)
    one.wait_until_complete()


def test_a_gap_in_src_offset_stops_the_worker_with_its_position(install, model):
    one = install(1)
    topic = one.topics.enriched("cdr")
    records = [model.judged_cdr(n) for n in (0, 1, 3)]
    one.producer.begin_transaction()
    for value in model.values_of(records, "cdr", one.ids[topic]):
        one.producer.produce(topic, value, partition=0)
    one.producer.commit_transaction(30)
    worker = one.start("faust")
    assert worker.wait(60) == 1
    assert f"{topic}[0]@2: src_offset 3 where 2 follows" in one.logged()
    last = one.logged().strip().splitlines()[-1]
    assert "src_offset 3 where 2 follows" in last
    assert "Traceback" not in last


def test_check_validates_the_settings_and_leaves(parts):
    command = [sys.executable, "-m", "window_aggregator", "--check"]
    good = subprocess.run(command, env={**os.environ, **parts.environment()}, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(
        command,
        env={**os.environ, "TELESTREAM_IDLE_FLUSH_S": "soon", "TELESTREAM_RUNNER": "celery"},
        capture_output=True,
        text=True,
    )
    assert bad.returncode == 1
    assert "TELESTREAM_IDLE_FLUSH_S" in bad.stderr
    assert "TELESTREAM_RUNNER" in bad.stderr
    assert "Traceback" not in bad.stderr
