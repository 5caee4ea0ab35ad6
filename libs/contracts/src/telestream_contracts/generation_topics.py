"""Topics and consumer groups of one generation: made as raw's are, and removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from telestream_contracts.errors import TopicsError
from telestream_contracts.topics import _admin, _found, apply_topics, topic_table
from telestream_domain import Topics

ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How raw topics are laid out, and so everything derived."""

    partitions: int
    replication: int


def layout_of(bootstrap: str, topic: str) -> Layout:
    """Of one topic. Raises TopicsError if Kafka does not answer or has no such topic."""
    from confluent_kafka import KafkaException

    try:
        found = _admin(bootstrap).list_topics(topic, timeout=10).topics[topic]
    except KafkaException as err:
        raise TopicsError(f"Kafka at {bootstrap} does not answer: {err.args[0]}") from err
    if found.error is not None or not found.partitions:
        raise TopicsError(f'{topic}: no such topic; run "telestream topics apply"')
    return Layout(len(found.partitions), min(len(partition.replicas) for partition in found.partitions.values()))


def make_generation_topics(bootstrap: str, topics: Topics, layout: Layout) -> list[str]:
    """Create the derived topics that are missing; returns their names. Doing it again is harmless."""
    return apply_topics(bootstrap, topics, layout.partitions, layout.replication, derived_only=True).created


def generation_topics(topics: Topics) -> list[str]:
    """The topics that belong to this generation alone."""
    return [spec.name for spec in topic_table(topics) if topics.is_derived(spec.name)]


def delete_generation_topics(bootstrap: str, topics: Topics) -> list[str]:
    """Delete those that are there; returns their names. Doing it again is harmless. Raises TopicsError."""
    from confluent_kafka import KafkaException

    admin = _admin(bootstrap)
    there = sorted(set(generation_topics(topics)) & set(_found(admin, bootstrap)))
    if not there:
        return []
    for name, future in admin.delete_topics(there, operation_timeout=ANSWER_S).items():
        try:
            future.result(timeout=ANSWER_S)
        except KafkaException as err:
            if err.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise TopicsError(f"{name}: could not be deleted: {err.args[0]}") from err
    return there


def group_members(bootstrap: str, groups: Sequence[str]) -> dict[str, int]:
    """Group → its members, of those that have any. Raises TopicsError."""
    found = {}
    admin = _admin(bootstrap)  # held: without it its futures never end
    for group, future in admin.describe_consumer_groups(list(groups), request_timeout=ANSWER_S).items():
        description = _answer(future, f"group {group}", "GROUP_ID_NOT_FOUND")
        if description is not None and description.members:
            found[group] = len(description.members)
    return found


def delete_groups(bootstrap: str, groups: Sequence[str]) -> list[str]:
    """Delete those that are there, and their positions with them; returns their names. Raises TopicsError."""
    gone = []
    admin = _admin(bootstrap)
    # of a group that is not there Kafka may say what it likes: only what it lists is deleted
    listed = _answer(admin.list_consumer_groups(request_timeout=ANSWER_S), "groups")
    there = {entry.group_id for entry in listed.valid} & set(groups)
    if not there:
        return []
    for group, future in admin.delete_consumer_groups(sorted(there), request_timeout=ANSWER_S).items():
        _answer(future, f"group {group}", "GROUP_ID_NOT_FOUND")
        gone.append(group)
    return gone


def _answer(future: Any, what: str, but: str = "") -> Any:
    from confluent_kafka import KafkaException

    try:
        return future.result(timeout=ANSWER_S)
    except KafkaException as err:
        if err.args[0].name() == but:
            return None
        raise TopicsError(f"{what}: Kafka refuses: {err.args[0]}") from err
    except TimeoutError as err:
        raise TopicsError(f"{what}: Kafka does not answer") from err
