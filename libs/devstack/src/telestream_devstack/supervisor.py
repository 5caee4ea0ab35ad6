"""The background process that keeps a stack running.

It starts the parts side by side, sets a fresh stack up, starts the services, and beside them the workers of every
other generation that is wanted. It starts again what dies (each time a little later), writes down why, and stops
everything in order when it is told to.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import TextIO

from telestream_devstack.cache import python_environment
from telestream_devstack.errors import DevstackError, StackConflict
from telestream_devstack.generations import Generations
from telestream_devstack.keys import make_keys
from telestream_devstack.members import Members, last_words, pause_before_restart
from telestream_devstack.parts import PART_NAMES, Parts, make_parts
from telestream_devstack.process import Command, end, identity_of, rotate, spawn
from telestream_devstack.services import SERVICES, make_service
from telestream_devstack.state import StackState, load
from telestream_domain import DEFAULT_PREFIX

LOCK_FILE = "supervisor.lock"
SETUP = "setup"

_TICK_SECONDS = 0.1

_log = logging.getLogger("supervisor")


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


class Supervisor:
    """One stack, from start to stop; `run` is called once."""

    def __init__(self, state_dir: Path, options: StackState) -> None:
        self._state_dir = state_dir
        self._state = options
        self._stopping = False  # a plain flag: it is set by a signal handler, which must not take a lock
        self._members = Members(state_dir, options)
        own_parts = [name for name in PART_NAMES if name in options.only and name not in options.overrides]
        parts = make_parts(state_dir, options.port_base, own_parts)
        addresses = Parts.at(state_dir, options.port_base, options.overrides)
        services = {
            service.name: make_service(service, addresses, state_dir, options.port_base)
            for service in SERVICES
            if service.name in options.only
        }
        options.members = {}
        self._parts = {name: self._members.add(part, is_service=False) for name, part in parts.items()}
        self._services = {name: self._members.add(part, is_service=True) for name, part in services.items()}
        prefix = os.environ.get("TELESTREAM_TOPIC_PREFIX", DEFAULT_PREFIX)
        self._generations = Generations(self._members, options, addresses, prefix, self._services)
        self._setup_done = False
        self._setup_child: Popen[bytes] | None = None
        self._setup_due_at = 0.0
        self._setup_failures = 0

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
            self._members.advance(member, now)
        if not self._setup_done:
            self._set_up(now)
        elif self._state.phase == "running" or all(part.state.state == "running" for part in self._parts.values()):
            self._generations.follow(now)
            for name, service in self._services.items():
                if self._generations.may_start(name):
                    self._members.advance(service, now)
            base = (*self._parts.values(), *self._services.values())
            if all(member.state.state == "running" for member in base):
                self._enter("running")
            self._generations.advance(now, stack_is_up=self._state.phase == "running")

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
            self._setup_done, self._state.setup_error, self._members.dirty = True, None, True
            _log.info("set up")
            return
        self._setup_failures += 1
        log = self._state_dir / "logs" / f"{SETUP}.log"
        self._state.setup_error, self._members.dirty = f"{last_words(log)}; see {log}", True
        self._setup_due_at = now + pause_before_restart(self._setup_failures)
        _log.warning("setting up: %s", self._state.setup_error)

    def _enter(self, phase: str) -> None:
        if self._state.phase != phase:
            self._state.phase, self._members.dirty = phase, True
            _log.info("stack is %s", phase)

    def _save(self) -> None:
        if self._members.dirty:
            self._members.dirty = False
            self._state.save(self._state_dir)

    def _shut_down(self) -> None:
        """Services first, so that they drain into parts that still run."""
        self._state.phase = "stopping"
        if self._setup_child is not None:
            self._setup_child.terminate()
        self._generations.close()
        for group in (self._services | self._generations.members, self._parts):
            for member in group.values():
                member.stopping.set()
                self._members.set_state(member, "stopping")
            self._state.save(self._state_dir)
            list(self._members.pool.map(self._members.stop, group.values()))
            self._generations.wait()
        self._state.phase, self._state.supervisor = "stopped", None
        self._state.save(self._state_dir)
        self._members.pool.shutdown(wait=False, cancel_futures=True)
        _log.info("stack is stopped")


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
