"""What the commands up, down, status and logs do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from telestream_devstack import jars
from telestream_devstack.errors import PartFailed, StackConflict
from telestream_devstack.keys import stack_keys
from telestream_devstack.members import last_words
from telestream_devstack.parts import PART_NAMES, Parts, make_parts
from telestream_devstack.ports import DEFAULT_PORT_BASE, check_base, require_free
from telestream_devstack.probe import ask, why_not
from telestream_devstack.process import end, tail, wait_until
from telestream_devstack.services import (
    ALIASES,
    DERIVING,
    FIRST_GENERATION,
    LAGGING,
    SERVICE_NAMES,
    SERVICES,
    make_service,
    member_name,
    service_and_generation,
)
from telestream_devstack.state import MemberState, StackState, load
from telestream_devstack.supervisor import SETUP, end_orphans, start_background, take_lock

MEMBER_NAMES = (*PART_NAMES, *SERVICE_NAMES)
DEFAULT_STATE_DIR = Path(".telestream")

_UP_TIMEOUT_SECONDS = 150.0
_SUPERVISOR_START_SECONDS = 15.0
_SUPERVISORS_TRIED = 3
_GIVE_UP_AFTER_FAILURES = 3
_SERVICES_STOP_SECONDS = 30.0
_PARTS_STOP_SECONDS = 20.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A part or service as `status` shows it. `lag_records` is None where it has no meaning or is not known.

    `generation` is None for what derives nothing. The stack is healthy without those that are not `required`.
    """

    name: str
    url: str
    pid: int | None
    healthy: bool
    rss_bytes: int | None
    lag_records: int | None
    state: str
    restarts: int
    last_error: str | None
    reason: str | None
    generation: int | None
    required: bool


def names_of(asked: Collection[str] | None) -> list[str]:
    """Full names of parts and services, in order of start; short ones are understood. None means all."""
    if not asked:
        return list(MEMBER_NAMES)
    full = {ALIASES.get(name, name) for name in asked}
    if unknown := full - set(MEMBER_NAMES):
        raise PartFailed(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(MEMBER_NAMES)}")
    return [name for name in MEMBER_NAMES if name in full]


def _running(found: StackState | None) -> bool:
    return found is not None and found.supervisor is not None and found.supervisor.alive()


def up(
    state_dir: Path,
    port_base: int | None = None,
    only: Collection[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    say: Say = lambda _line: None,
) -> StackState:
    """Start a stack and wait until all of it is healthy; harmless if it runs already.

    Without `port_base` the one used last in this directory, else the default. `overrides` are addresses of parts of
    one's own, which are then not started. Raises PortTaken, DownloadFailed, PartFailed, StackConflict.
    """
    state_dir = state_dir.absolute()
    state_dir.mkdir(parents=True, exist_ok=True)
    for _ in range(_SUPERVISORS_TRIED):
        before = load(state_dir)
        base = port_base or (before.port_base if before else DEFAULT_PORT_BASE)
        check_base(base)
        wanted = StackState(base, names_of(only), dict(overrides or {}))
        wanted.only = [name for name in wanted.only if name not in wanted.overrides]
        if before is not None and _running(before):
            _require_same(before, wanted, explicit=bool(port_base or only or overrides), state_dir=state_dir)
        else:
            _clear_the_ground(state_dir, before, wanted)
            start_background(state_dir, wanted)
        if found := _wait_until_up(state_dir, say):
            return found
    log = state_dir / "logs" / "supervisor.log"
    raise PartFailed(f"the supervisor ended {_SUPERVISORS_TRIED} times: {last_words(log)}; see {log}")


def _require_same(running: StackState, wanted: StackState, *, explicit: bool, state_dir: Path) -> None:
    same = (running.port_base, running.only, running.overrides) == (
        wanted.port_base,
        wanted.only,
        wanted.overrides,
    )
    if explicit and not same:
        raise StackConflict(
            f"another stack runs in {state_dir} (port base {running.port_base}, {', '.join(running.only)}): "
            "stop it first with `telestream down`, or use another --state-dir"
        )


def _clear_the_ground(state_dir: Path, before: StackState | None, wanted: StackState) -> None:
    """Whatever can be said before the supervisor is there: orphans, ports, downloads."""
    lock = take_lock(state_dir)
    if lock is None:
        return  # somebody else is starting it this very moment
    try:
        end_orphans(before)
        ports: dict[str, int] = {}
        parts = make_parts(state_dir, wanted.port_base, [name for name in PART_NAMES if name in wanted.only])
        addresses = Parts.at(state_dir, wanted.port_base, wanted.overrides)
        for part in parts.values():
            ports |= part.ports
        for service in SERVICES:
            if service.name in wanted.only:
                ports |= make_service(service, addresses, state_dir, wanted.port_base).ports
        require_free(ports)
        jars.ensure([name for name in ("kafka", "registry") if name in parts])
    finally:
        lock.close()


def _wait_until_up(state_dir: Path, say: Say) -> StackState | None:
    """The stack once all of it is healthy; None if its supervisor ends (it may have been killed just before)."""
    began = time.monotonic()
    deadline = began + _UP_TIMEOUT_SECONDS
    shown: set[str] | None = None
    while True:
        found = load(state_dir)
        if found is not None and _running(found):
            running = {name for name, member in found.members.items() if member.state == "running"}
            base = [row for row in status(state_dir)[1] if row.generation in (None, FIRST_GENERATION)]
            healthy = found.phase == "running" and all(row.healthy for row in base)
            if healthy and shown is None:
                return found
            for name in sorted(running - (shown or set())):
                say(f"{name} is up after {time.monotonic() - began:.1f} s: {found.members[name].url}")
            shown = running
            if healthy:
                return found
            _raise_if_hopeless(state_dir, found)
        elif shown is not None or time.monotonic() - began > _SUPERVISOR_START_SECONDS:
            return None
        if not wait_until(deadline):
            missing = [m.name for m in (found.members.values() if found else ()) if m.state != "running"]
            raise PartFailed(
                f"{', '.join(missing) or 'the stack'} did not become healthy in {_UP_TIMEOUT_SECONDS:.0f} s: "
                f"see `telestream status` and {state_dir / 'logs'}"
            )


def _raise_if_hopeless(state_dir: Path, found: StackState) -> None:
    for member in found.members.values():
        if member.generation != FIRST_GENERATION:
            continue
        if member.failures >= _GIVE_UP_AFTER_FAILURES and member.state != "running":
            tries = f"{member.name} failed {member.failures} times"
            if not member.is_service:
                down(state_dir)
                raise PartFailed(f"{tries}, last {member.last_error}")
            raise PartFailed(
                f"{tries}, last {member.last_error}; the stack goes on trying (`telestream status`, `telestream down`)"
            )
    if found.setup_error is not None:
        parts_run = all(member.state == "running" for member in found.members.values() if not member.is_service)
        if parts_run:
            raise PartFailed(f"the stack could not be set up: {found.setup_error}; it goes on trying")


def down(state_dir: Path, say: Say = lambda _line: None) -> bool:
    """Stop a stack in order, data kept; False if nothing ran."""
    state_dir = state_dir.absolute()
    found = load(state_dir)
    if found is None:
        return False
    anything = False
    if found.supervisor is not None and found.supervisor.alive():
        anything = True
        say(f"stopping {len(found.members)} parts and services")
        killed = end([found.supervisor], timeout_seconds=_SERVICES_STOP_SECONDS + _PARTS_STOP_SECONDS + 10.0)
        if killed:
            say("the supervisor did not stop and was killed")
        found = load(state_dir)
    # The supervisor may have been killed, now or long ago.
    return bool(end_orphans(found)) or anything


def status(state_dir: Path) -> tuple[StackState | None, list[MemberStatus]]:
    """The stack as it is now; every member is asked, side by side."""
    found = load(state_dir.absolute())
    if found is None:
        return None, []
    parts = make_parts(state_dir, found.port_base, [name for name in found.members if name in PART_NAMES])
    checks = {name: part.ready for name, part in parts.items()}
    with ThreadPoolExecutor(max(1, len(found.members))) as pool:
        rows = list(pool.map(lambda member: _member_status(member, checks.get(member.name)), found.members.values()))
    return found, rows


def _member_status(member: MemberState, check: Callable[[], str | None] | None) -> MemberStatus:
    process = member.process.process() if member.process else None
    if process is None:
        reason: str | None = "not running"
    elif check is not None:
        reason = check()
    else:
        reason = why_not(f"{member.admin_url}/readyz")
    state = member.state
    if process is None and state in ("running", "starting"):
        state = "stopped"
    return MemberStatus(
        name=member.name,
        url=member.url,
        pid=process.pid if process else None,
        healthy=reason is None,
        rss_bytes=_rss(process) if process else None,
        lag_records=_lag(member) if process else None,
        state=state,
        restarts=member.restarts,
        last_error=member.last_error,
        reason=reason,
        generation=member.generation if service_and_generation(member.name)[0] in DERIVING else None,
        required=member.required,
    )


def _rss(process: psutil.Process) -> int | None:
    """Of the process and its children; one that ends meanwhile (PostgreSQL's come and go) counts nothing."""
    try:
        found = process.memory_info().rss
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found += child.memory_info().rss
        return int(found)
    except psutil.Error:
        return None


def _lag(member: MemberState) -> int | None:
    """The sum of the member's lag gauge over its partitions."""
    metric = LAGGING.get(service_and_generation(member.name)[0])
    if metric is None or member.admin_url is None:
        return None
    try:
        code, answer = ask(f"{member.admin_url}/metrics")
    except OSError:
        return None
    values = re.findall(rf"^{metric}(?:\{{[^}}]*\}})?\s+(\S+)", answer.decode("utf-8", "replace"), re.M)
    return int(sum(map(float, values))) if code == 200 and values else None


def status_document(state_dir: Path) -> dict[str, object]:
    """What `telestream status --json` prints."""
    found, rows = status(state_dir)
    key_file = stack_keys(state_dir.absolute()).api_key
    return {
        "state_dir": str(state_dir.absolute()),
        "port_base": found.port_base if found else None,
        "phase": (found.phase if _running(found) else "stopped") if found else "stopped",
        "setup_error": found.setup_error if found else None,
        "services": [{name: getattr(row, name) for name in MemberStatus.__dataclass_fields__} for row in rows],
        "api_key": key_file.read_text().strip() if key_file.exists() else None,
        "api_key_file": str(key_file),
    }


def log_files(state_dir: Path, asked: Collection[str] | None) -> dict[str, Path]:
    """Name → log of what was asked for (all, supervisor and set-up included, if nothing was).

    `cdr-enricher.g2` is the enricher of generation 2, `g2` all its workers.
    """
    logs = state_dir.absolute() / "logs"
    extra = ("supervisor", SETUP)
    if asked:
        names = [name for name in extra if name in asked]
        replays = {name: _of_generation(name) for name in asked}
        if rest := [name for name in asked if name not in extra and not replays[name]]:
            names += names_of(rest)
        names += [member for name in asked for member in replays[name]]
    else:
        names = [*extra, *MEMBER_NAMES, *sorted(path.stem for path in logs.glob("*.g*.log"))]
    return {name: logs / f"{name}.log" for name in names if asked or (logs / f"{name}.log").exists()}


def _of_generation(asked: str) -> list[str]:
    """Names of the workers of a generation beside the first that are meant by `g2` or `enricher.g2`, [] if none."""
    name, generation = service_and_generation(asked if "." in asked else f"*.{asked}")
    if generation == FIRST_GENERATION or name not in (*DERIVING, "*"):
        return []
    return [member_name(service, generation) for service in DERIVING if name in (service, "*")]


def last_lines(files: Mapping[str, Path], lines: int) -> Iterator[tuple[str, str]]:
    for name, path in files.items():
        for line in tail(path, lines, limit_bytes=4 * 1024 * 1024):
            yield name, line


def follow(files: Mapping[str, Path], pause_seconds: float = 0.3) -> Iterator[tuple[str, str]]:
    """Lines as they are written, for ever; a log that is set aside is begun anew."""
    places = {name: path.stat().st_size if path.exists() else 0 for name, path in files.items()}
    rests = dict.fromkeys(files, b"")
    while True:
        for name, path in files.items():
            size = path.stat().st_size if path.exists() else 0
            if size < places[name]:
                places[name], rests[name] = 0, b""
            if size == places[name]:
                continue
            with path.open("rb") as source:
                source.seek(places[name])
                data = rests[name] + source.read(size - places[name])
            places[name] = size
            *whole, rests[name] = data.split(b"\n")
            for line in whole:
                yield name, line.decode("utf-8", "replace")
        time.sleep(pause_seconds)
