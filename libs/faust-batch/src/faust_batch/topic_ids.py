"""Positions carry the id of their topic (KIP-516): in a topic made anew under an old name, offsets mean other records.

The id stands in front of the stage's own text in the committed metadata, and behind it which commit it was: no two
write the same. A stage sees neither.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from faust_batch.errors import ClientFailed, TopicMadeAnew, TopicMissing
from faust_batch.patience import ATTEMPT_TIMEOUT_S, QUERY_TIMEOUT_S, patiently
from faust_batch.source import Source

WATCH_EVERY_S = 10.0
NO_ID = "0" * 32
"""What a broker without topic ids (before Kafka 2.8) says; never compared."""

_STAMP = re.compile(r"topic-id=([0-9a-f]{32});(?:commit=[0-9a-f]+;)?")


def stamped(topic_id: str, commit: str, text: str) -> str:
    """A stage's metadata with the topic's id and the commit's (hexadecimal digits) in front."""
    return f"topic-id={topic_id};commit={commit};{text}"


def unstamped(metadata: str) -> tuple[str | None, str]:
    """The topic's id and the stage's own text; None where it was committed before positions carried ids."""
    found = _STAMP.match(metadata)
    return (found[1], metadata[found.end() :]) if found else (None, metadata)


class TopicIds:
    """The ids of a worker's topics, as it saw them first. `watch` asks again while the worker runs."""

    def __init__(self, bootstrap: str, client_options: Mapping[str, str]) -> None:
        self._settings: dict[str, str | int | float | bool] = {**client_options, "bootstrap.servers": bootstrap}
        self._admin: AdminClient | None = None
        self._ids: dict[str, str] = {}
        self._ended = threading.Event()

    def of(self, topic: str) -> str:
        """The id of a topic that was pinned."""
        return self._ids.get(topic, NO_ID)

    def pin(self, topics: Collection[str]) -> None:
        """Remember these topics' ids. Raises TopicMadeAnew if one is no longer what it was, TopicMissing,
        ClientFailed."""
        for topic, found in self._ask(topics).items():
            known = self._ids.setdefault(topic, found)
            if _differ(known, found):
                raise TopicMadeAnew(topic, None, known, found)

    def check(self, source: Source, offset: int, committed_id: str | None) -> None:
        """Raises TopicMadeAnew if a position was committed for another topic of this name."""
        if committed_id is not None and _differ(committed_id, self.of(source.topic)):
            raise TopicMadeAnew(str(source), offset, committed_id, self.of(source.topic))

    def watch(self, on_made_anew: Callable[[BaseException], None], every_s: float = WATCH_EVERY_S) -> None:
        """From a thread of its own, until `close`: tell once if a pinned topic is made anew."""
        threading.Thread(target=self._watch, args=(on_made_anew, every_s), name="topic-ids", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _watch(self, on_made_anew: Callable[[BaseException], None], every_s: float) -> None:
        while not self._ended.wait(every_s):
            try:
                self.pin(list(self._ids))
            except TopicMadeAnew as error:
                on_made_anew(error)
                return
            except (ClientFailed, TopicMissing):
                continue  # a broker that is away says nothing about its topics

    def _ask(self, topics: Collection[str]) -> dict[str, str]:
        if not topics:
            return {}
        try:
            return patiently(lambda: self._described(topics), QUERY_TIMEOUT_S)
        except KafkaException as error:
            raise ClientFailed(f"{', '.join(topics)}: topic ids unknown ({error}); is the broker up?") from error

    def _described(self, topics: Collection[str]) -> dict[str, str]:
        found = {}
        admin = self._admin or AdminClient(self._settings, logger=logging.getLogger("faust_batch.librdkafka"))
        self._admin = None  # until it has answered
        asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=ATTEMPT_TIMEOUT_S)
        for topic, future in asked.items():
            try:
                uuid = future.result(timeout=QUERY_TIMEOUT_S).topic_id
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise TopicMissing(f"no such topic: {topic}; create it first") from error
                raise
            except TimeoutError as error:
                raise ClientFailed(f"{topic}: its id is unknown (timed out); is the broker up?") from error
            words = (uuid.get_most_significant_bits(), uuid.get_least_significant_bits())
            found[topic] = "".join(f"{word & 0xFFFF_FFFF_FFFF_FFFF:016x}" for word in words)
        self._admin = admin
        return found


def _differ(known: str, found: str) -> bool:
    return NO_ID not in (known, found) and known != found
