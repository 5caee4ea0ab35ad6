"""What Kafka says of topics: their ids (KIP-516) and partition counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from telestream_domain import FAMILIES, Topics
from telestream_guards.errors import PartitionsChanged, TopicsMissing, TopicsUnknown

QUERY_TIMEOUT_S = 20.0
LISTED = 3


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """``topic_id`` as 32 hex digits; all zeros from a broker without topic ids."""

    topic_id: str
    partitions: int


def topic_facts(bootstrap: str, topics: Collection[str]) -> dict[str, TopicFacts]:
    """Ids and partition counts. Raises TopicsMissing, TopicsUnknown."""
    from confluent_kafka import KafkaError, KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient

    # what goes wrong comes as an exception; librdkafka itself would say so twenty times a second
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    found = {}
    missing = []
    asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=QUERY_TIMEOUT_S)
    for topic, future in asked.items():
        try:
            description = future.result(timeout=QUERY_TIMEOUT_S + 1)
        except KafkaException as err:
            if err.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                missing.append(topic)
                continue
            raise TopicsUnknown(f"Kafka at {bootstrap} does not tell of {topic}: {err.args[0].str()}") from err
        except TimeoutError as err:
            raise TopicsUnknown(f"Kafka at {bootstrap} does not tell of {topic} in {QUERY_TIMEOUT_S:.0f} s") from err
        uuid = description.topic_id
        words = (uuid.get_most_significant_bits(), uuid.get_least_significant_bits())
        topic_id = "".join(f"{word & 0xFFFF_FFFF_FFFF_FFFF:016x}" for word in words)
        found[topic] = TopicFacts(topic_id, len(description.partitions))
    if missing:
        raise TopicsMissing(f'{", ".join(sorted(missing))}: no such topic; run "telestream topics apply"')
    return found


def topics_of(topics: Topics, record_type: str) -> list[str]:
    """The partitioned topics of a type, raw first: a record keeps its partition number through all of them."""
    derived = (topics.enriched(record_type), topics.rejected(record_type))
    return [topics.raw(record_type), *derived, *(topics.agg(family) for family in FAMILIES), topics.state_dedup]


def listed(things: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(things) - LISTED
    return ", ".join(things[:LISTED]) + (f" and {more} more" if more > 0 else "")


def check_partitions(facts: Mapping[str, TopicFacts], topics: Topics, record_type: str) -> None:
    """Raises PartitionsChanged unless every topic of the type has raw's partition count."""
    raw = topics.raw(record_type)
    wanted = facts[raw].partitions
    others = topics_of(topics, record_type)[1:]
    if wrong := [f"{name} has {facts[name].partitions}" for name in others if facts[name].partitions != wanted]:
        raise PartitionsChanged(
            f"{raw} has {wanted} partitions, but {listed(wrong)}: a record keeps its partition number through all "
            "stages, and a partition count never changes; bring back the topic that was changed"
        )
