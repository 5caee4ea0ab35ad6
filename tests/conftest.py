"""The whole embedded stack as a user starts it, in an empty directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from telestream_devstack import reserve_base

TELESTREAM = Path(sys.executable).parent / "telestream"


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack; `run` calls the command as a user would."""

    state_dir: Path
    port_base: int

    def run(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(TELESTREAM), *arguments, "--state-dir", str(self.state_dir)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(TELESTREAM), *arguments, "--state-dir", str(self.state_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--port-base", str(self.port_base))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def service(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.status()["services"] if entry["name"] == name)

    @property
    def api_key(self) -> str:
        return (self.state_dir / "api_key").read_text().strip()

    @property
    def clickhouse(self) -> str:
        return str(self.service("clickhouse")["url"])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    found = Stack(tmp_path_factory.mktemp("whole"), reserve_base())
    up = found.up()
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield found
    finally:
        found.run("down")
