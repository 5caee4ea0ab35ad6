"""The log beyond the runner's batches, read from Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer

from faust_batch import NO_ID, Batch, Source, TopicIds, log_range, read_partition
from telestream_domain import Topics


class KafkaLog:
    """See ``recovery.Log``."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._asking: Any = None
        self._ids: TopicIds | None = None

    def enriched_start(self, source: Source) -> int:
        return self._range(source)[0]

    def enriched(self, source: Source, start: int, end: int) -> Iterator[Batch]:
        return read_partition(self._bootstrap, source, start, end)

    def agg_end(self, family: str, partition: int) -> int:
        return self._range(Source(self._topics.agg(family), partition))[1]

    def upserts(self, family: str, partition: int, start: int) -> Iterator[Batch]:
        return read_partition(self._bootstrap, Source(self._topics.agg(family), partition), start)

    def ids(self, source: Source, families: Sequence[str]) -> str | None:
        topics = [source.topic, *(self._topics.agg(family) for family in families)]
        if self._ids is None:
            self._ids = TopicIds(self._bootstrap, {})
        self._ids.pin(topics)
        found = [self._ids.of(topic) for topic in topics]
        return None if NO_ID in found else " ".join(found)

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
        return log_range(self._asking, source)
