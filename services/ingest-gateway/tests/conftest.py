"""What the gateway's tests share: fixed keys, profiles, and the two paths side by side."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from faust_batch import Source, log_range
from ingest_gateway.domain.file_reader import FileReader, chunks
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import Profile, parse_profile
from ingest_gateway.encode import BatchHead, Encoder
from ingest_gateway.profiles import shipped
from telestream_contracts import (
    FRAME_BYTES,
    Registry,
    apply_topics,
    decode_payloads,
    decode_record,
    encode_records,
    load_schema,
    prefix_schema,
)
from telestream_devstack import Parts
from telestream_devstack.postgres import create_database, psql
from telestream_domain import Topics
from telestream_opstore import ensure_development_key, migrate

IDENTITY_KEY, PERMANENT_KEY = bytes(range(32)), bytes(range(32, 64))
HEAD = BatchHead("switch-1", 7, 1_790_000_000_000, 400)


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(IDENTITY_KEY, PERMANENT_KEY)


@pytest.fixture(scope="session")
def shipped_profile() -> Callable[[str], Profile]:
    return lambda name: parse_profile((shipped() / f"{name}.yaml").read_text("utf-8"), name)


@dataclass(frozen=True)
class Loaded:
    """A whole file judged: framed values, keys and shards in order of lines, and refusals as (line, code, field)."""

    values: list[bytes]
    keys: list[bytes]
    shards: list[int]
    lines: list[int]
    refusals: list[tuple[int, str, str | None]]
    rows: int
    by_columns: int
    shown: list[str]


def as_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str], delimiter: str = ",") -> bytes:
    """A header and the rows, quoted where needed."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([row.get(name, "") for name in names])
    return text.getvalue().encode()


@pytest.fixture(scope="session")
def load(identity: Identity) -> Callable[..., Loaded]:
    """Judge the bytes of a file by a profile, as the gateway does, without sending."""

    def run(
        data: bytes, profile: Profile, record_type: str = "cdr", block_bytes: int = 8 << 20, who: Identity = identity
    ) -> Loaded:
        reader = FileReader(profile, record_type, who, HEAD.source)
        encoder = Encoder(record_type, 41)
        found: list[tuple[int, bytes, bytes, int]] = []
        refusals, shown, rows, by_columns, bound = [], [], 0, 0, False
        for chunk in chunks(io.BytesIO(data), 0, 1, block_bytes):
            if not bound:
                reader.bind(chunk)
                bound = True
            block = reader.judge(chunk)
            rows += block.rows
            by_columns += len(block.columns)
            columns = encoder.columns(block.columns, HEAD)
            found += zip(
                block.columns.lines.tolist(), columns, block.columns.keys, block.columns.shards.tolist(), strict=True
            )
            direct = encoder.entries(block.entries, block.entry_lines, HEAD)
            found += [
                (line, value, entry.key, entry.shard)
                for line, value, entry in zip(block.entry_lines, direct, block.entries, strict=True)
            ]
            refusals += [(refusal.position, refusal.code, refusal.field) for refusal, _ in block.refusals]
            shown += [text for _, text in block.refusals]
        if not bound:
            reader.bind(next(chunks(io.BytesIO(b"\n"), 0, 1)))
        found.sort(key=lambda item: item[0])
        return Loaded(
            [value for _, value, _, _ in found],
            [key for _, _, key, _ in found],
            [shard for _, _, _, shard in found],
            [line for line, _, _, _ in found],
            refusals,
            rows,
            by_columns,
            shown,
        )

    return run


@pytest.fixture(scope="session")
def one_by_one(identity: Identity) -> Callable[..., Loaded]:
    """The plain reference: every row through the standard library's CSV reader, the direct path and fastavro."""

    def run(data: bytes, profile: Profile, record_type: str = "cdr", who: Identity = identity) -> Loaded:
        reader = FileReader(profile, record_type, who, HEAD.source)
        first = next(chunks(io.BytesIO(data), 0, 1))
        reader.bind(first)
        layout = reader._layout
        assert layout is not None
        encoder = Encoder(record_type, 41)
        values, keys, shards, lines, refusals = [], [], [], [], []
        rows = 0
        for number, text in enumerate(data.decode().split("\n"), 1):
            if (profile.header and number == 1) or not text:
                continue
            rows += 1
            fields = next(csv.reader([text], delimiter=profile.delimiter, strict=True))
            judged = layout.direct.judge(layout.record(fields), HEAD.source)
            if isinstance(judged, tuple):
                refusals.append((number, judged[0], judged[1]))
                continue
            for entry in judged:
                record = dict(zip(encoder_names(record_type), entry.row, strict=True))
                record |= common(record_type, number)
                if "ext" in record:
                    record["ext"] = dict(record["ext"])
                values += encode_records([record], encoder.schema, 41)
                keys.append(entry.key)
                shards.append(entry.shard)
                lines.append(number)
        return Loaded(values, keys, shards, lines, refusals, rows, 0, [])

    return run


def encoder_names(record_type: str) -> tuple[str, ...]:
    from ingest_gateway.domain.accepted import OUTPUT

    return OUTPUT[record_type]


def common(record_type: str, line: int) -> dict[str, Any]:
    """What the gateway adds to every record of a batch."""
    shared: dict[str, Any] = {
        "source": HEAD.source,
        "batch_id": HEAD.batch_id,
        "line": line,
        "ingested_at": HEAD.ingested_at_ms,
    }
    if record_type in ("cdr", "network"):
        shared |= {"reverses_offset": None, "max_age_days": HEAD.max_age_days, "origin_offset": None}
    return shared


DEVELOPMENT_KEY = "a development key"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


class Running:
    """A gateway process of a test's own, with its own topics and database."""

    def __init__(self, parts: Parts, prefix: str, dsn: str, folder: Path, **settings: str) -> None:
        self.parts, self.topics, self.dsn, self.folder = parts, Topics(prefix), dsn, folder
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "gateway.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")},
            **parts.environment(),
            "TELESTREAM_POSTGRES": dsn,
            "TELESTREAM_TOPIC_PREFIX": prefix,
            "TELESTREAM_HTTP_PORT": str(self.port),
            "TELESTREAM_ADMIN_PORT": str(self.admin_port),
            "TELESTREAM_STATE_DIR": str(folder),
            "TELESTREAM_IDENTITY_KEY": IDENTITY_KEY.hex(),
            "TELESTREAM_PERMANENT_KEY": PERMANENT_KEY.hex(),
            "TELESTREAM_LOG_FORMAT": "json",
            **{f"TELESTREAM_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, headers={"X-API-Key": DEVELOPMENT_KEY}, timeout=60)

    def start(self, wait: bool = True) -> Running:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest_gateway"], env=self.environment, stderr=log, stdout=log
            )
        deadline = time.monotonic() + 90
        while wait:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                httpx.get(f"{self.url}/openapi.json")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)

    def ready(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port}/readyz")

    def stored(self, record_type: str = "cdr") -> list[dict[str, Any]]:
        """Everything in the type's topic: partition, offset, key and the decoded record."""
        schema = load_schema(record_type)
        return [
            {"partition": partition, "key": key.decode()} | decode_record(value, schema)
            for partition, key, value in self._messages(record_type)
        ]

    def lines(self, batch_id: int) -> list[int]:
        """The lines of a file's CDRs as they lie in the topic."""
        return [line for batch, line in self.positions() if batch == batch_id]

    def positions(self) -> list[tuple[int, int]]:
        """Batch and line of every CDR in the topic: by columns, for large files."""
        payloads = [value[FRAME_BYTES:] for _, _, value in self._messages("cdr")]
        records = decode_payloads(payloads, prefix_schema(load_schema("cdr"), "line"))
        return list(zip(records["batch_id"].to_list(), records["line"].to_list(), strict=True))

    def _messages(self, record_type: str) -> Iterator[tuple[int, bytes, bytes]]:
        from confluent_kafka import Consumer, TopicPartition

        reference = record_type not in ("cdr", "network")
        topic = self.topics.ref(record_type) if reference else self.topics.raw(record_type)
        consumer = Consumer(
            {"bootstrap.servers": self.parts.kafka, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        )
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            places = [TopicPartition(topic, number, 0) for number in partitions]
            left = sum(log_range(consumer, Source(topic, place.partition))[1] for place in places)
            consumer.assign(places)
            while left:
                for message in consumer.consume(min(left, 10_000), timeout=10):
                    assert message.error() is None
                    key, value, partition = message.key(), message.value(), message.partition()
                    assert isinstance(key, bytes)
                    assert isinstance(value, bytes)
                    assert partition is not None
                    left -= 1
                    yield partition, key, value
        finally:
            consumer.close()


def prepared(parts: Parts, prefix: str, dsn: str, partitions: int = 3) -> None:
    """Topics, schemas, tables and the development key for one gateway."""
    topics = Topics(prefix)
    apply_topics(parts.kafka, topics, partitions=partitions)
    Registry(parts.registry).register_all(topics)
    migrate(dsn)
    ensure_development_key(dsn, DEVELOPMENT_KEY)


@pytest.fixture(scope="module")
def gateway(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running gateway that the tests of a module share."""
    name = f"t{uuid.uuid4().hex[:12]}"
    create_database(parts.postgres, name)
    dsn = parts.postgres.rsplit("/", 1)[0] + f"/{name}"
    prepared(parts, f"{name}.", dsn)
    running = Running(parts, f"{name}.", dsn, tmp_path_factory.mktemp("gateway")).start()
    try:
        yield running
    finally:
        code = running.end()
        psql(parts.postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    assert code == 0, running.log.read_text()[-3000:]


@pytest.fixture
def own_gateway(parts: Parts, topic_prefix: str, postgres_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Makes gateways that are not started yet, all on the same topics and tables."""
    prepared(parts, topic_prefix, postgres_dsn)
    made: list[Running] = []

    def make(**settings: str) -> Running:
        running = Running(parts, topic_prefix, postgres_dsn, tmp_path, **settings)
        made.append(running)
        return running

    yield make
    for running in made:
        running.client.close()
        if running.process is not None:
            running.end(signal.SIGKILL)
