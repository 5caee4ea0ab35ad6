"""Against the real broker and the real registry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from telestream_contracts import (
    Registry,
    RegistryError,
    TopicsError,
    apply_topics,
    check_topics,
    load_schema,
    topic_schemas,
)
from telestream_domain import Topics

pytestmark = pytest.mark.stack


def test_topics_are_created_once_and_checked(parts: Any, topic_prefix: str) -> None:
    topics = Topics(topic_prefix, 1)
    assert check_topics(parts.kafka, topics, 3)
    first = apply_topics(parts.kafka, topics, 3)
    assert topics.raw("cdr") in first.created
    assert check_topics(parts.kafka, topics, 3) == []
    assert apply_topics(parts.kafka, topics, 3).created == []


def test_a_partition_count_never_changes(parts: Any, topic_prefix: str) -> None:
    topics = Topics(topic_prefix, 1)
    apply_topics(parts.kafka, topics, 2)
    with pytest.raises(TopicsError, match="a partition count never changes"):
        apply_topics(parts.kafka, topics, 4)


def test_a_setting_changed_by_hand_is_named_and_set_back(parts: Any, topic_prefix: str) -> None:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    topics = Topics(topic_prefix, 1)
    apply_topics(parts.kafka, topics, 2)
    entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topics.raw("cdr"), incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=10)
    assert _until(
        lambda: check_topics(parts.kafka, topics, 2),
        [f"{topics.raw('cdr')}: message.timestamp.type is CreateTime, expected LogAppendTime"],
    )
    assert apply_topics(parts.kafka, topics, 2).changed == [topics.raw("cdr")]
    assert _until(lambda: check_topics(parts.kafka, topics, 2), [])


def _until(ask: Callable[[], list[str]], wanted: list[str]) -> bool:
    """Kafka answers a change before every broker's view shows it."""
    for _ in range(50):
        if ask() == wanted:
            return True
        time.sleep(0.1)
    return False


def test_a_broker_that_is_not_there_is_one_clear_error(topic_prefix: str) -> None:
    with pytest.raises(TopicsError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        check_topics("127.0.0.1:1", Topics(topic_prefix))


def test_schemas_are_registered_found_again_and_checked(parts: Any, topic_prefix: str) -> None:
    topics = Topics(topic_prefix, 1)
    registry = Registry(parts.registry)
    assert len(registry.check_all(topics)) == len(topic_schemas(topics))
    ids = registry.register_all(topics)
    assert registry.register_all(topics) == ids
    again = Registry(parts.registry)
    assert again.check_all(topics) == []
    for topic, schema_id in ids.items():
        assert again.id_for(topic) == schema_id
    assert again.schema(ids[topics.raw("cdr")]) == load_schema("cdr")
    assert again.schema(2_000_000_000) is None


def test_a_change_that_breaks_readers_is_refused_by_name(parts: Any, topic_prefix: str) -> None:
    topics = Topics(topic_prefix, 1)
    registry = Registry(parts.registry)
    registry.register_all(topics)
    broken = load_schema("cdr")
    broken["fields"] = [{"name": "event_uid", "type": "long"}]
    with pytest.raises(RegistryError, match=rf"{topics.raw('cdr')}-value"):
        registry.register(topics.raw("cdr"), broken, "FULL")


def test_a_schema_that_was_never_registered_says_what_to_run(parts: Any, topic_prefix: str) -> None:
    with pytest.raises(RegistryError, match="telestream schemas register"):
        Registry(parts.registry).id_for(Topics(topic_prefix).raw("cdr"))
