from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cdr_enricher.domain.progress import EVERY_MS, IDLE_EVERY_MS, Progress, Reported
from cdr_enricher.domain.watermark import Freshness, Watermark

ARRIVED_MS = 1_790_000_000_000
LATENESS_MS = 300_000

Make = Callable[..., Any]


def test_the_watermark_is_the_greatest_event_end_never_past_its_arrival_less_the_lateness(bench: Make) -> None:
    judge = bench()
    judge.judged(
        judge.value(event_uid="a", started_at=ARRIVED_MS - 60_000, duration_ms=10_000, holding_ms=15_000),
        judge.value(event_uid="b", started_at=ARRIVED_MS - 90_000, duration_ms=30_000),
    )
    assert judge.state.watermark.at(LATENESS_MS, None) == ARRIVED_MS - 45_000 - LATENESS_MS
    judge.judged(judge.value(event_uid="c", started_at=ARRIVED_MS - 5_000, duration_ms=60_000))
    assert judge.state.watermark.reached_ms == ARRIVED_MS
    judge.judged(judge.value(event_uid="d", started_at=ARRIVED_MS - 86_400_000))
    assert judge.state.watermark.reached_ms == ARRIVED_MS


def test_a_rejected_record_moves_no_watermark(bench: Make) -> None:
    judge = bench()
    judge.judged(judge.value(started_at=ARRIVED_MS + 86_400_000))
    assert judge.state.watermark == Watermark()


def test_freshness_is_kept_by_source(bench: Make) -> None:
    judge = bench("network")
    judge.judged(judge.value(event_uid="a"), judge.value(event_uid="b", source="other", occurred_at=ARRIVED_MS - 9))
    judge.judged(judge.value(event_uid="c", occurred_at=ARRIVED_MS - 500), arrived_ms=ARRIVED_MS + 100)
    assert judge.state.watermark.sources == {
        "probe": Freshness(ARRIVED_MS - 500, ARRIVED_MS + 100),
        "other": Freshness(ARRIVED_MS - 9, ARRIVED_MS),
    }


def test_the_clock_moves_the_watermark_only_where_all_of_raw_is_judged() -> None:
    watermark = Watermark(1_000_000, {"s": Freshness(1_000_000, 1_000_500)})
    now = 9_000_000
    behind = Progress("cdr", 2, 10, 11, watermark, {"t.ref.cell/0": 4}).record(now, LATENESS_MS)
    caught_up = Progress("cdr", 2, 11, 11, watermark).record(now, LATENESS_MS)
    assert (behind["watermark"], caught_up["watermark"]) == (1_000_000 - LATENESS_MS, now - LATENESS_MS)
    assert (behind["sources"], behind["source_event_end_at"], behind["source_arrived_at"]) == (
        ["s"],
        [1_000_000],
        [1_000_500],
    )
    assert behind["reference_positions"] == {"t.ref.cell/0": 4}
    assert Progress("cdr", 2, 10, 11, watermark).key == b"cdr/2"


def test_progress_is_said_once_a_second_if_changed_and_seldom_if_not() -> None:
    said = Reported(10, 12, 1_000_000)
    assert not said.due(11, 12, 1_000_000 + EVERY_MS - 1)
    assert said.due(11, 12, 1_000_000 + EVERY_MS)
    assert not said.due(10, 12, 1_000_000 + EVERY_MS)
    assert said.due(10, 12, 1_000_000 + IDLE_EVERY_MS)
    assert said.due(10, 12, 1_000_000 - IDLE_EVERY_MS)
    assert Reported().due(0, 0, 1_000_000)
