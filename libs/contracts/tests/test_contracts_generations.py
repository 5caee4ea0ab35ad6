"""Topics of a generation on the real broker: made as raw's are, and removed without touching anything else."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from telestream_contracts import (
    Layout,
    TopicsError,
    apply_topics,
    check_topics,
    delete_generation_topics,
    delete_groups,
    generation_topics,
    group_members,
    layout_of,
    make_generation_topics,
)
from telestream_domain import Topics

pytestmark = pytest.mark.stack


def test_topics_of_a_generation_follow_raw_and_go_alone(parts: Any, topic_prefix: str) -> None:
    first, second = Topics(topic_prefix, 1), Topics(topic_prefix, 2)
    apply_topics(parts.kafka, first, 3)
    layout = layout_of(parts.kafka, first.raw("cdr"))
    assert layout == Layout(partitions=3, replication=1)
    assert sorted(make_generation_topics(parts.kafka, second, layout)) == sorted(generation_topics(second))
    assert make_generation_topics(parts.kafka, second, layout) == []
    assert check_topics(parts.kafka, second, 3) == []

    assert group_members(parts.kafka, [f"{topic_prefix}nobody.g2"]) == {}
    assert delete_groups(parts.kafka, [f"{topic_prefix}nobody.g2"]) == []
    assert delete_generation_topics(parts.kafka, second) == sorted(generation_topics(second))
    assert delete_generation_topics(parts.kafka, second) == []
    there = set(AdminClient({"bootstrap.servers": parts.kafka}).list_topics(timeout=10).topics)
    assert set(generation_topics(first)) <= there
    assert first.raw("cdr") in there


def test_a_generation_owns_what_bears_its_number_and_nothing_else() -> None:
    topics = Topics("t.", 2)
    own = generation_topics(topics)
    assert all(name.endswith(".g2") for name in own)
    assert not {topics.raw("cdr"), topics.ref("cell"), topics.erasures, topics.schemas} & set(own)
    assert not topics.is_derived("t.cdr.enriched.g12")
    assert not topics.is_derived("other.cdr.enriched.g2")


def test_a_raw_topic_that_is_not_there_is_named(parts: Any, topic_prefix: str) -> None:
    with pytest.raises(TopicsError, match=r"cdr\.raw: no such topic; run"):
        layout_of(parts.kafka, f"{topic_prefix}cdr.raw")
