"""Kafka's side of generations: positions of their groups, and whether anything of their topics is left to store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from query_api.domain.problems import unavailable
from query_api.domain.replay_progress import Aggregated, aggregated_of
from query_api.kafka import ANSWER_TIMEOUT_S, librdkafka_log, reading

LOOK_S = 10.0
Offsets = dict[int, int]
Positions = dict[tuple[str, int], int]


class GroupPositions:
    """Asked anew each time. Every method blocks, and raises Problem when Kafka does not answer."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 5_000}, logger=librdkafka_log)

    def committed(self, group: str, topic: str, partitions: int) -> Offsets:
        """Partition → position, of those that have one."""
        return {place.partition: place.offset for place in self._committed(group, topic, partitions)}

    def aggregated(self, group: str, topic: str, partitions: int) -> dict[int, Aggregated]:
        """Partition → what the aggregator says of it."""
        found = {}
        for place in self._committed(group, topic, partitions):
            said = aggregated_of(place.metadata)
            if said is not None:
                found[place.partition] = said
        return found

    def ends(self, topics: list[str]) -> Positions:
        """Topic and partition → offset after the last committed record."""
        try:
            there = self._admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
            places = [Place(name, number) for name in topics if name in there for number in there[name].partitions]
            asked = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
            answers = self._admin.list_offsets(asked, request_timeout=5, isolation_level=IsolationLevel.READ_COMMITTED)
            return {
                (place.topic, place.partition): future.result(timeout=ANSWER_TIMEOUT_S).offset
                for place, future in answers.items()
            }
        except (KafkaException, TimeoutError) as err:
            raise unavailable("Kafka") from err

    def records_between(self, first: Mapping[tuple[str, int], int], ends: Positions) -> bool:
        """Whether there is any record from ``first`` on (absent: the beginning) before ``ends``. Control records of
        transactions are none, so offsets alone do not tell."""
        open_ = {key for key, end in ends.items() if first.get(key, 0) < end}
        if not open_:
            return False
        consumer = Consumer(
            reading(self._bootstrap, "telestream-query-generations", **{"queued.max.messages.kbytes": 1_024}),
            logger=librdkafka_log,
        )
        try:
            consumer.assign([Place(topic, number, first.get((topic, number), 0)) for topic, number in sorted(open_)])
            deadline = time.monotonic() + LOOK_S
            while open_ and time.monotonic() < deadline:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                key, error = (str(message.topic()), int(message.partition() or 0)), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise unavailable("Kafka")
                if error is None and int(message.offset() or 0) < ends.get(key, 0):
                    return True
                open_.discard(key)
        except KafkaException as err:
            raise unavailable("Kafka") from err
        finally:
            consumer.close()
        if open_:
            raise unavailable("Kafka")
        return False

    def _committed(self, group: str, topic: str, partitions: int) -> list[Any]:
        asked = ConsumerGroupTopicPartitions(group, [Place(topic, number) for number in range(partitions)])
        try:
            (future,) = self._admin.list_consumer_group_offsets([asked], request_timeout=5).values()
            found = future.result(timeout=ANSWER_TIMEOUT_S).topic_partitions
        except (KafkaException, TimeoutError) as err:
            raise unavailable("Kafka") from err
        return [place for place in found if place.error is None and place.offset >= 0]
