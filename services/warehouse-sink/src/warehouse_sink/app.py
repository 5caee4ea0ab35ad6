"""Wiring: from settings to a running sink."""

from __future__ import annotations

import os
import threading

from telestream_contracts import Registry
from telestream_domain import group_id
from telestream_guards import guard_start
from telestream_runtime import AdminServer, get_logger, run_service
from telestream_warehouse import ClickHouse, check
from warehouse_sink.domain.places import Source
from warehouse_sink.domain.policy import Backoff, FlushPolicy
from warehouse_sink.domain.routes import routes
from warehouse_sink.errors import NotMigrated
from warehouse_sink.feed import Feed, wait_with
from warehouse_sink.health import Health
from warehouse_sink.patience import Abandoned, Patience
from warehouse_sink.settings import SinkSettings
from warehouse_sink.sink import Sink

log = get_logger(__name__)

FIRST_BACKOFF_S = 0.2
STUCK_MARGIN_S = 120.0
END_AFTER_S = 25.0  # a service must be gone 30 s after SIGTERM


def run(settings: SinkSettings, stop: threading.Event) -> None:
    """Serve until ``stop``. Raises SinkError, GuardError, or what a dependency raises that waiting does not mend."""
    derivation = guard_start(settings, stop)
    if derivation is None:
        return
    health = Health(stuck_after_s=settings.sink_insert_timeout_s + settings.sink_max_backoff_s + STUCK_MARGIN_S)
    patience = Patience(Backoff(FIRST_BACKOFF_S, settings.sink_max_backoff_s), health, stop)
    clickhouse = ClickHouse(
        settings.clickhouse, settings.clickhouse_database, read_timeout_s=settings.sink_insert_timeout_s
    )
    table = routes(settings.topics, derivation.types)
    sink = Sink(
        table,
        settings.generation,
        clickhouse,
        Registry(settings.registry),
        FlushPolicy(settings.sink_max_rows, settings.sink_max_bytes, settings.sink_max_age_ms / 1000),
        patience,
        health,
        stop,
    )
    group = group_id("warehouse-sink", settings.topics)
    src_starts = {
        Source(settings.topics.enriched(name), partition): offset
        for name, starts in derivation.plan.starts.items()
        for partition, offset in starts.items()
    }
    feed = Feed(settings.kafka, group, f"{group}-{settings.instance}", list(table), sink, stop, src_starts)
    admin = AdminServer(
        settings.admin_host,
        settings.admin_port,
        ready={
            "clickhouse": lambda: health.reason("clickhouse"),
            "registry": lambda: health.reason("registry"),
            "kafka": feed.reachable,
            "assignment": lambda: None if feed.joined else "no partitions assigned yet",
        },
        live={"sink": health.stuck},
    ).start()
    ended = threading.Event()
    threading.Thread(target=_end_in_time, args=(stop, ended), name="deadline", daemon=True).start()
    try:
        _check_tables(settings, patience, stop)
        feed.start()
        sink.run(feed)
    except Abandoned as err:
        log.warning("stopped before it began", at=str(err))
    finally:
        ended.set()
        feed.close()
        clickhouse.close()
        admin.stop()


def _check_tables(settings: SinkSettings, patience: Patience, stop: threading.Event) -> None:
    missing = patience.until_done(
        "looking at the tables", lambda: check(settings.clickhouse, settings.clickhouse_database), wait_with(stop)
    )
    if missing:
        raise NotMigrated(
            f'database {settings.clickhouse_database}: {"; ".join(missing)}: run "telestream warehouse migrate"'
        )


def _end_in_time(stop: threading.Event, ended: threading.Event) -> None:
    """An insert that ClickHouse does not answer cannot be interrupted; being killed in it loses nothing."""
    stop.wait()
    if not ended.wait(END_AFTER_S):
        log.warning("stopped in the middle of an insert; Kafka holds its records")
        os._exit(0)


def main() -> int:
    """The process: see ``telestream_runtime.run_service``."""
    return run_service("warehouse-sink", SinkSettings, run)
