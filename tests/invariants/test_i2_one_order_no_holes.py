"""I2: a record keeps its partition and its place through all stages; a gap or a repeat stops who reads it."""

from __future__ import annotations

import time

import pytest

from .corner import Corner, Worker, until
from .traffic import calls

pytestmark = pytest.mark.stack


def check_order(corner: Corner, generation: int) -> None:
    """The judged records of a partition are its raw records: all of them, once, in their order."""
    topics = corner.generation(generation)
    for partition in range(corner.partitions):
        raw = corner.messages(topics.raw("cdr"), partition)
        judged = corner.records(topics.enriched("cdr"), partition)
        offsets = [record["src_offset"] for record in judged]
        assert offsets == list(range(len(raw))), f"partition {partition} has a hole or a repeat"
        assert {record["src_partition"] for record in judged} == {partition}
        for (_, value), record in zip(raw, judged, strict=True):
            if record["rule"] != "undecodable":
                assert record["event_uid"] == corner.decoded(value or b"")["event_uid"]


def check_stops(corner: Corner, worker: Worker, generation: int, where: str) -> None:
    """The worker ends, and its last line says where; it does not count what cannot be right."""
    agg = corner.generation(generation).agg("quality")
    deadline = time.monotonic() + 60
    while not worker.ended:
        counted = sum(window["records"] for window in corner.latest(agg).values())
        assert not counted, f"it went on and counted {counted} records"
        assert time.monotonic() < deadline, "it neither stopped nor went on"
        time.sleep(0.3)
    last = worker.said().strip().splitlines()[-1]
    assert worker.process.returncode == 1, last
    assert where in last
    assert "Traceback" not in last


def write_judged(corner: Corner, generation: int, without: int | None = None, twice: int | None = None) -> None:
    """The first generation's judged records once more, one left out or one written twice."""
    topics = corner.generation(generation)
    for partition in range(corner.partitions):
        values = [value or b"" for _, value in corner.messages(corner.topics.enriched("cdr"), partition)]
        if twice is not None:
            values.insert(twice, values[twice])
        if without is not None:
            del values[without]
        corner.write(topics.enriched("cdr"), partition, values)


def test_order_and_partition_are_kept_through_kills_and_rebalances(corner: Corner) -> None:
    for partition in range(corner.partitions):
        corner.send("cdr", partition, calls(partition, 300))
    first = corner.start("cdr-enricher", max_batch_records="50", runner="faust")
    until(lambda: any(corner.committed("cdr-enricher", "cdr").values()), "something judged")
    first.kill()
    first = corner.start("cdr-enricher", max_batch_records="50", runner="faust")
    second = corner.start("cdr-enricher", instance=1, runner="faust")
    for seed in range(10, 15):
        for partition in range(corner.partitions):
            corner.send("cdr", partition, calls(seed + partition, 40))
        time.sleep(0.4)
    second.kill()
    corner.judged(worker=first)
    first.stop()
    check_order(corner, 1)


def test_control_an_enricher_that_forgets_a_judgement_is_seen(corner: Corner) -> None:
    corner.generation(2)
    worker = corner.start("cdr-enricher", "forgets-a-judgement", generation=2)
    corner.judged(generation=2, worker=worker)
    with pytest.raises(AssertionError, match="a hole or a repeat"):
        check_order(corner, 2)
    worker.stop()


@pytest.mark.parametrize(
    ("generation", "damage", "where"),
    [
        (3, {"without": 70}, "cdr.enriched.g3[{}]@70: src_offset 71 where 70 follows"),
        (4, {"twice": 70}, "cdr.enriched.g4[{}]@71: src_offset 70 where 71 follows"),
    ],
)
def test_the_aggregator_stops_at_a_gap_and_at_a_repeat(
    corner: Corner, generation: int, damage: dict[str, int], where: str
) -> None:
    write_judged(corner, generation, **damage)
    worker = corner.start("window-aggregator", generation=generation)
    check_stops(corner, worker, generation, where.split("{}")[1])


def test_control_an_aggregator_without_the_check_counts_on(corner: Corner) -> None:
    write_judged(corner, 5, without=70)
    worker = corner.start("window-aggregator", "no-dense-check", generation=5)
    with pytest.raises(AssertionError, match="it went on and counted"):
        check_stops(corner, worker, 5, "where 70 follows")
    worker.stop()
