"""A worker killed at each step of a round: after its restart nothing is lost, doubled or out of order."""

from __future__ import annotations

import json
import signal

import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_struck_worker import STEPS
from faust_batch_worker import CopyStage

pytestmark = pytest.mark.stack

PARTITIONS, RECORDS = 2, 3_000


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("runner", ["plain", pytest.param("faust", marks=pytest.mark.faults)])
def test_a_worker_killed_at_a_step_of_a_round_loses_and_doubles_nothing(corner: Corner, runner: str, step: str) -> None:
    source, target = corner.topics("in", "out", partitions=PARTITIONS)
    values = numbered(PARTITIONS, RECORDS)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.01}
    # the third time: rounds were committed before
    killed = corner.spawn(runner, stage, strike={"step": step, "at": 3}, max_batch_records=200, max_round_records=400)
    assert killed.ended() == -signal.SIGKILL, killed.said
    heir = corner.start(runner, CopyStage([source], target))
    until(lambda: sum(offset for offset, _ in corner.committed(source).values()) == PARTITIONS * RECORDS)
    heir.finish()
    restored = {source.partition: committed.offset for source, committed in heir.stage.restored if committed}
    assert 0 < sum(restored.values()) < PARTITIONS * RECORDS, "it was to be killed in the middle"
    assert corner.all_values(target) == values
    for _, metadata in corner.committed(source).values():
        assert json.loads(metadata or "")["records"] == RECORDS
