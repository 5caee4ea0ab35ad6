"""A worker that reads a part of a log: from its starts on, up to its ends."""

from __future__ import annotations

import pytest
from faust_batch_corner import Corner, until
from faust_batch_worker import CopyStage

from faust_batch import Condition, OffsetOutOfRange, Source


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


@pytest.mark.stack
@pytest.mark.parametrize("runner", ["plain", pytest.param("faust", marks=pytest.mark.faults)])
def test_partitions_begin_at_their_starts_and_rest_at_their_ends_while_others_go_on(
    corner: Corner, runner: str
) -> None:
    source, target = corner.topics("in", "out", partitions=3)
    corner.produce(source, {0: numbers(0, 30), 2: numbers(0, 10)})
    # the last records before the end of partition 1 are no records at all
    corner.produce(source, {1: numbers(0, 5)})
    with corner.transaction(commit=False) as send:
        send(source, 1, *numbers(5, 9))
    corner.produce(source, {1: numbers(10, 20)})
    limits = {
        "starts": {Source(source, 0): 7, Source(source, 2): 10},
        "ends": {Source(source, 0): 12, Source(source, 1): 9},
        "max_batch_records": 3,
    }
    wanted: dict[int, list[bytes]] = {0: numbers(7, 12), 1: numbers(0, 5), 2: []}
    for life in range(2):
        worker = corner.start(runner, CopyStage([source], target), **limits)
        # what has an end does not wait for it
        corner.produce(source, {p: [b"more"] for p in range(3)})
        wanted[2].append(b"more")
        # health is of the ends that were seen last, so it may be idle before anything was fetched
        until(lambda: all(corner.values(target, p) == wanted[p] for p in range(3)))
        until(lambda worker=worker: worker.runner.health().condition is Condition.IDLE)
        worker.finish()
        assert corner.all_values(target) == wanted, life
        assert [offset for offset, _ in corner.committed(source).values()] == [12, 9, 11 + life]


@pytest.mark.stack
def test_a_start_that_the_log_no_longer_holds_ends_the_worker(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, {0: numbers(0, 20)})
    corner.cut(source, 0, 9)
    worker = corner.start("plain", CopyStage([source], target), starts={Source(source, 0): 7})
    with pytest.raises(OffsetOutOfRange, match=r"in\[0\].* 7 .*9"):
        worker.ended()
