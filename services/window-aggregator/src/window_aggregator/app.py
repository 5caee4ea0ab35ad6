"""Wiring."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from faust_batch import BatchError, Condition, FaustRunner, NullObserver, PlainRunner, Source, WorkerConfig
from telestream_contracts import Registry
from telestream_domain import FAMILIES, group_id
from telestream_guards import Derivation, guard_start
from telestream_runtime import AdminServer, run_service
from telestream_runtime.lean import give_back_memory
from window_aggregator import metrics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import families
from window_aggregator.domain.held import keep_with
from window_aggregator.kafka import KafkaLog
from window_aggregator.settings import AggregatorSettings
from window_aggregator.shelf import Shelf
from window_aggregator.snapshot_cache import SnapshotFiles
from window_aggregator.stage import ENCODE_ROWS, Aggregator
from window_aggregator.state import State

MIB = 1 << 20
SERVICE = "window-aggregator"
GIVE_BACK_EVERY_S = 5.0
QUEUED_UPSERTS = 4 * ENCODE_ROWS


class _Watch(NullObserver):
    """Exports what the worker does, and knows whether it has begun."""

    def __init__(self) -> None:
        self.assigned_at: float | None = None
        self._gave_back_at = 0.0

    def on_assigned(self, sources: Sequence[Source]) -> None:
        self.assigned_at = time.monotonic()

    def on_revoked(self, sources: Sequence[Source]) -> None:
        for source in sources:
            metrics.LAG.remove(source.topic, str(source.partition))

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        metrics.COMMIT_SECONDS.observe(seconds)
        # a flush takes several times what it emits, for a moment
        if time.monotonic() - self._gave_back_at > GIVE_BACK_EVERY_S:
            give_back_memory()
            self._gave_back_at = time.monotonic()

    def on_lag(self, source: Source, lag_records: int) -> None:
        metrics.LAG.labels(topic=source.topic, partition=str(source.partition)).set(lag_records)

    def ready(self) -> str | None:
        return None if self.assigned_at is not None else "no partition is assigned yet"


@dataclass(frozen=True, slots=True)
class App:
    """A worker, ready to run."""

    stage: Aggregator
    runner: FaustRunner[State] | PlainRunner[State]
    admin: AdminServer

    def run(self, stop: threading.Event) -> None:
        """Block until ``stop`` is set. Raises BatchError or TelestreamError on what ends a worker."""
        self.admin.start()
        try:
            self.runner.run(stop)
        finally:
            self.admin.stop()


def build(settings: AggregatorSettings, derivation: Derivation) -> App:
    """Everything a worker of a generation consists of. Raises TelestreamError if the registry lacks a schema."""
    topics = settings.topics
    registry = Registry(settings.registry)
    codec = Codec(registry.schema, {family: registry.id_for(topics.agg(family)) for family in FAMILIES})
    keep_with(Shelf(settings.state_dir / "windows").put)
    stage = Aggregator(
        topics,
        families(zone=settings.zone),
        settings.rhythm,
        settings.zone,
        codec,
        KafkaLog(settings.kafka, topics),
        snapshots=SnapshotFiles(settings.state_dir / "windows"),
        types=derivation.types,
    )
    group = group_id(SERVICE, topics)
    worker = f"{group}-{settings.instance}"
    config = WorkerConfig(
        bootstrap=settings.kafka,
        group=group,
        instance=worker,
        transactional_id=worker,
        commit_interval_ms=settings.commit_interval_ms,
        max_batch_records=10_000,
        max_held_bytes=8 * MIB,
        prefetch_bytes=8 * MIB,
        # a flush is sent in portions; what the broker has not taken yet is held twice, here and in librdkafka
        producer_options={"queue.buffering.max.messages": str(QUEUED_UPSERTS)},
    )
    watch = _Watch()
    runner: FaustRunner[State] | PlainRunner[State] = (
        FaustRunner(stage, config, watch) if settings.runner == "faust" else PlainRunner(stage, config, watch)
    )

    def alive() -> str | None:
        health = runner.health()
        return health.reason if health.condition is Condition.WEDGED else None

    def kafka() -> str | None:
        health = runner.health()
        return health.reason if health.condition is Condition.WAITING else None

    admin = AdminServer(
        settings.admin_host, settings.admin_port, {"partitions": watch.ready, "kafka": kafka}, {"worker": alive}
    )
    return App(stage, runner, admin)


def run(settings: AggregatorSettings, stop: threading.Event) -> None:
    """Begin once the guards let it, and block until ``stop`` is set. Raises TelestreamError, BatchError."""
    if derivation := guard_start(settings, stop):
        build(settings, derivation).run(stop)


def main() -> int:
    """The process: see ``telestream_runtime.run_service``."""
    return run_service(SERVICE, AggregatorSettings, run, expected=(BatchError,))
