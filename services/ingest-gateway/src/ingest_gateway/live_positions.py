"""How far the live pipeline is: ends of raw and enriched topics, and what enricher and aggregator have committed.

Asked by consumers that join no group: an AdminClient whose request is not answered in time ends the whole process by an
assertion in librdkafka (rd_kafka_enq_once_del_source_return).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ingest_gateway.domain.pacing import Look, Place, remembered, wait_s
from telestream_domain import TYPES, TelestreamError, Topics, group_id

ANSWER_S = 2.0
STAGES = ("cdr-enricher", "window-aggregator")


class LivePositions:
    """Asks Kafka, over connections that last until ``close`` or an error. May be asked from any thread."""

    def __init__(self, bootstrap: str, topics: Topics, partitions: Mapping[str, int]) -> None:
        self._bootstrap, self._topics, self._partitions = bootstrap, topics, dict(partitions)
        self._lock = threading.Lock()
        self._consumers: dict[str, Any] = {}
        self._looks: dict[str, list[Look]] = {}

    def waits_s(self, generations: Sequence[int]) -> float:
        """How long a record waits now until the slowest of these generations has aggregated it.

        Raises TelestreamError if Kafka does not tell.
        """
        from confluent_kafka import KafkaException

        with self._lock:
            try:
                return max((self._waits_s(Topics(self._topics.prefix, number)) for number in generations), default=0.0)
            except KafkaException as err:
                self._close()
                raise TelestreamError(f"Kafka does not tell how far the live records are: {err.args[0].str()}") from err

    def close(self) -> None:
        """Leave Kafka and forget what was seen; asked again, it begins anew."""
        with self._lock:
            self._close()
            self._looks.clear()

    def _close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def _waits_s(self, topics: Topics) -> float:
        waits = 0.0
        for service, topic_of in zip(STAGES, (topics.raw, topics.enriched), strict=True):
            group = group_id(service, topics)
            places = [(topic_of(name), number) for name in TYPES for number in range(self._partitions[name])]
            consumer = self._consumer(group)
            # committed first: a record that comes between the two questions waits, it is not ahead
            committed, ends = self._committed(consumer, places), self._ends(consumer, places)
            self._looks[group] = remembered(self._looks.get(group, ()), Look(time.monotonic(), ends))
            waits += wait_s(self._looks[group], committed)
        return waits

    def _consumer(self, group: str) -> Any:
        from confluent_kafka import Consumer

        if group not in self._consumers:
            self._consumers[group] = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": group,  # never subscribed: it only asks for the group's offsets
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "log_level": 3,
                }
            )
        return self._consumers[group]

    def _committed(self, consumer: Any, places: Sequence[Place]) -> dict[Place, int]:
        """Without those where nothing is committed."""
        from confluent_kafka import TopicPartition

        found = consumer.committed([TopicPartition(*place) for place in places], timeout=ANSWER_S)
        return {place: offset for place, offset in _offsets(found).items() if offset >= 0}

    def _ends(self, consumer: Any, places: Sequence[Place]) -> dict[Place, int]:
        """Up to where a reader of committed records may read."""
        from confluent_kafka import OFFSET_END, TopicPartition

        asked = [TopicPartition(*place, OFFSET_END) for place in places]
        ends = _offsets(consumer.offsets_for_times(asked, timeout=ANSWER_S))
        # a broker that stood still gives an answer without offsets, and no error
        if min(ends.values()) < 0:
            raise TelestreamError("Kafka does not tell how far the live records are: no answer for some partitions")
        return ends


def _offsets(found: Sequence[Any]) -> dict[Place, int]:
    from confluent_kafka import KafkaException

    for place in found:
        if place.error is not None:
            raise KafkaException(place.error)
    return {(place.topic, place.partition): place.offset for place in found}
