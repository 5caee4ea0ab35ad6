"""Topics, schemas and positions of one situation, and services as processes that are to stop at it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from faust_batch import Source, end_offsets
from ingest_gateway.gateway import HASHES
from telestream_contracts import Registry, apply_topics, encode_records, schema_of_topic
from telestream_devstack import Parts
from telestream_devstack.postgres import psql
from telestream_domain import Topics, group_id
from telestream_guards import guard_installation, guard_start, topic_facts
from telestream_opstore import check_fingerprints, migrate
from telestream_runtime import ServiceSettings

PACKAGES = {
    "ingest-gateway": "ingest_gateway",
    "cdr-enricher": "cdr_enricher",
    "window-aggregator": "window_aggregator",
    "warehouse-sink": "warehouse_sink",
}
ENDS_WITHIN_S = 150.0
NOW_MS = 1_790_000_000_000
KEYS = {"identity": "11" * 32, "permanent": "22" * 32}
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a service ended: its exit status, and the lines of level error that it wrote, as JSON."""

    status: int
    errors: list[Record]
    stderr: str
    prefix: str

    @property
    def line(self) -> str:
        """The one line, with what differs between installations made the same: prefix, ids, fingerprints."""
        assert len(self.errors) == 1, self.stderr
        return normalised(f"{self.errors[0]['service']}: {self.errors[0]['reason']}", self.prefix)

    @property
    def page(self) -> str:
        return str(self.errors[0].get("runbook"))


def normalised(line: str, prefix: str) -> str:
    line = line.replace(prefix, "telestream.")
    line = re.sub(r"[0-9a-f]{32}", "<id>", line)
    return re.sub(r"[0-9a-f]{8}…", "<fingerprint>", line)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Installation:
    """One partition of everything, under a prefix of its own."""

    def __init__(self, parts: Parts, database: str, postgres: str, folder: Path) -> None:
        self.parts, self.database, self.postgres = parts, database, postgres
        self.topics = Topics(f"t{uuid.uuid4().hex[:12]}.")
        self.folder = folder / self.topics.prefix.rstrip(".")
        self.folder.mkdir()
        self.admin = AdminClient({"bootstrap.servers": parts.kafka, "log_level": 3})
        apply_topics(parts.kafka, self.topics, partitions=1)
        self.ids = Registry(parts.registry).register_all(self.topics)

    # -- what is in the log

    def write(self, topic: str, *records: Mapping[str, Any], key: str = "k", transactional: bool = False) -> None:
        """Append hand-made records to partition 0: what is not given is as empty as its type allows."""
        schema = schema_of_topic(topic, self.topics)
        assert schema is not None
        values = encode_records([_filled(schema, record) for record in records], schema, self.ids[topic])
        options: dict[str, Any] = {"bootstrap.servers": self.parts.kafka, "log_level": 3}
        producer = Producer(options | ({"transactional.id": uuid.uuid4().hex} if transactional else {}))
        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, key, 0)
        if transactional:
            producer.commit_transaction(30)
        assert producer.flush(30) == 0

    def raw(self, count: int, *, transactional: bool = False) -> None:
        """CDRs into the raw topic."""
        self.write(self.topics.raw("cdr"), *(_cdr(number) for number in range(count)), transactional=transactional)

    def reversal(self, number: int) -> None:
        """Of the CDR at this raw offset."""
        self.write(self.topics.raw("cdr"), _cdr(number) | {"reverses_offset": number})

    def judged(self, *src_offsets: int) -> None:
        """CDRs that were judged, into the enriched topic."""
        judgement = {
            "src_partition": 0,
            "appended_at": NOW_MS,
            "verdict": "STORED",
            "sign": 1,
            "content_hash": 7,
            "rules_version": 1,
            "warnings": [],
            "local_date": date(2026, 9, 21),
        }
        records = [_cdr(offset) | judgement | {"src_offset": offset} for offset in src_offsets]
        self.write(self.topics.enriched("cdr"), *records)

    def cut(self, topic: str, offset: int) -> None:
        """Delete what lies before ``offset``, as retention does."""
        for future in self.admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            future.result(30)

    def empty_compacted(self, topic: str) -> None:
        """As ``cut`` to the end, of a topic that is compacted: nothing goes until somebody changes that."""
        entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
        asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([asked]).values():
            future.result(30)
        self.cut(topic, self.end(topic))

    def make_anew(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)
        until(lambda: topic not in self.admin.list_topics(timeout=10).topics, f"{topic} is gone")
        self.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        until(lambda: topic in self.admin.list_topics(timeout=10).topics, f"{topic} is there again")

    def grow(self, *topics: str) -> None:
        """A second partition, as kafka-topics --alter gives it."""
        for future in self.admin.create_partitions([NewPartitions(topic, 2) for topic in topics]).values():
            future.result(30)

        def grown() -> bool:
            found = self.admin.list_topics(timeout=10).topics
            return all(len(found[topic].partitions) == 2 for topic in topics)

        until(grown, "the second partitions")

    # -- where readers stand

    def commit(self, service: str, topic: str, offset: int, metadata: str = "") -> None:
        """Set a group's position from outside."""
        position = TopicPartition(topic, 0, offset, metadata)
        asked = [ConsumerGroupTopicPartitions(group_id(service, self.topics), [position])]
        for future in self.admin.alter_consumer_group_offsets(asked).values():
            future.result(30)

    def until_committed(self, service: str, topic: str, offset: int) -> None:
        """Wait until a group has come so far."""
        asked = ConsumerGroupTopicPartitions(group_id(service, self.topics), [TopicPartition(topic, 0)])

        def come() -> bool:
            (future,) = self.admin.list_consumer_group_offsets([asked]).values()
            return future.result(30).topic_partitions[0].offset >= offset

        until(come, f"{service} at {offset}")

    def end(self, topic: str) -> int:
        """Where the log ends for a reader of committed records."""
        return end_offsets(self.parts.kafka, [topic])[Source(topic, 0)]

    def position(self, topic: str, next_offset: int, topic_id: str | None = None) -> None:
        """Where the sink stands, as it writes it."""
        topic_id = topic_id or topic_facts(self.parts.kafka, [topic])[topic].topic_id
        kind = "enriched" if "enriched" in topic else "ref"
        sql = (
            f"INSERT INTO {self.database}.sink_position (topic, partition, topic_id, generation, kind, subject, "
            f"next_offset, src_next, written_at) VALUES ('{topic}', 0, '{topic_id}', 1, '{kind}', 'cdr', "
            f"{next_offset}, NULL, now64(3))"
        )
        httpx.post(self.parts.clickhouse, content=sql, timeout=30).raise_for_status()

    def begin(self, **own: int) -> None:
        """The generation begins: what the first worker does."""
        settings = ServiceSettings.from_env(self.environment())
        assert guard_start(settings, threading.Event(), own)

    def begin_generation(self, generation: int, state: str) -> None:
        """A generation's row, as the control plane leaves it."""
        migrate(self.postgres)
        made = psql(
            self.postgres,
            "INSERT INTO derivation (topic_prefix, generation, types, state, plan, reason, actor) VALUES "
            f"('{self.topics.prefix}', {generation}, '{{cdr}}', '{state}', '{{}}', 'test', 'test')",
        )
        assert made.returncode == 0, made.stderr

    def begin_installation(self) -> None:
        """What the first gateway fixes."""
        partitions = {self.topics.raw("cdr"): 1, self.topics.raw("network"): 1, self.topics.ref("customer"): 1}
        migrate(self.postgres)
        check_fingerprints(self.postgres, {name: bytes.fromhex(key) for name, key in KEYS.items()})
        own = {"identity": "pseudonym", **HASHES}
        asyncio.run(guard_installation(self.postgres, self.topics.prefix, partitions, own))

    # -- services

    def environment(self) -> dict[str, str]:
        return {
            **self.parts.environment(),
            "TELESTREAM_POSTGRES": self.postgres,
            "TELESTREAM_CLICKHOUSE_DATABASE": self.database,
            "TELESTREAM_TOPIC_PREFIX": self.topics.prefix,
            "TELESTREAM_RUNNER": "plain",
            "TELESTREAM_LOG_FORMAT": "json",
            "TELESTREAM_ADMIN_PORT": str(free_port()),
            "TELESTREAM_HTTP_PORT": str(free_port()),
            "TELESTREAM_STATE_DIR": str(self.folder),
            **{f"TELESTREAM_{name.upper()}_KEY": key for name, key in KEYS.items()},
        }

    @contextlib.contextmanager
    def running(self, service: str, **settings: str) -> Iterator[Running]:
        """The real process; killed at the end if it is still there."""
        own = {f"TELESTREAM_{name.upper()}": value for name, value in settings.items()}
        environment = os.environ | self.environment() | own
        log = self.folder / f"{service}-{free_port()}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", PACKAGES[service]], env=environment, stdout=out, stderr=out, cwd=self.folder
            )
        try:
            yield Running(process, log, environment, self.topics.prefix)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)

    def stopped(self, service: str, **settings: str) -> Stopped:
        """Start the real process, which must end by itself."""
        with self.running(service, **settings) as running:
            return running.ended()


@dataclass(frozen=True, slots=True)
class Running:
    process: subprocess.Popen[bytes]
    log: Path
    environment: Mapping[str, str]
    prefix: str

    def ended(self, within_s: float = ENDS_WITHIN_S) -> Stopped:
        try:
            status = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not stop:\n{self.log.read_text()}") from None
        text = self.log.read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return Stopped(status, [line for line in lines if line["level"] in ("error", "critical")], text, self.prefix)

    def missing(self) -> dict[str, str] | None:
        """What /readyz names; None while nobody answers."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{self.environment['TELESTREAM_ADMIN_PORT']}/readyz", timeout=5)
            return dict(answer.json()["missing"])
        return None

    def ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.missing() == {}

        until(is_ready, "ready")

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def _cdr(number: int) -> Record:
    return {
        "event_uid": f"{number:022d}",
        "started_at": NOW_MS - 60_000,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.alice",
        "subscriber_kind": "MSISDN",
        "duration_ms": 1_000,
        "is_partial": False,
        "source": "switch",
        "batch_id": 1,
        "line": number + 1,
        "ingested_at": NOW_MS,
        "ext": {},
    }


def _filled(schema: Mapping[str, Any], record: Mapping[str, Any]) -> Record:
    return {field["name"]: _empty(field["type"]) for field in schema["fields"]} | dict(record)


def _empty(kind: Any) -> Any:
    if isinstance(kind, list):
        return None
    if isinstance(kind, dict):
        return {"array": [], "map": {}}.get(kind["type"], 0)
    return {"string": "", "long": 0, "int": 0, "double": 0.0, "boolean": False, "bytes": b""}[kind]
