"""Reading without a group, on a real Kafka."""

from __future__ import annotations

import threading
import time

import pytest
from faust_batch_corner import Corner, numbered

from faust_batch import OffsetOutOfRange, Source, TopicMissing, TopicTail, end_offsets, read_partition

pytestmark = pytest.mark.stack


def test_a_bounded_read_gives_exactly_its_range(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=1)
    values = numbered(1, 1_000)
    corner.produce(topic, values)
    source = Source(topic, 0)
    batches = list(read_partition(corner.bootstrap, source, 100, 900, max_bytes=10_000))
    assert [v for b in batches for v in b.values] == values[0][100:900]
    assert [int(o) for b in batches for o in b.offsets] == list(range(100, 900))
    assert batches[-1].next_offset == 900
    assert batches[0].timestamps_ms[0] > 1_600_000_000_000
    assert set(batches[0].keys) == {b"k"}
    assert all(b.nbytes == sum(len(v or b"") + 1 for v in b.values) for b in batches)


def test_reads_of_nothing_end_at_once(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=2)
    corner.produce(topic, {0: [b"a", b"b"]})
    assert list(read_partition(corner.bootstrap, Source(topic, 1), None)) == []
    assert list(read_partition(corner.bootstrap, Source(topic, 0), 2)) == []
    assert list(read_partition(corner.bootstrap, Source(topic, 0), 1, 1)) == []


def test_a_tail_of_control_records_and_aborted_records_ends(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=1)
    with corner.transaction() as send:
        send(topic, 0, b"a", b"b")
    with corner.transaction(commit=False) as send:
        send(topic, 0, b"never")
    source = Source(topic, 0)
    started = time.monotonic()
    assert corner.values(topic, 0) == [b"a", b"b"]
    assert list(read_partition(corner.bootstrap, source, 3)) == []
    assert time.monotonic() - started < 20
    assert end_offsets(corner.bootstrap, [topic]) == {source: 5}


def test_an_open_transaction_is_not_seen_and_not_waited_for(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=1)
    corner.produce(topic, {0: [b"a"]})
    with corner.transaction() as send:
        send(topic, 0, b"open")
        assert end_offsets(corner.bootstrap, [topic]) == {Source(topic, 0): 1}
        assert [b.values for b in read_partition(corner.bootstrap, Source(topic, 0), None)] == [[b"a"]]
        with TopicTail(corner.bootstrap, [topic]) as tail:
            assert [b.values for b in tail.catch_up()] == [[b"a"]]
    assert corner.values(topic, 0) == [b"a", b"open"]


def test_a_settled_read_waits_for_an_open_transaction(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=1)
    read: list[list[bytes | None]] = []
    with corner.transaction() as send:
        send(topic, 0, b"open")
        thread = threading.Thread(target=lambda: read.append(corner.values(topic, 0)))
        thread.start()
        time.sleep(0.5)
        assert read == []
    thread.join(20)
    assert read == [[b"open"]]


def test_a_read_outside_the_log_says_its_range(corner: Corner) -> None:
    (topic,) = corner.topics("t", partitions=1)
    corner.produce(topic, numbered(1, 100))
    corner.cut(topic, 0, 40)
    with pytest.raises(OffsetOutOfRange, match=r"position 10 is outside the log \[40, 100\]"):
        list(read_partition(corner.bootstrap, Source(topic, 0), 10))
    with pytest.raises(OffsetOutOfRange, match="position 101"):
        list(read_partition(corner.bootstrap, Source(topic, 0), 101))
    assert len(corner.values(topic, 0)) == 60


def test_a_missing_topic_is_named(corner: Corner) -> None:
    with pytest.raises(TopicMissing, match="nowhere"):
        end_offsets(corner.bootstrap, [corner.prefix + "nowhere"])


def test_a_tail_catches_up_with_what_came_since(corner: Corner) -> None:
    first, second = corner.topics("a", "b", partitions=2)
    with TopicTail(corner.bootstrap, [first, second]) as tail:
        assert tail.catch_up() == []
        for turn in range(3):
            values = {p: [b"%d-%d" % (turn, i) for i in range(20)] for p in range(2)}
            corner.produce(first, values)
            with corner.transaction() as send:
                send(second, 1, b"t%d" % turn)
            got: dict[Source, list[bytes | None]] = {}
            for batch in tail.catch_up(settled=True):
                got.setdefault(batch.source, []).extend(batch.values)
            assert got == {
                Source(first, 0): values[0],
                Source(first, 1): values[1],
                Source(second, 1): [b"t%d" % turn],
            }
            assert tail.catch_up() == []


def test_a_tail_follows_only_the_partitions_it_was_given(corner: Corner) -> None:
    first, second = corner.topics("a", "b", partitions=3)
    for topic in (first, second):
        corner.produce(topic, {p: [b"%d" % p] for p in range(3)})
    with TopicTail(corner.bootstrap, [first, second], {first: [1]}) as tail:
        assert {b.source for b in tail.catch_up()} == {Source(first, 1), *(Source(second, p) for p in range(3))}
        tail.add([Source(first, 2)])
        tail.drop([Source(second, 0)])
        corner.produce(second, {0: [b"dropped"], 1: [b"new"]})
        assert {b.source: b.values for b in tail.catch_up()} == {Source(first, 2): [b"2"], Source(second, 1): [b"new"]}


def test_a_tail_can_begin_at_a_time(corner: Corner) -> None:
    (topic,) = corner.topics("a", partitions=1)
    corner.produce(topic, {0: [b"old"]})
    time.sleep(0.05)
    now_ms = int(time.time() * 1000)
    time.sleep(0.05)
    with TopicTail(corner.bootstrap, [topic], since_ms=now_ms) as tail:
        assert tail.catch_up() == []
        corner.produce(topic, {0: [b"new"]})
        assert [b.values for b in tail.catch_up()] == [[b"new"]]
    with TopicTail(corner.bootstrap, [topic], since_ms=now_ms) as tail:
        assert [b.values for b in tail.catch_up()] == [[b"new"]]
