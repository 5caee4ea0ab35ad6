"""The third-party parts by name, and a handle on them for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from telestream_devstack.clickhouse import DATABASE, clickhouse
from telestream_devstack.errors import PartFailed
from telestream_devstack.kafka import kafka
from telestream_devstack.part import Part
from telestream_devstack.ports import check_base, require_free
from telestream_devstack.postgres import postgres
from telestream_devstack.process import Identity, end, identity_of, spawn, tail, wait_until
from telestream_devstack.registry import registry

PART_NAMES = ("kafka", "registry", "clickhouse", "postgres")
_MAKERS: Mapping[str, Callable[[Path, int], Part]] = {
    "kafka": kafka,
    "registry": registry,
    "clickhouse": clickhouse,
    "postgres": postgres,
}


def make_parts(state_dir: Path, port_base: int, only: Collection[str] = PART_NAMES) -> dict[str, Part]:
    """The parts asked for, in order of start; nothing is started."""
    check_base(port_base)
    if unknown := set(only) - set(PART_NAMES):
        raise PartFailed(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PART_NAMES)}")
    return {name: _MAKERS[name](state_dir.absolute(), port_base) for name in PART_NAMES if name in only}


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts are; one that was not started has the address that it would have."""

    kafka: str
    registry: str
    clickhouse: str
    postgres: str
    clickhouse_database: str = DATABASE

    @classmethod
    def at(cls, state_dir: Path, port_base: int, overrides: Mapping[str, str] | None = None) -> Parts:
        urls = {name: part.url for name, part in make_parts(state_dir, port_base).items()}
        return cls(**(urls | dict(overrides or {})))

    def environment(self) -> dict[str, str]:
        """What a service needs in its environment to find them."""
        return {
            "TELESTREAM_KAFKA": self.kafka,
            "TELESTREAM_REGISTRY": self.registry,
            "TELESTREAM_CLICKHOUSE": self.clickhouse,
            "TELESTREAM_CLICKHOUSE_DATABASE": self.clickhouse_database,
            "TELESTREAM_POSTGRES": self.postgres,
        }


@contextmanager
def start_parts(state_dir: Path, port_base: int, only: Collection[str] = PART_NAMES) -> Iterator[Parts]:
    """Run parts for as long as the context lasts, each ready when it is entered; data stays in `state_dir`.

    They end with the calling thread, however that ends. Raises PortTaken, DownloadFailed, PartFailed.
    """
    parts = make_parts(state_dir, port_base, only)
    require_free({name: number for part in parts.values() for name, number in part.ports.items()})
    running: dict[str, tuple[Part, Popen[bytes]]] = {}
    with ThreadPoolExecutor(len(PART_NAMES)) as pool:
        prepared = {name: pool.submit(part.prepare) for name, part in parts.items()}
        try:
            waiting = []
            for name, part in parts.items():
                prepared[name].result()
                # Spawned here, not in the pool: a child ends with the thread that started it.
                running[name] = (part, spawn(part.command()))
                waiting.append(pool.submit(_until_ready, part, running[name][1], state_dir))
            for future in waiting:
                future.result()
            yield Parts.at(state_dir, port_base)
        finally:
            stopping = [pool.submit(_stop, part, child) for part, child in running.values()]
            for stop in stopping:
                stop.result()


def _until_ready(part: Part, child: Popen[bytes], state_dir: Path) -> None:
    log = state_dir / "logs" / f"{part.name}.log"
    deadline = time.monotonic() + part.start_timeout_seconds
    while True:
        reason = part.ready()
        if child.poll() is not None:
            last = tail(log, 1)
            raise PartFailed(
                f"{part.name} ended with code {child.returncode} while starting: {last[0] if last else 'no output'}; "
                f"see {log}"
            )
        if reason is None:
            part.settle()
            return
        if not wait_until(deadline):
            raise PartFailed(
                f"{part.name} was not ready after {part.start_timeout_seconds:.0f} s ({reason}); see {log}"
            )


def _stop(part: Part, child: Popen[bytes]) -> None:
    identity: Identity | None = identity_of(child.pid) if child.poll() is None else None
    if identity is not None:
        end([identity], part.command().stop_signal, part.stop_timeout_seconds)
    child.wait()


def user_environment() -> dict[str, str]:
    """The caller's environment without TeleStream's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")}
