"""The runner without Faust: every batch is judged where it was fetched."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from faust_batch.batch import Batch
from faust_batch.config import WorkerConfig
from faust_batch.engine import Engine
from faust_batch.health import Health
from faust_batch.observer import Observer
from faust_batch.source import Source
from faust_batch.stage import Stage
from faust_batch.watchdog import Watchdog

S = TypeVar("S")


class PlainRunner(Generic[S]):
    """Runs a stage in the calling thread."""

    def __init__(self, stage: Stage[S], config: WorkerConfig, observer: Observer | None = None) -> None:
        self._engine: Engine[S] = Engine(stage, config, self, observer)
        self._drain_timeout_s = config.drain_timeout_s

    def run(self, stop: threading.Event | None = None) -> None:
        """Block until `stop` is set, then commit what was judged. Raises BatchError; the runner is spent then.

        Stopping, in either way, is bounded by `drain_timeout_s`: past it the process kills itself.
        """
        ending = stop or threading.Event()
        engine = self._engine
        with Watchdog(lambda: ending.is_set() or engine.abandoned, engine.look, self._drain_timeout_s):
            engine.run(ending)

    def health(self) -> Health:
        """What the watchdog last saw, from any thread; it ends the process if that is `Condition.WEDGED`."""
        return self._engine.health

    @property
    def held_peak_bytes(self) -> int:
        return self._engine.held_peak_bytes

    @property
    def pauses(self) -> int:
        """How often partitions were paused because too much was held."""
        return self._engine.pauses

    def offer(self, batch: Batch) -> None:
        self._engine.judge(batch)

    def assigned(self, sources: frozenset[Source]) -> None:
        """Nothing to pass on."""
