"""The loop that owns the Kafka clients and the stage, on one thread.

It consumes at all times (group callbacks are served in there), keeps what it fetched in a chain per partition, judges
what a runner hands it, and commits rounds. Nothing else touches the consumer, the producer or the stage; two threads
around them were tried and hung in rebalances.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from faust_batch.batch import Batch, Committed, Output
from faust_batch.chain import Chain
from faust_batch.config import WorkerConfig
from faust_batch.errors import (
    AssignmentLost,
    BatchError,
    ClientFailed,
    HandOverStalled,
    OffsetOutOfRange,
    StageFailed,
    TopicMissing,
)
from faust_batch.fetch import Appetite, Grouper, batch_of, not_before
from faust_batch.observer import NullObserver, Observer
from faust_batch.rounds import CommitPolicy, Round
from faust_batch.source import Source
from faust_batch.stage import Stage
from faust_batch.transactions import Transactions

S = TypeVar("S")
_R = TypeVar("_R")

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0  # init_transactions waits for the predecessor's transaction to end
QUERY_TIMEOUT_S = 30.0  # committed offsets are held back while a transaction on them is open
DUE_EVERY_S = 0.1
LINGER_S = 0.02  # a backlogged worker waits this long for a fuller fetch
JOB_WAIT_S = 0.02
SERVE_EVERY_S = 0.25  # group callbacks, while agents hold everything that was fetched
CONTROL_COMMIT_S = 10.0  # positions that moved over control records only are in no hurry
OFFER_AGAIN_S = 5.0
RETRY_S = 0.1
_COORDINATOR_SETTLES = frozenset(  # after a broker's start; librdkafka does not call them retriable here
    (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
    )
)
HAND_OVER_LIMIT_S = 60.0
DETAIL_LIMIT = 300  # characters of a stage's own error: it may quote a whole record


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
        self._stage = stage
        self._config = config
        self._runner = runner
        self._observer: Observer = observer or NullObserver()
        self._policy = CommitPolicy(config.commit_interval_s, config.max_round_records, config.max_round_bytes)
        self._appetite = Appetite(config.max_batch_records, config.max_batch_bytes)
        self._grouper = Grouper(stage.topics)
        self._transactions = Transactions(config)
        self._consumer = Consumer(config.consumer_settings(), logger=logging.getLogger("faust_batch.librdkafka"))
        self._chains: dict[Source, Chain] = {}
        self._states: dict[Source, S] = {}
        self._first_offered: dict[Source, float] = {}
        self._fresh: set[Source] = set()
        self._moved: dict[Source, float] = {}
        self._paused: set[Source] = set()
        self._round = Round()
        self._epochs = itertools.count(1)
        self._jobs: queue.SimpleQueue[tuple[Batch, Future[bool]]] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._abandoned = False
        self._backlogged = False
        self._committed_at = 0.0
        self._due_at = 0.0
        self._fetched_at = 0.0
        self._held_peak = 0
        self.turned_at = time.monotonic()

    # -- for runners ------------------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> Future[bool]:
        """Ask the owning thread to judge a batch; the result is as of `judge`."""
        future: Future[bool] = Future()
        self._jobs.put((batch, future))
        return future

    def fail(self, error: BaseException) -> None:
        """End the worker with `error` at its next turn: the open round is aborted."""
        if self._failure is None:
            self._failure = error

    def judge(self, batch: Batch) -> bool:
        """Judge a batch, on the owning thread. False: refused, because it is not the next one of its partition."""
        source = batch.source
        chain = self._chains.get(source)
        if chain is None or not chain.follows(batch):
            return False
        outputs, self._states[source] = self._staged(
            f"judging {source} offsets {batch.first_offset}..{batch.last_offset}",
            lambda: self._stage.on_batch(batch, self._states[source]),
        )
        self._send(outputs)
        chain.judged()
        self._first_offered.pop(source, None)
        self._round.add(source, len(batch), batch.nbytes, time.monotonic())
        self._offer(chain)
        return True

    @property
    def abandoned(self) -> bool:
        """The worker has failed and is leaving."""
        return self._abandoned

    def overdue_s(self) -> float:
        """How long the transactional call in work has overstayed its own timeout; 0 or less in health."""
        deadline = self._transactions.deadline
        return 0.0 if deadline is None else time.monotonic() - deadline

    @property
    def held_peak_bytes(self) -> int:
        """The most bytes ever held in batches that waited for judgement."""
        return self._held_peak

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then commit what was judged and leave. Raises BatchError; never to be run again."""
        try:
            self._start()
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
        self._consumer.subscribe(
            list(self._stage.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _require_topics(self) -> None:
        try:
            known = self._consumer.list_topics(timeout=QUERY_TIMEOUT_S).topics
        except KafkaException as error:
            raise ClientFailed(f"{self._config.bootstrap}: no metadata ({error}); is the broker up?") from error
        missing = sorted(set(self._stage.topics) - set(known))
        if missing:
            raise TopicMissing(f"{self._config.bootstrap}: no such topic: {', '.join(missing)}; create it first")

    def _turn(self) -> None:
        self.turned_at = time.monotonic()
        self._raise_failure()
        self._run_jobs(0)
        self._commit_if_full()
        if any(chain.held for chain in self._chains.values()):
            self._serve_while_held()
        else:
            self._collect()
        now = time.monotonic()
        if now - self._due_at >= DUE_EVERY_S:
            self._flush_due()
        self._touch_moved(now)
        self._transactions.serve()

    def _run_jobs(self, timeout_s: float) -> None:
        try:
            batch, future = self._jobs.get(timeout=timeout_s) if timeout_s else self._jobs.get_nowait()
            while True:
                self._run_job(batch, future)
                self._commit_if_full()
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
        if now - self._fetched_at < SERVE_EVERY_S:
            self._run_jobs(JOB_WAIT_S)
            return
        if self._held_bytes() >= self._config.max_held_bytes:
            self._pause()
            self._take(self._consume(1, 0))
        else:
            self._take(self._consume(self._appetite.records, 0))

    def _collect(self) -> None:
        """Fetch what the next round is made of.

        After a quiet spell the first record goes through at once; otherwise records gather until the commit interval
        has passed, or until there are enough of them.
        """
        self._resume()
        now = time.monotonic()
        wanted = self._appetite.records
        next_at = self._committed_at + self._policy.interval_s
        if (
            self._round.open
            and not self._backlogged
            and self._policy.due_when_idle(self._round, now, self._committed_at)
        ):
            self._commit()
            return
        if self._round.open and self._backlogged:
            messages = self._consume(wanted, LINGER_S)
        elif now < next_at:
            messages = self._consume(wanted, next_at - now)
        else:
            messages = self._consume(1, DUE_EVERY_S)
            if messages and wanted > 1:
                messages += self._consume(wanted - 1, 0)
        self._backlogged = len(messages) * 2 >= wanted
        self._take(messages)

    def _consume(self, count: int, timeout_s: float) -> list[Message]:
        self._fetched_at = time.monotonic()
        try:
            messages: list[Message] = self._consumer.consume(count, timeout_s)
        except (KafkaException, RuntimeError) as error:
            self._raise_failure()
            raise ClientFailed(f"consumer {self._config.instance}: {error}") from error
        self._raise_failure()
        return messages

    def _raise_failure(self) -> None:
        """Exceptions do not travel through librdkafka's callbacks; they are kept and raised here."""
        if self._failure is not None:
            raise self._failure

    def _take(self, messages: list[Message]) -> None:
        fresh, self._fresh = self._fresh, set()
        if not messages:
            return
        fetch = self._grouper.group(messages)
        for source in fetch.out_of_range:
            if (chain := self._chains.get(source)) is not None:
                raise OffsetOutOfRange(source, chain.fetched, *self._range(source))
        batches = []
        for source, found in fetch.messages.items():
            chain = self._chains.get(source)
            if chain is None:
                continue
            if source in fresh:
                # some may stem from before the assignment that this very call brought: fetch all of them again
                self._consumer.seek(TopicPartition(source.topic, source.partition, chain.fetched))
                continue
            found = not_before(found, chain.fetched)
            if not found:
                continue
            end = fetch.ends.pop(source, None)
            batch = batch_of(source, found, end=end, high_watermark=self._high_watermark(source), epoch=chain.epoch)
            chain.append(batch)
            batches.append(batch)
        for source, end in fetch.ends.items():
            chain = self._chains.get(source)
            if chain is not None and source not in fresh and chain.reached(end):
                self._moved.setdefault(source, time.monotonic())
        if not batches:
            return
        self._appetite.saw(sum(map(len, batches)), sum(batch.nbytes for batch in batches))
        self._held_peak = max(self._held_peak, self._held_bytes())
        self._staged("before a round", lambda: self._stage.before_round(batches))
        for batch in batches:
            if (chain := self._chains.get(batch.source)) is not None:
                self._offer(chain)

    # -- handing out ------------------------------------------------------------------------------------------------

    def _offer(self, chain: Chain) -> None:
        if chain.held and chain.offered_at is None:
            chain.offered_at = time.monotonic()
            self._first_offered.setdefault(chain.source, chain.offered_at)
            self._runner.offer(chain.held[0])

    def _offer_again(self, now: float) -> None:
        for chain in self._chains.values():
            if chain.offered_at is None or now - chain.offered_at < OFFER_AGAIN_S:
                continue
            waited = now - self._first_offered.get(chain.source, now)
            if waited > HAND_OVER_LIMIT_S:
                raise HandOverStalled(
                    f"{chain.source}: {chain.held[0]!r} was handed out {waited:.0f} s ago and did not come back"
                )
            _log.warning("%s: %r did not come back, offered again", chain.source, chain.held[0])
            chain.offered_at = None
            self._offer(chain)

    def _held_bytes(self) -> int:
        return sum(chain.held_bytes for chain in self._chains.values())

    def _pause(self) -> None:
        running = self._chains.keys() - self._paused
        if running:
            _log.info("holding %d bytes: %d partitions paused", self._held_bytes(), len(running))
            self._consumer.pause([TopicPartition(s.topic, s.partition) for s in running])
            self._paused |= running

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume([TopicPartition(s.topic, s.partition) for s in self._paused])
            self._paused.clear()

    # -- rounds -----------------------------------------------------------------------------------------------------

    def _commit_if_full(self) -> None:
        if self._policy.full(self._round, time.monotonic()):
            self._commit()

    def _commit(self) -> None:
        self._flush_due()
        round_, started = self._round, time.monotonic()
        if not round_.open:
            return
        touched = [s for s in self._chains if s in round_.touched or s in self._moved]
        positions = [self._position(source) for source in touched]
        self._transactions.commit(positions, self._consumer.consumer_group_metadata)
        self._committed_at = time.monotonic()
        self._round = Round()
        self._moved.clear()
        self._observer.on_round(round_.records, round_.nbytes, self._committed_at - started)
        for source in touched:
            lag = self._high_watermark(source) - self._chains[source].position
            self._observer.on_lag(source, max(lag, 0))

    def _position(self, source: Source) -> TopicPartition:
        metadata = self._staged(f"metadata of {source}", lambda: self._stage.metadata(source, self._states[source]))
        return TopicPartition(source.topic, source.partition, self._chains[source].position, metadata=metadata)

    def _flush_due(self) -> None:
        self._due_at = now = time.monotonic()
        states = MappingProxyType(self._states)
        outputs, changed = self._staged("due outputs", lambda: self._stage.due(states, int(time.time() * 1000)))
        if not outputs and not changed:
            return
        for source, state in changed.items():
            if source in self._chains:
                self._states[source] = state
                self._round.touch(source, now)
        self._round.start(now)
        self._send(outputs)

    def _touch_moved(self, now: float) -> None:
        if any(now - since > CONTROL_COMMIT_S for since in self._moved.values()):
            for source in self._moved:
                self._round.touch(source, now)

    def _send(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if output.messages:
                self._transactions.send(output)

    def _staged(self, doing: str, call: Callable[[], _R]) -> _R:
        try:
            return call()
        except BatchError:
            raise
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"[:DETAIL_LIMIT]
            raise StageFailed(f"stage: {doing}: {detail}") from error

    # -- membership (called inside consume) -------------------------------------------------------------------------

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._guarded(self._assign, partitions)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._guarded(self._revoke, partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._guarded(self._lose, partitions)

    def _guarded(self, act: Callable[[list[TopicPartition]], None], partitions: list[TopicPartition]) -> None:
        if self._failure is not None or self._abandoned:
            return
        try:
            act(partitions)
        except BaseException as error:
            self._failure = error

    def _assign(self, partitions: list[TopicPartition]) -> None:
        starts = []
        for known in self._committed(partitions):
            if known.error is not None:
                raise ClientFailed(f"{known.topic}[{known.partition}]: committed offset unknown: {known.error}")
            source = Source(known.topic, known.partition)
            low, high = self._range(source)
            committed = None
            if known.offset != OFFSET_INVALID:
                committed = Committed(known.offset, known.metadata or "")
                if not low <= known.offset <= high:
                    raise OffsetOutOfRange(source, known.offset, low, high)
            position = low if committed is None else committed.offset
            self._states[source] = self._staged(
                f"restoring {source} at {position}",
                partial(self._stage.restore, source, committed),
            )
            self._chains[source] = Chain.starting_at(source, next(self._epochs), position)
            if committed is None:
                self._round.touch(source, time.monotonic())
            starts.append(TopicPartition(source.topic, source.partition, position))
        self._consumer.incremental_assign(starts)
        sources = [Source(start.topic, start.partition) for start in starts]
        self._fresh.update(sources)
        _log.info("assigned: %s", ", ".join(f"{s}@{self._chains[s].position}" for s in sources))
        self._observer.on_assigned(sources)
        self._runner.assigned(frozenset(self._chains))

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """The committed offsets; where a transaction on them is open, as of its end."""
        deadline = time.monotonic() + QUERY_TIMEOUT_S
        while partitions:
            try:
                return self._consumer.committed(partitions, timeout=QUERY_TIMEOUT_S)
            except KafkaException as error:
                # a broker that has just started says NOT_COORDINATOR for a while
                if not _retriable(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)
        return []

    def _revoke(self, partitions: list[TopicPartition]) -> None:
        self._commit()
        self._drop(partitions)

    def _lose(self, partitions: list[TopicPartition]) -> None:
        if self._round.records or self._transactions.open:
            names = ", ".join(f"{p.topic}[{p.partition}]" for p in partitions)
            raise AssignmentLost(
                f"group {self._config.group}: lost {names} with a round open (stopped for longer than the session "
                f"timeout of {self._config.session_timeout_ms} ms, or replaced by another {self._config.instance})"
            )
        self._drop(partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        sources = [s for s in (Source(p.topic, p.partition) for p in partitions) if s in self._chains]
        for source in sources:
            del self._chains[source], self._states[source]
            self._first_offered.pop(source, None)
            self._moved.pop(source, None)
            self._paused.discard(source)
            self._fresh.discard(source)
            self._round.touched.discard(source)
            self._staged(f"giving up {source}", partial(self._stage.revoked, source))
        self._consumer.incremental_unassign(partitions)
        if sources:
            _log.info("revoked: %s", ", ".join(map(str, sources)))
            self._observer.on_revoked(sources)
            self._runner.assigned(frozenset(self._chains))

    def _range(self, source: Source) -> tuple[int, int]:
        tp = TopicPartition(source.topic, source.partition)
        try:
            found = self._consumer.get_watermark_offsets(tp, timeout=QUERY_TIMEOUT_S)
        except KafkaException as error:
            raise ClientFailed(f"{source}: the log's range is unknown ({error})") from error
        if found is None:
            raise ClientFailed(f"{source}: the log's range is unknown (timed out)")
        low, high = found
        return low, high

    def _high_watermark(self, source: Source) -> int:
        found = self._consumer.get_watermark_offsets(TopicPartition(source.topic, source.partition), cached=True)
        return int(found[1]) if found is not None else 0

    # -- the end ----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        for source in self._moved:
            self._round.touch(source, time.monotonic())
        self._commit()
        self._consumer.close()  # serves the revocation of everything
        self._raise_failure()
        _log.info("stopped: the last round is committed")

    def _abandon(self, error: BaseException) -> None:
        self._abandoned = True
        _log.error("worker %s ends: %s", self._config.instance, error)
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


def _retriable(error: KafkaException) -> bool:
    detail = error.args[0]
    return isinstance(detail, KafkaError) and (detail.retriable() or detail.code() in _COORDINATOR_SETTLES)
