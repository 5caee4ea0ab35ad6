"""The table of topics (design section 3). ``apply`` creates what is missing; a partition count never changes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from telestream_contracts.errors import TopicsError
from telestream_domain import FAMILIES, REFERENCES, TYPES, Topics

DAY_MS = 86_400_000
KEEP_FOR_EVER = -1
RAW_RETENTION_DAYS = 400  # the longest age a record may have at the door, so that a replay sees what was accepted
DERIVED_SEGMENT_BYTES = 64 << 20
VISIBLE_WITHIN_S = 15


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic: ``partitioned`` like raw or a single partition, its cleanup, retention and clock."""

    name: str
    partitioned: bool
    cleanup: str
    retention_ms: int
    append_time: bool
    help: str

    def config(self, min_insync: int) -> dict[str, str]:
        """The topic-level settings Kafka must have."""
        wanted = {
            "cleanup.policy": self.cleanup,
            "min.insync.replicas": str(min_insync),
            "message.timestamp.type": "LogAppendTime" if self.append_time else "CreateTime",
            "compression.type": "producer",
        }
        if self.cleanup == "delete":
            wanted["retention.ms"] = str(self.retention_ms)
        else:
            wanted["segment.bytes"] = str(DERIVED_SEGMENT_BYTES)
        return wanted


def topic_table(topics: Topics) -> list[TopicSpec]:
    """Every topic of an installation and generation."""
    table: list[TopicSpec] = []
    raw_ms = RAW_RETENTION_DAYS * DAY_MS
    for record_type in TYPES:
        table.append(TopicSpec(topics.raw(record_type), True, "delete", raw_ms, True, f"every {record_type} accepted"))
    for entity in REFERENCES:
        # customers lie as cdr.raw, so that a worker holds its own partitions only; the rest is read whole
        table.append(
            TopicSpec(
                topics.ref(entity),
                entity == "customer",
                "delete",
                KEEP_FOR_EVER,
                True,
                f"all versions of every {entity}",
            )
        )
    for record_type in TYPES:
        table.append(
            TopicSpec(
                topics.enriched(record_type), True, "delete", raw_ms, True, f"one judged record per {record_type}"
            )
        )
        table.append(
            TopicSpec(topics.rejected(record_type), True, "delete", raw_ms, True, f"dead letters of {record_type}")
        )
    for family in FAMILIES:
        table.append(
            TopicSpec(topics.agg(family), True, "compact", KEEP_FOR_EVER, True, f"windowed aggregates by {family}")
        )
    table.append(TopicSpec(topics.progress, False, "compact", KEEP_FOR_EVER, True, "how far judgement has come"))
    table.append(
        TopicSpec(topics.state_dedup, True, "compact", KEEP_FOR_EVER, True, "what closed segments leave behind")
    )
    table.append(TopicSpec(topics.anomalies, False, "delete", raw_ms, True, "what departs from its own history"))
    table.append(TopicSpec(topics.erasures, False, "delete", KEEP_FOR_EVER, True, "who must be forgotten"))
    table.append(TopicSpec(topics.schemas, False, "compact", KEEP_FOR_EVER, True, "what the registry knows"))
    return table


@dataclass(frozen=True, slots=True)
class TopicsReport:
    created: list[str]
    changed: list[str]
    unchanged: list[str]


def _admin(bootstrap: str) -> Any:
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 10_000})


def _found(admin: Any, bootstrap: str) -> dict[str, int]:
    from confluent_kafka import KafkaException

    try:
        metadata = admin.list_topics(timeout=10)
    except KafkaException as err:
        raise TopicsError(f"Kafka at {bootstrap} does not answer: {err.args[0]}") from err
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def _await_visible(admin: Any, bootstrap: str, names: list[str]) -> None:
    """The controller answers before every broker's metadata shows a new topic: who asks next must find it."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while not set(names) <= set(_found(admin, bootstrap)):
        if time.monotonic() > deadline:
            raise TopicsError(f"Kafka at {bootstrap} created topics but does not list them after {VISIBLE_WITHIN_S} s")
        time.sleep(0.05)


def _configs(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    if not names:
        return {}
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    return {
        resource.name: {key: str(entry.value) for key, entry in future.result(timeout=20).items()}
        for resource, future in asked.items()
    }


def apply_topics(
    bootstrap: str, topics: Topics, partitions: int = 4, replication: int = 1, *, derived_only: bool = False
) -> TopicsReport:
    """Create what is missing and set what differs; nothing is ever deleted. ``derived_only``: leave raw and what else
    belongs to every generation as it is.

    Raises TopicsError if Kafka does not answer, or a topic has another partition count: duplicates would slip between
    partitions, so that never changes.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewTopic,
        ResourceType,
    )

    admin = _admin(bootstrap)
    existing = _found(admin, bootstrap)
    min_insync = 2 if replication >= 3 else 1
    table = [spec for spec in topic_table(topics) if not derived_only or topics.is_derived(spec.name)]
    missing = [spec for spec in table if spec.name not in existing]
    _check_partitions(table, existing, partitions)
    if missing:
        asked = admin.create_topics(
            [
                NewTopic(
                    spec.name,
                    num_partitions=partitions if spec.partitioned else 1,
                    replication_factor=replication,
                    config=spec.config(min_insync),
                )
                for spec in missing
            ]
        )
        for name, future in asked.items():
            try:
                future.result(timeout=30)
            except KafkaException as err:
                if err.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise TopicsError(f"{name}: could not be created: {err.args[0]}") from err
        _await_visible(admin, bootstrap, [spec.name for spec in missing])
    present = [spec for spec in table if spec.name in existing]
    found = _configs(admin, [spec.name for spec in present])
    changed = []
    for spec in present:
        differing = {k: v for k, v in spec.config(min_insync).items() if found[spec.name].get(k) != v}
        if differing:
            entries = [
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in differing.items()
            ]
            resource = ConfigResource(ResourceType.TOPIC, spec.name, incremental_configs=entries)
            for future in admin.incremental_alter_configs([resource]).values():
                future.result(timeout=20)
            changed.append(spec.name)
    created = [spec.name for spec in missing]
    unchanged = [spec.name for spec in present if spec.name not in changed]
    return TopicsReport(created, changed, unchanged)


def check_topics(bootstrap: str, topics: Topics, partitions: int = 4, replication: int = 1) -> list[str]:
    """What differs from the table: one line each, empty if nothing. Changes nothing."""
    admin = _admin(bootstrap)
    existing = _found(admin, bootstrap)
    table = topic_table(topics)
    wrong = [f"{spec.name}: missing" for spec in table if spec.name not in existing]
    for spec in table:
        expected = partitions if spec.partitioned else 1
        if spec.name in existing and existing[spec.name] != expected:
            wrong.append(f"{spec.name}: {existing[spec.name]} partitions, expected {expected}")
    found = _configs(admin, [spec.name for spec in table if spec.name in existing])
    for spec in table:
        for key, value in spec.config(2 if replication >= 3 else 1).items():
            have = found.get(spec.name, {key: value}).get(key)
            if have != value:
                wrong.append(f"{spec.name}: {key} is {have}, expected {value}")
    return wrong


def _check_partitions(table: list[TopicSpec], existing: Mapping[str, int], partitions: int) -> None:
    for spec in table:
        expected = partitions if spec.partitioned else 1
        if spec.name in existing and existing[spec.name] != expected:
            raise TopicsError(
                f"{spec.name} has {existing[spec.name]} partitions, {expected} were asked for: a partition count never "
                "changes, or duplicates would slip between partitions"
            )
