"""Single records of the raw topics, read by position, and short ranges searched for a uid."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from query_api.domain.problems import unavailable
from query_api.kafka import librdkafka_log, reading
from telestream_contracts import schema_id_of

TIMEOUT_S = 8.0
BATCH_MESSAGES = 5_000


@dataclass(frozen=True, slots=True)
class RawRecord:
    """As it stands in the log; ``value`` is never shown."""

    partition: int
    offset: int
    appended_ms: int
    schema_id: int | None
    value: bytes


class RawRecords:
    """Reads without a group. Every method blocks, and raises Problem when Kafka does not answer in time."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def at(self, topic: str, positions: Sequence[tuple[int, int]]) -> dict[tuple[int, int], RawRecord]:
        """The records at these (partition, offset); what retention has removed is left out."""
        found: dict[tuple[int, int], RawRecord] = {}
        consumer = self._consumer()
        try:
            for partition, offset in positions:
                for record in self._read(consumer, topic, partition, offset, offset + 1):
                    found[partition, record.offset] = record
        finally:
            consumer.close()
        return found

    def containing(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], uid: str, limit: int = 200
    ) -> list[RawRecord]:
        """Records whose bytes hold ``uid``, partition → (first, end); the caller decodes them to be sure."""
        wanted, found = uid.encode(), list[RawRecord]()
        consumer = self._consumer()
        try:
            for partition, (first, end) in ranges.items():
                if first < end:
                    records = self._read(consumer, topic, partition, first, end)
                    found.extend(record for record in records if wanted in record.value)
        finally:
            consumer.close()
        return found[:limit]

    def _read(self, consumer: Any, topic: str, partition: int, first: int, end: int) -> list[RawRecord]:
        deadline = time.monotonic() + TIMEOUT_S
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
            if max(first, low) >= min(end, high):
                return []
            consumer.assign([TopicPartition(topic, partition, max(first, low))])
            found: list[RawRecord] = []
            while time.monotonic() < deadline:
                for message in consumer.consume(min(BATCH_MESSAGES, end - first), 0.2):
                    error = message.error()
                    if error is not None and error.code() == KafkaError._PARTITION_EOF:
                        return found
                    if error is not None:
                        raise unavailable("Kafka")
                    if message.offset() < end:
                        value = message.value() or b""
                        found.append(
                            RawRecord(partition, message.offset(), message.timestamp()[1], schema_id_of(value), value)
                        )
                    if message.offset() >= end - 1:
                        return found
        except KafkaException as err:
            raise unavailable("Kafka") from err
        raise unavailable("Kafka")

    def _consumer(self) -> Any:
        own = {
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 2_048,
            "fetch.message.max.bytes": 262_144,
        }
        return Consumer(reading(self._bootstrap, "telestream-query-trace", **own), logger=librdkafka_log)
