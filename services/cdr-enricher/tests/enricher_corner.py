"""A test's own corner of a real Kafka and registry, and enricher processes in it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from faust_batch import Source, read_partition
from telestream_contracts import (
    Registry,
    apply_topics,
    decode_record,
    encode_record,
    enriched_schema,
    load_schema,
)
from telestream_domain import Topics

PARTITIONS = 2
QUIET = {"log_level": "4"}
DEADLINE_S = 90.0
STARTED_AT = int(time.time() * 1000) - 60_000
_BASE: dict[str, dict[str, Any]] = {
    "cdr": {
        "started_at": STARTED_AT,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.alice",
        "subscriber_kind": "MSISDN",
        "duration_ms": 1_000,
        "is_partial": False,
        "ext": {},
    },
    "customer": {"identifier_kind": "MSISDN", "valid_from": 0, "deleted": False},
    "cell": {"valid_from": 0, "deleted": False},
}


class EnricherCorner:
    """Topics and schemas under a prefix, ``send`` to fill them, ``running`` for a worker."""

    def __init__(self, parts: Any, prefix: str, directory: Path) -> None:
        self.parts, self.topics, self._directory = parts, Topics(prefix), directory
        self.registry = Registry(parts.registry)
        apply_topics(parts.kafka, self.topics, partitions=PARTITIONS)
        self.ids = self.registry.register_all(self.topics)
        self.producer = Producer({"bootstrap.servers": parts.kafka, "enable.idempotence": True, "linger.ms": 2})

    def value(self, name: str, **changes: Any) -> bytes:
        schema = load_schema(name)
        topic = self.topics.raw(name) if name == "cdr" else self.topics.ref(name)
        record = dict.fromkeys(entry["name"] for entry in schema["fields"]) | _BASE[name]
        record |= {"source": "s", "batch_id": 1, "line": 1, "ingested_at": STARTED_AT} | changes
        return encode_record(record, schema, self.ids[topic])

    def call(self, partition: int, *values: bytes | None) -> None:
        self._produce(self.topics.raw("cdr"), partition, *values)

    def refer(self, entity: str, partition: int = 0, **record: Any) -> None:
        self._produce(self.topics.ref(entity), partition, self.value(entity, **record))

    def _produce(self, topic: str, partition: int, *values: bytes | None) -> None:
        for value in values:
            self.producer.produce(topic, value, "k", partition)
        self.producer.flush()

    def judged(self, partition: int) -> list[dict[str, Any]]:
        schema = enriched_schema("cdr")
        return [decode_record(value, schema) for value in self._values(self.topics.enriched("cdr"), partition)]

    def letters(self, partition: int) -> list[dict[str, Any]]:
        schema = load_schema("dead_letter")
        return [decode_record(value, schema) for value in self._values(self.topics.rejected("cdr"), partition)]

    def _values(self, topic: str, partition: int) -> list[bytes]:
        batches = read_partition(self.parts.kafka, Source(topic, partition), None, client_options=QUIET)
        return [value for batch in batches for value in batch.values if value is not None]

    @contextlib.contextmanager
    def running(self, instance: int = 0, *, script: Sequence[str] = (), **settings: object) -> Iterator[Worker]:
        """``script``: a worker of the test's own, with its arguments."""
        log = self._directory / f"enricher-{instance}.log"
        worker = Worker(self, log, instance, settings, script or ("-m", "cdr_enricher"))
        try:
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()


class Worker:
    """One enricher process. ``settings`` go into its environment."""

    def __init__(
        self, corner: EnricherCorner, log: Path, instance: int, settings: dict[str, object], script: Sequence[str]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._admin = f"http://127.0.0.1:{free.getsockname()[1]}"
            port = free.getsockname()[1]
        environment = os.environ | corner.parts.environment()
        environment |= {f"TELESTREAM_{name.upper()}": str(setting) for name, setting in settings.items()}
        environment |= {
            "TELESTREAM_TOPIC_PREFIX": corner.topics.prefix,
            "TELESTREAM_INSTANCE": str(instance),
            "TELESTREAM_STATE_DIR": str(log.parent / f"state-{instance}"),
            "TELESTREAM_ADMIN_PORT": str(port),
            "TELESTREAM_LOG_FORMAT": "json",
        }
        self._log, self._written = log, log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self.process = subprocess.Popen([sys.executable, *script], env=environment, stdout=out, stderr=out)

    def wait_until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(40) == 0, self.output

    @property
    def output(self) -> str:
        with self._log.open() as written:
            written.seek(self._written)
            return written.read()

    @property
    def stopped(self) -> str:
        """The one line that says why it ended."""
        (line,) = (line for line in self.output.splitlines() if '"event": "stopped"' in line)
        reason: str = json.loads(line)["reason"]
        return reason

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page on the admin port; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(self._admin + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def metric(self, line_start: str) -> float | None:
        """The value of the metric whose line begins so; None if there is none."""
        found = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(line_start)]
        return float(found[0].rsplit(" ", 1)[1]) if found else None
