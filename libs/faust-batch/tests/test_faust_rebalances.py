"""Members that come and go, on a real Kafka: nothing lost, doubled or out of order, and no partition left behind."""

from __future__ import annotations

import logging
import random
import threading
import time

import faust_misbehaviour as misbehaviour
import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage
from faust_misbehaviour import COOPERATIVE, DYNAMIC, Restarting

from faust_batch import Source

pytestmark = pytest.mark.stack

# a commit may fall between the group's new generation and the news of it; the worker then starts again
HARMLESS = ("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "STALE_MEMBER_EPOCH")


def position(corner: Corner, topic: str) -> int:
    return sum(max(offset, 0) for offset, _ in corner.committed(topic).values())


def only_harmless(complaints: list[str]) -> bool:
    return all(any(name in complaint for name in HARMLESS) for complaint in complaints)


def feed(corner: Corner, topic: str, values: dict[int, list[bytes]], seconds: float) -> threading.Thread:
    steps = 20
    share = len(values[0]) // steps

    def run() -> None:
        for step in range(steps):
            corner.produce(topic, {p: part[step * share : (step + 1) * share] for p, part in values.items()})
            time.sleep(seconds / steps)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_batch_of_an_earlier_assignment_is_refused_and_holds_nobody_up(
    corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "faust_batch")
    first, second, target = corner.topics("in-a", "in-b", "out", partitions=1)
    values = {topic: [b"%s|%d" % (topic[-1:].encode(), i) for i in range(600)] for topic in (first, second)}
    for topic, part in values.items():
        corner.produce(topic, {0: part[:50]})

    class Late(misbehaviour.Late):
        gate, held = threading.Event(), []

    # each topic's agent sits on a batch, and the little that may be held is held: the partitions are paused
    slow = misbehaviour.start(
        corner, Late, CopyStage([first, second], target), 0, max_batch_records=50, max_held_bytes=2_000, **COOPERATIVE
    )
    until(lambda: len({batch.source for batch in Late.held}) == 2)
    for topic, part in values.items():
        corner.produce(topic, {0: part[50:]})
    until(lambda: "partitions paused" in caplog.text)
    quick = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([first, second], target), 1, **COOPERATIVE)
    until(lambda: quick.observer.records == 600)
    (moved,) = [source for source, _ in quick.stage.restored]
    quick.finish()
    until(lambda: [source for source, _ in slow.stage.restored].count(moved) == 2)
    Late.gate.set()
    until(lambda: position(corner, first) + position(corner, second) == 1_200)
    slow.finish()
    refused = {(batch.source, batch.epoch) for batch in slow.runner.made.refused}
    assert (moved, min(batch.epoch for batch in Late.held if batch.source == moved)) in refused
    copied = corner.values(target, 0)
    for part in values.values():
        assert [value for value in copied if value in set(part)] == part
    assert len(copied) == 1_200


class Lingering(misbehaviour.Late):
    """Counts what is given out once more because Faust has dropped it."""

    again_given = 0

    def again(self) -> None:
        type(self).again_given += len(self._taken)
        super().again()


def test_what_faust_drops_at_a_rebalance_is_given_out_again(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=4)
    values = numbered(4, 400)
    corner.produce(source, {p: part[:200] for p, part in values.items()})

    class Late(Lingering):
        gate, held = threading.Event(), []

    # the agent sits on a batch of one partition, those of the others wait in Faust's queue
    slow = misbehaviour.start(corner, Late, CopyStage([source], target), 0, max_batch_records=100, **COOPERATIVE)
    until(lambda: Late.held and len(slow.runner.made._taken) == 4)
    quick = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target), 1, **COOPERATIVE)
    until(lambda: len(slow.runner.made.assignment) == 2 and quick.observer.records == 400)
    until(lambda: Late.again_given >= 1)
    Late.gate.set()
    until(lambda: position(corner, source) == 800)
    corner.produce(source, {p: part[200:] for p, part in values.items()})
    until(lambda: position(corner, source) == 1_600)
    quick.finish()
    slow.finish()
    assert corner.all_values(target) == values
    judged = sum(quick.stage.batch_sizes) + sum(slow.stage.batch_sizes)
    assert judged == 1_600


def test_three_workers_come_and_go_under_load(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=6)
    values = numbered(6, 4_000)
    feeding = feed(corner, source, values, 6.0)
    first, second = (Restarting(corner, source, target, n, max_batch_records=200, **DYNAMIC) for n in range(2))
    until(lambda: first.partitions and second.partitions)
    third = Restarting(corner, source, target, 2, max_batch_records=200, **DYNAMIC)
    until(lambda: third.partitions)
    time.sleep(0.5)
    second.stop()
    until(lambda: len(first.partitions | third.partitions) == 6)
    first.stop()
    until(lambda: len(third.partitions) == 6)
    feeding.join()
    until(lambda: position(corner, source) == 24_000)
    third.stop()
    assert corner.all_values(target) == values
    complaints = first.complaints + second.complaints + third.complaints
    assert only_harmless(complaints), complaints
    if not complaints:  # what was judged is committed before its partition goes, so nothing is judged twice
        assert first.records + second.records + third.records == 24_000
        judged = [life.stage.batch_sizes for worker in (first, second, third) for life in worker.lives]
        assert sum(map(sum, judged)) == 24_000


def storm(corner: Corner, seconds: float, pause_s: float, seed: int) -> None:
    """Members come and go so fast that one rebalance overtakes the other; then calm."""
    chance = random.Random(seed)
    source, target = corner.topics("in", "out", partitions=6)
    values = numbered(6, int(400 * seconds) // 20 * 20)
    feeding = feed(corner, source, values, seconds)
    steady = Restarting(corner, source, target, 0, max_batch_records=200, **DYNAMIC)
    others: dict[int, Restarting] = {}
    gone: list[Restarting] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        number = chance.randrange(1, 4)
        if number in others:
            gone.append(others.pop(number))
            gone[-1].stop()
        else:
            others[number] = Restarting(corner, source, target, number, max_batch_records=200, **DYNAMIC)
        time.sleep(pause_s * chance.uniform(0.5, 1.5))
    feeding.join()
    before = {p: len(part) for p, part in values.items()}
    more = {p: [b"calm|%d|%d" % (p, i) for i in range(500)] for p in values}
    corner.produce(source, more)
    until(lambda: {p: o for p, (o, _) in corner.committed(source).items()} == {p: n + 500 for p, n in before.items()})
    workers = [steady, *others.values(), *gone]
    for worker in workers[: 1 + len(others)]:
        worker.stop()
    assert corner.all_values(target) == {p: values[p] + more[p] for p in values}
    complaints = [complaint for worker in workers for complaint in worker.complaints]
    assert only_harmless(complaints), complaints


def test_every_partition_goes_on_after_rebalances_that_overtook_each_other(corner: Corner) -> None:
    storm(corner, seconds=5.0, pause_s=0.4, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [2, 3])
def test_every_partition_goes_on_after_a_long_storm(corner: Corner, seed: int) -> None:
    storm(corner, seconds=60.0, pause_s=2.0 if seed == 2 else 0.7, seed=seed)


def test_a_worker_that_restarts_under_its_name_moves_no_partition(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    stays = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target), 0)
    restarts = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target), 1)
    until(lambda: len(set(stays.stage.restored)) and restarts.stage.restored)
    until(lambda: {len(w.runner.made.assignment) for w in (stays, restarts)} == {1})
    restored = len(stays.stage.restored)
    corner.produce(source, numbered(2, 500))
    until(lambda: position(corner, source) == 1_000)
    restarts.finish()
    corner.produce(source, {p: part[500:] for p, part in numbered(2, 1_000).items()})
    again = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target), 1)
    until(lambda: position(corner, source) == 2_000)
    assert len(stays.stage.restored) == restored
    assert len(again.stage.restored) == 1
    again.finish()
    stays.finish()
    assert corner.all_values(target) == numbered(2, 1_000)


def test_a_member_without_partitions_takes_over_when_another_leaves(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 1_000)
    workers = [Restarting(corner, source, target, number, **DYNAMIC) for number in range(3)]
    until(lambda: sorted(len(worker.partitions) for worker in workers) == [0, 1, 1])
    corner.produce(source, {p: part[:500] for p, part in values.items()})
    until(lambda: position(corner, source) == 1_000)
    idle = next(worker for worker in workers if not worker.partitions)
    assert idle.records == 0
    busy = [worker for worker in workers if worker is not idle]
    busy[0].stop()
    until(lambda: idle.partitions)
    corner.produce(source, {p: part[500:] for p, part in values.items()})
    until(lambda: position(corner, source) == 2_000)
    assert idle.records == 500
    for worker in (busy[1], idle):
        worker.stop()
    assert corner.all_values(target) == values


KIP_848 = {"consumer_options": {"group.protocol": "consumer", "group.instance.id": ""}}


def test_the_new_group_protocol_works_as_a_setting(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 2_000)
    corner.produce(source, values)
    worker = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target), **KIP_848)
    until(lambda: position(corner, source) == 4_000)
    worker.finish()
    assert corner.all_values(target) == values


@pytest.mark.faults
def test_members_come_and_go_under_the_new_group_protocol(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=6)
    values = numbered(6, 10_000)
    feeding = feed(corner, source, values, 40.0)
    workers = [Restarting(corner, source, target, n, max_batch_records=200, **KIP_848) for n in range(2)]
    until(lambda: all(worker.partitions for worker in workers))
    workers.append(Restarting(corner, source, target, 2, max_batch_records=200, **KIP_848))
    until(lambda: all(worker.partitions for worker in workers))
    workers[0].stop()
    until(lambda: len(workers[1].partitions | workers[2].partitions) == 6)
    workers[1].stop()
    until(lambda: len(workers[2].partitions) == 6)
    feeding.join()
    until(lambda: position(corner, source) == 60_000)
    workers[2].stop()
    assert corner.all_values(target) == values
    complaints = [complaint for worker in workers for complaint in worker.complaints]
    assert only_harmless(complaints), complaints


def test_two_topics_have_an_agent_each_and_commit_apart(corner: Corner) -> None:
    first, second, target = corner.topics("in-a", "in-b", "out", partitions=1)
    for topic in (first, second):
        corner.produce(topic, {0: [b"%d" % i for i in range(300)]})

    class Half(misbehaviour.Late):
        gate, held = threading.Event(), []

        async def act(self, batch: misbehaviour.Batch) -> bool:
            return await super().act(batch) if batch.source.topic == first else True

    worker = misbehaviour.start(corner, Half, CopyStage([first, second], target))
    until(lambda: position(corner, second) == 300)
    assert position(corner, first) == 0
    Half.gate.set()
    until(lambda: position(corner, first) == 300)
    worker.finish()
    assert {s for s, _ in worker.stage.restored} == {Source(first, 0), Source(second, 0)}
