from __future__ import annotations

from dataclasses import replace

import pytest

from telestream_domain import LATENCY_BOUNDS_MS
from telestream_domain.quality import PARTS, Counts, quantile_ms, score, shares

HOUR = Counts(
    stored=90,
    withdrawn=10,
    duplicates=5,
    rejected=5,
    warned=8,
    latency=(20, 20, 20, 0, 0, 4, 16, 0, 0, 0, 0),
    numbers_there=95,
    numbers_expected=100,
)


def test_a_score_worked_by_hand() -> None:
    parts = shares(HOUR)
    assert parts == {
        "completeness": (95, 100),
        "uniqueness": (95, 100),
        "validity": (2 * 80 - 8, 2 * (80 + 5)),
        "timeliness": (64, 80),
    }
    by_hand = (3 * 0.95 + 2 * 0.95 + 3 * (152 / 170) + 2 * 0.8) / 10
    assert score(parts) == pytest.approx(by_hand)
    assert {part.name for part in PARTS} == set(parts)


def test_what_cannot_be_known_has_no_part_in_the_score() -> None:
    without = replace(HOUR, numbers_there=0, numbers_expected=0)
    parts = shares(without)
    assert parts["completeness"] == (0, 0)
    assert score(parts) == pytest.approx((2 * 0.95 + 3 * (152 / 170) + 2 * 0.8) / 7)
    assert score(shares(Counts())) is None


def test_declared_rows_stand_in_where_there_are_no_numbers_and_never_make_more_than_whole() -> None:
    declared = replace(HOUR, numbers_there=0, numbers_expected=0, rows_there=50, rows_declared=40)
    assert shares(declared)["completeness"] == (40, 40)
    assert shares(replace(declared, rows_there=30))["completeness"] == (30, 40)
    assert shares(replace(HOUR, rows_there=30, rows_declared=40))["completeness"] == (95, 100)


def test_percentiles_are_interpolated_in_their_bucket() -> None:
    latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    assert quantile_ms(latency, 0.5) is None
    latency[1] = 100  # between 1 and 5 s
    assert quantile_ms(latency, 0.5) == pytest.approx(3_000)
    assert quantile_ms(latency, 0.95) == pytest.approx(4_800)
    latency[-1] = 900
    assert quantile_ms(latency, 0.99) == LATENCY_BOUNDS_MS[-1]
    assert quantile_ms(latency, 0.05) == pytest.approx(3_000)
