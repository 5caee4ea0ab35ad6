"""A rebalance takes every partition from every worker: those that come back as they were are not restored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from faust_batch_corner import Corner, Running, numbered, until
from faust_batch_worker import CopyStage, Seen

from faust_batch import Batch, Output, PartitionStopped, Source

pytestmark = pytest.mark.stack

# members that leave are missed at once; `range` deals out by their names
DYNAMIC = {"consumer_options": {"group.instance.id": ""}}


def positions(corner: Corner, topic: str) -> list[int]:
    return [offset for _, (offset, _) in sorted(corner.committed(topic).items())]


def commit_as_a_stranger(corner: Corner, topic: str, offset: int) -> None:
    """A commit of partition 0 by nobody of the group: as by a worker that had it meanwhile. The text stays the same."""
    whose = {"bootstrap.servers": corner.bootstrap, "group.id": corner.prefix + "group", "log_level": 0}
    producer = Producer({"bootstrap.servers": corner.bootstrap, "transactional.id": corner.prefix + "stranger"})
    producer.init_transactions(20)
    producer.begin_transaction()
    consumer = Consumer(whose)
    found = consumer.committed([TopicPartition(topic, 0)], timeout=20)[0].metadata or ""
    at = found.index("commit=") + len("commit=")
    metadata = f"{found[:at]}{'0' * 16}{found[at + 16 :]}"
    positions = [TopicPartition(topic, 0, offset, metadata=metadata)]
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 20)
    producer.commit_transaction(20)
    consumer.close()


def when_revoked(worker: Running, act: Callable[[], Any]) -> None:
    """Act once, between the worker's next revocation and the assignment after it."""

    def on_revoked(sources: Sequence[Source]) -> None:
        worker.observer.on_revoked = lambda _: None  # type: ignore[method-assign]
        act()

    worker.observer.on_revoked = on_revoked  # type: ignore[method-assign]


def begun(corner: Corner, source: str, target: str, stage: CopyStage | None = None) -> Any:
    """A worker that has judged a hundred records of each of two partitions, all of it committed."""
    corner.produce(source, numbered(2, 100))
    worker = corner.start("plain", stage or CopyStage([source], target), 0, **DYNAMIC)
    until(lambda: positions(corner, source) == [100, 100])
    return worker


def test_what_comes_back_untouched_is_kept_and_what_another_had_is_restored(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    first, second = Source(source, 0), Source(source, 1)

    def send(values: Sequence[bytes]) -> None:  # a control record stands behind them
        with corner.transaction() as put:
            for partition in (0, 1):
                put(source, partition, *values)

    def copied(count: int) -> bool:
        return all(json.loads(text or "{}").get("records") == count for _, text in corner.committed(source).values())

    send([b"a"] * 50)
    stays = corner.start("plain", CopyStage([source], target, tick_every_ms=300), 0, **DYNAMIC)
    until(lambda: copied(50))
    comes = corner.start("plain", CopyStage([source], target, tick_every_ms=300), 1, **DYNAMIC)
    until(lambda: comes.stage.restored)
    assert [s for s, _ in stays.stage.restored] == [first, second]
    assert stays.stage.given_up == [second]
    send([b"b"] * 50)
    until(lambda: copied(100))
    comes.finish()
    until(lambda: len(stays.stage.restored) == 3)
    send([b"c"] * 50)
    until(lambda: copied(150))
    stays.finish()
    assert [s for s, _ in stays.stage.restored] == [first, second, second]
    assert sorted(stays.stage.given_up) == [first, second, second]
    assert comes.stage.given_up == [second]
    for partition, (_, text) in corner.committed(source).items():
        values = corner.values(target, partition)
        assert [value for value in values if value != b"tick"] == [b"a"] * 50 + [b"b"] * 50 + [b"c"] * 50
        assert json.loads(text or "") == {"records": 150, "ticks": values.count(b"tick")}


@pytest.mark.parametrize("offset", [100, 90])
def test_a_partition_that_was_committed_for_meanwhile_is_restored(corner: Corner, offset: int) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    stays = begun(corner, source, target)
    when_revoked(stays, lambda: commit_as_a_stranger(corner, source, offset))
    comes = corner.start("plain", CopyStage([source], target), 1, **DYNAMIC)
    until(lambda: comes.stage.restored and len(stays.stage.restored) == 3)
    again, committed = stays.stage.restored[-1]
    assert again == Source(source, 0)
    assert committed is not None
    assert (committed.offset, json.loads(committed.metadata)) == (offset, {"records": 100, "ticks": 0})
    assert sorted(stays.stage.given_up) == [Source(source, 0), Source(source, 1)]
    comes.finish()
    stays.finish()


def test_a_worker_that_stops_before_its_partitions_come_back_gives_each_up_once(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    stays = begun(corner, source, target)
    when_revoked(stays, stays.stop.set)
    comes = corner.start("plain", CopyStage([source], target), 1, **DYNAMIC)
    stays.ended()
    assert sorted(stays.stage.given_up) == [Source(source, 0), Source(source, 1)]
    until(lambda: len(comes.stage.restored) >= 2)
    comes.finish()
    assert corner.all_values(target) == numbered(2, 100)


@dataclass
class Stopping(CopyStage):
    stopped: bool = False

    def on_batch(self, batch: Batch, state: Seen) -> tuple[Sequence[Output], Seen]:
        if b"stop" in batch.values:
            self.stopped = True
            raise PartitionStopped("no further")
        return super().on_batch(batch, state)


def test_a_stopped_partition_is_restored_when_it_comes_back(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    stays = begun(corner, source, target, Stopping([source], target))
    corner.produce(source, {0: [b"stop"], 1: [b"go"]})
    until(lambda: positions(corner, source) == [100, 101] and stays.stage.stopped)
    comes = corner.start("plain", CopyStage([source], target), 1, **DYNAMIC)
    until(lambda: comes.stage.restored and len(stays.stage.restored) == 3)
    assert stays.stage.restored[-1][0] == Source(source, 0)
    assert sorted(stays.stage.given_up) == [Source(source, 0), Source(source, 1)]
    comes.finish()
    stays.finish()
