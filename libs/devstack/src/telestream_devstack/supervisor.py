"""The background process that keeps a stack running.

It starts the parts side by side, sets a fresh stack up, starts the services, starts again what dies (each time a
little later), writes down why, and stops everything in order when it is told to.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import TextIO

from telestream_devstack.cache import python_environment
from telestream_devstack.errors import DevstackError, StackConflict
from telestream_devstack.keys import make_keys
from telestream_devstack.part import Part
from telestream_devstack.parts import PART_NAMES, Parts, make_parts
from telestream_devstack.process import Command, end, identity_of, rotate, spawn, tail, wait_until
from telestream_devstack.services import SERVICES, make_service
from telestream_devstack.state import MemberState, StackState, load

LOCK_FILE = "supervisor.lock"
SETUP = "setup"

_TICK_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 30.0  # who ran this long starts with a short pause again
_LOG_LINE_LIMIT = 300

_log = logging.getLogger("supervisor")


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after this many failures in a row."""
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** max(0, failures - 1), _LONGEST_PAUSE_SECONDS))


def take_lock(state_dir: Path) -> TextIO | None:
    """The lock that a state directory's supervisor holds for its life, or None if one holds it."""
    handle = (state_dir / LOCK_FILE).open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def end_orphans(found: StackState | None) -> int:
    """End what a supervisor that was killed has left behind; return how many processes there were."""
    if found is None:
        return 0
    orphans = [
        member.process for member in found.members.values() if member.process is not None and member.process.alive()
    ]
    end(orphans, timeout_seconds=15.0)
    return len(orphans)


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
class _Member:
    part: Part
    state: MemberState
    log: Path
    child: Popen[bytes] | None = None
    preparing: Future[None] | None = None
    becoming_ready: Future[str | None] | None = None
    due_at: float = 0.0
    started_at: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)


class Supervisor:
    """All spawning happens on the thread that calls `run`: children end when it does."""

    def __init__(self, state_dir: Path, options: StackState) -> None:
        self._state_dir = state_dir
        self._state = options
        self._stopping = False  # a plain flag: it is set by a signal handler, which must not take a lock
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="supervisor")
        self._dirty = True
        own_parts = [name for name in PART_NAMES if name in options.only and name not in options.overrides]
        parts = make_parts(state_dir, options.port_base, own_parts)
        addresses = Parts.at(state_dir, options.port_base, options.overrides)
        services = {
            service.name: make_service(service, addresses, state_dir, options.port_base)
            for service in SERVICES
            if service.name in options.only
        }
        options.members = {}
        self._parts = {name: self._member(part, is_service=False) for name, part in parts.items()}
        self._services = {name: self._member(part, is_service=True) for name, part in services.items()}
        self._setup_done = False
        self._setup_child: Popen[bytes] | None = None
        self._setup_due_at = 0.0
        self._setup_failures = 0

    def _member(self, part: Part, *, is_service: bool) -> _Member:
        state = MemberState(name=part.name, url=part.url, admin_url=part.admin_url, is_service=is_service)
        self._state.members[part.name] = state
        return _Member(part, state, self._state_dir / "logs" / f"{part.name}.log")

    def _members(self) -> Iterable[_Member]:
        yield from self._parts.values()
        yield from self._services.values()

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until `stop` is called; returns once all is down."""
        self._state.supervisor = identity_of(os.getpid())
        make_keys(self._state_dir)
        try:
            while not self._stopping:
                self._tick()
                self._save()
                time.sleep(_TICK_SECONDS)
        finally:
            self._shut_down()

    def _tick(self) -> None:
        now = time.monotonic()
        for member in self._parts.values():
            self._advance(member, now)
        if not self._setup_done:
            self._set_up(now)
        elif self._state.phase == "running" or all(part.state.state == "running" for part in self._parts.values()):
            for member in self._services.values():
                self._advance(member, now)
            if all(member.state.state == "running" for member in self._members()):
                self._enter("running")

    def _advance(self, member: _Member, now: float) -> None:
        """Take one member a step further; never waits."""
        if member.child is not None:
            self._watch(member, member.child, now)
        elif member.preparing is not None:
            if member.preparing.done():
                self._launch(member, now)
        elif now >= member.due_at:
            self._set(member, "preparing")
            member.preparing = self._pool.submit(member.part.prepare)

    def _launch(self, member: _Member, now: float) -> None:
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
        self._set(member, "starting")
        self._state.save(self._state_dir)
        member.becoming_ready = self._pool.submit(self._until_ready, member.part, member.stopping)

    def _watch(self, member: _Member, child: Popen[bytes], now: float) -> None:
        code = child.poll()
        if code is not None:
            member.stopping.set()
            member.child = member.becoming_ready = None
            self._failed(member, now, f"{_ended(code)}: {last_words(member.log)}")
            return
        if member.becoming_ready is not None and member.becoming_ready.done():
            problem = self._outcome(member.becoming_ready)
            member.becoming_ready = None
            if problem is None:
                self._set(member, "running")
            else:
                # It hangs in its start; what died is seen by its exit code.
                child.kill()
                child.wait()
                member.child = None
                self._failed(member, now, problem)
            return
        if member.state.failures and member.state.state == "running" and now - member.started_at > _STEADY_SECONDS:
            member.state.failures = 0
            self._dirty = True

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

    def _failed(self, member: _Member, now: float, reason: str) -> None:
        if now - member.started_at > _STEADY_SECONDS:
            member.state.failures = 0
        member.state.failures += 1
        member.state.restarts += 1
        member.state.process = None
        at = datetime.now(UTC).isoformat(timespec="seconds")
        member.state.last_error = f"{at} {reason}; see {member.log}"
        pause = pause_before_restart(member.state.failures)
        member.due_at = now + pause
        self._set(member, "backing-off")
        _log.warning("%s: %s; starting it again in %.1f s", member.part.name, reason, pause)

    def _set_up(self, now: float) -> None:
        """Run the set-up program beside the starting parts; repeat it until it succeeds."""
        if self._setup_child is None:
            if now < self._setup_due_at:
                return
            options = {
                "state_dir": str(self._state_dir),
                "port_base": self._state.port_base,
                "parts": list(self._parts),
                "overrides": self._state.overrides,
            }
            self._setup_child = spawn(
                Command(
                    arguments=[sys.executable, "-m", "telestream_devstack.bootstrap", json.dumps(options)],
                    log=self._state_dir / "logs" / f"{SETUP}.log",
                    environment=python_environment(),
                    cwd=self._state_dir,
                )
            )
            return
        code = self._setup_child.poll()
        if code is None:
            return
        self._setup_child = None
        if code == 0:
            self._setup_done, self._state.setup_error, self._dirty = True, None, True
            _log.info("set up")
            return
        self._setup_failures += 1
        log = self._state_dir / "logs" / f"{SETUP}.log"
        self._state.setup_error, self._dirty = f"{last_words(log)}; see {log}", True
        self._setup_due_at = now + pause_before_restart(self._setup_failures)
        _log.warning("setting up: %s", self._state.setup_error)

    def _enter(self, phase: str) -> None:
        if self._state.phase != phase:
            self._state.phase, self._dirty = phase, True
            _log.info("stack is %s", phase)

    def _set(self, member: _Member, state: str) -> None:
        member.state.state, self._dirty = state, True
        _log.info("%s is %s", member.part.name, state)

    def _save(self) -> None:
        if self._dirty:
            self._dirty = False
            self._state.save(self._state_dir)

    def _shut_down(self) -> None:
        """Services first, so that they drain into parts that still run."""
        self._state.phase = "stopping"
        if self._setup_child is not None:
            self._setup_child.terminate()
        for group in (self._services, self._parts):
            for member in group.values():
                member.stopping.set()
                self._set(member, "stopping")
            self._state.save(self._state_dir)
            list(self._pool.map(self._stop_member, group.values()))
        self._state.phase, self._state.supervisor = "stopped", None
        self._state.save(self._state_dir)
        self._pool.shutdown(wait=False, cancel_futures=True)
        _log.info("stack is stopped")

    def _stop_member(self, member: _Member) -> None:
        if member.child is not None:
            identity = identity_of(member.child.pid) if member.child.poll() is None else None
            if identity is not None:
                killed = end([identity], member.part.command().stop_signal, member.part.stop_timeout_seconds)
                if killed:
                    _log.warning("%s did not stop in %.0f s", member.part.name, member.part.stop_timeout_seconds)
            member.child.wait()
        member.state.process = None
        self._set(member, "stopped")


def start_background(state_dir: Path, options: StackState) -> Popen[bytes]:
    """Start a supervisor as a process of its own session."""
    (state_dir / "logs").mkdir(parents=True, exist_ok=True)
    log = state_dir / "logs" / "supervisor.log"
    rotate(log)
    arguments: Mapping[str, object] = {
        "state_dir": str(state_dir),
        "port_base": options.port_base,
        "only": options.only,
        "overrides": options.overrides,
    }
    with log.open("ab") as output:
        return Popen(
            [sys.executable, "-m", "telestream_devstack.supervisor", json.dumps(arguments)],
            env=python_environment(),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd=state_dir,
            start_new_session=True,
        )


def main() -> int:
    """Options as one JSON object: state_dir, port_base, only, overrides."""
    parser = argparse.ArgumentParser(prog="telestream_devstack.supervisor", description=__doc__)
    parser.add_argument("options", help=main.__doc__)
    options = json.loads(parser.parse_args().options)
    state_dir = Path(options["state_dir"])
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    lock = take_lock(state_dir)
    if lock is None:
        print(StackConflict(f"a stack already runs in {state_dir}"), file=sys.stderr)
        return 1
    try:
        if ended := end_orphans(load(state_dir)):
            _log.info("ended %d processes that a killed supervisor had left", ended)
        supervisor = Supervisor(
            state_dir, StackState(options["port_base"], list(options["only"]), dict(options["overrides"]))
        )
    except DevstackError as error:
        print(str(error), file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
