"""The loop that owns the Kafka clients and the stage, on one thread.

It consumes at all times (group callbacks are served in there), keeps what it fetched in a chain per partition, judges
what a runner hands it, and commits rounds. Nothing else touches the consumer, the producer or the stage; two threads
around them were tried and hung in rebalances.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, Message

from faust_batch.batch import Batch
from faust_batch.chain import Chain
from faust_batch.checkup import Checkup
from faust_batch.config import WorkerConfig
from faust_batch.errors import ClientFailed, HandOverStalled, PartitionStopped, TopicMissing
from faust_batch.fetch import Grouper
from faust_batch.health import Glimpse, Health
from faust_batch.holdings import Holdings
from faust_batch.intake import Intake
from faust_batch.ledger import DUE_EVERY_S, Ledger
from faust_batch.membership import Membership
from faust_batch.observer import NullObserver, Observer
from faust_batch.patience import partitions_of
from faust_batch.source import Source
from faust_batch.stage import NeedsQuiet, Stage
from faust_batch.staged import Call, Staged
from faust_batch.topic_ids import TopicIds

S = TypeVar("S")

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0  # init_transactions waits for the predecessor's transaction to end
LINGER_S = 0.02  # a backlogged worker waits this long for a fuller fetch
JOB_WAIT_S = 0.02
SERVE_EVERY_S = 0.25  # group callbacks, while agents hold everything that was fetched
OFFER_AGAIN_S = 5.0


class Runner(Protocol):
    """Who carries batches to `Engine.judge` (same thread) or `Engine.submit` (any thread). Called by the engine."""

    def offer(self, batch: Batch) -> None:
        """This batch may be judged now. The same one may be offered again; a second judgement is refused."""
        ...

    def assigned(self, sources: frozenset[Source]) -> None:
        """The worker's partitions, whenever they changed."""
        ...


class Engine(Generic[S]):
    """`run` does everything; `submit` and `fail` are the only methods other threads may call."""

    def __init__(self, stage: Stage[S], config: WorkerConfig, runner: Runner, observer: Observer | None = None) -> None:
        seen: Observer = observer or NullObserver()
        self._stage = stage
        self._quiet = stage if isinstance(stage, NeedsQuiet) else None
        self._config = config
        self._runner = runner
        self._staged = Staged()
        self._holdings: Holdings[S] = Holdings()
        self._topic_ids = TopicIds(config.bootstrap, config.client_options)
        self._consumer = consumer = Consumer(
            config.consumer_settings(), logger=logging.getLogger("faust_batch.librdkafka")
        )
        self._intake = Intake(config, consumer, Grouper(stage.topics), self._holdings, self._topic_ids)
        self._ledger = Ledger(stage, self._staged, config, consumer, self._holdings, self._topic_ids, seen)
        self._transactions = self._ledger.transactions
        self._membership = Membership(
            stage,
            self._staged,
            config,
            consumer,
            self._holdings,
            self._ledger,
            self._topic_ids,
            seen,
            runner.assigned,
        )
        self._checkup = Checkup(config, self._glimpse)
        self._jobs: queue.SimpleQueue[tuple[Batch, Future[bool]]] = queue.SimpleQueue()
        self._abandoned = False
        self._backlogged = False
        self.turned_at = time.monotonic()
        self._phase: Call | None = Call("starting", self.turned_at, patient=True)

    # -- for runners ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> Future[bool]:
        """Ask the owning thread to judge a batch; the result is as of `judge`."""
        future: Future[bool] = Future()
        self._jobs.put((batch, future))
        return future

    def fail(self, error: BaseException) -> None:
        """End the worker with `error` at its next turn: the open round is aborted."""
        self._membership.fail(error)

    def judge(self, batch: Batch) -> bool:
        """Judge a batch, on the owning thread. False: refused, because it is not the next one of its partition."""
        source = batch.source
        held = self._holdings
        chain = held.chains.get(source)
        if chain is None or not chain.follows(batch):
            return False
        try:
            outputs, held.states[source] = self._staged(
                f"judging {source} offsets {batch.first_offset}..{batch.last_offset}",
                lambda: self._stage.on_batch(batch, held.states[source]),
            )
        except PartitionStopped as stopped:
            _log.error("%s stays at %d: %s", source, chain.position, stopped)
            self._intake.stop(source)
            held.first_offered.pop(source, None)
            return True
        self._ledger.judged(batch, outputs)
        chain.judged()
        held.first_offered.pop(source, None)
        self._offer(chain)
        return True

    @property
    def abandoned(self) -> bool:
        """The worker has failed and is leaving."""
        return self._abandoned

    @property
    def health(self) -> Health:
        """As of the watchdog's latest look; from any thread."""
        return self._checkup.health

    def look(self) -> Health:
        """Look after the worker; for the watchdog's thread."""
        return self._checkup.look()

    def _glimpse(self) -> Glimpse:
        deadline = self._transactions.deadline
        held = self._holdings
        return Glimpse(
            turned_at=self.turned_at,
            call=self._staged.current or self._phase,
            overdue_s=None if deadline is None else time.monotonic() - deadline,
            positions={
                s: (chain.position, held.committed.get(s, 0))
                for s, chain in list(held.chains.items())
                if not chain.done
            },
        )

    @property
    def held_peak_bytes(self) -> int:
        """The most bytes ever held in batches that waited for judgement."""
        return self._intake.held_peak_bytes

    @property
    def pauses(self) -> int:
        """How often partitions were paused because too much was held."""
        return self._intake.pauses

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then commit what was judged and leave. Raises BatchError; never to be run again."""
        try:
            self._start()
            self._phase, self.turned_at = None, time.monotonic()
            while not stop.is_set():
                self._turn()
            self._finish()
        except KafkaException as error:
            failed = ClientFailed(f"worker {self._config.instance}: {error}")
            self._abandon(failed)
            raise failed from error
        except BaseException as error:
            self._abandon(error)
            raise

    def _start(self) -> None:
        self._transactions.start(START_TIMEOUT_S)
        self._require_topics()
        self._membership.subscribe()
        self._topic_ids.watch(self.fail)

    def _require_topics(self) -> None:
        try:
            known = partitions_of(self._consumer, self._stage.topics)
        except KafkaException as error:
            raise ClientFailed(f"{self._config.bootstrap}: no metadata ({error}); is the broker up?") from error
        missing = sorted(set(self._stage.topics) - set(known))
        if missing:
            raise TopicMissing(f"{self._config.bootstrap}: no such topic: {', '.join(missing)}; create it first")

    def _turn(self) -> None:
        self.turned_at = time.monotonic()
        self._raise_failure()
        self._run_jobs(0)
        self._ledger.commit_if_full()
        if self._holdings.waiting:
            self._serve_while_held()
        else:
            self._collect()
        self._ledger.serve()

    def _run_jobs(self, timeout_s: float) -> None:
        try:
            batch, future = self._jobs.get(timeout=timeout_s) if timeout_s else self._jobs.get_nowait()
            while True:
                self._run_job(batch, future)
                self._ledger.commit_if_full()
                batch, future = self._jobs.get_nowait()
        except queue.Empty:
            return

    def _run_job(self, batch: Batch, future: Future[bool]) -> None:
        if not future.set_running_or_notify_cancel():
            return  # the agent was cancelled: the batch stays at the head and is offered again
        try:
            judged = self.judge(batch)
        except BaseException as error:
            future.set_exception(error)
            raise
        future.set_result(judged)

    def _serve_while_held(self) -> None:
        """Agents hold batches: wait for them, and look after the group now and then."""
        now = time.monotonic()
        self._offer_again(now)
        if now - self._intake.fetched_at < SERVE_EVERY_S:
            self._run_jobs(JOB_WAIT_S)
            return
        if self._intake.full:
            self._intake.pause()
            self._take(self._consume(1, 0))
        else:
            self._take(self._consume(self._intake.wanted, 0))

    def _collect(self) -> None:
        """Fetch what the next round is made of.

        After a quiet spell the first record goes through at once; otherwise records gather until the commit interval
        has passed, or until there are enough of them.
        """
        self._intake.resume()
        now = time.monotonic()
        wanted = self._intake.wanted
        if not self._backlogged and self._ledger.commit_if_quiet():
            return
        if self._ledger.open and self._backlogged:
            messages = self._consume(wanted, LINGER_S)
        elif now < self._ledger.next_at:
            messages = self._consume(wanted, self._ledger.next_at - now)
        else:
            messages = self._consume(1, DUE_EVERY_S)
            if messages and wanted > 1:
                messages += self._consume(wanted - 1, 0)
        self._backlogged = len(messages) * 2 >= wanted
        self._take(messages)

    def _consume(self, count: int, timeout_s: float) -> list[Message]:
        try:
            return self._intake.consume(count, timeout_s)
        finally:
            self._raise_failure()

    def _raise_failure(self) -> None:
        """What went wrong in a group callback comes before what it made of the call around it."""
        if self._membership.failure is not None:
            raise self._membership.failure

    def _take(self, messages: list[Message]) -> None:
        batches = self._intake.take(messages)
        if not batches:
            return
        self._be_quiet(batches)
        open_now = self._transactions.open
        self._staged("before a round", lambda: self._stage.before_round(batches), patient=not open_now)
        for batch in batches:
            if (chain := self._holdings.chains.get(batch.source)) is not None:
                self._offer(chain)

    def _be_quiet(self, batches: list[Batch]) -> None:
        quiet = self._quiet
        if quiet is None or not self._transactions.open:
            return
        if self._staged("asking whether quiet is needed", lambda: quiet.needs_quiet(batches)):
            self._ledger.commit()

    # -- handing out ------------------------------------------------------------------------------------------------

    def _offer(self, chain: Chain) -> None:
        if chain.held and chain.offered_at is None:
            chain.offered_at = time.monotonic()
            self._holdings.first_offered.setdefault(chain.source, chain.offered_at)
            self._runner.offer(chain.held[0])

    def _offer_again(self, now: float) -> None:
        again_s = min(OFFER_AGAIN_S, self._config.hand_over_timeout_s / 4)
        for chain in self._holdings.chains.values():
            if chain.offered_at is None or now - chain.offered_at < again_s:
                continue
            waited = now - self._holdings.first_offered.get(chain.source, now)
            if waited > self._config.hand_over_timeout_s:
                raise HandOverStalled(
                    f"{chain.source}: {chain.held[0]!r} was handed out {waited:.0f} s ago and did not come back"
                )
            _log.warning("%s: %r did not come back, offered again", chain.source, chain.held[0])
            chain.offered_at = None
            self._offer(chain)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._phase = Call("stopping", time.monotonic(), patient=True)
        self._ledger.touch_moved()
        self._ledger.commit()
        self._membership.leave()
        self._consumer.close()  # serves the revocation of everything
        self._topic_ids.close()
        self._raise_failure()
        _log.info("stopped: the last round is committed")

    def _abandon(self, error: BaseException) -> None:
        self._abandoned = self._membership.ended = True
        self._phase = Call("ending", time.monotonic(), patient=True)
        self._topic_ids.close()
        _log.debug("worker %s ends: %s", self._config.instance, error)  # whoever called run says so
        self._transactions.abort()
        for waiting in self._waiting_jobs():
            waiting.set_exception(error)
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError):
            _log.debug("closing the consumer failed", exc_info=True)

    def _waiting_jobs(self) -> list[Future[bool]]:
        waiting = []
        try:
            while True:
                _, future = self._jobs.get_nowait()
                if future.set_running_or_notify_cancel():
                    waiting.append(future)
        except queue.Empty:
            return waiting
