"""The table of generations on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from telestream_devstack.postgres import psql
from telestream_opstore import (
    DerivationState,
    Lock,
    Plan,
    ReplayInWork,
    WrongState,
    create_derivation_async,
    derivation_async,
    derivations,
    locked_async,
    migrate,
    move_derivation_async,
    note_derivation_async,
)

pytestmark = pytest.mark.stack
T = TypeVar("T")
PREFIX = "der."
PLAN = Plan(
    starts={"cdr": {0: 0, 1: 5}},
    ends={"cdr": {0: 10, 1: 12}},
    reference={"der.ref.cell": {0: 7}},
    rules={"severities": {"too_old": "WARN"}},
    versions={"code": "0.1.0", "rules": 3},
    asked={"types": "cdr"},
)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def begin(dsn: str, *types: str, plan: Plan = PLAN) -> Any:
    return run(create_derivation_async(dsn, PREFIX, types, plan, reason="a test", actor="tester"))


@pytest.fixture
def dsn(postgres_dsn: str) -> str:
    migrate(postgres_dsn)
    return postgres_dsn


def test_the_first_generation_is_there_without_being_asked_for(dsn: str) -> None:
    (first,) = derivations(dsn, PREFIX)
    assert (first.generation, first.types, first.wanted, first.in_work) == (1, ("cdr", "network"), True, False)
    assert first.plan == Plan()
    assert first.plan.start_of("cdr", 0) is None


def test_a_derivation_comes_back_as_it_was_written(dsn: str) -> None:
    made = begin(dsn, "cdr")
    assert (made.generation, made.state, made.plan) == (2, DerivationState.PREPARING, PLAN)
    assert run(derivation_async(dsn, PREFIX, 2)) == made
    assert run(derivation_async(dsn, PREFIX, 3)) is None
    assert (made.plan.start_of("cdr", 1), made.plan.end_of("cdr", 1), made.plan.end_of("network", 0)) == (5, 12, None)


def test_a_second_replay_of_a_type_is_refused_until_the_first_is_decided(dsn: str) -> None:
    begin(dsn, "cdr")
    with pytest.raises(ReplayInWork, match=r"generation 2 \(cdr\) is being replayed since .* \(a test\)"):
        begin(dsn, "network", "cdr")
    assert begin(dsn, "network").generation == 3
    run(note_derivation_async(dsn, PREFIX, 2, decided=True, caught_up=True))
    assert begin(dsn, "cdr").generation == 4


def test_a_state_changes_from_where_it_is_expected_only_and_the_audit_log_says_by_whom(dsn: str) -> None:
    begin(dsn, "cdr")

    def move(to: DerivationState, *since: DerivationState) -> Any:
        return run(move_derivation_async(dsn, PREFIX, 2, to, since=since, actor="tester", action=f"to {to}"))

    run(note_derivation_async(dsn, PREFIX, 2, problem="Kafka is away"))
    running = move(DerivationState.RUNNING, DerivationState.PREPARING)
    assert (running.wanted, running.problem) == (True, None)
    with pytest.raises(WrongState, match="generation 2 is RUNNING, not PREPARING"):
        move(DerivationState.RUNNING, DerivationState.PREPARING)
    move(DerivationState.DROPPING, DerivationState.RUNNING)
    dropped = move(DerivationState.DROPPED, DerivationState.DROPPING)
    assert dropped.dropped_at is not None
    assert begin(dsn, "cdr").generation == 3  # a number is never used again
    with pytest.raises(WrongState, match="generation 9 is unknown"):
        run(
            move_derivation_async(
                dsn, PREFIX, 9, DerivationState.RUNNING, since=[DerivationState.PREPARING], actor="t", action="no"
            )
        )
    logged = psql(dsn, "SELECT action FROM audit_log ORDER BY id").stdout.split("\n")
    assert [line.strip() for line in logged if line.strip()] == [
        "replay start",
        "to RUNNING",
        "to DROPPING",
        "to DROPPED",
        "replay start",
    ]


def test_a_lock_has_one_holder_in_an_installation_and_ends_with_it(dsn: str) -> None:
    async def tried(prefix: str, lock: Lock) -> bool:
        async with locked_async(dsn, prefix, lock, wait=False) as mine:
            return mine

    async def story() -> list[bool]:
        async with locked_async(dsn, PREFIX, Lock.KEEP, wait=True) as mine:
            held = [mine, await tried(PREFIX, Lock.KEEP)]
            others = [await tried(PREFIX, Lock.SWITCH), await tried("another.", Lock.KEEP)]
        return [*held, *others, await tried(PREFIX, Lock.KEEP)]

    assert run(story()) == [True, False, True, True, True]
