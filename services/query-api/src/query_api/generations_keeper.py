"""What goes on by itself: a generation that was begun is made, one that was dropped is removed, one that has caught up
is noted. Any query API does it, one at a time, from the rows alone: what was interrupted is done again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from query_api.domain.problems import Problem
from query_api.domain.replay_progress import Part
from query_api.generations_control import Control, active_of
from telestream_contracts import (
    delete_generation_topics,
    delete_groups,
    group_members,
    layout_of,
    make_generation_topics,
)
from telestream_domain import TelestreamError
from telestream_opstore import (
    FIRST_GENERATION,
    Derivation,
    DerivationState,
    Lock,
    OpstoreError,
    WrongState,
    audit_async,
    derivations_async,
    locked_async,
    move_derivation_async,
    note_derivation_async,
)
from telestream_runtime import get_logger
from telestream_warehouse import (
    drop_partitions,
    drop_positions,
    held_partitions,
    held_positions,
)

IN_WORK_S, IDLE_S = 1.5, 5.0
"""Between two looks, while a replay is in work and while none is."""

PACE_S = 5.0
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
ACTOR = "query-api"

log = get_logger(__name__)


class NotYet(Exception):
    """Something has to happen elsewhere first; looked at again soon."""


class Keeper:
    """One task per process; ``start`` and ``stop`` in the loop that serves."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._task: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._retry: dict[int, tuple[float, float]] = {}
        self._paced_s = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._control.clickhouse.close()

    async def _run(self) -> None:
        while True:
            wait_s = IDLE_S
            # cleared first: what is begun while we look is looked at again
            self._control.wake.clear()
            try:
                wait_s = await self._round()
                self._trouble = None
            except Exception as err:
                # a task that ends would end all of this unseen
                if self._trouble != str(err):
                    log.warning("generations are not looked after", reason=str(err))
                self._trouble = str(err)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._control.wake.wait(), wait_s)

    async def _round(self) -> float:
        """One look at all rows; seconds until the next."""
        control = self._control
        rows = await derivations_async(control.dsn, control.prefix)
        await self._note_paces(rows)
        if not any(map(_needs_hands, rows)):
            return IN_WORK_S if any(row.in_work for row in rows) else IDLE_S
        async with locked_async(control.dsn, control.prefix, Lock.KEEP, wait=False) as mine:
            if not mine:
                return IN_WORK_S
            # another one may have done it in between
            for row in await derivations_async(control.dsn, control.prefix):
                if _needs_hands(row) and time.monotonic() >= self._retry.get(row.generation, (0.0, 0.0))[0]:
                    await self._look_after(row)
        return IN_WORK_S

    async def _look_after(self, row: Derivation) -> None:
        try:
            if row.state is DerivationState.PREPARING:
                await self._prepare(row)
            elif row.state is DerivationState.DROPPING:
                await self._drop(row)
            else:
                await self._follow(row)
            self._retry.pop(row.generation, None)
        except NotYet as err:
            await self._note(row, str(err))
        except WrongState:
            # somebody decided otherwise meanwhile: the next look sees it
            return
        except (TelestreamError, Problem) as err:
            if isinstance(err, OpstoreError):
                raise
            waited = self._retry.get(row.generation, (0.0, FIRST_RETRY_S / 2))[1]
            wait_s = min(waited * 2, LONGEST_RETRY_S)
            self._retry[row.generation] = (time.monotonic() + wait_s, wait_s)
            log.warning("a generation waits", generation=row.generation, state=str(row.state), reason=_words(err))
            await self._note(row, _words(err))

    async def _note(self, row: Derivation, problem: str) -> None:
        if row.problem != problem:
            control = self._control
            await note_derivation_async(control.dsn, control.prefix, row.generation, problem=problem)

    async def _prepare(self, row: Derivation) -> None:
        """Topics and subjects as generation 1 has them; then its workers are wanted."""
        control, topics = self._control, self._control.topics(row.generation)

        def made() -> list[str]:
            kafka = control.settings.kafka
            names = make_generation_topics(kafka, topics, layout_of(kafka, topics.raw(row.types[0])))
            control.parts.registry.register_derived(topics)
            return names

        names = await asyncio.to_thread(made)
        await self._move(row, DerivationState.RUNNING, "replay prepared", {"topics": len(names)})
        log.info("a generation is prepared", generation=row.generation, types=list(row.types))

    async def _drop(self, row: Derivation) -> None:
        """Once its workers have ended, everything of it; DROPPED when a look finds nothing left."""
        control, topics = self._control, self._control.topics(row.generation)
        kafka, groups = control.settings.kafka, control.groups_of(row.generation)
        members = await asyncio.to_thread(group_members, kafka, groups)
        if members:
            named = ", ".join(f"{group} has {count}" for group, count in sorted(members.items()))
            raise NotYet(f"waits until its workers have ended: members of {named}; stop them if nobody else does")
        gone = await asyncio.to_thread(delete_generation_topics, kafka, topics)
        gone += await asyncio.to_thread(delete_groups, kafka, groups)
        for statement in drop_partitions(held := await control.ask(held_partitions(row.generation))):
            await control.tell(statement)
        (positions,) = await control.ask(held_positions(topics))
        if int(positions["positions"]):
            await control.tell(drop_positions(topics))
        gone += await asyncio.to_thread(control.parts.registry.forget_derived, topics)
        if gone or held or int(positions["positions"]):
            log.info("removed of a generation", generation=row.generation, partitions=len(held), names=gone)
            # a worker that came in between would have left something
            control.wake.set()
            return
        await self._move(row, DerivationState.DROPPED, "replay dropped", {})
        control.paces.pop(row.generation, None)
        control.ends.pop(row.generation, None)

    async def _follow(self, row: Derivation) -> None:
        """Note what happened: caught up, a rehearsal's end, an activation that PostgreSQL did not hear of."""
        control = self._control
        if row.caught_up_at is None and row.generation != FIRST_GENERATION:
            if await control.caught_up(row, await control.progress(row)):
                await note_derivation_async(control.dsn, control.prefix, row.generation, caught_up=True)
                await audit_async(control.dsn, ACTOR, "replay caught up", {"generation": row.generation})
                if row.plan.only_to_ends:
                    await self._move(row, DerivationState.FINISHED, "replay finished", {})
                return
        elif row.plan.only_to_ends:
            await self._move(row, DerivationState.FINISHED, "replay finished", {})
            return
        if row.decided_at is None and row.generation in active_of(await control.history()).values():
            await note_derivation_async(control.dsn, control.prefix, row.generation, decided=True)
            await audit_async(control.dsn, ACTOR, "replay activate", {"generation": row.generation, "noted": "late"})
        if row.problem is not None:
            await note_derivation_async(control.dsn, control.prefix, row.generation)

    async def _move(self, row: Derivation, to: DerivationState, action: str, detail: dict[str, int]) -> None:
        control = self._control
        await move_derivation_async(
            control.dsn,
            control.prefix,
            row.generation,
            to,
            since=[row.state],
            actor=ACTOR,
            action=action,
            detail=detail,
        )

    async def _note_paces(self, rows: list[Derivation]) -> None:
        if time.monotonic() - self._paced_s < PACE_S:
            return
        self._paced_s = time.monotonic()
        for row in rows:
            if row.state is DerivationState.RUNNING and row.in_work:
                try:
                    stored: list[Part] = await self._control.progress(row)
                except Problem:
                    continue
                self._control.noted_pace(row.generation, stored)


def _needs_hands(row: Derivation) -> bool:
    if row.state is DerivationState.RUNNING:
        return row.in_work or row.problem is not None
    return row.state in (DerivationState.PREPARING, DerivationState.DROPPING)


def _words(err: Exception) -> str:
    """What is wrong, from where it began: a Problem's own words are for those who ask."""
    cause = err.__cause__ if isinstance(err, Problem) and err.__cause__ is not None else err
    return " ".join(str(cause).split())[:500] or type(cause).__name__
