"""Kafka's side: the tail of the aggregates and of ``progress`` in a thread of its own, and the ends of raw topics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from query_api import metrics
from query_api.domain.measures import GROUP_FIELDS
from query_api.domain.problems import unavailable
from query_api.domain.progress import Mark, Partition, Progress, heard, noted
from query_api.domain.tail import AHEAD_MS, KEEP_MS, Names, Tail, merged, pruned, reached, warmed, worth_decoding
from telestream_contracts import Registry, decode_each
from telestream_domain import TYPES, TelestreamError, Topics
from telestream_runtime import get_logger

BATCH_MESSAGES = 20_000
POLL_S = 0.05
"""How long one poll waits for more: a part of the freshness."""

QUALITY = "quality"
"""Covers records of every verdict: how far the aggregator is, also where it has no window to publish."""

QUALITY_AT_LEAST = 2_000
"""Upserts of ``agg.quality`` read from before the start, so that its position is known also where nothing happens."""

MAX_NAMES = 500_000
"""Names held; beyond that the tail is read anew, which forgets those no longer in it."""

RETRY_S = 2.0
PRUNE_EVERY_S = 10.0
ANSWER_TIMEOUT_S = 10.0
PREFETCH_KIB = 16_384

log = get_logger(__name__)
librdkafka_log = logging.getLogger("librdkafka")


class TailUnavailable(TelestreamError):
    """The tail cannot be read right now: which topic, and why."""


@dataclass(frozen=True, slots=True)
class Live:
    """What the tail thread last published; one value, so that a reader holds one moment."""

    tail: Tail
    progress: Progress
    partitions: Mapping[str, int]
    """Type → number of partitions of its raw topic."""

    def partitions_of(self, types: Sequence[str]) -> list[Partition]:
        return [(name, number) for name in types for number in range(self.partitions.get(name, 0))]


class TailReader:
    """Owns a read_committed consumer without a group, of one generation's topics. ``live`` is None until the ends seen
    at the start are reached. ``names`` gives those that all readers share, ``renew`` has them begun anew."""

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        registry: Registry,
        max_keys: int,
        names: Callable[[], Names],
        renew: Callable[[Names], None],
    ) -> None:
        self._bootstrap, self._topics, self._registry, self._max_keys = bootstrap, topics, registry, max_keys
        self._names, self._renew, self._label = names, renew, str(topics.generation)
        self._families = {topics.agg(family): family for family in (*GROUP_FIELDS, QUALITY)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tail.g{topics.generation}", daemon=True)
        self._reason: str | None = "catching up"
        self.live: Live | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def missing(self) -> str | None:
        """Why the newest minutes are not there, or None."""
        return self._reason

    def alive(self) -> str | None:
        """Why the thread has to be restarted, or None."""
        return None if self._thread.is_alive() or self._stop.is_set() else "the tail's thread has ended"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as err:
                # what was last seen stays published: its as_of says how old it is
                if self._reason != str(err):
                    log.warning("tail stopped, reading it anew", generation=self._topics.generation, reason=str(err))
                self._reason = str(err)
                metrics.TAIL_RESTARTS.inc()
                self._stop.wait(RETRY_S)

    def _follow(self) -> None:
        consumer = Consumer(_tail_settings(self._bootstrap), logger=librdkafka_log)
        try:
            now_ms = _now_ms()
            partitions = self._partitions(consumer)
            waiting = self._assign(consumer, now_ms - KEEP_MS)
            tail = Tail(since_ms=now_ms - KEEP_MS + AHEAD_MS, names=self._names())
            progress = Progress()
            pruned_at = time.monotonic()
            while not self._stop.is_set():
                messages = consumer.consume(BATCH_MESSAGES, POLL_S)
                if messages:
                    by_topic = _by_topic(messages, waiting)
                    now_ms = _now_ms()
                    progress = self._progressed(progress, by_topic.pop(self._topics.progress, []))
                    for topic, found in by_topic.items():
                        tail = self._merged(tail, self._families[topic], found, now_ms)
                if time.monotonic() - pruned_at > PRUNE_EVERY_S or tail.keys > self._max_keys:
                    tail, pruned_at = pruned(tail, _now_ms(), self._max_keys), time.monotonic()
                if len(tail.names) > MAX_NAMES:
                    self._renew(tail.names)
                if tail.names is not self._names():
                    raise TailUnavailable(f"more than {MAX_NAMES} groups: reading the tail anew")
                if not waiting and (messages or self.live is None or self._reason is not None):
                    self.live = Live(warmed(tail), progress, partitions)
                    self._reason = None
                    metrics.TAIL_KEYS.labels(generation=self._label).set(tail.keys)
        finally:
            consumer.close()

    def _partitions(self, consumer: Any) -> dict[str, int]:
        counts = {}
        for record_type in TYPES:
            counts[record_type] = len(_partition_numbers(consumer, self._topics.raw(record_type)))
        return counts

    def _assign(self, consumer: Any, since_ms: int) -> set[tuple[str, int]]:
        """Start at ``since_ms`` by append time (``progress``: at its start); what is still to be caught up with."""
        asked = [
            TopicPartition(topic, number, since_ms)
            for topic in self._families
            for number in _partition_numbers(consumer, topic)
        ]
        found = consumer.offsets_for_times(asked, timeout=ANSWER_TIMEOUT_S)
        start = []
        for entry in found:
            if entry.error is not None:
                raise TailUnavailable(f"{entry.topic}[{entry.partition}]: {entry.error.str()}")
            is_quality = self._families[entry.topic] == QUALITY
            if entry.offset < 0 or is_quality:
                low, high = consumer.get_watermark_offsets(
                    TopicPartition(entry.topic, entry.partition), timeout=ANSWER_TIMEOUT_S
                )
                # nothing newer: read on from the end that is there now, not from a later one
                entry.offset = high if entry.offset < 0 else entry.offset
                if is_quality:
                    entry.offset = max(low, min(entry.offset, high - QUALITY_AT_LEAST))
            start.append(entry)
        start.append(TopicPartition(self._topics.progress, 0, 0))
        consumer.assign(start)
        return {(entry.topic, entry.partition) for entry in start}

    def _merged(self, tail: Tail, family: str, messages: list[Message], now_ms: int) -> Tail:
        metrics.TAIL_UPSERTS.labels(family=family).inc(len(messages))
        # the last one of a key counts: of a flush that was overtaken nothing needs to be decoded
        keys = [*map(Message.key, messages)]
        latest = dict(zip(keys, map(Message.value, messages), strict=True))
        needed = latest if family == QUALITY else worth_decoding(keys, now_ms)
        frame = self._decoded(family, [value for key in needed if (value := latest[key]) is not None])
        metrics.TAIL_LAG_SECONDS.labels(generation=self._label).set(max(0, now_ms - messages[-1].timestamp()[1]) / 1000)
        if family == QUALITY:
            return replace(tail, included=reached(tail.included, family, frame)) if frame.height else tail
        return merged(tail, family, frame, now_ms)

    def _progressed(self, progress: Progress, messages: list[Message]) -> Progress:
        frame = self._decoded("progress", [value for value in map(Message.value, messages) if value is not None])
        if frame.is_empty():
            return progress
        fresh = pl.struct("sources", "source_event_end_at", "source_arrived_at")
        rows = frame.select(
            "type",
            "partition",
            "next_offset",
            "raw_end",
            pl.col("watermark").dt.epoch("ms"),
            fresh.alias("by_source"),
            pl.col("at").dt.epoch("ms"),
        )
        marks, arrivals = [], []
        for record_type, partition, next_offset, raw_end, watermark, sources, at in rows.iter_rows():
            marks.append(((record_type, partition), Mark(next_offset, raw_end, watermark, _freshest(sources), at)))
            arrived = zip(sources["sources"], sources["source_arrived_at"], strict=True)
            arrivals += [((record_type, source), int(at_ms)) for source, at_ms in arrived]
        return heard(noted(progress, marks), arrivals)

    def _decoded(self, name: str, values: list[bytes]) -> pl.DataFrame:
        if not values:
            return pl.DataFrame()
        decoded = decode_each(values, self._registry.schema)
        if decoded.bad:
            metrics.TAIL_UNDECODABLE.labels(family=name).inc(len(decoded.bad))
            log.error("upserts left out", family=name, count=len(decoded.bad), reason=decoded.bad[0].reason)
        return decoded.frame


class RawEnds:
    """Where raw topics begin and end, asked anew each time."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 5_000}, logger=librdkafka_log)
        self._bootstrap = bootstrap

    def starts(self, topic: str, partitions: int) -> dict[int, int]:
        """First offset of each partition; raises Problem when Kafka does not answer."""
        return self._offsets(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """Offset after the last record of each partition; raises Problem when Kafka does not answer."""
        return self._offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def at(self, topic: str, partitions: int, epoch_ms: int) -> dict[int, int | None]:
        """First offset appended at or after that time, None where there is none yet."""
        found = self._offsets(topic, partitions, OffsetSpec.for_timestamp(epoch_ms))
        return {number: offset if offset >= 0 else None for number, offset in found.items()}

    def partitions(self, topic: str) -> int:
        """Number of partitions; raises Problem when Kafka does not answer or has no such topic."""
        try:
            found = self._admin.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        except KafkaException as err:
            raise unavailable("Kafka") from err
        if found.error is not None:
            raise unavailable(f"topic {topic}")
        return len(found.partitions)

    def missing(self) -> str | None:
        """Why Kafka cannot be asked, or None."""
        try:
            self._admin.list_topics(timeout=2)
        except KafkaException as err:
            return f"{self._bootstrap}: {err.args[0].str()}"
        return None

    def _offsets(self, topic: str, partitions: int, spec: Any) -> dict[int, int]:
        asked = {TopicPartition(topic, number): spec for number in range(partitions)}
        try:
            answers = self._admin.list_offsets(asked, request_timeout=5)
            return {
                entry.partition: future.result(timeout=ANSWER_TIMEOUT_S).offset for entry, future in answers.items()
            }
        except (KafkaException, TimeoutError) as err:
            raise unavailable("Kafka") from err


def reading(bootstrap: str, name: str, **own: Any) -> dict[str, Any]:
    """Settings of a consumer of committed records that joins no group, with some of its ``own``."""
    return {
        "bootstrap.servers": bootstrap,
        # librdkafka wants a name of a group
        "group.id": name,
        "client.id": name,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
        **own,
    }


def _tail_settings(bootstrap: str) -> dict[str, Any]:
    own = {
        "fetch.error.backoff.ms": 100,
        "queued.max.messages.kbytes": PREFETCH_KIB,
        "topic.metadata.refresh.interval.ms": 30_000,
    }
    return reading(bootstrap, "telestream-query-tail", **own)


def _partition_numbers(consumer: Any, topic: str) -> list[int]:
    try:
        found = consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
    except KafkaException as err:
        raise TailUnavailable(f"Kafka does not answer: {err.args[0].str()}") from err
    if found.error is not None or not found.partitions:
        raise TailUnavailable(f'{topic} is not there; run "telestream topics apply"')
    return sorted(found.partitions)


def _by_topic(messages: list[Message], waiting: set[tuple[str, int]]) -> dict[str, list[Message]]:
    """Messages by topic, in log order within a partition; the ends that were reached leave ``waiting``."""
    by_topic: dict[str, list[Message]] = {}
    for message in messages:
        error = message.error()
        if error is None:
            by_topic.setdefault(str(message.topic()), []).append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            waiting.discard((str(message.topic()), message.partition()))
        elif error.fatal() or not error.retriable():
            where = f"{message.topic()}[{message.partition()}]: " if message.topic() else ""
            raise TailUnavailable(f"{where}{error.str()}")
    return by_topic


def _freshest(sources: Mapping[str, list[int]]) -> int | None:
    pairs = zip(sources["source_event_end_at"], sources["source_arrived_at"], strict=True)
    return max((min(end, arrived) for end, arrived in pairs), default=None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
