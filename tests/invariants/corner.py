"""A corner of the real parts for one module of tests: one raw log, and services of any generation over it.

A generation is one derivation of the log, so a sabotaged run is just another generation beside the healthy one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from faust_batch import Source, end_offsets, read_partition
from telestream_contracts import (
    Registry,
    Schema,
    apply_topics,
    decode_record,
    encode_records,
    load_schema,
    topic_schemas,
)
from telestream_devstack import Parts
from telestream_devstack.postgres import create_database, psql
from telestream_domain import FAMILIES, TYPES, Topics, group_id
from telestream_opstore import Plan, ensure_development_key
from telestream_opstore import migrate as migrate_opstore
from telestream_warehouse import ClickHouse, Query, migrate

SABOTAGE = Path(__file__).parent / "sabotage.py"
Record = dict[str, Any]
API_KEY = "a key for the invariants"
QUICK = {
    "quarter_flush_s": "0.4",
    "cell_minute_flush_s": "0.3",
    "subscriber_day_flush_s": "0.5",
    "quality_flush_s": "0.3",
    "idle_flush_s": "0.6",
    "sink_max_age_ms": "100",
    "max_rejected_share": "1",  # these logs have more bad records than a healthy source
    "log_format": "json",
    "runner": "plain",  # half a second less to start; the tests of I2 and I3 run Faust, which is the default
}
COMMON: Record = {"source": "switch", "batch_id": 1, "line": 1, "ingested_at": 0}


def until(condition: Callable[[], Any], what: str, seconds: float = 120.0, pause_s: float = 0.1) -> None:
    """Wait; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause_s)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Ended(Exception):
    """A worker is gone that should be at work. No AssertionError: a control must not pass because of it."""


class Worker:
    """A service as a process of its own, started through ``sabotage.py``."""

    def __init__(self, service: str, switches: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.log = folder / f"{service}-{free_port()}.log"
        self.has_api = service in ("ingest-gateway", "query-api")
        self.admin = f"http://127.0.0.1:{environment['TELESTREAM_ADMIN_PORT']}"
        self.http = f"http://127.0.0.1:{environment['TELESTREAM_HTTP_PORT']}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SABOTAGE), service, *switches], env=environment, stdout=log, stderr=log, cwd=folder
            )

    def until_ready(self, seconds: float = 120.0) -> Worker:
        """Wait until it says that it works, and a service with an API answers."""

        def ready() -> bool:
            if self.ended:
                raise Ended(self.said()[-1500:])
            try:
                if self.has_api:
                    httpx.get(f"{self.http}/openapi.json", timeout=5)
                return httpx.get(f"{self.admin}/readyz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        until(ready, f"{self.admin} ready", seconds)
        return self

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def wait(self, seconds: float = 120.0) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return self.log.read_text()


class Corner:
    """Topics of a test module's own, what is sent to them, and who works on them."""

    def __init__(self, parts: Parts, prefix: str, folder: Path, partitions: int = 2) -> None:
        self.parts, self.prefix, self.folder, self.partitions = parts, prefix, folder, partitions
        self.registry = Registry(parts.registry)
        self.workers: list[Worker] = []
        self.ids: dict[str, int] = {}
        self.environment: dict[str, str] = {}
        self.warehouse: ClickHouse | None = None
        self._schemas: dict[int, Schema | None] = {}
        self._producer = Producer(
            {"bootstrap.servers": parts.kafka, "enable.idempotence": True, "linger.ms": 2, "log_level": 2}
        )
        self._make_opstore()
        self.topics = self.generation(1)

    def generation(self, number: int, plan: Plan | None = None, types: Sequence[str] = tuple(TYPES)) -> Topics:
        """Make what a generation needs; doing it again is harmless and changes nothing."""
        written = msgspec.json.encode(plan or Plan()).decode()
        row = (
            "INSERT INTO derivation (topic_prefix, generation, types, state, plan, reason, actor, decided_at) VALUES "
            f"('{self.prefix}', {number}, '{{{','.join(types)}}}', 'RUNNING', '{written}', 'test', 'test', now()) "
            "ON CONFLICT DO NOTHING"
        )
        made = psql(self.environment["TELESTREAM_POSTGRES"], row)
        assert made.returncode == 0, made.stderr
        topics = Topics(self.prefix, number)
        apply_topics(self.parts.kafka, topics, partitions=self.partitions)
        missing = {name: schema for name, schema in topic_schemas(topics).items() if name not in self.ids}
        with ThreadPoolExecutor(6) as pool:
            ids = pool.map(lambda item: self.registry.register(item[0], item[1]), missing.items())
            self.ids.update(zip(missing, ids, strict=True))
        return topics

    def make_warehouse(self) -> ClickHouse:
        """A ClickHouse database of this corner's own, with all tables."""
        name = self.prefix.strip(".")
        httpx.post(self.parts.clickhouse, content=f"CREATE DATABASE {name}", timeout=30).raise_for_status()
        migrate(self.parts.clickhouse, name)
        self.environment["TELESTREAM_CLICKHOUSE_DATABASE"] = name
        self.warehouse = ClickHouse(self.parts.clickhouse, name)
        return self.warehouse

    def _make_opstore(self) -> None:
        """A PostgreSQL database of this corner's own, with a key to all services, and the gateway's secrets."""
        self.database = self.prefix.strip(".")
        create_database(self.parts.postgres, self.database)
        dsn = self.parts.postgres.rsplit("/", 1)[0] + f"/{self.database}"
        migrate_opstore(dsn)
        ensure_development_key(dsn, API_KEY)
        self.environment |= {
            "TELESTREAM_POSTGRES": dsn,
            "TELESTREAM_IDENTITY_KEY": bytes(range(32)).hex(),
            "TELESTREAM_PERMANENT_KEY": bytes(range(32, 64)).hex(),
            "TELESTREAM_API_KEY": API_KEY,
        }

    def rows(self, sql: str) -> list[Record]:
        """What the warehouse answers."""
        assert self.warehouse is not None
        return self.warehouse.rows(Query(sql))

    def await_written(self) -> None:
        """Wait until the warehouse holds every record that stands in the topics it is fed from now."""
        topics = [self.topics.enriched(kind) for kind in TYPES] + [self.topics.rejected(kind) for kind in TYPES]
        topics += [self.topics.agg(family) for family in FAMILIES]
        wanted = {(topic, p): self.behind_last(topic, p) for topic in topics for p in range(self.partitions)}

        def missing() -> list[tuple[str, int]]:
            found = self.rows("SELECT topic, partition, max(next_offset) AS next FROM sink_position GROUP BY ALL")
            saved = {(row["topic"], int(row["partition"])): int(row["next"]) for row in found}
            return [place for place, behind in wanted.items() if saved.get(place, 0) < behind]

        until(lambda: not missing(), "everything in the warehouse")

    # -- writing ------------------------------------------------------------------------------------------------------

    def send(self, kind: str, partition: int, records: Sequence[Record | bytes], at_ms: int = 0) -> None:
        """Append to a raw topic or one of reference data, acknowledged: records of its schema, or bytes as they are.

        ``at_ms``: when they arrive, for a topic that ``forges_arrival`` was called for.
        """
        topic = self.topics.raw(kind) if kind in TYPES else self.topics.ref(kind)
        schema = load_schema(kind)
        empty = {field["name"]: None for field in schema["fields"]} | COMMON
        if kind in TYPES:
            empty["ext"] = {}
        values = [
            one if isinstance(one, bytes) else encode_records([empty | one], schema, self.ids[topic])[0]
            for one in records
        ]
        self.write(topic, partition, values, at_ms)

    def write(self, topic: str, partition: int, values: Sequence[bytes], at_ms: int = 0) -> None:
        """Append values as they are."""
        for value in values:
            self._producer.produce(topic, value, b"k", partition=partition, timestamp=at_ms)
        assert self._producer.flush(30) == 0

    def forges_arrival(self, topic: str) -> None:
        """Let the times of arrival be the producer's, as they are in a raw topic that was rewritten.

        ``generation`` sets it back: send at once.
        """
        entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.parts.kafka})
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(timeout=20)

    # -- working ------------------------------------------------------------------------------------------------------

    def start(self, service: str, *switches: str, generation: int = 1, instance: int = 0, **settings: str) -> Worker:
        """A service; it ends with the corner at the latest."""
        given = {
            **QUICK,
            "topic_prefix": self.prefix,
            "generation": str(generation),
            "instance": str(instance),
            "admin_port": str(free_port()),
            "http_port": str(free_port()),
            "state_dir": str(self.folder / f"state-{service}-{generation}-{instance}"),
            **settings,
        }
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")},
            **self.parts.environment(),
            **self.environment,
            **{f"TELESTREAM_{name.upper()}": value for name, value in given.items()},
        }
        worker = Worker(service, switches, environment, self.folder)
        self.workers.append(worker)
        return worker

    def committed(self, service: str, kind: str, generation: int = 1) -> dict[int, int]:
        """What a stage's group committed for the topic it reads, by partition; 0: nothing."""
        return {p: max(place.offset, 0) for p, place in self._committed(service, kind, generation).items()}

    def metadata(self, service: str, kind: str, generation: int = 1) -> dict[int, str]:
        """What was committed beside the offsets; empty: nothing."""
        return {p: place.metadata or "" for p, place in self._committed(service, kind, generation).items()}

    def _committed(self, service: str, kind: str, generation: int) -> dict[int, TopicPartition]:
        topics = Topics(self.prefix, generation)
        topic = topics.raw(kind) if service == "cdr-enricher" else topics.enriched(kind)
        # uncommitted here means: do not wait for a transaction that is open on these offsets
        asking = Consumer(
            {
                "bootstrap.servers": self.parts.kafka,
                "group.id": group_id(service, topics),
                "isolation.level": "read_uncommitted",
            }
        )
        places = [TopicPartition(topic, p) for p in range(self.partitions)]
        deadline = time.monotonic() + 30
        try:
            while True:
                try:
                    return {place.partition: place for place in asking.committed(places, timeout=30)}
                except KafkaException:
                    # a broker that has just started says NOT_COORDINATOR for a while
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        finally:
            asking.close()

    def judged(self, kind: str = "cdr", generation: int = 1, worker: Worker | None = None) -> None:
        """Wait until everything in a raw topic is judged and committed. Fails if ``worker`` ends before."""
        ends = self.ends(self.topics.raw(kind))

        def done() -> bool:
            if worker is not None and worker.ended:
                raise Ended(worker.said()[-1500:])
            return self.committed("cdr-enricher", kind, generation) == ends

        until(done, f"{kind} of generation {generation} judged up to {ends}")

    # -- reading ------------------------------------------------------------------------------------------------------

    def ends(self, topic: str) -> dict[int, int]:
        asking = self._consumer("read_uncommitted")
        try:
            return {
                p: asking.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1]  # type: ignore[index]
                for p in range(self.partitions)
            }
        finally:
            asking.close()

    def end(self, topic: str, partition: int) -> int:
        return end_offsets(self.parts.kafka, [topic])[Source(topic, partition)]

    def messages(
        self, topic: str, partition: int, isolation: str = "read_committed"
    ) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of everything that stands in a partition now, as a reader of this isolation sees it."""
        consumer = self._consumer(isolation)
        found: list[tuple[bytes | None, bytes | None]] = []
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while True:
                for message in consumer.consume(5_000, 0.2):
                    error = message.error()
                    if error is None:
                        found.append((message.key(), message.value()))  # type: ignore[arg-type]
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return found
                    else:
                        raise AssertionError(f"{topic}[{partition}]: {error}")
        finally:
            consumer.close()

    def behind_last(self, topic: str, partition: int) -> int:
        """The offset behind the last record of a partition: control records may follow."""
        found = 0
        for batch in read_partition(self.parts.kafka, Source(topic, partition), 0):
            found = batch.last_offset + 1
        return found

    def records(self, topic: str, partition: int, isolation: str = "read_committed") -> list[Record]:
        """The same, decoded one by one with fastavro, by the schema each value names."""
        return [self.decoded(value or b"") for _, value in self.messages(topic, partition, isolation)]

    def latest(self, topic: str) -> dict[bytes, Record]:
        """What compaction would leave of all partitions: the last value of each key."""
        found: dict[bytes, bytes] = {}
        for partition in range(self.partitions):
            for key, value in self.messages(topic, partition):
                found[key or b""] = value or b""
        return {key: self.decoded(value) for key, value in found.items()}

    def decoded(self, value: bytes) -> Record:
        schema_id = int.from_bytes(value[1:5])
        if schema_id not in self._schemas:
            self._schemas[schema_id] = self.registry.schema(schema_id)
        schema = self._schemas[schema_id]
        assert schema is not None
        return decode_record(value, schema)

    def _consumer(self, isolation: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.parts.kafka,
                "group.id": "invariants",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "log_level": 3,
            }
        )

    def stop_all(self) -> None:
        """In order, so that group members leave at once."""
        for worker in self.workers:
            if not worker.ended:
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
        if self.warehouse is not None:
            self.warehouse.command(f"DROP DATABASE IF EXISTS {self.warehouse.database} SYNC")
            self.warehouse.close()
        psql(self.parts.postgres, f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')
