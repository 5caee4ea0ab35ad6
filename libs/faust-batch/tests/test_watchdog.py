"""Only a wedged worker is ended: not an idle one, not one whose broker is away."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from faust_batch_broker import Broker
from faust_batch_corner import Corner, Process, numbered, until
from faust_batch_worker import CopyStage

from faust_batch import Condition

pytestmark = pytest.mark.stack

runners = pytest.mark.parametrize("runner", ["plain", pytest.param("faust", marks=pytest.mark.faults)])


@runners
def test_a_worker_stuck_in_its_stage_ends_with_a_line_that_says_where(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, 10))
    stage = {"topics": [source], "target": target, "sleep_s": 600.0}
    worker = corner.spawn(runner, stage, wedged_after_s=3.0)
    assert worker.ended(30) == -signal.SIGKILL
    assert f"wedged: judging {source}[0] offsets 0..9: not done after" in worker.said.splitlines()[-1]
    assert corner.committed(source)[0][0] <= 0


def test_a_worker_whose_consumer_brings_nothing_although_there_is_something_ends(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, 2_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target}
    worker = corner.spawn("plain", stage, strike={"step": "deaf", "at": 1}, max_batch_records=500, wedged_after_s=3.0)
    assert worker.ended(30) == -signal.SIGKILL
    last = worker.said.splitlines()[-1]
    assert f"wedged: {source}[0]: position" in last
    assert "records behind" in last
    healed = corner.start("plain", CopyStage([source], target))
    until(lambda: corner.committed(source)[0][0] == 2_000)
    healed.finish()
    assert corner.values(target, 0) == values[0]


def test_an_idle_worker_is_idle_for_as_long_as_nothing_comes(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    worker = corner.spawn("plain", {"topics": [source], "target": target}, wedged_after_s=2.0).ready()
    witness = corner.start("plain", CopyStage([source], target), 1)
    until(lambda: witness.runner.health().condition is Condition.IDLE)
    time.sleep(3.5)
    assert witness.runner.health().condition is Condition.IDLE
    corner.produce(source, numbered(2, 100))
    until(lambda: sum(max(offset, 0) for offset, _ in corner.committed(source).values()) == 200)
    witness.finish()
    assert worker.stop() == 0


def test_an_open_transaction_upstream_makes_no_worker_wedged(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    worker = corner.spawn("plain", {"topics": [source], "target": target}, wedged_after_s=2.0).ready()
    with corner.transaction() as send:
        send(source, 0, b"a", b"b")
        time.sleep(3.5)
        assert worker.popen.poll() is None, worker.said
    until(lambda: corner.values(target, 0) == [b"a", b"b"])
    assert worker.stop() == 0


@pytest.mark.faults
@pytest.mark.parametrize("runner", ["plain", "faust"])
def test_an_idle_worker_outlives_a_broker_that_is_away(own_corner: Corner, broker: Broker, runner: str) -> None:
    worker = outlives(own_corner, broker, runner)
    assert "waiting: the broker is away" in worker.said
    assert worker.stop() == 0


@pytest.mark.faults
@pytest.mark.xfail(strict=True, reason="librdkafka 5511: the coordinator it threw away is waited for, for ever")
def test_librdkafka_finds_the_coordinator_again_after_it_started_from_the_bootstrap_servers(
    own_corner: Corner, broker: Broker
) -> None:
    """Once this passes, `metadata.recovery.strategy` in the producer's settings has had its day."""
    outlives(own_corner, broker, "plain", producer_options={"metadata.recovery.strategy": "rebootstrap"})


def outlives(corner: Corner, broker: Broker, runner: str, **config: Any) -> Process:
    """An idle worker whose broker was away twice, and which then judged records."""
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 100)
    worker = corner.spawn(runner, {"topics": [source], "target": target}, wedged_after_s=3.0, **config).ready()
    until(lambda: sum(offset for offset, _ in corner.committed(source).values()) == 0)
    for end in (broker.kill, broker.stop):
        end()
        time.sleep(8)
        broker.start()
    corner.produce(source, values)
    until(lambda: worker.popen.poll() is not None or corner.all_values(target) == values, 90, every_s=0.5)
    assert worker.popen.poll() is None, worker.said
    return worker
