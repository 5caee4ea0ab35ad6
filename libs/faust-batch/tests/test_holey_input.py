"""Input with holes, input without records, records of odd sizes."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from faust_batch_corner import Corner, until
from faust_batch_worker import CopyStage

from faust_batch import Condition, TransactionFailed, end_offsets

pytestmark = pytest.mark.stack


def test_input_of_aborted_records_only_moves_the_position_and_makes_no_batch(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    worker = corner.start("plain", CopyStage([source], target))
    for number in range(3):
        with corner.transaction(commit=False) as send:
            send(source, 0, *(b"%d-%d" % (number, i) for i in range(20)))
    (end,) = end_offsets(corner.bootstrap, [source]).values()
    assert end == 63
    until(lambda: worker.runner.health().condition is Condition.IDLE)
    time.sleep(0.5)
    worker.finish()
    assert corner.committed(source)[0][0] == end
    assert worker.stage.batch_sizes == []
    assert corner.values(target, 0) == []


def test_a_message_that_the_broker_refuses_for_its_size_is_named_and_its_round_not_seen(corner: Corner) -> None:
    (source,) = corner.topics("in", partitions=1)
    (target,) = corner.topics("out", partitions=1, **{"max.message.bytes": "10000"})
    corner.produce(source, {0: [b"small"]})
    uncompressed = {"compression.type": "none"}
    worker = corner.start("plain", CopyStage([source], target), producer_options=uncompressed)
    until(lambda: worker.observer.records == 1)
    corner.produce(source, {0: [b"before", b"x" * 20_000, b"after"]})
    with pytest.raises(
        TransactionFailed, match=r"out\[0\] was not delivered \(MSG_SIZE_TOO_LARGE\), its largest.*20001"
    ):
        worker.ended()
    assert corner.committed(source)[0][0] == 1
    assert corner.values(target, 0) == [b"small"]


def test_bytes_held_are_bounded_when_records_become_large_at_once(corner: Corner) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    mib = 1024 * 1024
    limits = {"max_batch_bytes": mib, "max_held_bytes": 2 * mib, "prefetch_bytes": mib, "max_round_bytes": 4 * mib}
    small = {p: [b"%d|%d" % (p, i) for i in range(5_000)] for p in range(2)}
    large = {p: [b"%d|%d" % (p, i) + b"x" * 400_000 for i in range(40)] for p in range(2)}
    corner.produce(source, small)
    corner.produce(source, large)
    worker = corner.start("plain", CopyStage([source], target), **limits)
    until(lambda: worker.observer.records == 10_080)
    worker.finish()
    assert corner.all_values(target) == {p: small[p] + large[p] for p in range(2)}
    # one fetch on top: a batch, and what librdkafka had ready beyond it
    assert worker.runner.held_peak_bytes <= 6 * mib


@pytest.mark.faults  # the broker's cleaner comes round every 15 seconds
@pytest.mark.parametrize("runner", ["plain", "faust"])
def test_compacted_input_is_read_on_behind_its_holes(corner: Corner, runner: str) -> None:
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.001",
        "max.compaction.lag.ms": "200",
    }
    (source,) = corner.topics("in", partitions=1, **compacted)
    (target,) = corner.topics("out", partitions=1)
    producer = Producer({"bootstrap.servers": corner.bootstrap, "linger.ms": 20})

    def produce(first: int, last: int) -> None:
        for number in range(first, last):
            producer.produce(source, b"%d" % number, key=b"%d" % (number % 50), partition=0)
        producer.flush()

    produce(0, 1_000)
    worker = corner.start(runner, CopyStage([source], target))
    until(lambda: worker.observer.records == 1_000)
    worker.finish()
    produce(1_000, 2_000)
    time.sleep(0.5)
    produce(2_000, 2_010)  # into a new segment: the active one is not compacted

    def survivors() -> list[bytes | None]:
        return corner.values(source, 0)

    until(lambda: len(survivors()) < 100, 60, every_s=1.0)
    assert corner.committed(source)[0][0] == 1_000  # an offset that is a hole by now
    late = corner.start(runner, CopyStage([source], target))
    until(lambda: corner.committed(source)[0][0] == 2_010)
    late.finish()
    copied = corner.values(target, 0)
    assert copied[:1_000] == [b"%d" % number for number in range(1_000)]
    assert copied[1_000:] == survivors()
