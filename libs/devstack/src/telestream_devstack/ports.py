"""The port layout of an embedded stack, and who holds a port that is taken."""

from __future__ import annotations

import fcntl
import socket
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TextIO

import psutil

from telestream_devstack.errors import DevstackError, PortTaken

HOST = "127.0.0.1"
DEFAULT_PORT_BASE = 18000

OFFSETS: Mapping[str, int] = {
    "gateway": 80,
    "query-api": 81,
    "registry": 85,
    "registry-management": 86,
    "kafka": 92,
    "kafka-controller": 93,
    "clickhouse": 23,
    "postgres": 32,
    "gateway-admin": 101,
    "enricher-admin": 102,
    "aggregator-admin": 103,
    "sink-admin": 104,
    "query-api-admin": 105,
}
REPLAY_FIRST, REPLAY_SLOTS, WORKERS_OF_ONE = 33, 15, 3
"""Admin ports of so many generations beside the first, in a gap of the layout: stacks side by side stay apart."""
DYING_S = 5.0


def port(base: int, name: str) -> int:
    """The port of a part or service in the stack whose ports begin at `base`."""
    return base + OFFSETS[name]


def replay_port(base: int, slot: int, worker: int) -> int:
    """Admin port of the n-th worker of a generation beside the first, in one of the slots."""
    return base + REPLAY_FIRST + slot * WORKERS_OF_ONE + worker


def slot_for(generation: int, taken: Collection[int]) -> int | None:
    """The slot of a generation: its own if it is not taken, else the next that is free; None if there is none."""
    own = generation % REPLAY_SLOTS
    slots = ((own + step) % REPLAY_SLOTS for step in range(REPLAY_SLOTS))
    return next((slot for slot in slots if slot not in taken), None)


def check_base(base: int) -> None:
    if not 1024 <= base <= 65535 - max(OFFSETS.values()):
        raise DevstackError(f"port base {base} is out of range: use 1024 to {65535 - max(OFFSETS.values())}")


def is_free(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a closed connection that lingers in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
        return True


def holder(number: int) -> str | None:
    """`name (pid 123)` of the process that listens on a port, or None if that cannot be known."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == number:
            if connection.pid is None:
                return None
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None


def require_free(numbers: Mapping[str, int]) -> None:
    """Raise PortTaken for the first port (by name) that somebody listens on.

    A port that nobody can be named for is waited for a little: a process that was just killed still holds its own.
    """
    deadline = time.monotonic() + DYING_S
    for name, number in numbers.items():
        if not is_free(number):
            while (who := holder(number)) is None and not is_free(number) and time.monotonic() < deadline:
                time.sleep(0.1)
            if is_free(number):
                continue
            by = f" by {who}" if who else ""
            raise PortTaken(f"port {number} for {name} is taken{by}: stop it, or choose other ports with --port-base")


_reserved: list[TextIO] = []


def reserve_base(start: int = 30000, stop: int = 60000, step: int = 110) -> int:
    """The first port base from `start` on whose ports are all free, and which no other process has reserved.

    The reservation holds until this process ends. From 32768 on Linux gives ports to outgoing connections, so that a
    free one may be gone a moment later: those come last.
    """
    for base in range(start, stop, step):
        try:
            mark = (Path(tempfile.gettempdir()) / f"telestream-ports-{base}.lock").open("a")
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        replays = range(REPLAY_FIRST, REPLAY_FIRST + REPLAY_SLOTS * WORKERS_OF_ONE)
        if all(is_free(base + offset) for offset in (*OFFSETS.values(), *replays)):
            _reserved.append(mark)
            return base
        mark.close()
    raise PortTaken(f"no port base between {start} and {stop} has all its ports free: stop other stacks")
