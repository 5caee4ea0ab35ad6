"""Wiring."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from cdr_enricher import metrics
from cdr_enricher.decode import RawDecoder
from cdr_enricher.dedup_log import DedupLog
from cdr_enricher.dedup_store import DedupStore
from cdr_enricher.domain.hashing import HASHES
from cdr_enricher.domain.kinds import KINDS
from cdr_enricher.domain.rejection_limit import RejectionLimit
from cdr_enricher.judged_log import JudgedLog
from cdr_enricher.kafka import EnricherStage, TypeStage
from cdr_enricher.pin import Pin
from cdr_enricher.reference_reader import ReferenceReader
from cdr_enricher.restore import Restorer
from cdr_enricher.settings import EnricherSettings
from cdr_enricher.stage import Judge, State, Tally, Target
from faust_batch import BatchError, Condition, FaustRunner, NullObserver, PlainRunner, Source, WorkerConfig
from telestream_contracts import Registry, raw_fields
from telestream_domain import RuleChanges, Topics, group_id
from telestream_guards import Derivation, guard_start
from telestream_runtime import AdminServer, run_service
from telestream_runtime.lean import give_back_memory

SERVICE = "cdr-enricher"
MAX_POLL_INTERVAL_MS = 900_000  # a fetch of reversals alone, each of another place of the log: 20,000 times 20 ms


class _Watch(NullObserver):
    """Exports what the worker does, and knows whether it has begun."""

    def __init__(self) -> None:
        self.assigned_at: float | None = None

    def on_assigned(self, sources: Sequence[Source]) -> None:
        self.assigned_at = time.monotonic()

    def on_revoked(self, sources: Sequence[Source]) -> None:
        for source in sources:
            metrics.LAG.remove(source.topic, str(source.partition))

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        metrics.COMMIT_SECONDS.observe(seconds)
        metrics.ROUND_RECORDS.inc(records)

    def on_lag(self, source: Source, lag_records: int) -> None:
        metrics.LAG.labels(topic=source.topic, partition=str(source.partition)).set(lag_records)

    def ready(self) -> str | None:
        return None if self.assigned_at is not None else "no partition is assigned yet"


@dataclass(frozen=True, slots=True)
class App:
    """A worker, ready to run."""

    stage: EnricherStage
    runner: FaustRunner[State] | PlainRunner[State]
    reader: ReferenceReader
    log: JudgedLog
    admin: AdminServer

    def run(self, stop: threading.Event) -> None:
        """Block until ``stop`` is set. Raises BatchError or TelestreamError on what ends a worker."""
        self.admin.start()
        try:
            # before joining the group: what is known of cells is needed whatever partitions come
            self.reader.catch_up()
            give_back_memory()
            self.runner.run(stop)
        finally:
            self.reader.close()
            self.log.close()
            self.admin.stop()


def build(settings: EnricherSettings, derivation: Derivation) -> App:
    """Everything a worker of a generation consists of.

    Raises TelestreamError if the registry lacks a schema or the generation's rules do not fit the records' fields.
    """
    topics, plan = settings.topics, derivation.plan
    changes = RuleChanges.from_json(plan.rules)
    changes.check(raw_fields())  # the row may be older than this code's fields
    registry = Registry(settings.registry)
    group = group_id(SERVICE, topics)
    by_topic: dict[str, TypeStage] = {}
    for kind in (KINDS[name] for name in derivation.types):
        raw, enriched, rejected = topics.raw(kind.name), topics.enriched(kind.name), topics.rejected(kind.name)
        judge = Judge(
            kind,
            Target(raw, enriched, rejected, registry.id_for(enriched), registry.id_for(rejected)),
            RawDecoder(kind.name, registry.id_for(raw), registry.schema),
            business_timezone=settings.business_timezone,
            home_plmns=settings.home_plmns,
            severities=settings.severities,
            changes=changes,
            limit=RejectionLimit(settings.max_rejected_share, settings.max_rejected_window),
            on_tally=_count,
        )
        by_topic[raw] = TypeStage(kind.name, judge, Restorer(kind, group, registry.schema), enriched, kind.has_customer)
    starts, ends = _of_raw(topics, plan.starts), _of_raw(topics, plan.ends)
    pin = Pin(plan.ends, plan.reference)
    reader = ReferenceReader(settings.kafka, topics, registry, pin)
    log = JudgedLog(settings.kafka, registry.schema)
    stage = EnricherStage(
        settings.kafka,
        by_topic,
        reader,
        log,
        DedupStore(
            topics.state_dedup,
            DedupLog(registry.id_for(topics.state_dedup), registry.schema),
            settings.state_dir / "dedup" / topics.state_dedup,
            segment_bits=settings.dedup_segment_bits,
            horizon=timedelta(days=settings.dedup_horizon_days),
        ),
        progress_topic=topics.progress,
        progress_id=registry.id_for(topics.progress),
        lateness_ms=settings.lateness_ms,
        starts=starts,
        pin=pin,
    )
    worker = f"{group}-{settings.instance}"
    config = WorkerConfig(
        bootstrap=settings.kafka,
        group=group,
        instance=worker,
        transactional_id=worker,
        commit_interval_ms=settings.commit_interval_ms,
        max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        max_batch_records=settings.max_batch_records,
        # two rounds ahead are enough to be busy, and Python holds a record at three times its size
        max_held_bytes=16 << 20,
        prefetch_bytes=8 << 20,
        starts=starts,
        ends=ends if plan.only_to_ends else {},
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
        settings.admin_host,
        settings.admin_port,
        {"partitions": watch.ready, "kafka": kafka, "rejections": stage.going_on},
        {"worker": alive},
    )
    return App(stage, runner, reader, log, admin)


def _of_raw(topics: Topics, offsets: Mapping[str, Mapping[int, int]]) -> dict[Source, int]:
    return {
        Source(topics.raw(name), at): offset
        for name, by_partition in offsets.items()
        for at, offset in by_partition.items()
    }


def _count(type_name: str, tally: Tally) -> None:
    for verdict, records in tally.verdicts.items():
        metrics.RECORDS.labels(type=type_name, verdict=verdict).inc(records)
    for rule, records in tally.rejected.items():
        metrics.REJECTED.labels(type=type_name, rule=rule).inc(records)
    for verdict, records in tally.reversals.items():
        metrics.REVERSALS.labels(type=type_name, verdict=verdict).inc(records)


def run(settings: EnricherSettings, stop: threading.Event) -> None:
    """Begin once the guards let it, and block until ``stop`` is set. Raises TelestreamError, BatchError."""
    dedup = {"dedup_horizon_days": settings.dedup_horizon_days, "dedup_segment_bits": settings.dedup_segment_bits}
    if derivation := guard_start(settings, stop, {**HASHES, **dedup}):
        build(settings, derivation).run(stop)


def main() -> int:
    """The process: see ``telestream_runtime.run_service``."""
    return run_service(SERVICE, EnricherSettings, run, expected=(BatchError,))
