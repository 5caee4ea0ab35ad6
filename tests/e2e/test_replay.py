"""A replay on the whole stack, as a user does it: start, everything killed, status, activate, roll back, drop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(400)]

TELESTREAM = Path(sys.executable).parent / "telestream"
SOURCE = "replayed"
WORKERS = ("cdr-enricher", "window-aggregator", "warehouse-sink")


class Replayed:
    """The stack with a small day in it, and the command's answers."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.generation = 0

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.stack.run("replay", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def told(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def refused(self, *arguments: str) -> str:
        """What a refusal says: one line."""
        said = self.run(*arguments, code=1).stderr
        assert said.count("\n") == 1, said
        return said

    def members(self) -> dict[str, Any]:
        return {entry["name"]: entry for entry in self.stack.status()["services"]}

    def mine(self) -> list[str]:
        return [f"{worker}.g{self.generation}" for worker in WORKERS]

    def active(self) -> dict[str, int]:
        """Type → the generation that people see."""
        return {name: row["generation"] for row in self.told("status") for name in row["active"]}

    def facts(self) -> int:
        asked = {"database": "telestream", "query": f"SELECT count() FROM fact_cdr WHERE source = '{SOURCE}'"}
        answer = httpx.get(self.stack.clickhouse, params=asked, timeout=30).raise_for_status()
        return int(answer.text)

    def kill_everything(self) -> None:
        found = json.loads((self.stack.state_dir / "stack.json").read_text())
        for process in (found["supervisor"], *(member["process"] for member in found["members"].values())):
            if process is not None and psutil.pid_exists(process["pid"]):
                os.kill(process["pid"], signal.SIGKILL)


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture(scope="module")
def replayed(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    day: Path = tmp_path_factory.mktemp("day") / "day"
    amounts = ("--records", "3000", "--network-records", "1000", "--seed", "14")
    made = subprocess.run([str(TELESTREAM), "simulate", "--out", str(day), *amounts], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    for kind in ("region", "plan", "cell", "customer", "cdr", "network"):
        sent = stack.run("ingest", str(day / f"{kind}.csv"), "--type", kind, "--source", SOURCE)
        assert sent.returncode == 0, sent.stdout + sent.stderr
    books = stack.run("reconcile", "--source", SOURCE, "--wait", "60")
    assert books.returncode == 0, books.stdout
    return Replayed(stack)


def test_a_replay_goes_on_after_everything_was_killed_and_people_see_it_only_once_told(replayed: Replayed) -> None:
    facts = replayed.facts()
    assert facts > 0
    waiting = replayed.stack.start("replay", "start", "--reason", "a test of replay", "--wait")
    eventually(lambda: any(row["state"] == "RUNNING" and row["generation"] > 1 for row in replayed.told("status")))
    replayed.generation = max(row["generation"] for row in replayed.told("status"))
    replayed.kill_everything()
    up = replayed.stack.up()
    assert up.returncode == 0, up.stdout + up.stderr
    output, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, output
    assert set(replayed.mine()) <= set(replayed.members())

    number = replayed.generation
    found = replayed.told("status", str(number))
    assert (found["state"], found["progress"]["caught_up"], found["active"]) == ("RUNNING", True, [])
    assert "replay_in_work" in replayed.refused("start", "--reason", "a second one")
    assert replayed.active() == {"cdr": 1, "network": 1}
    assert replayed.facts() == facts


def test_activation_rollback_and_drop_each_take_one_command(replayed: Replayed) -> None:
    number = str(replayed.generation)
    facts = replayed.facts()
    assert replayed.told("activate", number, "--types", "cdr", "--reason", "a test")["activated"] == {
        "cdr": int(number)
    }
    assert replayed.active() == {"cdr": int(number), "network": 1}
    assert replayed.facts() == facts
    assert "active" in replayed.refused("drop", number, "--reason", "too early", "--yes")
    replayed.run("rollback", "--reason", "a test")
    assert replayed.active() == {"cdr": 1, "network": 1}
    replayed.run("drop", number, "--reason", "a test", "--yes", "--wait")
    eventually(lambda: not set(replayed.mine()) & set(replayed.members()))
    eventually(lambda: not any((replayed.stack.state_dir / "services" / name).exists() for name in replayed.mine()))
    assert replayed.facts() == facts
    assert "unknown_generation" in replayed.refused("status", "99")
