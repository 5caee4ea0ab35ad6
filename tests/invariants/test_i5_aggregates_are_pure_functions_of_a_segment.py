"""I5: whatever the rhythm, the kills and the lateness, the same records give the same aggregates."""

from __future__ import annotations

import signal

import pytest

from .corner import Corner, until
from .model import recent
from .sums import Logs, expected_sums, found_sums, upserts
from .traffic import DAY_MS, NOW_MS, call, calls

pytestmark = pytest.mark.stack
BITS = "segment-bits=6"
SLOW = dict.fromkeys(("quarter_flush_s", "cell_minute_flush_s", "subscriber_day_flush_s", "idle_flush_s"), "3600")


def check_aggregates(corner: Corner, generation: int, logs: Logs, patience_s: float = 60) -> None:
    """Wait until all records are counted, then compare cells and quality with the plain model."""
    until(lambda: reached(corner, generation) == [len(log) - 1 for log in logs], "all records seen", 60)
    expected = expected_sums(logs)
    try:
        until(lambda: found_sums(corner, generation) == expected, "", patience_s, 0.5)
    except AssertionError:
        found = found_sums(corner, generation)
        names = [name for name in expected if found[name] != expected[name]]
        raise AssertionError(f"{', '.join(names)} of generation {generation} differ from the model") from None
    minutes = [value for (family, _), value in upserts(corner, generation).items() if family == "cell"]
    assert sum(value["records"] for value in minutes if value["size_s"] == 60) == sum(
        recent(log, NOW_MS) for log in logs
    )


def reached(corner: Corner, generation: int) -> list[int]:
    """The last raw offset that any upsert of quality includes, by partition."""
    found = [-1] * corner.partitions
    for window in corner.latest(corner.generation(generation).agg("quality")).values():
        found[window["partition"]] = max(found[window["partition"]], window["src_to"])
    return found


def counted(corner: Corner, generation: int) -> int:
    windows = corner.latest(corner.generation(generation).agg("quality")).values()
    return sum(window["records"] for window in windows)


@pytest.fixture(scope="module")
def logs(corner: Corner) -> Logs:
    """Three segments and a bit in each partition, judged."""
    sent: Logs = []
    for partition in range(corner.partitions):
        sent.append(calls(partition, 210))
        corner.send("cdr", partition, sent[-1])
    corner.start("cdr-enricher")
    corner.judged()
    return sent


def test_kills_rhythm_and_replay_change_nothing_and_nothing_is_too_late(corner: Corner, logs: Logs) -> None:
    quick = corner.start("window-aggregator", BITS)
    check_aggregates(corner, 1, logs)
    for partition, log in enumerate(logs):
        late = [
            call(f"late {n}", started_at=NOW_MS - n * 36 * DAY_MS, duration_ms=86_400_000, cell_id=f"208-01-{n % 4}")
            for n in range(11)
        ]
        corner.send("cdr", partition, late)
        log += late
    corner.judged()
    check_aggregates(corner, 1, logs)
    quick.stop()
    # the second generation's aggregator sees the same from the beginning, in other portions, and dies all the time
    corner.generation(2)
    for step in ("committed", "produced", "offsets"):
        worker = corner.start(
            "window-aggregator", BITS, "enriched-of=1", f"killed-in-commit={step}:1", generation=2, quality_flush_s="3"
        )
        assert worker.wait() == -signal.SIGKILL, worker.said()
    worker = corner.start("window-aggregator", BITS, "enriched-of=1", generation=2, minute_flush_s="3")
    check_aggregates(corner, 2, logs)
    until(lambda: upserts(corner, 2) == upserts(corner, 1), "the same upserts in every field", 60)
    worker.stop()


def test_control_increments_instead_of_full_state_are_seen(corner: Corner, logs: Logs) -> None:
    corner.generation(3)
    worker = corner.start("window-aggregator", BITS, "publishes-increments", "enriched-of=1", generation=3)
    until(lambda: reached(corner, 3) == [len(log) - 1 for log in logs], "all records seen")
    for partition, log in enumerate(logs):
        more = calls(77 + partition, 20)
        corner.send("cdr", partition, more)
        log += more
    corner.judged()
    with pytest.raises(AssertionError, match="differ from the model"):
        check_aggregates(corner, 3, logs, patience_s=3)
    worker.stop()


def test_control_without_the_src_to_check_a_killed_worker_counts_twice(corner: Corner, logs: Logs) -> None:
    corner.generation(4)
    switches = BITS, "no-src-to-check", "enriched-of=1"
    worker = corner.start("window-aggregator", *switches, generation=4, **SLOW)
    until(lambda: counted(corner, 4) == sum(map(len, logs)), "quality out, the rest not")
    worker.kill()
    worker = corner.start("window-aggregator", *switches, generation=4)
    for partition, log in enumerate(logs):
        more = calls(99 + partition, 20)
        corner.send("cdr", partition, more)
        log += more
    corner.judged()
    with pytest.raises(AssertionError, match="differ from the model"):
        check_aggregates(corner, 4, logs, patience_s=3)
    worker.stop()
