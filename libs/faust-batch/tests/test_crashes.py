"""Workers as processes on a real Kafka: killed, failing, stopped, replaced. Nothing lost, doubled or out of order."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage

from faust_batch import OffsetOutOfRange, TopicMissing, end_offsets

pytestmark = pytest.mark.stack

runners = pytest.mark.parametrize("runner", ["plain", "faust"])


def copied_at_least(corner: Corner, target: str, records: int) -> bool:
    return sum(end_offsets(corner.bootstrap, [target]).values()) >= records


def position(corner: Corner, topic: str) -> int:
    return sum(max(offset, 0) for offset, _ in corner.committed(topic).values())


@runners
def test_a_worker_killed_in_the_middle_goes_on_where_it_was(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 10_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.02}
    chance = random.Random(7)
    for kill in range(3):
        worker = corner.spawn(runner, stage, max_batch_records=500)
        until(lambda kill=kill: copied_at_least(corner, target, 1_500 * (kill + 1)))
        time.sleep(chance.random() * 0.2)
        worker.kill()
    assert position(corner, source) < 40_000
    last = corner.spawn(runner, {**stage, "sleep_s": 0.0})
    until(lambda: position(corner, source) == 40_000)
    assert last.stop() == 0
    assert corner.all_values(target) == values


@runners
def test_a_stage_that_raises_ends_the_worker_and_skips_nothing(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, 3_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target}
    worker = corner.spawn(runner, {**stage, "fail_at": values[0][2_100].decode()}, max_batch_records=500)
    assert worker.ended() == 1
    assert "StageFailed" in worker.said
    assert f"judging {source}[0] offsets" in worker.said
    before = position(corner, source)
    assert before <= 2_100
    assert corner.values(target, 0) == values[0][:before]
    healed = corner.spawn(runner, stage)
    until(lambda: position(corner, source) == 3_000)
    assert healed.stop() == 0
    assert corner.values(target, 0) == values[0]


@runners
def test_a_message_that_is_too_large_ends_the_worker_and_its_round_is_not_seen(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, 1_000)
    corner.produce(source, values)
    worker = corner.spawn(runner, {"topics": [source], "target": target, "swell_at": values[0][500].decode()})
    assert worker.ended() == 1
    assert "OutputRefused" in worker.said
    assert f"{target}[0]: the producer refused a message of up to 3000001 bytes" in worker.said
    before = position(corner, source)
    assert before <= 500
    assert corner.values(target, 0) == values[0][:before]


@runners
def test_sigterm_drains_and_exits_cleanly(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 10_000)
    corner.produce(source, values)
    worker = corner.spawn(runner, {"topics": [source], "target": target, "sleep_s": 0.02}, max_batch_records=500)
    until(lambda: copied_at_least(corner, target, 2_000))
    assert worker.stop() == 0, worker.said
    copied = corner.all_values(target)
    assert {p: len(part) for p, part in copied.items()} == {p: o for p, (o, _) in corner.committed(source).items()}
    assert all(part == values[p][: len(part)] for p, part in copied.items())


def test_a_worker_that_does_not_stop_in_time_kills_itself(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, 10))
    stage = {"topics": [source], "target": target, "sleep_s": 60.0}
    worker = corner.spawn("faust", stage, drain_timeout_s=1.0).ready()
    time.sleep(2)
    assert worker.stop(10) == -signal.SIGKILL
    assert "not stopped within 1 s" in worker.said
    assert corner.committed(source)[0][0] <= 0


def test_workers_that_join_and_leave_under_load_change_nothing(corner: Corner) -> None:
    source, target = corner.topics("in", "out")
    values = numbered(4, 8_000)
    stage = {"topics": [source], "target": target, "sleep_s": 0.005}
    feeding = threading.Thread(target=feed, args=(corner, source, values, 12.0))
    feeding.start()
    first = corner.supervise("faust", stage, 0, max_batch_records=500)
    others = []
    for _ in range(2):
        # a static member that leaves is missed only after its session
        other = corner.supervise("faust", stage, 1, max_batch_records=500, session_timeout_ms=6_000)
        others.append(other)
        other.current.ready()
        time.sleep(2)
        other.stop()
    feeding.join()
    until(lambda: position(corner, source) == 32_000)
    first.stop()
    assert corner.all_values(target) == values
    assert "revoked" in "".join(life.said for life in first.lives)
    # a commit may fall between the group's new generation and the news of it; the worker then starts again
    for complaint in first.complaints + [c for other in others for c in other.complaints]:
        assert "ILLEGAL_GENERATION" in complaint or "REBALANCE_IN_PROGRESS" in complaint


def feed(corner: Corner, topic: str, values: dict[int, list[bytes]], seconds: float) -> None:
    steps = 40
    for step in range(steps):
        share = len(values[0]) // steps
        corner.produce(topic, {p: part[step * share : (step + 1) * share] for p, part in values.items()})
        time.sleep(seconds / steps)


def test_a_stopped_worker_that_wakes_up_after_its_replacement_is_refused(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 10_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.05}
    zombie = corner.spawn("faust", stage, 0, max_batch_records=200, session_timeout_ms=6_000)
    until(lambda: copied_at_least(corner, target, 1_000))
    zombie.signal(signal.SIGSTOP)
    heir = corner.spawn("faust", {**stage, "sleep_s": 0.0}, 1)
    until(lambda: position(corner, source) == 20_000)
    zombie.signal(signal.SIGCONT)
    assert zombie.ended() == 1, zombie.said
    assert heir.stop() == 0, heir.said
    assert corner.all_values(target) == values


def test_more_workers_than_partitions_leave_one_idle_and_ready(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    stage = {"topics": [source], "target": target}
    workers = [corner.spawn("faust", stage, number).ready() for number in range(2)]
    values = numbered(1, 1_000)
    corner.produce(source, values)
    until(lambda: position(corner, source) == 1_000)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert corner.all_values(target) == values


def test_the_faust_runner_refuses_to_start_without_the_compiled_extension(corner: Corner) -> None:
    stage = {"topics": [corner.prefix + "in"], "target": corner.prefix + "out"}
    worker = corner.spawn("faust", stage, env={"NO_CYTHON": "0"})  # any value switches it off
    assert worker.ended() == 1
    assert "NotCompiled" in worker.said


def test_a_committed_position_that_is_no_longer_in_the_log_stops_the_worker(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, 100)
    corner.produce(source, values)
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: worker.observer.records == 100)
    worker.finish()
    corner.produce(source, values)
    corner.cut(source, 0, 150)
    late = corner.start("plain", CopyStage([source], target))
    with pytest.raises(OffsetOutOfRange, match=r"position 100 is outside the log \[150, 200\]"):
        late.ended()
    assert len(corner.values(target, 0)) == 100


@runners
def test_a_missing_topic_is_named(corner: Corner, runner: str) -> None:
    (target,) = corner.topics("out", partitions=1)
    worker = corner.start(runner, CopyStage([corner.prefix + "nowhere"], target))
    with pytest.raises(TopicMissing, match="nowhere"):
        worker.ended()
