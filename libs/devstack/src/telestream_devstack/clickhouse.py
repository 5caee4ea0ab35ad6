"""ClickHouse: chdb behind our HTTP server."""

from __future__ import annotations

import sys
from pathlib import Path

from telestream_devstack.cache import python_environment
from telestream_devstack.errors import PartFailed
from telestream_devstack.part import Part
from telestream_devstack.ports import HOST, port
from telestream_devstack.probe import why_not
from telestream_devstack.process import Command

DATABASE = "telestream"


def clickhouse(state_dir: Path, port_base: int) -> Part:
    home = state_dir / "clickhouse"
    number = port(port_base, "clickhouse")
    url = f"http://{HOST}:{number}"

    def command() -> Command:
        home.mkdir(parents=True, exist_ok=True)
        return Command(
            arguments=[
                *(sys.executable, "-m", "telestream_devstack.clickhouse_server"),
                *("--path", str(home), "--host", HOST, "--port", str(number)),
            ],
            log=state_dir / "logs" / "clickhouse.log",
            # The engine takes its time zone from here.
            environment=python_environment() | {"TZ": "UTC"},
            cwd=home,
        )

    def ready() -> str | None:
        return why_not(url, body=b"SELECT 1")

    def settle() -> None:
        statement = f"CREATE DATABASE IF NOT EXISTS {DATABASE}".encode()
        if problem := why_not(url, body=statement, timeout_seconds=30.0):
            raise PartFailed(f"clickhouse: database {DATABASE} could not be made: {problem}")

    return Part(
        name="clickhouse",
        url=url,
        ports={"clickhouse": number},
        command=command,
        ready=ready,
        settle=settle,
        stop_timeout_seconds=20.0,
    )
