"""What was judged since the last commit, and its commit: outputs and positions as one transaction."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

from confluent_kafka import Consumer, TopicPartition

from faust_batch.batch import Batch, Output
from faust_batch.config import WorkerConfig
from faust_batch.holdings import Holdings, handles
from faust_batch.observer import Observer
from faust_batch.rounds import CommitPolicy, Round
from faust_batch.source import Source
from faust_batch.stage import Stage
from faust_batch.staged import Staged
from faust_batch.topic_ids import TopicIds, stamped
from faust_batch.transactions import Transactions

S = TypeVar("S")

DUE_EVERY_S = 0.1
CONTROL_COMMIT_S = 10.0  # positions that moved over control records only are in no hurry


class Ledger(Generic[S]):
    """The open round. The owning thread alone calls it."""

    def __init__(
        self,
        stage: Stage[S],
        staged: Staged,
        config: WorkerConfig,
        consumer: Consumer,
        holdings: Holdings[S],
        topic_ids: TopicIds,
        observer: Observer,
    ) -> None:
        self.transactions = Transactions(config)
        self._stage = stage
        self._staged = staged
        self._consumer = consumer
        self._holdings = holdings
        self._topic_ids = topic_ids
        self._observer = observer
        self._policy = CommitPolicy(config.commit_interval_s, config.max_round_records, config.max_round_bytes)
        self._round = Round()
        self._committed_at = 0.0
        self._due_at = 0.0
        self._life = uuid.uuid4().hex[:16]  # of this worker: with a number, its commits are like no other's
        self._commits = itertools.count(1)

    @property
    def open(self) -> bool:
        """Something is to be committed."""
        return self._round.open

    @property
    def dirty(self) -> bool:
        """Records were judged, or a transaction is open: what would be lost with the assignment."""
        return self._round.records > 0 or self.transactions.open

    @property
    def next_at(self) -> float:
        """When the next commit may be, at the earliest (monotonic)."""
        return self._committed_at + self._policy.interval_s

    def judged(self, batch: Batch, outputs: Sequence[Output]) -> None:
        """A batch was judged and gave these outputs."""
        self._send(outputs)
        self._round.add(batch.source, len(batch), batch.nbytes, time.monotonic())

    def touch(self, source: Source) -> None:
        """This partition's position or state is to be committed."""
        self._round.touch(source, time.monotonic())

    def forget(self, source: Source) -> None:
        """This partition is no longer ours."""
        self._round.touched.discard(source)

    def commit_if_full(self) -> None:
        if self._policy.full(self._round, time.monotonic()):
            self.commit()

    def commit_if_quiet(self) -> bool:
        """Commit because nothing more is waiting; False: too soon, or nothing to commit."""
        if not self._policy.due_when_idle(self._round, time.monotonic(), self._committed_at):
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Commit the open round, if there is one. Raises TransactionFailed, StageFailed, OutputRefused."""
        self._flush_due()
        round_, started, held = self._round, time.monotonic(), self._holdings
        if not round_.open:
            return
        touched = [s for s in held.chains if s in round_.touched or s in held.moved]
        commit = f"{self._life}{next(self._commits):x}"
        positions = [self._position(source, commit) for source in touched]
        self.transactions.commit(positions, self._consumer.consumer_group_metadata)
        self._committed_at = time.monotonic()
        self._round = Round()
        held.moved.clear()
        for position in positions:
            source = Source(position.topic, position.partition)
            held.committed[source], held.stamps[source] = position.offset, position.metadata or ""
        self._observer.on_round(round_.records, round_.nbytes, self._committed_at - started)
        for source in touched:
            chain, end = held.chains[source], self.high_watermark(source)
            lag = (end if chain.end is None else min(end, chain.end)) - chain.position
            self._observer.on_lag(source, max(lag, 0))

    def serve(self) -> None:
        """What is due by the clock."""
        now = time.monotonic()
        if now - self._due_at >= DUE_EVERY_S:
            self._flush_due()
        if any(now - since > CONTROL_COMMIT_S for since in self._holdings.moved.values()):
            self.touch_moved()
        self.transactions.serve()

    def touch_moved(self) -> None:
        """Positions past control records go into the open round."""
        for source in self._holdings.moved:
            self.touch(source)

    def high_watermark(self, source: Source) -> int:
        """The end of the log as of the latest fetch response; 0 before one."""
        found = self._consumer.get_watermark_offsets(handles([source])[0], cached=True)
        return int(found[1]) if found is not None else 0

    def _position(self, source: Source, commit: str) -> TopicPartition:
        held = self._holdings
        metadata = self._staged(f"metadata of {source}", lambda: self._stage.metadata(source, held.states[source]))
        metadata = stamped(self._topic_ids.of(source.topic), commit, metadata)
        return TopicPartition(source.topic, source.partition, held.chains[source].position, metadata=metadata)

    def _flush_due(self) -> None:
        self._due_at = now = time.monotonic()
        states = MappingProxyType(self._holdings.states)
        outputs, changed = self._staged("due outputs", lambda: self._stage.due(states, int(time.time() * 1000)))
        if not outputs and not changed:
            return
        for source, state in changed.items():
            if source in self._holdings.chains:
                self._holdings.states[source] = state
                self._round.touch(source, now)
        self._round.start(now)
        self._send(outputs)

    def _send(self, outputs: Sequence[Output]) -> None:
        for output in self._staged.each("making outputs", outputs):
            if output.messages:
                self.transactions.send(output)
