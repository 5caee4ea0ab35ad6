"""Questions to a broker that is still finding its leaders: right after its start, or a topic's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from faust_batch.errors import ClientFailed
from faust_batch.source import Source

_R = TypeVar("_R")

QUERY_TIMEOUT_S = 30.0
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


def log_range(consumer: Consumer, source: Source) -> tuple[int, int]:
    """The first offset in the log and its end, asked of the broker. Raises ClientFailed."""
    try:
        asked = TopicPartition(source.topic, source.partition)
        found = patiently(lambda: consumer.get_watermark_offsets(asked, timeout=QUERY_TIMEOUT_S), QUERY_TIMEOUT_S)
    except KafkaException as error:
        raise ClientFailed(f"{source}: the log's range is unknown ({error})") from error
    if found is None:
        raise ClientFailed(f"{source}: the log's range is unknown (timed out)")
    low, high = found
    return low, high
