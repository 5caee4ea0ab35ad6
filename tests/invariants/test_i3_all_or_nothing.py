"""I3: outputs, dead letters and offsets of a round are one transaction: a killed worker leaves all of it or nothing."""

from __future__ import annotations

import json
import signal

import pytest

from .corner import Corner, until
from .model import judge
from .traffic import calls

pytestmark = pytest.mark.stack
STEPS = ("produced", "offsets", "committed")


def check_together(corner: Corner, generation: int, isolation: str = "read_committed") -> int:
    """Judged records, dead letters and the committed offset tell the same; returns how many records they tell of."""
    topics = corner.generation(generation)
    committed = corner.committed("cdr-enricher", "cdr", generation)
    for partition in range(corner.partitions):
        judged = corner.records(topics.enriched("cdr"), partition, isolation)
        offsets = [record["src_offset"] for record in judged]
        assert offsets == list(range(committed[partition])), f"judged records and offset of {partition} differ"
        letters = [letter["src_offset"] for letter in corner.records(topics.rejected("cdr"), partition, isolation)]
        rejected = [record["src_offset"] for record in judged if record["verdict"] == "REJECTED"]
        assert letters == rejected, f"dead letters and verdicts of {partition} differ"
    return sum(committed.values())


def _next_src(metadata: str) -> int:
    """The next raw offset by the aggregator's metadata, before which the runner puts its own."""
    begin = metadata.find("{")
    return 0 if begin < 0 else json.loads(metadata[begin:])["next"] or 0


def check_aggregates_together(corner: Corner, generation: int, isolation: str = "read_committed") -> int:
    """No upsert speaks of a record beyond the committed position; returns how many records the positions hold."""
    topics = corner.generation(generation)
    positions = corner.metadata("window-aggregator", "cdr", generation)
    behind = {partition: _next_src(text) for partition, text in positions.items()}
    for family in ("quality", "cell", "region", "plan", "subscriber_day"):
        for partition in range(corner.partitions):
            for upsert in corner.records(topics.agg(family), partition, isolation):
                assert upsert["src_to"] < behind[partition], f"{family} of {partition} is ahead of its offset"
    return sum(behind.values())


@pytest.fixture(scope="module")
def logs(corner: Corner) -> list[list[dict[str, object] | bytes]]:
    """What was sent to each partition."""
    sent: list[list[dict[str, object] | bytes]] = []
    for partition in range(corner.partitions):
        sent.append(calls(partition, 200))
        corner.send("cdr", partition, sent[-1])
    return sent


def test_killed_at_each_step_of_a_commit_the_enricher_leaves_all_of_a_round_or_nothing(
    corner: Corner, logs: list[list[dict[str, object] | bytes]]
) -> None:
    before = 0
    for number, step in enumerate(STEPS):
        worker = corner.start("cdr-enricher", f"killed-in-commit={step}:1", runner="faust")
        assert worker.wait() == -signal.SIGKILL, worker.said()
        now = check_together(corner, 1)
        assert (now > before) is (step == "committed"), f"killed after {step}: {now} records, {before} before"
        before = now
        for partition, log in enumerate(logs):
            more = calls(100 * number + partition, 50, first=1000)
            corner.send("cdr", partition, more)
            log += more
    worker = corner.start("cdr-enricher")
    corner.judged(worker=worker)
    assert worker.stop() == 0
    assert check_together(corner, 1) == sum(map(len, logs))
    for partition, log in enumerate(logs):
        judged = corner.records(corner.topics.enriched("cdr"), partition)
        assert [(r["verdict"], r["rule"], r["first_offset"]) for r in judged] == judge(log)


def test_control_a_reader_of_uncommitted_records_sees_rounds_that_never_were(corner: Corner) -> None:
    with pytest.raises(AssertionError, match=r"judged records and offset of . differ"):
        check_together(corner, 1, "read_uncommitted")


def test_control_an_enricher_without_transactions_leaves_half_a_round(corner: Corner) -> None:
    corner.generation(2)
    worker = corner.start("cdr-enricher", "without-transactions", "killed-in-commit=produced:1", generation=2)
    assert worker.wait() == -signal.SIGKILL, worker.said()
    with pytest.raises(AssertionError, match=r"judged records and offset of . differ"):
        check_together(corner, 2)


def test_killed_at_each_step_of_a_commit_the_aggregator_leaves_all_of_a_round_or_nothing(corner: Corner) -> None:
    total = sum(corner.committed("cdr-enricher", "cdr").values())
    for step in STEPS:
        worker = corner.start("window-aggregator", f"killed-in-commit={step}:1")
        assert worker.wait() == -signal.SIGKILL, worker.said()
        check_aggregates_together(corner, 1)
    worker = corner.start("window-aggregator").until_ready()

    def counted() -> int:
        return sum(window["records"] for window in corner.latest(corner.topics.agg("quality")).values())

    until(lambda: counted() == total, f"{total} records aggregated", 30)
    assert worker.stop() == 0
    assert check_aggregates_together(corner, 1) == total


def test_control_an_aggregator_without_transactions_is_ahead_of_its_offset(corner: Corner) -> None:
    corner.generation(3)
    worker = corner.start(
        "window-aggregator", "enriched-of=1", "without-transactions", "killed-in-commit=produced:1", generation=3
    )
    assert worker.wait() == -signal.SIGKILL, worker.said()
    with pytest.raises(AssertionError, match="is ahead of its offset"):
        check_aggregates_together(corner, 3)
