"""I4: a record is never its own duplicate, and a duplicate is found however old the event is."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from telestream_devstack import Parts

from .corner import Corner
from .model import judge
from .traffic import DAY_MS, NOW_MS, Call, call, calls

pytestmark = pytest.mark.stack

YEAR_OLD = {"started_at": NOW_MS - 390 * DAY_MS}
TEN_YEARS_OLD = {"started_at": NOW_MS - 3_650 * DAY_MS, "max_age_days": 4_000}
SCENES: list[Call | bytes] = [
    call("plain"),
    call("plain"),
    call("old", **YEAR_OLD),
    call("ancient", **TEN_YEARS_OLD),
    call("conflict"),
    call("bad", charge_micros=-1),
    call("bad", charge_micros=-1),
    call("same id, other time", started_at=NOW_MS - 700_000),
    call("same id, other subscriber", subscriber_id="k1.bob"),
    b"\x00junk",
    b"\x00junk",
]
LATER: list[Call | bytes] = [
    call("plain", batch_id=9, line=77, ingested_at=NOW_MS),
    call("old", **YEAR_OLD),
    call("ancient", **TEN_YEARS_OLD),
    call("conflict", duration_ms=2_000),
    call("bad"),
    call("bad"),
    call("same id, other time", started_at=NOW_MS - 800_000),
    call("same id, other subscriber", subscriber_id="k1.alice"),
]


def check_verdicts(corner: Corner, generation: int, sent: list[list[Call | bytes]]) -> dict[str, int]:
    """Every record is judged as the plain model judges it; returns how many there were of each verdict and rule."""
    counts: dict[str, int] = {}
    for partition, log in enumerate(sent):
        judged = corner.records(corner.generation(generation).enriched("cdr"), partition)
        found = [(record["verdict"], record["rule"], record["first_offset"]) for record in judged]
        expected = judge(log)
        wrong = [(offset, f, e) for offset, (f, e) in enumerate(zip(found, expected, strict=True)) if f != e]
        assert not wrong, f"partition {partition}: (offset, found, expected) {wrong[:5]}"
        assert all(record["first_offset"] != record["src_offset"] for record in judged)
        for verdict, rule, _ in found:
            counts[rule or verdict] = counts.get(rule or verdict, 0) + 1
    return counts


@pytest.fixture(scope="module")
def sent(corner: Corner) -> list[list[Call | bytes]]:
    """The log that all generations judge: nothing yet."""
    return [[] for _ in range(corner.partitions)]


def _send(corner: Corner, sent: list[list[Call | bytes]], *logs: list[Any]) -> None:
    for partition, log in enumerate(logs):
        corner.send("cdr", partition, log)
        sent[partition] += log


def test_duplicates_conflicts_and_mended_records_are_told_apart_across_kills(
    corner: Corner, sent: list[list[Call | bytes]]
) -> None:
    _send(corner, sent, SCENES, calls(1, 300))
    for step in ("produced", "offsets", "committed"):
        # what was sent but not committed comes again: it must not be taken for a repeat of itself
        worker = corner.start("cdr-enricher", f"killed-in-commit={step}:1")
        assert worker.wait() == -signal.SIGKILL, worker.said()
    _send(corner, sent, LATER, sent[1][50:150])
    worker = corner.start("cdr-enricher", max_batch_records="7")
    corner.judged(worker=worker)
    worker.stop()
    counts = check_verdicts(corner, 1, sent)
    assert counts["conflict"] > 1
    assert counts["DUPLICATE"] > 100
    first = corner.records(corner.topics.enriched("cdr"), 0)[len(SCENES) :]
    assert [(record["verdict"], record["rule"], record["first_offset"]) for record in first] == [
        ("DUPLICATE", None, 0),
        ("DUPLICATE", None, 2),
        ("DUPLICATE", None, 3),
        ("DUPLICATE", "conflict", 4),
        ("STORED", None, None),
        ("DUPLICATE", None, len(SCENES) + 4),
        ("STORED", None, None),
        ("STORED", None, None),
    ]


@pytest.mark.parametrize(
    ("generation", "switch"), [(2, "knows-no-duplicates"), (3, "rejected-leave-a-trace"), (4, "forgets-at-a-restart")]
)
def test_control_without_the_protection_a_verdict_is_wrong(
    corner: Corner, sent: list[list[Call | bytes]], generation: int, switch: str
) -> None:
    corner.generation(generation)
    worker = corner.start("cdr-enricher", switch, generation=generation)
    corner.judged(generation=generation, worker=worker)
    worker.stop()
    if switch == "forgets-at-a-restart":
        _send(corner, sent, [call("plain")])
        worker = corner.start("cdr-enricher", switch, generation=generation)
        corner.judged(generation=generation, worker=worker)
        worker.stop()
    with pytest.raises(AssertionError, match=r"\(offset, found, expected\)"):
        check_verdicts(corner, generation, sent)


# -- the horizon --------------------------------------------------------------------------------------------------

SMALL = {"dedup_segment_bits": "4"}
A = call("a", started_at=NOW_MS - 51 * DAY_MS)
EXPECTED = {
    0: ("STORED", None),
    16: ("DUPLICATE", 0),
    40: ("DUPLICATE", 0),
    48: ("STORED", None),
    50: ("DUPLICATE", 48),
}
"""Where A comes. Its segment is 0 … 15; it goes when 32 … 47, whose last record arrived 36 days later, has closed."""


def check_horizon(corner: Corner, generation: int) -> None:
    """A is remembered for 35 days of arrival at least, and by whole segments; then it may be stored again."""
    judged = corner.records(corner.generation(generation).enriched("cdr"), 0)
    found = {offset: (judged[offset]["verdict"], judged[offset]["first_offset"]) for offset in EXPECTED}
    assert found == EXPECTED, f"(offset: verdict) {found}"
    others = {record["verdict"] for record in judged if record["event_uid"] != "a"}
    assert others == {"STORED"}


@pytest.fixture(scope="module")
def aged(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corner]:
    """A log of one partition that spans 36 days of arrival."""
    corner = Corner(parts, f"t{uuid.uuid4().hex[:12]}.", tmp_path_factory.mktemp("aged"), partitions=1)
    corner.forges_arrival(corner.topics.raw("cdr"))
    for begin, end, day in ((0, 16, 0), (16, 32, 34), (32, 64, 36)):
        log = [A if offset in EXPECTED else A | {"event_uid": f"b{offset}"} for offset in range(begin, end)]
        corner.send("cdr", 0, log, at_ms=NOW_MS - 50 * DAY_MS + day * DAY_MS)
    yield corner
    corner.stop_all()


def test_a_duplicate_is_found_for_35_days_of_arrival_whatever_restarts_come_between(aged: Corner) -> None:
    worker = aged.start("cdr-enricher", **SMALL)
    aged.judged(worker=worker)
    worker.stop()
    check_horizon(aged, 1)
    # in other portions, killed, its cache deleted every time: what closed segments left behind is in Kafka
    aged.generation(2)
    for step in ("committed", "produced", "offsets"):
        worker = aged.start(
            "cdr-enricher",
            f"killed-in-commit={step}:1",
            "small-rounds",
            generation=2,
            max_batch_records="9",
            state_dir=str(aged.folder / step),
            **SMALL,
        )
        assert worker.wait() == -signal.SIGKILL, worker.said()
    worker = aged.start("cdr-enricher", generation=2, max_batch_records="9", **SMALL)
    aged.judged(generation=2, worker=worker)
    worker.stop()
    check_horizon(aged, 2)


def test_control_an_enricher_that_looks_into_the_open_segment_only_misses_it(aged: Corner) -> None:
    aged.generation(3)
    worker = aged.start("cdr-enricher", "forgets-closed-segments", generation=3, **SMALL)
    aged.judged(generation=3, worker=worker)
    worker.stop()
    with pytest.raises(AssertionError, match=r"\(offset: verdict\)"):
        check_horizon(aged, 3)
