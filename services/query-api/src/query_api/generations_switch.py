"""Activate, roll back, drop: who sees what. One at a time in an installation, so that none is lost to another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from query_api.domain.problems import Problem
from query_api.domain.replay_gate import Check, failed_words
from query_api.generations_control import Control, active_of, opstore_answers
from query_api.generations_gate import first_of, gate
from telestream_domain import TYPES
from telestream_opstore import (
    Derivation,
    DerivationState,
    Lock,
    OpstoreError,
    WrongState,
    audit_async,
    locked_async,
    move_derivation_async,
    note_derivation_async,
)
from telestream_runtime import get_logger
from telestream_warehouse import Span
from telestream_warehouse import activate as activation

log = get_logger(__name__)
CAN_DROP = (DerivationState.PREPARING, DerivationState.RUNNING, DerivationState.FINISHED)


async def activate(
    control: Control,
    generation: int,
    types: Sequence[str] | None,
    reason: str,
    actor: str,
    *,
    force: bool,
    keep_before: bool,
) -> tuple[dict[str, int], list[Check]]:
    """What was switched, and the gate's checks. Raises Problem, and then nothing has changed."""
    row = await control.row(generation)
    active = active_of(await control.history())
    chosen = _activatable(row, types, active)
    parts = await control.progress(row)
    if not await control.caught_up(row, parts):
        left = sum(part.left for part in parts)
        raise Problem(
            409,
            "not_caught_up",
            f"generation {generation} is not there yet: {left} records of what lay there as it was begun are not "
            "stored" + ("" if left else ", or not in all windows") + f'; wait, see "replay status {generation}"',
        )
    await _require_all_of_it(control, row, chosen, active, keep_before)
    checks = await gate(control, row, chosen, active, parts)
    failed = [check for check in checks if not check.passed]
    if failed and not force:
        raise Problem(
            409,
            "gate_failed",
            f"generation {generation} was not activated: {failed_words(checks)}; compare it, or force it with a reason",
            more={"gate": [check.shown() for check in checks]},
        )
    wanted = dict.fromkeys(chosen, generation)
    detail = {"gate": [check.shown() for check in checks], "forced": bool(failed)}
    async with opstore_answers(), locked_async(control.dsn, control.prefix, Lock.SWITCH, wait=True):
        # whoever held the lock may have dropped it
        _activatable(await control.row(generation), types, active_of(await control.history()))
        await _switch(control, wanted, reason, actor, "replay activate", detail)
    return wanted, checks


async def roll_back(control: Control, types: Sequence[str] | None, reason: str, actor: str) -> dict[str, int]:
    """What was switched. Raises Problem, and then nothing has changed."""
    async with opstore_answers(), locked_async(control.dsn, control.prefix, Lock.SWITCH, wait=True):
        history = await control.history()
        running = {row.generation: row for row in await control.rows() if row.state is DerivationState.RUNNING}
        chosen = list(types) if types else _last_switched(history)
        wanted = {name: _before(history, name, running) for name in chosen}
        without = [name for name, generation in wanted.items() if generation is None]
        if without or not wanted:
            raise Problem(
                409,
                "nothing_to_roll_back",
                f"{', '.join(without) or ', '.join(TYPES)}: no other generation was active before that is still there "
                "with its workers; activate one by its number",
                "types",
            )
        found = {name: generation for name, generation in wanted.items() if generation is not None}
        was = {name: active_of(history)[name] for name in found}
        await _switch(control, found, reason, actor, "replay rollback", {"was": was})
    return found


async def drop(control: Control, generation: int, reason: str, actor: str) -> Derivation:
    """The row, DROPPING from now on. Raises Problem, and then nothing has changed."""
    async with opstore_answers(), locked_async(control.dsn, control.prefix, Lock.SWITCH, wait=True):
        row = await control.row(generation)
        shown = [name for name, number in active_of(await control.history()).items() if number == generation]
        if shown:
            raise Problem(
                409,
                "active",
                f"generation {generation} is what people see of {', '.join(shown)}: activate another one, or roll "
                "back, before it is dropped",
            )
        if row.state is DerivationState.DROPPING:
            return row
        if row.state is DerivationState.DROPPED:
            raise Problem(409, "dropped", f"generation {generation} was dropped at {row.dropped_at:%Y-%m-%d %H:%M}")
        try:
            moved = await move_derivation_async(
                control.dsn,
                control.prefix,
                generation,
                DerivationState.DROPPING,
                since=CAN_DROP,
                actor=actor,
                action="replay drop",
                detail={"reason": reason},
            )
        except WrongState as err:
            raise Problem(409, "dropped", str(err)) from err
    control.wake.set()
    return moved


async def _switch(
    control: Control, wanted: Mapping[str, int], reason: str, actor: str, action: str, detail: Mapping[str, object]
) -> None:
    """One insert; with the lock held. That it was done counts, what PostgreSQL says of it can be late."""
    started = time.perf_counter()
    try:
        await control.tell(activation(wanted, reason))
    except Problem:
        # no answer says nothing about whether it was done
        active = active_of(await control.history())
        if any(active.get(name) != generation for name, generation in wanted.items()):
            raise
    log.info("activated", generations=dict(wanted), seconds=round(time.perf_counter() - started, 3))
    try:
        await audit_async(control.dsn, actor, action, {"activated": dict(wanted), "reason": reason, **detail})
        for generation in set(wanted.values()):
            await note_derivation_async(control.dsn, control.prefix, generation, decided=True)
    except OpstoreError as err:
        log.warning("an activation is not in the audit log", generations=dict(wanted), actor=actor, reason=str(err))


def _activatable(row: Derivation, types: Sequence[str] | None, active: Mapping[str, int]) -> list[str]:
    """The types that would change. Raises Problem."""
    number = row.generation
    if row.compare_only:
        raise Problem(
            409, "compare_only", f"generation {number} is a rehearsal: compare it; to activate, start one without it"
        )
    if row.state is DerivationState.PREPARING:
        why = f": {row.problem}" if row.problem else ""
        raise Problem(409, "not_caught_up", f"generation {number} is being prepared{why}; wait until it has caught up")
    if row.state is not DerivationState.RUNNING:
        raise Problem(409, "not_running", f"generation {number} is {row.state}: its workers do not run")
    foreign = [name for name in types or () if name not in row.types]
    if foreign:
        raise Problem(422, "bad_types", f"types: generation {number} derives {', '.join(row.types)} only", "types")
    chosen = [name for name in types or row.types if active.get(name) != number]
    if not chosen:
        named = ", ".join(types or row.types)
        raise Problem(409, "already_active", f"generation {number} is what people see of {named} already")
    return chosen


async def _require_all_of_it(
    control: Control, row: Derivation, types: Sequence[str], active: Mapping[str, int], keep_before: bool
) -> None:
    """Raises Problem if people would lose what lies before this generation's beginning."""
    for name in types:
        other = await control.row(active[name])
        ours, theirs = await first_of(control, row, name), await first_of(control, other, name)
        for partition, first in sorted(theirs.items()):
            start = ours.get(partition, first)
            if start > first:
                raise Problem(
                    409,
                    "begins_later",
                    f"generation {row.generation} begins at {name}.raw[{partition}] offset {start}, generation "
                    f"{other.generation}, which people see, at {first}: what lies between would be gone; "
                    + ("two generations at once cannot be shown yet: " if keep_before else "")
                    + "begin a replay earlier, or stay with that one",
                )


def _last_switched(history: Sequence[Span]) -> list[str]:
    """The types that the newest activation switched; the first one of all switched nothing."""
    held = {name: [span for span in history if span.type == name] for name in TYPES}
    since = {name: spans[-1].since for name, spans in held.items() if len(spans) > 1}
    newest = max(since.values(), default=None)
    return [name for name, at in since.items() if at == newest]


def _before(history: Sequence[Span], record_type: str, running: Mapping[int, Derivation]) -> int | None:
    """The generation that was active last before the one that is, and still has its rows and workers."""
    own = [span.generation for span in history if span.type == record_type]
    for generation in reversed(own[:-1]):
        if generation != own[-1] and generation in running:
            return generation
    return None
