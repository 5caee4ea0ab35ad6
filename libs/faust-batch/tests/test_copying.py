"""Both runners on a real Kafka, in health."""

from __future__ import annotations

import json
import time

import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage

from faust_batch import Committed, Source

pytestmark = pytest.mark.stack

runners = pytest.mark.parametrize("runner", ["plain", "faust"])


@runners
def test_a_copy_is_exact_and_in_order(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 12_500)
    corner.produce(source, values)
    worker = corner.start(runner, CopyStage([source], target))
    until(lambda: worker.observer.records == 50_000)
    worker.finish()
    assert corner.all_values(target) == values
    assert {p: offset for p, (offset, _) in corner.committed(source).items()} == dict.fromkeys(range(4), 12_500)
    assert sorted(worker.stage.given_up) == [Source(source, p) for p in range(4)]


@runners
def test_two_topics_are_copied_side_by_side(corner: Corner, runner: str) -> None:
    first, second, target = corner.topics("in-a", "in-b", "out", partitions=2)
    values = numbered(2, 3_000)
    corner.produce(first, values)
    corner.produce(second, {p: [b"b" + value for value in part] for p, part in values.items()})
    worker = corner.start(runner, CopyStage([first, second], target))
    until(lambda: worker.observer.records == 12_000)
    worker.finish()
    for partition, copied in corner.all_values(target).items():
        assert [v for v in copied if v is not None and v[:1] != b"b"] == values[partition]
        assert [v[1:] for v in copied if v is not None and v[:1] == b"b"] == values[partition]


@runners
def test_state_travels_in_the_commit_and_comes_back_on_restore(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    for start in range(2):
        corner.produce(source, numbered(2, 100))
        worker = corner.start(runner, CopyStage([source], target))
        until(lambda worker=worker: worker.observer.records == 200)
        worker.finish()
        found = dict(worker.stage.restored)
        if start == 0:
            assert found == {Source(source, 0): None, Source(source, 1): None}
        else:
            text = json.dumps({"records": 100, "ticks": 0})
            assert found == {Source(source, p): Committed(100, text) for p in range(2)}
    metadata = json.dumps({"records": 200, "ticks": 0})
    assert corner.committed(source) == {0: (200, metadata), 1: (200, metadata)}


@runners
def test_an_idle_worker_commits_what_the_clock_asks_for(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    worker = corner.start(runner, CopyStage([source], target, tick_every_ms=300))
    until(lambda: all(len(copied) >= 3 for copied in corner.all_values(target).values()))
    worker.finish()
    ticks = {partition: len(copied) for partition, copied in corner.all_values(target).items()}
    assert {
        partition: json.loads(metadata or "")["ticks"] for partition, (_, metadata) in corner.committed(source).items()
    } == ticks


def test_the_start_of_a_partition_without_records_is_committed(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: {offset for offset, _ in corner.committed(source).values()} == {0})
    worker.finish()


def test_a_trickle_makes_few_transactions_and_is_not_held_back(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: worker.observer.rounds)
    before, started = len(worker.observer.rounds), time.monotonic()
    for number in range(100):
        corner_send(corner, source, b"%d" % number)
        time.sleep(0.02)
    until(lambda: worker.observer.records == 100)
    seconds = time.monotonic() - started
    assert len(worker.observer.rounds) - before <= seconds * 10 + 2
    worker.finish()
    assert corner.values(target, 0) == [b"%d" % number for number in range(100)]


def corner_send(corner: Corner, topic: str, value: bytes) -> None:
    corner.produce(topic, {0: [value]})


@runners
def test_holes_and_aborted_records_of_a_transactional_upstream_are_stepped_over(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    wanted = []
    for number in range(6):
        values = [b"%d-%d" % (number, i) for i in range(50)]
        with corner.transaction(commit=number % 3 != 1) as send:
            send(source, 0, *values)
        if number % 3 != 1:
            wanted += values
    worker = corner.start(runner, CopyStage([source], target))
    until(lambda: worker.observer.records == len(wanted))
    time.sleep(0.5)
    worker.finish()
    assert corner.values(target, 0) == wanted
    # six markers of six transactions: the last one is behind the last record, and the position behind the marker
    assert corner.committed(source)[0][0] == 6 * 50 + 6


@runners
def test_bytes_held_are_bounded_while_the_stage_is_slow(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 5_000)
    corner.produce(source, values)
    worker = corner.start(
        runner,
        CopyStage([source], target, sleep_s=0.02),
        max_batch_bytes=50_000,
        max_batch_records=500,
        max_held_bytes=100_000,
    )
    until(lambda: worker.observer.records == 20_000)
    worker.finish()
    assert corner.all_values(target) == values
    # one fetch may come on top of the limit: the first ones are of unknown size
    assert worker.runner.held_peak_bytes <= 100_000 + 1_000 * 120


def test_partitions_are_paused_while_agents_hold_too_much_and_go_on_afterwards(corner: Corner) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 200)
    corner.produce(source, values)
    worker = corner.start("faust", CopyStage([source], target, sleep_s=0.3), max_held_bytes=10_000)
    until(lambda: worker.observer.records == 800)
    assert worker.runner.pauses > 0
    corner.produce(source, {0: [b"late"]})
    until(lambda: worker.observer.records == 801)
    worker.finish()
    assert corner.all_values(target) == {**values, 0: [*values[0], b"late"]}


def test_a_worker_that_comes_after_the_records_starts_at_the_first(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, 10))
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: worker.observer.records == 10)
    worker.finish()
    assert corner.values(target, 0) == numbered(1, 10)[0]
