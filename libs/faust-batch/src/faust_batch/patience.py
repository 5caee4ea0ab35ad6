"""Questions to a broker that is still finding its leaders: right after its start, or a topic's."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from faust_batch.errors import ClientFailed
from faust_batch.source import Source

_R = TypeVar("_R")

QUERY_TIMEOUT_S = 30.0
ATTEMPT_TIMEOUT_S = 8.0  # one try: a call that lost its broker was seen to wait in vain while a new one was answered
RETRY_S = 0.1
_PASSES = frozenset(  # librdkafka does not call them retriable here
    (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._DESTROY_BROKER,  # all brokers were away: the client starts anew from the bootstrap servers
        KafkaError._UNKNOWN_PARTITION,  # its metadata went with the connection
        KafkaError._NOENT,  # "No leaders found": one is being elected
    )
)


def patiently(ask: Callable[[], _R], timeout_s: float) -> _R:
    """The answer; asked again while the error is one that passes. Raises KafkaException for all others, or after
    `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except KafkaException as error:
            if not _passes(error) or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _passes(error: KafkaException) -> bool:
    detail = error.args[0]
    return isinstance(detail, KafkaError) and (detail.retriable() or detail.code() in _PASSES)


def each_known(found: list[TopicPartition]) -> list[TopicPartition]:
    """The same. Raises KafkaException if the answer is an error for one of them: its offset says nothing then."""
    for partition in found:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return found


def partitions_of(client: Consumer | AdminClient, topics: Collection[str]) -> dict[str, list[int]]:
    """The partitions of those of the topics that exist. Raises KafkaException."""

    def ask() -> dict[str, list[int]]:
        known = client.list_topics(timeout=ATTEMPT_TIMEOUT_S).topics
        found = {topic: known[topic] for topic in topics if topic in known}
        for topic in found.values():
            if topic.error is not None:  # its partitions are not told then
                raise KafkaException(topic.error)
        return {name: sorted(topic.partitions) for name, topic in found.items()}

    return patiently(ask, QUERY_TIMEOUT_S)


def log_range(consumer: Consumer, source: Source) -> tuple[int, int]:
    """The first offset in the log and its end, asked of the broker. Raises ClientFailed."""
    try:
        asked = TopicPartition(source.topic, source.partition)
        found = patiently(lambda: consumer.get_watermark_offsets(asked, timeout=ATTEMPT_TIMEOUT_S), QUERY_TIMEOUT_S)
    except KafkaException as error:
        raise ClientFailed(f"{source}: the log's range is unknown ({error})") from error
    if found is None:
        raise ClientFailed(f"{source}: the log's range is unknown (timed out)")
    low, high = found
    return low, high
