"""From librdkafka's messages to batches, by columns.

This is the one place with work per record: about a microsecond, in C-level maps and list comprehensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from confluent_kafka import KafkaError, Message

from faust_batch.batch import Batch
from faust_batch.errors import ClientFailed, TopicMissing
from faust_batch.source import Source


@dataclass(slots=True)
class Fetch:
    """What one `consume` brought: messages by partition, in order, and the log ends that were reached."""

    messages: dict[Source, list[Message]] = field(default_factory=dict)
    ends: dict[Source, int] = field(default_factory=dict)
    out_of_range: list[Source] = field(default_factory=list)
    count: int = 0


class Grouper:
    """Sorts messages of several partitions, which librdkafka delivers in runs, without a comparison per message."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._index: dict[str | None, int] = {topic: number for number, topic in enumerate(topics)}
        self._topics = list(topics)

    def group(self, messages: list[Message]) -> Fetch:
        """Group what `consume` returned; raises ClientFailed or TopicMissing on an event that ends a worker."""
        fetch = Fetch()
        errors = [m for m in messages if m.error() is not None]
        if errors:
            for message in errors:
                self._take_event(fetch, message)
            messages = [m for m in messages if m.error() is None]
        fetch.count = len(messages)
        if not messages:
            return fetch
        codes = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        if len(self._topics) > 1:
            index = self._index
            topics = np.fromiter((index[m.topic()] for m in messages), np.int64, len(messages))
            codes += topics << 32
        starts = np.flatnonzero(np.diff(codes, prepend=np.int64(-1)))
        stops = [*starts[1:].tolist(), len(messages)]
        for start, stop in zip(starts.tolist(), stops, strict=True):
            source = _source(messages[start])
            run = messages[start:stop]
            if source in fetch.messages:
                fetch.messages[source].extend(run)
            else:
                fetch.messages[source] = run
        return fetch

    def _take_event(self, fetch: Fetch, message: Message) -> None:
        error = cast(KafkaError, message.error())
        code = error.code()
        source = _source(message)
        where = str(source) if message.topic() is not None else "consumer"
        if code == KafkaError._PARTITION_EOF:
            fetch.ends[source] = _offset(message)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            fetch.out_of_range.append(source)
        elif code in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
        ):
            raise TopicMissing(f"{where}: not found on the broker ({error.str()}); create the topic first")
        elif error.fatal() or not error.retriable():
            text = f"{where}: {error.name()}: {error.str()}"
            if "same group.instance.id" in error.str():
                text += "; either two workers share an instance id, or the broker stood still and took our own for it"
            raise ClientFailed(text)


def batch_of(source: Source, messages: list[Message], *, end: int | None, high_watermark: int, epoch: int) -> Batch:
    """One batch from one partition's messages (not empty, no errors); `end`: the log end reached behind them."""
    offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
    last = int(offsets[-1])
    keys = list(map(Message.key, messages))
    return Batch(
        source=source,
        offsets=offsets,
        timestamps_ms=np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(messages)),
        keys=keys,
        values=list(map(Message.value, messages)),
        next_offset=last + 1 if end is None else max(end, last + 1),
        high_watermark=max(high_watermark, last + 1),
        epoch=epoch,
        nbytes=sum(map(len, messages)) + sum(map(len, filter(None, keys))),
    )


def not_before(messages: list[Message], offset: int) -> list[Message]:
    """The messages at or after `offset`; they ascend, so usually nothing is copied."""
    if not messages or _offset(messages[0]) >= offset:
        return messages
    return [m for m in messages if _offset(m) >= offset]


def before(messages: list[Message], offset: int) -> list[Message]:
    """The messages below `offset`."""
    if not messages or _offset(messages[-1]) < offset:
        return messages
    return [m for m in messages if _offset(m) < offset]


class Appetite:
    """How many messages to ask for, so that a fetch stays below a number of bytes: from the sizes seen so far."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._mean_bytes = 0.0

    def saw(self, records: int, nbytes: int) -> None:
        if records:
            mean = nbytes / records
            # follow growth at once and shrinkage slowly: too small a fetch costs time, too large a one memory
            self._mean_bytes = mean if mean > self._mean_bytes else 0.8 * self._mean_bytes + 0.2 * mean

    @property
    def records(self) -> int:
        if not self._mean_bytes:
            return min(self._max_records, 1_000)
        return max(1, min(self._max_records, int(self._max_bytes / self._mean_bytes)))


def _source(message: Message) -> Source:
    return Source(cast(str, message.topic()), cast(int, message.partition()))


def _offset(message: Message) -> int:
    return cast(int, message.offset())
