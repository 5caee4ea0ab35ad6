"""Beats stretch when upserts would be too many, and come back."""

from __future__ import annotations

import pytest

from window_aggregator.domain.pace import DAYS_SHARE, WINDOWS_SHARE, Paces
from window_aggregator.domain.rhythm import Rhythm, default_beats

NOW_MS = 1_790_000_000_000


def _settled(paces: Paces, rate: int, demand: dict[str, float], minutes: int, now_ms: int = NOW_MS) -> Paces:
    """Traffic of ``rate`` CDRs/s that would give ``demand`` upserts a record if no beat were stretched."""
    for second in range(minutes * 60):
        by = paces.stretch()
        rows = {family: round(rate * share / by[family]) for family, share in demand.items()}
        paces = paces.counted(now_ms + second * 1_000, {"cdr": rate}, rows, {})
    return paces


def _shares(paces: Paces, demand: dict[str, float]) -> tuple[float, float]:
    by = paces.stretch()
    now = {family: share / by[family] for family, share in demand.items()}
    return now["cell"] + now["region"] + now["plan"], now["subscriber_day"]


MUCH = {"region": 0.08, "plan": 0.01, "cell": 0.2, "subscriber_day": 0.9}


def test_the_beats_are_as_set_while_their_shares_are_kept():
    little = {"region": 0.05, "plan": 0.01, "cell": 0.07, "subscriber_day": 0.55}
    assert set(_settled(Paces(), 10_000, little, 20).stretch().values()) == {1.0}


def test_what_would_break_a_share_is_stretched_until_it_does_not():
    windows, days = _shares(_settled(Paces(), 10_000, MUCH, 20), MUCH)
    assert 0.13 < windows <= WINDOWS_SHARE
    assert 0.52 < days <= DAYS_SHARE


def test_cells_slow_down_before_regions_do():
    by = _settled(Paces(), 10_000, MUCH, 20).stretch()
    assert by["region"] == by["plan"] < 1.4
    assert by["cell"] > 2


def test_what_full_segments_emit_is_taken_off_what_the_clock_may():
    paces = Paces()
    for second in range(1_200):
        rows = {"subscriber_day": round(10_000 * 0.6 / paces.stretch()["subscriber_day"])}
        paces = paces.counted(NOW_MS + second * 1_000, {"cdr": 10_000}, rows, {"subscriber_day": 2_000})
    # 0.65 × 0.85 less 0.2
    assert paces.stretch()["subscriber_day"] == pytest.approx(0.6 / 0.3525, rel=0.01)


def test_a_stretch_is_bounded_and_comes_back():
    far = {"region": 2.0, "plan": 2.0, "cell": 5.0, "subscriber_day": 5.0}
    paces = _settled(Paces(), 20_000, far, 10)
    assert paces.stretch() == {"region": 4, "plan": 4, "cell": 6, "subscriber_day": 3}
    calm = dict.fromkeys(far, 0.01)
    paces = _settled(paces, 20_000, calm, 16, NOW_MS + 600_000)
    assert set(paces.stretch().values()) == {1.0}


def test_a_worker_with_time_to_spare_keeps_its_beats():
    often = {"region": 0.8, "plan": 0.1, "cell": 0.5, "subscriber_day": 1.0}
    assert set(_settled(Paces(), 500, often, 20).stretch().values()) == {1.0}


def test_only_what_is_kept_in_bounds_is_stretched():
    rhythm = Rhythm(default_beats(), 2_000)
    slow = rhythm.stretched({"region": 2.0, "plan": 2.0, "cell": 3.0, "subscriber_day": 1.5}).beats
    before = rhythm.beats
    assert (slow["region", 60].recent_ms, slow["region", 60].all_ms) == (1_000, 60_000)
    assert slow["region", 900] == before["region", 900]
    assert (slow["cell", 60].recent_ms, slow["cell", 900].all_ms) == (30_000, 180_000)
    assert slow["subscriber_day", 86_400].all_ms == 180_000
    assert slow["quality", 3_600] == before["quality", 3_600]
    assert rhythm.stretched({}).beats == before


def test_nothing_taken_in_stretches_nothing():
    paces = Paces()
    for second in range(61):
        paces = paces.counted(NOW_MS + second * 1_000, {}, {}, {})
    assert set(paces.stretch().values()) == {1.0}


def test_subscriber_days_begin_cautiously_until_some_are_emitted_or_there_is_time_to_spare():
    busy = _settled(Paces(), 10_000, {"region": 0.05}, 3)
    assert busy.stretch() == {"region": 1.0, "plan": 1.0, "cell": 1.0, "subscriber_day": 2.0}
    little = {"subscriber_day": 0.2}
    assert _settled(busy, 10_000, little, 1, NOW_MS + 180_000).stretch()["subscriber_day"] == 1.0
    assert _settled(Paces(), 8_000, {}, 1).stretch()["subscriber_day"] == 1.0


def test_a_clock_that_jumps_over_all_that_was_measured_begins_anew():
    paces = Paces()
    for now_ms in (NOW_MS, NOW_MS + 61_000, NOW_MS + 10_000_000, NOW_MS + 20_000_000):
        paces = paces.counted(now_ms, {"cdr": 50}, {"subscriber_day": 5}, {})
    assert set(paces.stretch().values()) == {1.0}
