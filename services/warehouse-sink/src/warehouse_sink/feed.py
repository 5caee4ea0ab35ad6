"""The Kafka side: one consumer, owned by one thread. Positions come from ClickHouse; Kafka's are for lag only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

import faust_batch
from telestream_guards import topic_facts
from telestream_runtime import get_logger
from warehouse_sink.domain.places import Place, Source, place_of
from warehouse_sink.errors import KafkaFailed

log = get_logger(__name__)

QUERY_TIMEOUT_S = 20.0
SESSION_TIMEOUT_MS = 10_000
IDLE_STEP_S = 0.5
FETCH_QUEUE_KIB = 24 * 1024
MAX_POLL_INTERVAL_MS = 900_000  # waiting for ClickHouse at an assignment happens inside a poll

Run = tuple[Source, list[Message]]


class Owner(Protocol):
    """Who is told about partitions."""

    def saved_places(self, topics: Sequence[str]) -> Mapping[Source, Place]: ...
    def assigned(self, places: Mapping[Source, Place]) -> None: ...
    def revoked(self, sources: Sequence[Source]) -> None: ...


class Feed:
    """Committed records of the assigned partitions, in order, from the owner's places on.

    ``src_starts``: of enriched partitions, the first raw offset that they hold, where it is known.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        instance: str,
        topics: Sequence[str],
        owner: Owner,
        stop: threading.Event,
        src_starts: Mapping[Source, int] | None = None,
    ) -> None:
        self._src_starts = src_starts or {}
        self._topics, self._owner, self._stop = list(topics), owner, stop
        self._topic_number: dict[str | None, int] = {topic: number for number, topic in enumerate(topics)}
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 10_000})
        self._paused = False
        self._stash: list[Message] = []
        self._failure: Exception | None = None
        self._assigned: set[Source] = set()
        self.joined = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "group.instance.id": instance,
                "client.id": instance,
                "partition.assignment.strategy": "range",  # in one step: see faust_batch's config for why
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": 2_000,
                "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": FETCH_QUEUE_KIB,
                "fetch.wait.max.ms": 100,
            }
        )

    def start(self) -> None:
        """Join the group. Raises KafkaFailed if a topic is missing: it is created by ``telestream topics apply``."""
        self._topic_ids(self._topics)
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def poll(self, max_messages: int, timeout_s: float) -> tuple[list[Run], dict[Source, int]]:
        """At most so many records, by partition; and the log ends that were reached. Raises what ended the feed."""
        if self._paused:
            self._resume()
        messages = self._stash + self._consume(max_messages, timeout_s)
        self._stash = []
        return self._grouped(messages)

    def idle(self, seconds: float) -> None:
        """Wait without taking anything in, but stay in the group."""
        if not self._paused and self._assigned:
            self._consumer.pause([_tp(source) for source in self._assigned])
        self._paused = True
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._stash += self._consume(1, min(IDLE_STEP_S, left))
            if self._stop.is_set():
                return

    def commit(self, places: Mapping[Source, Place]) -> None:
        """Tell Kafka how far we are, so that its tools can show the lag. Nothing is read from it."""
        offsets = [TopicPartition(s.topic, s.partition, place.next_offset) for s, place in places.items()]
        try:
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as err:
            log.debug("lag not shown in Kafka", reason=str(err))

    def high_watermarks(self) -> dict[Source, int]:
        """Log ends as the last fetches told them, where any did."""
        found = {}
        for source in self._assigned:
            marks = self._consumer.get_watermark_offsets(_tp(source), cached=True)
            if marks is not None and marks[1] >= 0:
                found[source] = marks[1]
        return found

    def close(self) -> None:
        self._consumer.close()

    def reachable(self) -> str | None:
        """None, or why Kafka does not answer. May be called from another thread."""
        try:
            self._admin.list_topics(topic=self._topics[0], timeout=3)
        except KafkaException as err:
            return f"Kafka does not answer: {err.args[0].str()}"
        return None

    def _consume(self, count: int, timeout_s: float) -> list[Message]:
        try:
            messages = self._consumer.consume(count, timeout_s)
        except KafkaException as err:
            raise KafkaFailed(f"the consumer cannot go on: {err.args[0].str()}") from err
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return messages

    def _grouped(self, messages: list[Message]) -> tuple[list[Run], dict[Source, int]]:
        ends: dict[Source, int] = {}
        records = [message for message in messages if message.error() is None]
        if len(records) != len(messages):
            for message in messages:
                if message.error() is not None:
                    self._take_event(message, ends)
        if not records:
            return [], ends
        number = self._topic_number
        codes = np.fromiter(map(number.__getitem__, map(Message.topic, records)), np.int64, len(records)) << 32
        codes += np.fromiter(map(Message.partition, records), np.int64, len(records))
        starts = np.flatnonzero(np.diff(codes, prepend=np.int64(-1))).tolist()
        runs = []
        for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
            source = _source(records[start])
            if source in self._assigned:
                runs.append((source, records[start:end]))
        return runs, ends

    def _take_event(self, message: Message, ends: dict[Source, int]) -> None:
        error: Any = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            ends[_source(message)] = int(message.offset() or 0)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise KafkaFailed(f"{_source(message)}: the log no longer reaches from where the sink reads: {error.str()}")
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise KafkaFailed(f'a topic is missing: {error.str()}; run "telestream topics apply"')
        elif error.fatal():
            raise KafkaFailed(f"the consumer cannot go on: {error.name()}: {error.str()}")
        else:
            log.warning("kafka", code=error.name(), reason=error.str())

    def _resume(self) -> None:
        self._paused = False
        if self._assigned:
            self._consumer.resume([_tp(source) for source in self._assigned])

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # an exception here would be lost in librdkafka: it is kept, and raised by the next poll
        self.joined = True
        sources = [Source(tp.topic, tp.partition) for tp in partitions]
        try:
            places = self._places(sources) if sources else {}
            consumer.assign([TopicPartition(s.topic, s.partition, place.next_offset) for s, place in places.items()])
        except Exception as err:
            self._failure = err
            consumer.assign([])
            return
        self._assigned |= set(places)
        self._owner.assigned(places)
        if self._paused and sources:
            consumer.pause([_tp(source) for source in sources])
        if sources:
            log.info("partitions assigned", added=len(sources), all=len(self._assigned))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        sources = [Source(tp.topic, tp.partition) for tp in partitions]
        self._assigned -= set(sources)
        self._stash = [m for m in self._stash if m.error() is not None or _source(m) in self._assigned]
        self._owner.revoked(sources)
        consumer.unassign()
        log.info("partitions revoked", removed=len(sources), all=len(self._assigned))

    def _places(self, sources: Sequence[Source]) -> dict[Source, Place]:
        topics = sorted({source.topic for source in sources})
        saved = self._owner.saved_places(topics)
        ids = self._topic_ids(topics)
        return {
            source: place_of(
                source, saved.get(source), ids[source.topic], *self._range(source), self._src_starts.get(source)
            )
            for source in sources
        }

    def _range(self, source: Source) -> tuple[int, int]:
        try:
            return faust_batch.log_range(self._consumer, faust_batch.Source(source.topic, source.partition))
        except faust_batch.ClientFailed as err:
            raise KafkaFailed(str(err)) from err

    def _topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        return {topic: facts.topic_id for topic, facts in topic_facts(self._bootstrap, list(topics)).items()}


def wait_with(stop: threading.Event) -> Callable[[float], None]:
    """A plain wait, for where the consumer may not be polled."""

    def wait(seconds: float) -> None:
        if stop.is_set():
            time.sleep(min(IDLE_STEP_S, seconds))
        stop.wait(seconds)

    return wait


def _tp(source: Source) -> TopicPartition:
    return TopicPartition(source.topic, source.partition)


def _source(message: Message) -> Source:
    return Source(str(message.topic()), int(message.partition() or 0))
