"""Starting, recognising and ending processes.

A process is known by pid and start time: a pid alone may have been given to somebody else since.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from telestream_devstack import launch

LOG_LIMIT_BYTES = 20 * 1024 * 1024  # a log is set aside at a start when it has grown beyond this; one old one is kept


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that was started once, and can be told from a later one with the same pid."""

    pid: int
    started_at: float

    def process(self) -> psutil.Process | None:
        """The process if it still runs, else None."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started_at) < 1.0
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        return self.process() is not None


def identity_of(pid: int) -> Identity | None:
    try:
        return Identity(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return None


@dataclass(frozen=True, slots=True)
class Command:
    """What is needed to start a program. `user` is (uid, gid) to become instead of root."""

    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    cwd: Path
    stop_signal: signal.Signals = signal.SIGTERM
    user: tuple[int, int] | None = None


def rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))


def spawn(command: Command) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to its log, and which is told to stop when the calling *thread* ends
    (so call this from a thread that lives as long as the process shall)."""
    command.log.parent.mkdir(parents=True, exist_ok=True)
    rotate(command.log)
    uid, gid = ("-", "-") if command.user is None else (str(command.user[0]), str(command.user[1]))
    wrapped = [
        *(sys.executable, "-I", "-S", launch.__file__),
        *(str(os.getpid()), str(int(command.stop_signal)), uid, gid),
        *command.arguments,
    ]
    with command.log.open("ab") as output:
        return subprocess.Popen(
            wrapped,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(command.environment),
            cwd=command.cwd,
            # Ctrl-C on the terminal is for the supervisor, which stops the parts in order.
            start_new_session=True,
        )


def end(
    identities: Iterable[Identity], stop_signal: signal.Signals = signal.SIGTERM, timeout_seconds: float = 30.0
) -> int:
    """Ask processes to stop, kill them and what they started after the time given; return how many were killed."""
    waiting: list[psutil.Process] = []
    for identity in identities:
        found = identity.process()
        if found is None:
            continue
        try:
            waiting.extend(found.children(recursive=True))
            found.send_signal(stop_signal)
            waiting.append(found)
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(waiting, timeout=timeout_seconds)
    for found in stubborn:
        try:
            found.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(stubborn, timeout=5.0)
    return len(stubborn)


def tail(log: Path, lines: int = 3, limit_bytes: int = 65536) -> list[str]:
    """The last lines of a log that are not empty; [] if there is none."""
    try:
        with log.open("rb") as source:
            source.seek(0, os.SEEK_END)
            source.seek(max(0, source.tell() - limit_bytes))
            text = source.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def wait_until(deadline: float, pause_seconds: float = 0.1) -> bool:
    """Sleep a moment; False once the deadline (of the monotonic clock) has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    time.sleep(min(pause_seconds, left))
    return True
