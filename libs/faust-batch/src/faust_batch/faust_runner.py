"""The runner with Faust: one agent per topic hands each batch to the owning thread."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Generic, TypeVar

from faust_batch.batch import Batch
from faust_batch.config import WorkerConfig
from faust_batch.engine import Engine
from faust_batch.errors import BatchError, ClientFailed, NotCompiled
from faust_batch.handover import HandOver, WorkerEnding
from faust_batch.health import Condition, Health
from faust_batch.observer import Observer
from faust_batch.stage import Stage
from faust_batch.watchdog import Watchdog

S = TypeVar("S")

_log = logging.getLogger(__name__)

SETTLE_LIMIT_S = 10.0  # a rebalance inside Faust; the next one is not held up longer
POLL_S = 0.05
NOTICE_LIMIT_S = 1.0
_STARTING = Health(Condition.WAITING, "the worker is starting")


class FaustRunner(Generic[S]):
    """Runs a stage behind Faust agents. Refuses to start without Faust's compiled extension."""

    handover: type[HandOver] = HandOver  # tests put one that misbehaves

    def __init__(self, stage: Stage[S], config: WorkerConfig, observer: Observer | None = None) -> None:
        require_compiled()
        self._stage = stage
        self._config = config
        self._observer = observer
        self._engine: Engine[S] | None = None

    def run(self, stop: threading.Event | None = None) -> None:
        """Block until `stop` is set, or SIGTERM or SIGINT comes if none is given; then commit what was judged.

        Raises BatchError on anything that ends a worker. Stopping, in either way, is bounded by `drain_timeout_s`:
        past it the process kills itself.
        """
        ending = threading.Event() if stop is None else stop
        failed = threading.Event()
        with Watchdog(
            lambda: ending.is_set() or failed.is_set() or (self._engine is not None and self._engine.abandoned),
            lambda: _STARTING if self._engine is None else self._engine.look(),
            self._config.drain_timeout_s,
        ):
            asyncio.run(self._run(ending, failed, own_signals=stop is None))

    def health(self) -> Health:
        """What the watchdog last saw, from any thread; it ends the process if that is `Condition.WEDGED`."""
        return _STARTING if self._engine is None else self._engine.health

    @property
    def held_peak_bytes(self) -> int:
        return 0 if self._engine is None else self._engine.held_peak_bytes

    @property
    def pauses(self) -> int:
        """How often partitions were paused because too much was held."""
        return 0 if self._engine is None else self._engine.pauses

    async def _run(self, stop: threading.Event, failed: threading.Event, own_signals: bool) -> None:
        loop = asyncio.get_running_loop()
        if own_signals and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
        handover = self.handover(loop)
        engine = self._engine = Engine(self._stage, self._config, handover, self._observer)
        handover.judged_by(engine.submit)
        app = build_app(self._config, self._stage.topics, handover)
        owner = _Owner(engine, stop, loop)

        def broken() -> bool:
            return app.crashed or following.done() or _exception(starting) is not None

        starting = asyncio.create_task(app.start(), name="faust-batch start")
        following = asyncio.create_task(_follow(app, handover), name="faust-batch membership")
        try:
            await _first(handover.wanted.wait(), _until(lambda: stop.is_set() or broken()))
            if handover.wanted.is_set() and not stop.is_set():
                owner.start()
                await _first(owner.ended.wait(), _until(broken))
            trouble = app.crash_reason or _exception(starting) or _exception(following)
            if not owner.ended.is_set() and not stop.is_set():
                # Faust failed on its own: what was judged may not be all that was shown to an agent, so nothing of
                # the open round is kept
                failed.set()
                owner.give_up(_faust_failed(trouble))
            await owner.join()
        finally:
            if owner.failure is not None:
                failed.set()
            following.cancel()
            await _stop(app, starting, self._config.drain_timeout_s / 2)
        if owner.failure is not None:
            raise owner.failure


class _Owner(Generic[S]):
    """The thread that owns the engine."""

    def __init__(self, engine: Engine[S], stop: threading.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._stop = stop
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="faust-batch owner", daemon=True)
        self._started = False
        self._noticed = threading.Event()
        self.ended = asyncio.Event()
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._started = True
        self._thread.start()

    def give_up(self, error: BatchError) -> None:
        """End with this error; nothing of the open round is kept."""
        if self._started:
            self._engine.fail(error)
        else:
            self.failure = error

    async def join(self) -> None:
        if self._started:
            await self.ended.wait()
            self._noticed.set()

    def _run(self) -> None:
        try:
            self._engine.run(self._stop)
        except BaseException as error:
            self.failure = error
        finally:
            self._loop.call_soon_threadsafe(self.ended.set)
        if self.failure is not None and not self._noticed.wait(NOTICE_LIMIT_S):
            # the loop stands still, so nobody will raise it before the watchdog ends the process
            _log.error("%s", self.failure)


def require_compiled() -> None:
    """Raise NotCompiled unless Faust's compiled stream loop is in use.

    Without it Faust is another program with other defects: it acknowledges events it skips.
    """
    import faust.streams

    if getattr(faust.streams, "_CStreamIterator", None) is None:
        raise NotCompiled(
            "faust._cython.streams is not loaded: unset NO_CYTHON (any value switches it off) and install "
            "faust-streaming from a wheel"
        )


def build_app(config: WorkerConfig, topics: Any, handover: HandOver) -> Any:
    """A Faust app on the `batch://` transport with one agent per topic. Call it on the loop that will run it."""
    import faust

    from faust_batch.transport import BatchSchema, NoTables

    class App(faust.App):
        handover: HandOver

        def _create_directories(self) -> None:
            """Nothing is kept on disk."""

    servers = ";".join(f"batch://{server.split('://')[-1]}" for server in config.bootstrap.split(","))
    app = App(
        config.group,
        broker=servers,
        agent_supervisor="mode.CrashingSupervisor",
        autodiscover=False,
        processing_guarantee="at_least_once",  # Faust's own transactions; ours are the engine's
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        TableManager=NoTables,
    )
    app.handover = handover

    def agent(topic: str) -> None:
        async def judge(batches: AsyncIterable[Batch]) -> None:
            async for batch in batches:
                try:
                    await handover.judge(batch)
                except WorkerEnding:
                    # The owning thread reports why. An agent that raised would have Faust log it too, with its
                    # traceback, and an agent that returned would have it acknowledge the batch.
                    await asyncio.Event().wait()

        app.agent(app.topic(topic, schema=BatchSchema()), name=f"judge {topic}")(judge)

    for topic in topics:
        agent(topic)
    return app


async def _follow(app: Any, handover: HandOver) -> None:
    """Tell Faust of each change of the assignment, in the order it knows: all revoked, then all assigned."""
    from faust.types import TP

    consumer = app.consumer
    generation = 0
    while True:
        await handover.assignment_changed.wait()
        handover.assignment_changed.clear()
        sources = handover.assignment
        app.on_rebalance_start()
        await consumer.on_partitions_revoked(consumer.assignment())
        generation += 1
        app.consumer_generation_id = generation
        consumer.followed = sources
        await consumer.on_partitions_assigned({TP(s.topic, s.partition) for s in sources}, generation)
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while app.rebalancing and time.monotonic() < deadline and not handover.assignment_changed.is_set():
            await asyncio.sleep(POLL_S / 10)


async def _stop(app: Any, starting: asyncio.Task[Any], limit_s: float) -> None:
    """Faust may hang in here; what matters is committed already, or must not be."""
    try:
        await asyncio.wait_for(app.stop(), limit_s)
    except TimeoutError:
        _log.warning("Faust did not stop within %.0f s and is left behind", limit_s)
    except Exception as error:
        _log.warning("Faust failed while stopping: %s", error)
    starting.cancel()
    await asyncio.wait([starting], timeout=1.0)


async def _first(*waits: Awaitable[Any]) -> None:
    """Until one of them is done; the rest is given up, except tasks that were handed in."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait:
                task.cancel()


async def _until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(POLL_S)


def _faust_failed(error: BaseException | None) -> ClientFailed:
    detail = "it stopped by itself" if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
    failed = ClientFailed(f"Faust failed: {detail}; the open round is judged again after a restart")
    failed.__cause__ = error
    return failed


def _exception(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
