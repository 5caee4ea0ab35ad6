"""Agents that misbehave, on a real Kafka: what Faust drops, acknowledges or repeats decides nothing."""

from __future__ import annotations

import re
import signal

import faust_misbehaviour as misbehaviour
import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage

from faust_batch import ClientFailed, HandOverStalled, Source, end_offsets

pytestmark = pytest.mark.stack


def position(corner: Corner, topic: str) -> int:
    return sum(max(offset, 0) for offset, _ in corner.committed(topic).values())


def heals(corner: Corner, source: str, target: str, values: dict[int, list[bytes]]) -> None:
    """A healthy worker under the same identity goes on where the last one was, and the copy is exact."""
    total = sum(map(len, values.values()))
    worker = corner.start("plain", CopyStage([source], target))
    until(lambda: position(corner, source) == total)
    worker.finish()
    assert corner.all_values(target) == values


def nothing_but_committed_rounds(corner: Corner, source: str, target: str, values: dict[int, list[bytes]]) -> None:
    """What readers see is what was committed, exactly."""
    for partition, (offset, _) in corner.committed(source).items():
        assert corner.values(target, partition) == values[partition][: max(offset, 0)]


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        (misbehaviour.Raising, ClientFailed, "ValueError: the agent has a mistake"),
        pytest.param(misbehaviour.Cancelled, ClientFailed, "Faust failed: CancelledError", marks=pytest.mark.faults),
        (misbehaviour.CancelledInWork, ClientFailed, "Faust failed: CancelledError"),
        (misbehaviour.Hanging, HandOverStalled, r"was handed out \d+ s ago and did not come back"),
    ],
)
def test_an_agent_that_ends_badly_ends_the_worker_and_skips_nothing(
    corner: Corner, kind: type[misbehaviour.Counting], error: type[Exception], text: str
) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 2_000)
    corner.produce(source, values)
    worker = misbehaviour.start(
        corner, kind, CopyStage([source], target, sleep_s=0.02), max_batch_records=200, hand_over_timeout_s=3.0
    )
    with pytest.raises(error, match=text):
        worker.ended()
    assert worker.runner.made.given >= misbehaviour.MISBEHAVES_AT
    assert position(corner, source) < 4_000
    nothing_but_committed_rounds(corner, source, target, values)
    heals(corner, source, target, values)


def test_faust_that_fails_to_start_ends_the_worker(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    worker = misbehaviour.start(corner, misbehaviour.NotStarting, CopyStage([source], target))
    with pytest.raises(ClientFailed, match="ValueError: no wish to start"):
        worker.ended()


def test_a_batch_that_faust_acknowledges_without_judging_is_not_committed_and_comes_again(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=3)
    values: dict[int, list[bytes]] = {p: [] for p in range(3)}
    for number in range(4):  # markers and what was aborted leave holes in the offsets
        part = {p: [b"%d|%d|%d" % (p, number, i) for i in range(40)] for p in range(3)}
        with corner.transaction(commit=number % 2 == 0) as send:
            for partition, sent in part.items():
                send(source, partition, *sent)
        if number % 2 == 0:
            for partition, sent in part.items():
                values[partition] += sent
    worker = misbehaviour.start(
        corner, misbehaviour.Skipping, CopyStage([source], target), max_batch_records=30, hand_over_timeout_s=8.0
    )
    until(lambda: hasattr(worker.runner, "made") and len(worker.runner.made.skipped) == 3)
    until(lambda: {offset for offset, _ in corner.committed(source).values()} == {0})  # where the group began
    assert sum(end_offsets(corner.bootstrap, [target]).values()) == 0
    until(lambda: worker.observer.records == 240)
    worker.finish()
    assert corner.all_values(target) == values
    # 164 where the end of the log was seen: control and aborted records behind the last batch may not be yet
    assert {offset for offset, _ in corner.committed(source).values()} <= {122, 123, 164}


def test_a_batch_that_is_given_twice_is_judged_once(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 1_000)
    corner.produce(source, values)
    worker = misbehaviour.start(corner, misbehaviour.Doubling, CopyStage([source], target), max_batch_records=100)
    until(lambda: position(corner, source) == 2_000)
    worker.finish()
    made = worker.runner.made
    assert made.given == 2 * len(made.refused)
    assert sum(worker.stage.batch_sizes) == 2_000
    assert corner.all_values(target) == values


def test_any_bytes_reach_the_stage_and_none_are_acknowledged_on_the_way(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    odd = [b"", None, b"\x00", b"{", b"\xff\xfe", b"[]", b"null", b"0"]
    corner.produce(source, {0: odd})  # type: ignore[dict-item]
    worker = misbehaviour.start(corner, misbehaviour.Counting, CopyStage([source], target))
    until(lambda: position(corner, source) == len(odd))
    worker.finish()
    assert corner.values(target, 0) == odd


class Lag(misbehaviour.Rounds):
    def __init__(self) -> None:
        super().__init__()
        self.lags: list[int] = []

    def on_lag(self, source: Source, lag_records: int) -> None:
        self.lags.append(lag_records)


def test_lag_and_commits_count_records_not_events(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, numbered(1, 10_000))
    observer = Lag()
    worker = misbehaviour.start(
        corner,
        misbehaviour.Counting,
        CopyStage([source], target, sleep_s=0.05),
        observer=observer,
        max_batch_records=2_000,
    )
    until(lambda: position(corner, source) == 10_000)
    worker.finish()
    assert observer.lags[-1] == 0
    assert observer.records == 10_000
    assert set(observer.lags) > {0}
    assert max(observer.lags) >= 1_000


def test_a_failing_stage_leaves_one_line_and_no_traceback(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, 3_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "fail_at": values[0][2_100].decode()}
    worker = misbehaviour.spawn(corner, "behaves", stage, max_batch_records=500)
    assert worker.ended() == 1
    (line,) = misbehaviour.complaints(worker.said)  # what the process says at its end
    assert re.match(r"StageFailed: stage: judging .*in\[0\] offsets \d+\.\.\d+: ValueError: record", line)


@pytest.mark.faults
def test_a_worker_whose_event_loop_stands_still_is_killed_and_loses_nothing(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 2_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target}
    worker = misbehaviour.spawn(
        corner, "blocks", stage, max_batch_records=200, hand_over_timeout_s=2.0, drain_timeout_s=3.0
    )
    assert worker.ended() == -signal.SIGKILL
    assert re.search(r"ERROR .* was handed out \d+ s ago and did not come back", worker.said)
    assert "killed; the open round is judged again after a restart" in worker.said
    nothing_but_committed_rounds(corner, source, target, values)
    heals(corner, source, target, values)


def test_sigterm_while_agents_hang_commits_what_was_judged(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 2_000)
    corner.produce(source, values)
    worker = misbehaviour.spawn(corner, "hangs", {"topics": [source], "target": target}, max_batch_records=200)
    until(lambda: position(corner, source) > 0)
    assert worker.stop() == 0, worker.said
    assert misbehaviour.complaints(worker.said) == []
    nothing_but_committed_rounds(corner, source, target, values)


@pytest.mark.parametrize("moment", ["Starting...", "assigned", "copying"])
def test_sigterm_at_any_moment_ends_in_order_and_without_a_traceback(corner: Corner, moment: str) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 4_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.02}
    worker = misbehaviour.spawn(corner, "behaves", stage, max_batch_records=200)
    if moment == "copying":
        until(lambda: position(corner, source) > 1_000)
    else:
        until(lambda: moment in worker.said, every_s=0.005)
    assert worker.stop() == 0, worker.said
    assert misbehaviour.complaints(worker.said) == []
    nothing_but_committed_rounds(corner, source, target, values)
