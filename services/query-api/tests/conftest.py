"""One query API on real parts per module, with an own corner of each of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from query_api.app import Service, build, serve
from query_api.settings import QuerySettings
from telestream_contracts import Registry, apply_topics, encode_records, load_schema
from telestream_devstack import Parts, reserve_base
from telestream_devstack.postgres import create_database, psql
from telestream_domain import Topics
from telestream_opstore import create_key, ensure_development_key
from telestream_opstore import migrate as migrate_opstore
from telestream_warehouse import ClickHouse, Query, migrate

KEY = "development-key-of-the-tests"
PARTITIONS = 4


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """What ``condition`` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass(frozen=True)
class World:
    """The parts, as seen from a test."""

    service: Service
    client: httpx.Client
    topics: Topics
    registry: Registry
    clickhouse: ClickHouse
    producer: Producer
    postgres: str

    def url(self, path: str) -> str:
        return str(self.client.base_url).rstrip("/") + path

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.client.get(path, params={name.rstrip("_"): value for name, value in params.items()})

    def data(self, path: str, **params: Any) -> Any:
        response = self.get(path, **params)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def produce(self, topic: str, partition: int, values: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        failed: list[Any] = []

        def noted(err: Any, _: Any) -> None:
            if err is not None:
                failed.append(err)

        for index, value in enumerate(values):
            key = None if keys is None else keys[index]
            self.producer.produce(
                topic,
                value,
                key=key,
                partition=partition,
                on_delivery=lambda err, _: failed.append(err) if err else None,
            )
            self.producer.poll(0)
        self.producer.flush(20)
        assert not failed

    def publish(self, topic: str, schema: str, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
        """Avro records onto the partition that their field says (progress has only one)."""
        values = encode_records(records, load_schema(schema), self.registry.id_for(topic))
        for record, value, key in zip(records, values, keys, strict=True):
            self.produce(topic, 0 if schema == "progress" else record["partition"], [value], [key])

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows by name; other columns get their defaults."""
        self.clickhouse.insert(table, pa.RecordBatch.from_pylist([dict(row) for row in rows]))

    def sunk_to(self, record_type: str, offsets: Sequence[int], generation: int = 1) -> None:
        """The sink's positions."""
        topic = Topics(self.topics.prefix, generation).enriched(record_type)
        self.insert(
            "sink_position",
            [
                {
                    "topic": topic,
                    "partition": partition,
                    "topic_id": "x",
                    "generation": generation,
                    "kind": "enriched",
                    "subject": record_type,
                    "next_offset": offset,
                    "src_next": offset,
                    "written_at": datetime.now(UTC),
                }
                for partition, offset in enumerate(offsets)
            ],
        )

    def count(self, sql: str) -> int:
        return int(next(iter(self.clickhouse.rows(Query(sql))[0].values())))


class _Gateway(BaseHTTPRequestHandler):
    """The one endpoint of the gateway that is asked, where the gateway itself is not running."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        good = b"33612345678" in body or b"208011234567890" in body
        answer = b'{"subscriber_id": "k1.AAAAAAAAAAAAAAAAAAAAAA"}' if good else b"{}"
        self.send_response(200 if good else 422)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def world(parts: Parts) -> Iterator[World]:
    name = f"t{uuid.uuid4().hex[:12]}"
    topics = Topics(f"{name}.", 1)
    create_database(parts.postgres, name)
    dsn = parts.postgres.rsplit("/", 1)[0] + f"/{name}"
    migrate_opstore(dsn)
    ensure_development_key(dsn, KEY)
    apply_topics(parts.kafka, topics, PARTITIONS)
    registry = Registry(parts.registry)
    registry.register_all(topics)
    migrate(parts.clickhouse, name)
    gateway = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    settings = QuerySettings(
        kafka=parts.kafka,
        registry=parts.registry,
        clickhouse=parts.clickhouse,
        clickhouse_database=name,
        postgres=dsn,
        topic_prefix=topics.prefix,
        gateway=f"http://127.0.0.1:{gateway.server_port}",
        http_port=reserve_base() + 81,
        business_timezone="Europe/Paris",
    )
    service = build(settings)
    server = serve(service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{settings.http_port}", headers={"X-API-Key": KEY}, timeout=30.0)
    wait_for(lambda: server.started, "the server")
    wait_for(lambda: service.parts.tails.any_live(), "the tail")
    yield World(
        service,
        client,
        topics,
        registry,
        ClickHouse(parts.clickhouse, name),
        Producer({"bootstrap.servers": parts.kafka, "linger.ms": 1}),
        dsn,
    )
    server.should_exit = True
    thread.join(timeout=30)
    client.close()
    gateway.shutdown()
    ClickHouse(parts.clickhouse, name).command(f"DROP DATABASE {name} SYNC", in_database=False)
    psql(parts.postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def key_of(world: World) -> Callable[[str], str]:
    """A key with one role."""

    def make(role: str) -> str:
        return create_key(world.postgres, f"{role}-{uuid.uuid4().hex[:6]}", [role], ["*"])[0]

    return make
