"""A position belongs to one topic: one made anew under the old name stops the worker."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import NewTopic
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage

from faust_batch import OffsetOutOfRange, TopicMadeAnew
from faust_batch.topic_ids import TopicIds, stamped, unstamped


def _make_anew(corner: Corner, topic: str) -> None:
    corner.admin.delete_topics([topic])[topic].result(20)
    until(lambda: topic not in corner.admin.list_topics(timeout=10).topics)
    corner.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    until(lambda: topic in corner.admin.list_topics(timeout=10).topics)


def _set_position(corner: Corner, position: TopicPartition) -> None:
    asked = [ConsumerGroupTopicPartitions(corner.prefix + "group", [position])]
    for future in corner.admin.alter_consumer_group_offsets(asked).values():
        future.result(20)


def _committed(corner: Corner, topic: str) -> TopicPartition:
    consumer = Consumer({"bootstrap.servers": corner.bootstrap, "group.id": corner.prefix + "group"})
    found = consumer.committed([TopicPartition(topic, 0)], timeout=20)[0]
    consumer.close()
    return found


def _copied(corner: Corner, source: str, target: str) -> None:
    corner.produce(source, numbered(1, 50))
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: worker.observer.records == 50)
    worker.finish()


def test_a_stage_sees_its_own_metadata_only() -> None:
    assert unstamped(stamped("a" * 32, "1f", '{"n":1}')) == ("a" * 32, '{"n":1}')
    assert unstamped("topic-id=" + "a" * 32 + ';{"n":1}') == ("a" * 32, '{"n":1}')
    assert unstamped('{"n":1}') == (None, '{"n":1}')
    assert unstamped("") == (None, "")


@pytest.mark.parametrize("records", [10, 90])
def test_a_position_in_another_topic_of_this_name_stops_the_worker(corner: Corner, records: int) -> None:
    """As where offsets were carried over from another cluster; Kafka itself drops them together with a topic."""
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, records))
    _set_position(corner, TopicPartition(source, 0, 50, stamped("a" * 32, "1f", "")))
    with pytest.raises(TopicMadeAnew, match=r"in\[0\] was made anew since offset 50 was committed"):
        corner.start("plain", CopyStage([source], target)).ended()
    assert corner.values(target, 0) == []


def test_a_topic_made_anew_under_a_running_worker_is_noticed(corner: Corner) -> None:
    (topic,) = corner.topics("in", partitions=1)
    ids = TopicIds(corner.bootstrap, {})
    ids.pin([topic])
    told: list[BaseException] = []
    ids.watch(told.append, every_s=0.05)
    _make_anew(corner, topic)
    until(lambda: told)
    ids.close()
    assert isinstance(told[0], TopicMadeAnew)
    assert "while it was read" in str(told[0])


def test_a_position_without_an_id_is_accepted_once_and_written_with_it(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    _copied(corner, source, target)
    before = _committed(corner, source)
    topic_id, own = unstamped(before.metadata or "")
    assert topic_id is not None
    old = TopicPartition(source, 0, before.offset, own)
    _set_position(corner, old)
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: unstamped(_committed(corner, source).metadata or "")[0] == topic_id)
    worker.finish()
    assert len(corner.values(target, 0)) == 50


def test_a_log_shorter_than_its_position_says_so(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, 20))
    _set_position(corner, TopicPartition(source, 0, 50, ""))
    with pytest.raises(OffsetOutOfRange, match="its end is 30 offsets short"):
        corner.start("plain", CopyStage([source], target)).ended()
