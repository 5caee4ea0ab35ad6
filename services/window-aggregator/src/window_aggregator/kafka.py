"""The log beyond the runner's batches, read from Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from faust_batch import Batch, Source, read_partition
from telestream_domain import Topics
from window_aggregator.errors import NotRecoverable

QUERY_TIMEOUT_S = 30.0


class KafkaLog:
    """See ``recovery.Log``."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._asking: Any = None

    def enriched_start(self, source: Source) -> int:
        return self._range(source)[0]

    def enriched(self, source: Source, start: int, end: int) -> Iterator[Batch]:
        return read_partition(self._bootstrap, source, start, end)

    def agg_end(self, family: str, partition: int) -> int:
        return self._range(Source(self._topics.agg(family), partition))[1]

    def upserts(self, family: str, partition: int, start: int) -> Iterator[Batch]:
        return read_partition(self._bootstrap, Source(self._topics.agg(family), partition), start)

    def _range(self, source: Source) -> tuple[int, int]:
        if self._asking is None:
            # for questions only: it joins no group and fetches nothing
            self._asking = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "window-aggregator-questions",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                }
            )
        try:
            found = self._asking.get_watermark_offsets(
                TopicPartition(source.topic, source.partition), timeout=QUERY_TIMEOUT_S
            )
        except KafkaException as err:
            raise NotRecoverable(
                f'{source}: its log\'s range is unknown ({err}); is the topic there ("telestream topics check")?'
            ) from err
        if found is None:
            raise NotRecoverable(
                f"{source}: Kafka at {self._bootstrap} did not say within {QUERY_TIMEOUT_S:.0f} s "
                "where its log begins and ends"
            )
        low, high = found
        return int(low), int(high)
