"""The table of generations: what each derives, from where and with what, and whether its workers are wanted.

Which generation people see is not here but in ClickHouse, one row that switches all views at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from telestream_domain import TYPES
from telestream_opstore.connection import connect, run_sync
from telestream_opstore.errors import OpstoreError, ReplayInWork, WrongState

FIRST_GENERATION = 1
_LOCK = 0x7465_6C65_0001

Offsets = dict[int, int]
"""Partition to offset."""


class DerivationState(StrEnum):
    """``PREPARING``: its topics are being made. ``RUNNING``: its workers are wanted. ``FINISHED``: a rehearsal that has
    reached its ends, or workers no longer wanted while its rows stay. ``DROPPING``: workers must end, then all of it is
    removed. ``DROPPED``: nothing of it is left but this row."""

    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    DROPPING = "DROPPING"
    DROPPED = "DROPPED"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation was begun with.

    ``starts``: type → first raw offsets derived (none: where the log began). ``ends``: type → raw ends as the replay
    was asked for. ``reference``: reference topic → raw offsets below ``ends`` are judged with the versions below these
    offsets only; later ones with what is there then. ``only_to_ends``: nothing from ``ends`` on is derived (a
    rehearsal). ``rules``: the rule changes, as ``telestream_domain.RuleChanges`` writes them. ``versions``: of code,
    rules and schemas. ``asked``: the request in its own words.
    """

    starts: dict[str, Offsets] = {}
    ends: dict[str, Offsets] = {}
    reference: dict[str, Offsets] = {}
    only_to_ends: bool = False
    rules: dict[str, Any] = {}
    versions: dict[str, str | int] = {}
    asked: dict[str, str] = {}

    def start_of(self, record_type: str, partition: int) -> int | None:
        """First raw offset to derive; None: where the log begins."""
        return self.starts.get(record_type, {}).get(partition)

    def end_of(self, record_type: str, partition: int) -> int | None:
        """Raw end as the replay was asked for; None: nothing is pinned."""
        return self.ends.get(record_type, {}).get(partition)


class Derivation(msgspec.Struct, frozen=True, kw_only=True):
    """One generation's row."""

    generation: int
    types: tuple[str, ...]
    state: DerivationState
    compare_only: bool
    plan: Plan
    reason: str
    actor: str
    problem: str | None
    created_at: datetime
    caught_up_at: datetime | None
    decided_at: datetime | None
    dropped_at: datetime | None

    @property
    def wanted(self) -> bool:
        """Whether its workers should run."""
        return self.state is DerivationState.RUNNING

    @property
    def in_work(self) -> bool:
        """Whether it is a replay that nobody has decided on yet."""
        return self.state in (DerivationState.PREPARING, DerivationState.RUNNING) and self.decided_at is None


async def create_derivation_async(
    dsn: str,
    topic_prefix: str,
    types: Sequence[str],
    plan: Plan,
    *,
    reason: str,
    actor: str,
    compare_only: bool = False,
) -> Derivation:
    """A new generation in state PREPARING, one more than the highest there ever was.

    Raises ReplayInWork while another one of these types is undecided, OpstoreUnavailable, OpstoreError.
    """
    async with connect(dsn) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await _ensure_first(connection, topic_prefix)
        others = [_derivation(row) for row in await connection.fetch(f"{_SELECT} ORDER BY generation", topic_prefix)]
        for other in others:
            if other.in_work and set(other.types) & set(types):
                raise ReplayInWork(
                    f"generation {other.generation} ({', '.join(other.types)}) is being replayed since "
                    f"{other.created_at:%Y-%m-%d %H:%M} ({other.reason}): activate or drop it first"
                )
        row = await connection.fetchrow(
            "INSERT INTO derivation (topic_prefix, generation, types, state, compare_only, plan, reason, actor) "
            f"VALUES ($1, $2, $3, 'PREPARING', $4, $5, $6, $7) RETURNING {_COLUMNS}",
            topic_prefix,
            others[-1].generation + 1,
            list(types),
            compare_only,
            msgspec.to_builtins(plan, str_keys=True),
            reason,
            actor,
        )
        made = _derivation(row)
        await _audit(connection, actor, "replay start", {"generation": made.generation, "reason": reason} | plan.asked)
        return made


async def derivations_async(dsn: str, topic_prefix: str) -> list[Derivation]:
    """Every generation there ever was, the first one too."""
    async with connect(dsn) as connection:
        await _ensure_first(connection, topic_prefix)
        return [_derivation(row) for row in await connection.fetch(f"{_SELECT} ORDER BY generation", topic_prefix)]


def derivations(dsn: str, topic_prefix: str) -> list[Derivation]:
    """``derivations_async`` for code without an event loop."""
    return run_sync(derivations_async(dsn, topic_prefix))


async def derivation_async(dsn: str, topic_prefix: str, generation: int) -> Derivation | None:
    """One generation, None if there never was such a one."""
    return next((d for d in await derivations_async(dsn, topic_prefix) if d.generation == generation), None)


async def move_derivation_async(
    dsn: str,
    topic_prefix: str,
    generation: int,
    to: DerivationState,
    *,
    since: Sequence[DerivationState],
    actor: str,
    action: str,
    detail: Mapping[str, Any] | None = None,
) -> Derivation:
    """Change the state, once, from one of ``since``; written to the audit log with it.

    Raises WrongState if it stands in another one (or there is no such generation), OpstoreUnavailable, OpstoreError.
    """
    async with connect(dsn) as connection, connection.transaction():
        row = await connection.fetchrow(
            "UPDATE derivation SET state = $3, problem = NULL, "
            "dropped_at = CASE WHEN $3 = 'DROPPED' THEN now() ELSE dropped_at END "
            f"WHERE topic_prefix = $1 AND generation = $2 AND state = ANY ($4) RETURNING {_COLUMNS}",
            topic_prefix,
            generation,
            str(to),
            [str(state) for state in since],
        )
        if row is None:
            found = await connection.fetchval(
                "SELECT state FROM derivation WHERE topic_prefix = $1 AND generation = $2", topic_prefix, generation
            )
            raise WrongState(f"generation {generation} is {found or 'unknown'}, not {' or '.join(since)}")
        await _audit(connection, actor, action, {"generation": generation, **(detail or {})})
        return _derivation(row)


async def note_derivation_async(
    dsn: str,
    topic_prefix: str,
    generation: int,
    *,
    problem: str | None = None,
    caught_up: bool = False,
    decided: bool = False,
) -> None:
    """Note why it does not get on (None clears it), that it caught up first, that it was activated first."""
    async with connect(dsn) as connection:
        await connection.execute(
            "UPDATE derivation SET problem = $3, "
            "caught_up_at = CASE WHEN $4 THEN coalesce(caught_up_at, now()) ELSE caught_up_at END, "
            "decided_at = CASE WHEN $5 THEN coalesce(decided_at, now()) ELSE decided_at END "
            "WHERE topic_prefix = $1 AND generation = $2",
            topic_prefix,
            generation,
            problem,
            caught_up,
            decided,
        )


async def audit_async(dsn: str, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    """One line of the audit log: who did what."""
    async with connect(dsn) as connection:
        await _audit(connection, actor, action, detail)


_COLUMNS = (
    "generation, types, state, compare_only, plan, reason, actor, problem, "
    "created_at, caught_up_at, decided_at, dropped_at"
)
_SELECT = f"SELECT {_COLUMNS} FROM derivation WHERE topic_prefix = $1"


async def _ensure_first(connection: Any, topic_prefix: str) -> None:
    """The first generation needs nobody to ask for it."""
    await connection.execute(
        "INSERT INTO derivation (topic_prefix, generation, types, state, plan, reason, actor, decided_at) "
        "VALUES ($1, $2, $3, 'RUNNING', '{}', 'first installation', 'installation', now()) "
        "ON CONFLICT DO NOTHING",
        topic_prefix,
        FIRST_GENERATION,
        list(TYPES),
    )


async def _audit(connection: Any, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    await connection.execute(
        "INSERT INTO audit_log (actor, action, detail) VALUES ($1, $2, $3)", actor, action, dict(detail)
    )


def _derivation(row: Mapping[str, Any]) -> Derivation:
    try:
        return msgspec.convert(dict(row), Derivation, str_keys=True, builtin_types=(datetime,))
    except msgspec.ValidationError as err:
        raise OpstoreError(f"generation {row['generation']}: its row cannot be read: {err}") from err
