"""Doing something again until a dependency takes it, without losing the place or the group."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from telestream_contracts import RegistryError
from telestream_runtime import get_logger
from telestream_warehouse import WarehouseUnavailable
from warehouse_sink.domain.policy import Backoff
from warehouse_sink.health import Health

T = TypeVar("T")
DRAIN_S = 12.0  # of the 30 s between SIGTERM and SIGKILL; one insert may still be under way when it ends

log = get_logger(__name__)


class Abandoned(Exception):
    """The process is to stop and the dependency is still away. Nothing is lost: Kafka holds it."""


class Patience:
    """``idle(seconds)`` waits while keeping what must be kept alive."""

    def __init__(self, backoff: Backoff, health: Health, stop: threading.Event) -> None:
        self._backoff, self._health, self._stop = backoff, health, stop
        self._stop_seen_at: float | None = None

    def until_done(
        self,
        what: str,
        call: Callable[[], T],
        idle: Callable[[float], None],
        on_failure: Callable[[], None] | None = None,
    ) -> T:
        """The result of ``call``, tried again for as long as ClickHouse or the registry is away. Raises Abandoned a
        while after the process was told to stop."""
        failures = 0
        while True:
            try:
                result = call()
            except (WarehouseUnavailable, RegistryError) as err:
                failures += 1
                dependency = "registry" if isinstance(err, RegistryError) else "clickhouse"
                if on_failure is not None:
                    on_failure()
                delay_s = self._backoff.delay_s(failures)
                self._health.blocked(dependency, f"{what}, {failures} times tried: {err}")
                log.warning("put off", what=what, failures=failures, again_in_s=delay_s, reason=str(err))
                if self._out_of_time():
                    raise Abandoned(what) from err
                idle(delay_s)
                self._health.beat()
            else:
                self._health.beat()
                self._health.free("clickhouse")
                self._health.free("registry")
                if failures:
                    log.info("done after all", what=what, failures=failures)
                return result

    def _out_of_time(self) -> bool:
        if not self._stop.is_set():
            return False
        now = time.monotonic()
        if self._stop_seen_at is None:
            self._stop_seen_at = now
        return now - self._stop_seen_at > DRAIN_S
