"""The workers of every generation: those beside the first one's come and go as the rows say."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import Future

from telestream_devstack.members import Member, Members
from telestream_devstack.parts import Parts
from telestream_devstack.ports import slot_for
from telestream_devstack.services import DERIVING, FIRST_GENERATION, SERVICES, make_service, member_name, own_dir
from telestream_devstack.state import StackState
from telestream_devstack.wanted import WantedWatch

_START_ALONE_SECONDS = 30.0  # so long a start of the stack has the machine to itself

_log = logging.getLogger("supervisor")


class Generations:
    """`services` are the stack's own: the first generation's workers are taken out of it when they are not wanted."""

    def __init__(
        self, runner: Members, stack: StackState, addresses: Parts, topic_prefix: str, services: dict[str, Member]
    ) -> None:
        self.members: dict[str, Member] = {}
        """Those of all generations but the first, by name."""
        self._runner, self._stack, self._addresses, self._services = runner, stack, addresses, services
        self._slots: dict[int, int] = {}
        self._leaving: dict[str, Future[None]] = {}
        self._removed: set[int] = set()
        self._began_at: float | None = None
        # None where no worker is wanted at all, or no PostgreSQL could say anything.
        known = "postgres" in stack.only or "postgres" in stack.overrides
        deriving = set(DERIVING) & set(stack.only)
        self._watch = WantedWatch(addresses.postgres, topic_prefix) if known and deriving else None

    def may_start(self, service: str) -> bool:
        """A first generation that was dropped has no workers, which its row alone knows: that is asked for first."""
        return service not in DERIVING or self._watch is None or self._watch.tried

    def follow(self, now: float) -> None:
        """Let members come and go as the rows want it; never waits."""
        if self._began_at is None:
            self._began_at = now
        for name in [name for name, ending in self._leaving.items() if ending.done()]:
            del self._leaving[name]
            self._runner.remove(name)
        wanted = None if self._watch is None else self._watch.news(now)
        if wanted is None:
            return
        if FIRST_GENERATION not in wanted.running:
            self._leave(self._services, [name for name in self._services if name in DERIVING])
        self._leave(
            self.members, [name for name, m in self.members.items() if m.state.generation not in wanted.running]
        )
        self._slots = {n: slot for n, slot in self._slots.items() if n in wanted.running}
        for generation in sorted(set(wanted.running) - {FIRST_GENERATION}):
            self._join(generation, required=wanted.running[generation])
        for generation in wanted.dropped - self._removed:
            self._remove_state(generation)

    def advance(self, now: float, *, stack_is_up: bool) -> None:
        """Take every member a step further, once the stack itself is up, or has had its time; never waits."""
        if stack_is_up or (self._began_at is not None and now > self._began_at + _START_ALONE_SECONDS):
            for member in self.members.values():
                self._runner.advance(member, now)

    def close(self) -> None:
        """Nobody is asked any more."""
        if self._watch is not None:
            self._watch.close()

    def wait(self) -> None:
        """Until all that were leaving have ended."""
        for ending in self._leaving.values():
            ending.result()

    def _join(self, generation: int, *, required: bool) -> None:
        if generation not in self._slots:
            slot = slot_for(generation, self._slots.values())
            if slot is None:
                _log.warning("generation %d: no ports are left for its workers: drop another one first", generation)
                return
            self._slots[generation] = slot
        for service in SERVICES:
            name = member_name(service.name, generation)
            if service.name not in DERIVING or service.name not in self._stack.only or name in self._leaving:
                continue
            if name not in self.members:
                part = make_service(
                    service,
                    self._addresses,
                    self._runner.state_dir,
                    self._stack.port_base,
                    generation,
                    self._slots[generation],
                )
                self.members[name] = self._runner.add(part, is_service=True, generation=generation)
            state = self.members[name].state
            if state.required != required:
                state.required, self._runner.dirty = required, True

    def _leave(self, group: dict[str, Member], names: Iterable[str]) -> None:
        for name in names:
            member = group.pop(name)
            member.stopping.set()
            self._runner.set_state(member, "stopping")
            self._leaving[name] = self._runner.pool.submit(self._runner.stop, member)

    def _remove_state(self, generation: int) -> None:
        """What the workers of a dropped generation kept here, once they have ended."""
        if any(member_name(service, generation) in self._leaving for service in DERIVING):
            return
        self._removed.add(generation)
        for service in DERIVING:
            own = own_dir(self._runner.state_dir, service, generation)
            if own.exists():
                self._runner.pool.submit(shutil.rmtree, own, ignore_errors=True)
