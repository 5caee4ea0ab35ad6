"""What the group gives and takes. All of it is called inside `consume`, on the owning thread."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from faust_batch.batch import Committed
from faust_batch.chain import Chain
from faust_batch.config import WorkerConfig
from faust_batch.errors import AssignmentLost, ClientFailed, OffsetOutOfRange
from faust_batch.holdings import Holdings
from faust_batch.ledger import Ledger
from faust_batch.observer import Observer
from faust_batch.parked import Parked
from faust_batch.patience import ATTEMPT_TIMEOUT_S, QUERY_TIMEOUT_S, each_known, log_range, patiently
from faust_batch.source import Source
from faust_batch.stage import Stage
from faust_batch.staged import Staged
from faust_batch.topic_ids import TopicIds, unstamped

S = TypeVar("S")

_log = logging.getLogger(__name__)


class Membership(Generic[S]):
    """The group's callbacks. `failure` is what went wrong in one: exceptions do not travel through librdkafka."""

    def __init__(
        self,
        stage: Stage[S],
        staged: Staged,
        config: WorkerConfig,
        consumer: Consumer,
        holdings: Holdings[S],
        ledger: Ledger[S],
        topic_ids: TopicIds,
        observer: Observer,
        changed: Callable[[frozenset[Source]], None],
    ) -> None:
        self._stage = stage
        self._staged = staged
        self._config = config
        self._incremental = config.incremental
        self._consumer = consumer
        self._holdings = holdings
        self._ledger = ledger
        self._topic_ids = topic_ids
        self._observer = observer
        self._changed = changed
        self._epochs = itertools.count(1)
        self._parked: dict[Source, Parked[S]] = {}
        self._closing = False
        self.ended = False
        self.failure: BaseException | None = None

    def subscribe(self) -> None:
        self._consumer.subscribe(
            list(self._stage.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def leave(self) -> None:
        """The consumer is about to be closed: whatever is taken is given up, and nothing more is accepted."""
        self._closing = True
        self._give_up(sorted(self._parked))

    def fail(self, error: BaseException) -> None:
        """Keep the first failure; from any thread."""
        if self.failure is None:
            self.failure = error

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:
            # A rebalance that ends just now, served by `close`: asked for offsets there, librdkafka does not answer.
            # The partitions are given back at once.
            return
        self._guarded(self._assign, partitions)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._guarded(self._revoke, partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._guarded(self._lose, partitions)

    def _guarded(self, act: Callable[[list[TopicPartition]], None], partitions: list[TopicPartition]) -> None:
        if self.failure is not None or self.ended:
            return
        try:
            act(partitions)
        except BaseException as error:
            self.failure = error

    def _assign(self, partitions: list[TopicPartition]) -> None:
        starts, kept = [], []
        # first those that do not come back: it is their room that others need
        self._give_up(sorted(self._parked.keys() - {Source(p.topic, p.partition) for p in partitions}))
        self._topic_ids.pin({partition.topic for partition in partitions})
        for known in self._committed(partitions):
            source = Source(known.topic, known.partition)
            low, high = log_range(self._consumer, source)
            committed, topic_id = None, None
            if known.offset != OFFSET_INVALID:
                topic_id, metadata = unstamped(known.metadata or "")
                committed = Committed(known.offset, metadata)
                self._topic_ids.check(source, known.offset, topic_id)
            position = self._config.starts.get(source, low) if committed is None else committed.offset
            if not low <= position <= high:
                raise OffsetOutOfRange(source, position, low, high)
            if (parked := self._parked.get(source)) is not None and parked.is_still(known):
                state = self._parked.pop(source).state
                kept.append(source)
            else:
                self._give_up([source])
                state = self._staged(
                    f"restoring {source} at {position}",
                    partial(self._stage.restore, source, committed),
                    patient=True,
                )
            end = self._config.ends.get(source)
            self._holdings.add(Chain.starting_at(source, next(self._epochs), position, end), state)
            if topic_id is None:
                self._ledger.touch(source)  # so that it is committed, with the topic's id
            else:
                self._holdings.stamps[source] = known.metadata or ""
            starts.append(TopicPartition(source.topic, source.partition, position))
        if self._incremental:
            self._consumer.incremental_assign(starts)
        else:
            self._consumer.assign(starts)
        sources = [Source(start.topic, start.partition) for start in starts]
        self._holdings.fresh.update(sources)
        _log.info(
            "assigned: %s",
            ", ".join(f"{s}@{self._holdings.chains[s].position}{' (kept)' * (s in kept)}" for s in sources),
        )
        self._observer.on_assigned(sources)
        self._changed(frozenset(self._holdings.chains))

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """The committed offsets; where a transaction on them is open, as of its end. Raises ClientFailed."""
        if not partitions:
            return []
        try:
            return patiently(
                lambda: each_known(self._consumer.committed(partitions, timeout=ATTEMPT_TIMEOUT_S)), QUERY_TIMEOUT_S
            )
        except KafkaException as error:
            names = ", ".join(f"{p.topic}[{p.partition}]" for p in partitions)
            raise ClientFailed(f"group {self._config.group}: {names}: committed offsets unknown ({error})") from error

    def _revoke(self, partitions: list[TopicPartition]) -> None:
        self._ledger.commit()
        # without `incremental` everything is taken, and most of it comes back
        self._drop(partitions, park=not (self._incremental or self._closing))

    def _lose(self, partitions: list[TopicPartition]) -> None:
        if self._ledger.dirty:
            names = ", ".join(f"{p.topic}[{p.partition}]" for p in partitions)
            raise AssignmentLost(
                f"group {self._config.group}: lost {names} with a round open (stopped for longer than the session "
                f"timeout of {self._config.session_timeout_ms} ms, or replaced by another {self._config.instance})"
            )
        self._give_up(sorted(self._parked))
        self._drop(partitions, park=False)

    def _give_up(self, sources: Iterable[Source]) -> None:
        """What is parked of these partitions is not taken up again."""
        for source in sources:
            if self._parked.pop(source, None) is not None:
                self._staged(f"giving up {source}", partial(self._stage.revoked, source))

    def _parkable(self, source: Source) -> Parked[S] | None:
        """Its state, if that is as of the group's position. After a commit it is: states change in rounds only."""
        held = self._holdings
        # of a stopped partition the stage has judged a part of a batch: that one is restored
        if source not in held.stamps or held.chains[source].stopped:
            return None
        return Parked(held.states[source], held.committed[source], held.stamps[source])

    def _drop(self, partitions: list[TopicPartition], *, park: bool) -> None:
        sources = [s for s in (Source(p.topic, p.partition) for p in partitions) if s in self._holdings.chains]
        for source in sources:
            parked = self._parkable(source) if park else None
            self._holdings.drop(source)
            self._ledger.forget(source)
            if parked is None:
                self._staged(f"giving up {source}", partial(self._stage.revoked, source))
            else:
                self._parked[source] = parked
        if self._incremental:
            self._consumer.incremental_unassign(partitions)
        else:
            self._consumer.unassign()
        if sources:
            _log.info("revoked: %s", ", ".join(map(str, sources)))
            self._observer.on_revoked(sources)
            self._changed(frozenset(self._holdings.chains))
