"""A small installation of a test's own: topics, schemas, tables, judged records, and sinks as real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from telestream_contracts import (
    Registry,
    Schema,
    apply_topics,
    arrow_schema,
    encode,
    encode_record,
    enriched_schema,
    schema_of_topic,
)
from telestream_devstack import Parts
from telestream_domain import Topics
from telestream_warehouse import ClickHouse, Query, migrate

PARTITIONS = 2
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


def _neutral(field: Mapping[str, Any]) -> Any:
    """The emptiest value of a field."""
    kind = field["type"]
    if isinstance(kind, list):
        return None
    if isinstance(kind, dict):
        if kind.get("logicalType") == "timestamp-millis":
            return START
        if kind.get("logicalType") == "date":
            return date(2026, 3, 1)
        return {"array": [], "map": {}}[kind["type"]]
    return {"string": "", "long": 0, "int": 0, "double": 0.0, "boolean": False, "bytes": b""}[kind]


def record(schema: Schema, **fields: Any) -> dict[str, Any]:
    """A record of a schema, empty but for these fields."""
    return {field["name"]: _neutral(field) for field in schema["fields"]} | fields


def judged_columns(record_type: str, partition: int, first: int, count: int) -> pa.RecordBatch:
    """Judged records with dense source offsets: 1 in 10 a duplicate, 1 in 20 rejected, the rest stored."""
    schema = enriched_schema(record_type)
    offsets = np.arange(first, first + count)
    verdict = np.where(offsets % 10 == 3, "DUPLICATE", np.where(offsets % 20 == 7, "REJECTED", "STORED"))
    values: dict[str, Any] = {
        "src_partition": np.full(count, partition),
        "src_offset": offsets,
        "appended_at": START_MS + offsets * 10,
        "verdict": verdict,
        "sign": np.ones(count, np.int64),
        "rule": [{"REJECTED": "too_old"}.get(v) for v in verdict.tolist()],
        "event_uid": [f"{record_type}{partition:02d}{offset:016d}" for offset in offsets.tolist()],
        "started_at": START_MS + offsets * 10,
        "occurred_at": START_MS + offsets * 10,
        "subscriber_id": [f"k1.{offset % 97:022d}" for offset in offsets.tolist()],
        "cell_id": [f"208-01-{offset % 31}" for offset in offsets.tolist()],
        "duration_ms": offsets % 1000,
        "bytes_down": offsets % 7,
        "charge_micros": offsets % 11,
        "currency": ["EUR"] * count,
        "source": [f"msc{offset % 3}" for offset in offsets.tolist()],
        "batch_id": offsets % 2,
        "peer_id": [f"k1.{offset * 7919:022d}" for offset in offsets.tolist()],
    }
    columns = []
    neutral = record(schema)
    for field in arrow_schema(schema):
        if field.name in values:
            columns.append(pa.array(values[field.name]).cast(field.type))
        else:
            columns.append(pa.array([neutral[field.name]] * count, field.type))
    return pa.RecordBatch.from_arrays(columns, names=arrow_schema(schema).names)


class Proxy:
    """TCP in front of ClickHouse. ``mode``: pass, refuse (nobody there), deaf (requests go through, answers do not)."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self.mode = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str) -> None:
        self.mode = mode
        if mode == "refuse":
            self._cut()

    def close(self) -> None:
        self._listener.close()
        self._cut()

    def _cut(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.mode == "refuse":
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, origin: socket.socket, destination: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(1 << 16):
                if answers and self.mode == "deaf":
                    break
                destination.sendall(data)
        for connection in (origin, destination):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class SinkProcess:
    """A running ``python -m warehouse_sink``."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.admin = f"http://127.0.0.1:{environment['TELESTREAM_ADMIN_PORT']}"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "warehouse_sink"], env={**os.environ, **environment}, stderr=out, stdout=out
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log(self) -> str:
        return self._log.read_text()

    def ready(self) -> dict[str, str]:
        """What is missing, by dependency."""
        try:
            missing: dict[str, str] = httpx.get(f"{self.admin}/readyz", timeout=5).json()["missing"]
        except httpx.TransportError as err:
            return {"sink": str(err)}
        return missing

    def metric(self, name: str) -> float:
        for line in httpx.get(f"{self.admin}/metrics", timeout=5).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise KeyError(name)

    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


class World:
    """Everything a sink needs, on names of its own."""

    def __init__(self, parts: Parts, prefix: str, database: str, directory: Path) -> None:
        self.parts, self.topics, self.database = parts, Topics(prefix), database
        self._directory = directory
        apply_topics(parts.kafka, self.topics, PARTITIONS)
        self.registry = Registry(parts.registry)
        self.registry.register_all(self.topics)
        migrate(parts.clickhouse, database)
        self.clickhouse = ClickHouse(parts.clickhouse, database)
        self.proxy = Proxy(parts.clickhouse)
        self._producer = Producer({"bootstrap.servers": parts.kafka, "linger.ms": 5})
        self._sinks: list[SinkProcess] = []

    def judged(self, record_type: str, partition: int, first: int, count: int) -> None:
        """Append dense judged records."""
        topic, schema = self.topics.enriched(record_type), enriched_schema(record_type)
        values = encode(
            judged_columns(record_type, partition, first, count), schema, self.registry.id_for(topic, schema)
        )
        self._produce(topic, partition, [{"value": value} for value in values])

    def records(self, topic: str, partition: int, records: Sequence[Mapping[str, Any]], key: str = "") -> None:
        """Append records one by one, keyed by a field if ``key``."""
        schema = schema_of_topic(topic, self.topics)
        assert schema is not None
        schema_id = self.registry.id_for(topic, schema)
        messages = []
        for fields in records:
            message = {"value": encode_record(fields, schema, schema_id)}
            messages.append(message | ({"key": str(fields[key]).encode()} if key else {}))
        self._produce(topic, partition, messages)

    def raw_value(self, topic: str, partition: int, value: bytes) -> None:
        self._produce(topic, partition, [{"value": value}])

    def _produce(self, topic: str, partition: int, messages: list[dict[str, bytes]]) -> None:
        self._producer.produce_batch(topic, messages, partition=partition)
        assert self._producer.flush(30) == 0

    def sink(self, instance: int = 0, **settings: str) -> SinkProcess:
        """Start a sink behind the proxy; small batches, so that there are many."""
        environment = {
            **self.parts.environment(),
            "TELESTREAM_TOPIC_PREFIX": self.topics.prefix,
            "TELESTREAM_CLICKHOUSE": self.proxy.url,
            "TELESTREAM_CLICKHOUSE_DATABASE": self.database,
            "TELESTREAM_INSTANCE": str(instance),
            "TELESTREAM_ADMIN_PORT": str(_free_port()),
            "TELESTREAM_LOG_FORMAT": "json",
            "TELESTREAM_SINK_MAX_ROWS": "5000",
            "TELESTREAM_SINK_MAX_AGE_MS": "200",
            "TELESTREAM_SINK_MAX_BACKOFF_S": "1",
            **{f"TELESTREAM_{name.upper()}": value for name, value in settings.items()},
        }
        started = SinkProcess(environment, self._directory / f"sink-{instance}.log")
        self._sinks.append(started)
        return started

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.clickhouse.rows(Query(sql))

    def written(self, record_type: str) -> int:
        """Judged records below the positions."""
        rows = self.rows(
            f"SELECT sum(next) AS n FROM (SELECT max(src_next) AS next FROM sink_position WHERE kind = 'enriched' "
            f"AND subject = '{record_type}' GROUP BY partition)"
        )
        return int(rows[0]["n"] or 0)

    def close(self) -> None:
        for sink in self._sinks:
            if sink.process.poll() is None:
                sink.kill()
        self.proxy.close()
        self.clickhouse.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def world(parts: Parts, topic_prefix: str, clickhouse_database: str, tmp_path: Path) -> Iterator[World]:
    made = World(parts, topic_prefix, clickhouse_database, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def make_record() -> Callable[..., dict[str, Any]]:
    return record


@pytest.fixture(scope="session")
def make_judged() -> Callable[[str, int, int, int], pa.RecordBatch]:
    return judged_columns


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait for a condition; fails with what it last was after a minute."""

    def wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not come true in {seconds:.0f} s: {what}")
            time.sleep(0.1)

    return wait
