from __future__ import annotations

import random

from telestream_domain.gaps import BACKWARDS_MS, MAX_GAP, SURE_GAP, gaps_of


def test_numbers_in_between_are_missing_whatever_the_order_and_the_repeats() -> None:
    found = gaps_of([7, 3, 3, 4, 10, 9])
    assert (found.first, found.last, found.expected, found.present, found.missing) == (3, 10, 8, 5, 3)
    assert found.ranges == ((5, 6), (8, 8))
    assert gaps_of([]).expected == 0


def test_what_was_taken_out_is_what_is_missing() -> None:
    chance = random.Random(4)
    for _ in range(20):
        start = chance.randrange(10**9)
        all_of_them = list(range(start, start + 500))
        lost = set(chance.sample(all_of_them[1:-1], 60))
        there = [number for number in all_of_them if number not in lost]
        chance.shuffle(there)
        found = gaps_of(there)
        assert {number for first, last in found.ranges for number in range(first, last + 1)} == lost
        assert (found.missing, found.expected) == (60, 500)


def test_a_counter_that_starts_anew_does_not_make_a_thousand_million_missing() -> None:
    found = gaps_of([*range(999_999_000, 999_999_100), *range(1, 51), *range(52, 60)])
    assert (found.missing, found.restarts, found.ranges) == (1, 1, ((51, 51),))
    assert found.expected == found.present + 1


def test_a_small_counter_that_starts_anew_is_told_by_the_time_of_arrival() -> None:
    before = {number: number for number in range(49_000, 49_100)}
    after = {number: 49_100 + BACKWARDS_MS + number for number in range(1, 51)}
    found = gaps_of({**before, **after})
    assert (found.missing, found.restarts) == (0, 1)
    in_order = gaps_of({**{number: number for number in range(1, 51)}, **{n: 10**6 + n for n in range(49_000, 49_100)}})
    assert (in_order.missing, in_order.restarts) == (49_000 - 51, 0)


def test_a_hole_is_missing_up_to_the_bounds_and_a_restart_beyond() -> None:
    assert gaps_of([0, MAX_GAP + 1]).missing == MAX_GAP
    assert gaps_of([0, MAX_GAP + 2]).restarts == 1
    late = BACKWARDS_MS + 1
    assert gaps_of({0: late, SURE_GAP + 1: 0}).missing == SURE_GAP
    assert gaps_of({0: late, SURE_GAP + 2: 0}).restarts == 1
