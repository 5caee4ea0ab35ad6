"""Parts and services as running programs: started, watched, started again a little later each time, stopped."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen

from telestream_devstack.part import Part
from telestream_devstack.process import end, identity_of, spawn, tail, wait_until
from telestream_devstack.services import FIRST_GENERATION
from telestream_devstack.state import MemberState, StackState
from telestream_devstack.wanted import ASK_EVERY_SECONDS

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 30.0  # who ran this long starts with a short pause again
_THREADS = 80  # most of them wait for a member to become ready; there are never more than members
_LOG_LINE_LIMIT = 300

_log = logging.getLogger("supervisor")


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after this many failures in a row."""
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** max(0, failures - 1), _LONGEST_PAUSE_SECONDS))


def last_words(log: Path) -> str:
    """The last line of a log, short, and out of its JSON if it is one."""
    lines = tail(log, 1)
    if not lines:
        return "it said nothing"
    line = lines[0]
    try:
        entry = json.loads(line)
        said = [str(entry[key]) for key in ("event", "reason", "error") if entry.get(key)]
        trace = str(entry.get("exception") or "").strip().splitlines()[-1:]
        line = ": ".join([*said, *trace]) or line
    except (ValueError, TypeError, AttributeError):
        pass
    return line if len(line) <= _LOG_LINE_LIMIT else line[: _LOG_LINE_LIMIT - 1] + "…"


def _ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@dataclass(slots=True)
class Member:
    """A part with what is going on with it now."""

    part: Part
    state: MemberState
    log: Path
    child: Popen[bytes] | None = None
    preparing: Future[None] | None = None
    becoming_ready: Future[str | None] | None = None
    due_at: float = 0.0
    started_at: float = math.inf  # until it runs
    stopping: threading.Event = field(default_factory=threading.Event)


class Members:
    """All spawning happens on the thread that calls `advance`: children end when it does."""

    def __init__(self, state_dir: Path, state: StackState) -> None:
        self.state_dir, self._state = state_dir, state
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="supervisor")
        self.dirty = True
        """Whether there is something to write down."""

    def add(self, part: Part, *, is_service: bool, generation: int = FIRST_GENERATION) -> Member:
        """A member that is not started yet; it stands in the stack's state from now on."""
        state = MemberState(
            name=part.name, url=part.url, admin_url=part.admin_url, is_service=is_service, generation=generation
        )
        self._state.members[part.name] = state
        return Member(part, state, self.state_dir / "logs" / f"{part.name}.log")

    def remove(self, name: str) -> None:
        """Take one that has ended out of the stack's state."""
        del self._state.members[name]
        self.dirty = True

    def advance(self, member: Member, now: float) -> None:
        """Take one member a step further; never waits."""
        if member.child is not None:
            self._watch(member, member.child, now)
        elif member.preparing is not None:
            if member.preparing.done():
                self._launch(member, now)
        elif now >= member.due_at:
            self.set_state(member, "preparing")
            member.preparing = self.pool.submit(member.part.prepare)

    def _launch(self, member: Member, now: float) -> None:
        assert member.preparing is not None
        preparing, member.preparing = member.preparing, None
        try:
            preparing.result()
            child = spawn(member.part.command())
        except Exception as error:
            self._failed(member, now, str(error))
            return
        member.child, member.started_at = child, now
        member.stopping = threading.Event()
        member.state.process = identity_of(child.pid)
        self.set_state(member, "starting")
        self._state.save(self.state_dir)
        member.becoming_ready = self.pool.submit(self._until_ready, member.part, member.stopping)

    def _watch(self, member: Member, child: Popen[bytes], now: float) -> None:
        code = child.poll()
        if code is not None:
            member.stopping.set()
            member.child = member.becoming_ready = None
            if code == 0 and member.state.generation != FIRST_GENERATION:
                # It has read that it is not wanted, a little before this supervisor has.
                member.state.process, member.due_at = None, now + 2 * ASK_EVERY_SECONDS
                self.set_state(member, "stopped")
                return
            self._failed(member, now, f"{_ended(code)}: {last_words(member.log)}")
            return
        if member.becoming_ready is not None and member.becoming_ready.done():
            problem = self._outcome(member.becoming_ready)
            member.becoming_ready = None
            if problem is None:
                self.set_state(member, "running")
            else:
                # It hangs in its start; what died is seen by its exit code.
                child.kill()
                child.wait()
                member.child = None
                self._failed(member, now, problem)
            return
        if member.state.failures and member.state.state == "running" and now - member.started_at > _STEADY_SECONDS:
            member.state.failures = 0
            self.dirty = True

    @staticmethod
    def _outcome(future: Future[str | None]) -> str | None:
        try:
            return future.result()
        except Exception as error:
            return str(error)

    @staticmethod
    def _until_ready(part: Part, stopping: threading.Event) -> str | None:
        """None once it is ready and settled, else why not."""
        deadline = time.monotonic() + part.start_timeout_seconds
        while (reason := part.ready()) is not None:
            if stopping.is_set():
                return "stopped"
            if not wait_until(deadline):
                return f"not ready after {part.start_timeout_seconds:.0f} s: {reason}"
        part.settle()
        return None

    def _failed(self, member: Member, now: float, reason: str) -> None:
        if now - member.started_at > _STEADY_SECONDS:
            member.state.failures = 0
        member.started_at = math.inf
        member.state.failures += 1
        member.state.restarts += 1
        member.state.process = None
        at = datetime.now(UTC).isoformat(timespec="seconds")
        member.state.last_error = f"{at} {reason}; see {member.log}"
        pause = pause_before_restart(member.state.failures)
        member.due_at = now + pause
        self.set_state(member, "backing-off")
        _log.warning("%s: %s; starting it again in %.1f s", member.part.name, reason, pause)

    def set_state(self, member: Member, state: str) -> None:
        member.state.state, self.dirty = state, True
        _log.info("%s is %s", member.part.name, state)

    def stop(self, member: Member) -> None:
        """Wait until it has ended, in any thread; it is killed if it takes too long."""
        if member.child is not None:
            identity = identity_of(member.child.pid) if member.child.poll() is None else None
            if identity is not None:
                killed = end([identity], member.part.command().stop_signal, member.part.stop_timeout_seconds)
                if killed:
                    _log.warning("%s did not stop in %.0f s", member.part.name, member.part.stop_timeout_seconds)
            member.child.wait()
        member.state.process = None
        self.set_state(member, "stopped")
