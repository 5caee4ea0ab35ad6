"""Idle, waiting for the broker, wedged: decided without Kafka and without a clock."""

from __future__ import annotations

import pytest

from faust_batch import Condition, Source
from faust_batch.health import Diagnosis, Glimpse
from faust_batch.staged import Call

P0, P1 = Source("t", 0), Source("t", 1)


def glimpse(
    now: float,
    positions: dict[Source, tuple[int, int]] | None = None,
    *,
    turned_at: float | None = None,
    call: Call | None = None,
    overdue_s: float | None = None,
) -> Glimpse:
    return Glimpse(now if turned_at is None else turned_at, call, overdue_s, positions or {P0: (10, 10)})


def watched(diagnosis: Diagnosis, until: int, since: int = 0, **fixed: object) -> list[tuple[int, Condition, str]]:
    """Looks once a second; the changes of condition, with their time."""
    changes: list[tuple[int, Condition, str]] = []
    for now in range(since, until):
        health = diagnosis.look(now, glimpse(now, **fixed))  # type: ignore[arg-type]
        if not changes or changes[-1][1] is not health.condition:
            changes.append((now, health.condition, health.reason))
    return changes


def test_a_worker_without_records_is_idle_for_ever() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 10})
    assert watched(diagnosis, 1_000) == [(0, Condition.IDLE, "")]


def test_a_position_that_stands_still_before_records_is_wedged_after_the_limit() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 12})
    assert watched(diagnosis, 20) == [
        (0, Condition.WORKING, ""),
        (11, Condition.WEDGED, "t[0]: position 10 has not moved for 11 s, 2 records behind"),
    ]


def test_records_that_come_after_a_long_quiet_time_do_not_make_it_wedged_at_once() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 10})
    watched(diagnosis, 500)
    diagnosis.answered(500, {P0: 11})
    assert watched(diagnosis, 510, since=500) == [(500, Condition.WORKING, "")]


def test_a_slow_worker_that_moves_is_not_wedged() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 10_000})
    for now in range(1_000):
        position = now // 8
        assert diagnosis.look(now, glimpse(now, {P0: (position, position)})).condition is Condition.WORKING


def test_one_partition_that_stands_still_beside_others_that_move_is_seen() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 1_000, P1: 1_000})
    health = [diagnosis.look(now, glimpse(now, {P0: (now, now), P1: (5, 5)})) for now in range(12)][-1]
    assert health.condition is Condition.WEDGED
    assert "t[1]: position 5" in health.reason


def test_while_the_broker_is_away_nothing_is_wedged_and_afterwards_the_time_counts_anew() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    call = Call("judging", 0.0, patient=False)
    diagnosis.answered(0, {P0: 12})
    watched(diagnosis, 5, call=call)
    diagnosis.away("connection refused")
    assert watched(diagnosis, 500, since=5, call=call, turned_at=0.0) == [
        (5, Condition.WAITING, "the broker is away: connection refused")
    ]
    diagnosis.answered(500, {P0: 12})
    assert watched(diagnosis, 520, since=500, call=call, turned_at=0.0) == [
        (500, Condition.WORKING, ""),
        (511, Condition.WEDGED, "judging: not done after 511 s"),
    ]


def test_a_broker_that_never_answered_is_waited_for() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    assert [condition for _, condition, _ in watched(diagnosis, 100, turned_at=0.0)] == [Condition.WAITING]


def test_a_restore_has_more_time_than_other_calls_and_holds_the_other_clocks() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 12})
    restoring = Call("restoring t[1] at 0", 0.0, patient=True)
    assert watched(diagnosis, 102, call=restoring, turned_at=0.0) == [
        (0, Condition.WORKING, ""),
        (101, Condition.WEDGED, "restoring t[1] at 0: not done after 101 s"),
    ]


def test_a_loop_that_does_not_come_round_is_wedged_without_any_records() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 10})
    assert watched(diagnosis, 12, turned_at=0.0)[-1] == (
        11,
        Condition.WEDGED,
        "the owning thread has not come round for 11 s",
    )


def test_what_is_judged_and_never_committed_is_wedged() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 10})
    assert watched(diagnosis, 22, positions={P0: (10, 7)})[-1] == (
        21,
        Condition.WEDGED,
        "t[0]: 10 was judged, 7 is committed, for 21 s",
    )


def test_a_transactional_call_is_left_to_its_own_timeout_and_not_beyond() -> None:
    diagnosis = Diagnosis(limit_s=2, patience_s=100)
    diagnosis.answered(0, {P0: 12})
    assert {c for _, c, _ in watched(diagnosis, 100, turned_at=0.0, overdue_s=-1.0)} == {Condition.WORKING}
    assert diagnosis.look(100, glimpse(100, overdue_s=6.0)).condition is Condition.WEDGED


@pytest.mark.parametrize("overdue_s", [None, 60.0])
def test_a_process_that_was_stopped_itself_is_not_wedged_when_it_wakes_up(overdue_s: float | None) -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 12})
    watched(diagnosis, 3)
    assert diagnosis.look(300, glimpse(300, turned_at=2.0, overdue_s=overdue_s)).condition is Condition.WAITING


def test_after_a_call_that_may_take_its_time_the_limits_count_anew() -> None:
    diagnosis = Diagnosis(limit_s=10, patience_s=100)
    diagnosis.answered(0, {P0: 12})
    call = Call("before a round", 0.0, patient=True)
    assert watched(diagnosis, 60, call=call, turned_at=0.0) == [(0, Condition.WORKING, "")]
    assert watched(diagnosis, 68, since=60, turned_at=0.0) == [(60, Condition.WORKING, "")]
    assert watched(diagnosis, 80, since=68)[-1][1] is Condition.WEDGED
