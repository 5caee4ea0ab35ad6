"""Fetching: from the consumer into the chains, in bounds."""

from __future__ import annotations

import logging
import time
from typing import Generic, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from faust_batch.batch import Batch
from faust_batch.config import WorkerConfig
from faust_batch.errors import ClientFailed, OffsetOutOfRange
from faust_batch.fetch import Appetite, Grouper, batch_of, before, not_before
from faust_batch.holdings import Holdings, handles
from faust_batch.patience import log_range
from faust_batch.source import Source
from faust_batch.topic_ids import TopicIds

S = TypeVar("S")

_log = logging.getLogger(__name__)

GATHER_S = 0.005


class Intake(Generic[S]):
    """The owning thread alone calls it. Group callbacks run inside `consume`."""

    def __init__(
        self, config: WorkerConfig, consumer: Consumer, grouper: Grouper, holdings: Holdings[S], topic_ids: TopicIds
    ) -> None:
        self._instance = config.instance
        self._max_held_bytes = config.max_held_bytes
        self._max_batch_bytes = config.max_batch_bytes
        self._consumer = consumer
        self._grouper = grouper
        self._holdings = holdings
        self._topic_ids = topic_ids
        self._appetite = Appetite(config.max_batch_records, config.max_batch_bytes)
        self.fetched_at = 0.0
        self.held_peak_bytes = 0
        self.pauses = 0

    @property
    def wanted(self) -> int:
        """How many records to ask for."""
        return self._appetite.records

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        """Up to `count` messages and events, waiting `timeout_s` for them; serves group callbacks.

        It takes what librdkafka has, again and again, and no more once that is `max_batch_bytes`: a single call would
        go on fetching until there are `count`, however large they are.
        """
        self.fetched_at = now = time.monotonic()
        deadline = now + timeout_s
        messages: list[Message] = []
        nbytes = 0
        try:
            while len(messages) < count and nbytes < self._max_batch_bytes:
                found = self._consumer.consume(count - len(messages), timeout_s if count == 1 else 0)
                messages += found
                nbytes += sum(map(len, found))
                if not found:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        break
                    time.sleep(min(left_s, GATHER_S))
        except (KafkaException, RuntimeError) as error:
            raise ClientFailed(f"consumer {self._instance}: {error}") from error
        return messages

    def take(self, messages: list[Message]) -> list[Batch]:
        """Append what was consumed to the chains; the batches made. Raises OffsetOutOfRange, TopicMadeAnew."""
        held = self._holdings
        fresh, held.fresh = held.fresh, set()
        if not messages:
            return []
        fetch = self._grouper.group(messages)
        for source in fetch.out_of_range:
            if (chain := held.chains.get(source)) is not None:
                self._topic_ids.pin([source.topic])  # made anew, it may well be shorter
                raise OffsetOutOfRange(source, chain.fetched, *log_range(self._consumer, source))
        batches = []
        for source, found in fetch.messages.items():
            chain = held.chains.get(source)
            if chain is None or chain.stopped:
                continue
            if source in fresh:
                # some may stem from before the assignment that this very call brought: fetch all of them again
                self._consumer.seek(TopicPartition(source.topic, source.partition, chain.fetched))
                continue
            found = not_before(found, chain.fetched)
            if chain.end is not None and found and found[-1].offset() >= chain.end:  # type: ignore[operator]
                fetch.ends[source] = chain.end
                found = before(found, chain.end)
                if not found and chain.ended():
                    held.moved.setdefault(source, time.monotonic())
                self._rest(source)
            if not found:
                continue
            end = fetch.ends.pop(source, None)
            if end is not None and chain.end is not None:
                end = min(end, chain.end)
            watermarks = self._consumer.get_watermark_offsets(handles([source])[0], cached=True)
            high_watermark = int(watermarks[1]) if watermarks is not None else 0
            batch = batch_of(source, found, end=end, high_watermark=high_watermark, epoch=chain.epoch)
            chain.append(batch)
            batches.append(batch)
        for source, end in fetch.ends.items():
            chain = held.chains.get(source)
            if chain is not None and source not in fresh and chain.reached(end):
                held.moved.setdefault(source, time.monotonic())
        if batches:
            self._appetite.saw(sum(map(len, batches)), sum(batch.nbytes for batch in batches))
            self.held_peak_bytes = max(self.held_peak_bytes, held.held_bytes)
        return batches

    @property
    def full(self) -> bool:
        """As much is held as may be."""
        return self._holdings.held_bytes >= self._max_held_bytes

    def pause(self) -> None:
        """Fetch nothing more of the partitions held now."""
        running = {source for source, chain in self._holdings.chains.items() if not chain.stopped}
        running -= self._holdings.paused | self._holdings.resting
        if running:
            _log.info("holding %d bytes: %d partitions paused", self._holdings.held_bytes, len(running))
            self._consumer.pause(handles(running))
            self._holdings.paused |= running
            self.pauses += 1

    def stop(self, source: Source) -> None:
        """Fetch nothing more of a partition for as long as it is ours."""
        self._holdings.chains[source].stop()
        self._holdings.paused.discard(source)
        self._consumer.pause(handles([source]))

    def _rest(self, source: Source) -> None:
        self._holdings.paused.discard(source)
        self._holdings.resting.add(source)
        self._consumer.pause(handles([source]))

    def resume(self) -> None:
        if self._holdings.paused:
            self._consumer.resume(handles(self._holdings.paused))
            self._holdings.paused.clear()
