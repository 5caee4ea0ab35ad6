"""What decides, without Kafka: chains, rounds, the size of fetches, settings."""

from __future__ import annotations

import numpy as np
import pytest
from confluent_kafka import Message

from faust_batch import Batch, ConfigInvalid, Source, WorkerConfig
from faust_batch.chain import Chain
from faust_batch.fetch import Appetite, Grouper, batch_of, before, not_before
from faust_batch.rounds import CommitPolicy, Round

SOURCE = Source("t", 0)


def batch(first: int, count: int, epoch: int = 1) -> Batch:
    return Batch(
        source=SOURCE,
        offsets=np.arange(first, first + count),
        timestamps_ms=np.zeros(count, np.int64),
        keys=[None] * count,
        values=[b"v"] * count,
        next_offset=first + count,
        high_watermark=first + count,
        epoch=epoch,
        nbytes=count,
    )


def message(topic: str, partition: int, offset: int, value: bytes = b"v") -> Message:
    return Message(
        topic=topic, partition=partition, offset=offset, key=None, value=value, timestamp=(1, 1_000 + offset)
    )


def test_only_the_oldest_batch_of_a_partition_may_be_judged() -> None:
    chain = Chain.starting_at(SOURCE, epoch=1, position=0)
    first, second = batch(0, 10), batch(10, 10)
    chain.append(first)
    chain.append(second)
    assert chain.follows(first)
    assert not chain.follows(second)
    assert not chain.follows(batch(0, 10))
    chain.judged()
    assert chain.position == 10
    assert not chain.follows(first)
    assert chain.follows(second)


def test_a_batch_of_an_earlier_assignment_is_refused() -> None:
    chain = Chain.starting_at(SOURCE, epoch=2, position=0)
    old = batch(0, 10, epoch=1)
    chain.append(batch(0, 10, epoch=2))
    assert not chain.follows(old)


def test_control_records_are_stepped_over_only_when_nothing_waits() -> None:
    chain = Chain.starting_at(SOURCE, epoch=1, position=0)
    chain.append(batch(0, 10))
    assert not chain.reached(11)
    chain.judged()
    assert chain.reached(11)
    assert chain.position == chain.fetched == 11
    assert not chain.reached(11)
    assert not chain.reached(5)


def test_held_bytes_are_those_of_unjudged_batches() -> None:
    chain = Chain.starting_at(SOURCE, epoch=1, position=0)
    chain.append(batch(0, 10))
    chain.append(batch(10, 5))
    assert chain.held_bytes == 15
    chain.judged()
    assert chain.held_bytes == 5


def test_a_round_is_committed_when_old_or_large_and_when_idle_not_too_often() -> None:
    policy = CommitPolicy(interval_s=0.1, max_records=100, max_bytes=1_000)
    empty, round_ = Round(), Round()
    round_.add(SOURCE, records=10, nbytes=10, now=5.0)
    assert not policy.full(empty, 9.0)
    assert not policy.full(round_, 5.05)
    assert policy.full(round_, 5.2)
    assert policy.due_when_idle(round_, 5.01, last_commit_at=4.0)
    assert not policy.due_when_idle(round_, 5.01, last_commit_at=4.95)
    assert not policy.due_when_idle(empty, 9.0, last_commit_at=0.0)
    round_.add(SOURCE, records=90, nbytes=10, now=5.02)
    assert policy.full(round_, 5.03)


def test_messages_are_grouped_by_topic_and_partition_in_their_order() -> None:
    messages = [
        message("a", 0, 1),
        message("a", 0, 2),
        message("b", 0, 7),
        message("a", 1, 4),
        message("a", 0, 3),
        message("b", 1, 9),
    ]
    fetch = Grouper(["a", "b"]).group(messages)
    assert {source: [m.offset() for m in found] for source, found in fetch.messages.items()} == {
        Source("a", 0): [1, 2, 3],
        Source("b", 0): [7],
        Source("a", 1): [4],
        Source("b", 1): [9],
    }
    assert fetch.count == 6


def test_a_batch_has_the_columns_of_its_messages() -> None:
    messages = [message("a", 0, 3, b"xyz"), message("a", 0, 7, b"u")]
    made = batch_of(Source("a", 0), messages, end=None, high_watermark=0, epoch=4)
    assert made.offsets.tolist() == [3, 7]
    assert made.timestamps_ms.tolist() == [1_003, 1_007]
    assert made.values == [b"xyz", b"u"]
    assert (made.next_offset, made.high_watermark, made.nbytes, made.epoch) == (8, 8, 4, 4)
    assert batch_of(Source("a", 0), messages, end=9, high_watermark=20, epoch=4).next_offset == 9


def test_what_was_fetched_before_is_cut_off() -> None:
    messages = [message("a", 0, 3), message("a", 0, 7)]
    assert not_before(messages, 3) is messages
    assert [m.offset() for m in not_before(messages, 4)] == [7]
    assert before(messages, 8) is messages
    assert [m.offset() for m in before(messages, 7)] == [3]


def test_a_fetch_asks_for_fewer_messages_when_they_are_large() -> None:
    appetite = Appetite(max_records=20_000, max_bytes=1_000_000)
    assert appetite.records == 1_000
    appetite.saw(100, 10_000)
    assert appetite.records == 10_000
    appetite.saw(10, 1_000_000)
    assert appetite.records == 10


def test_all_mistakes_of_a_configuration_are_named_together() -> None:
    with pytest.raises(ConfigInvalid, match=r"group is empty; max_batch_bytes must be positive"):
        WorkerConfig("b", "", "i", "t", max_batch_bytes=0)
    with pytest.raises(ConfigInvalid, match="half of transaction_timeout_ms"):
        WorkerConfig("b", "g", "i", "t", commit_interval_ms=6_000)


def test_correctness_cannot_be_configured_away() -> None:
    config = WorkerConfig("b", "g", "i", "t", client_options={"enable.auto.commit": "true", "isolation.level": "x"})
    assert config.consumer_settings()["enable.auto.commit"] is False
    assert config.consumer_settings()["isolation.level"] == "read_committed"
    assert config.producer_settings()["transactional.id"] == "t"


def test_the_new_group_protocol_takes_its_timeouts_from_the_broker() -> None:
    settings = WorkerConfig("b", "g", "i", "t", consumer_options={"group.protocol": "consumer"}).consumer_settings()
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & settings.keys()
