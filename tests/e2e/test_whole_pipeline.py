"""A simulated day through the whole stack: every figure equals the truth, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

SMALL = (
    "demo",
    "--records",
    "20000",
    "--network-records",
    "10000",
    "--customers",
    "2000",
    "--cells",
    "120",
    "--asterisk",
    "300",
)
KILLED = ("cdr-enricher", "window-aggregator", "warehouse-sink", "ingest-gateway", "query-api")


def test_every_figure_equals_the_truth_and_a_second_run_too(stack: Any) -> None:
    for _ in range(2):
        done = stack.run(*SMALL)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("service", KILLED)
def test_killing_a_service_in_the_middle_changes_no_figure(stack: Any, service: str) -> None:
    demo = stack.start(*SMALL, "--live", "100")
    killed = 0
    try:
        for pause in (4.0, 5.0):
            time.sleep(pause)
            pid = stack.service(service)["pid"]
            if demo.poll() is None and pid is not None and psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        output, _ = demo.communicate(timeout=240)
    finally:
        if demo.poll() is None:
            demo.kill()
    assert killed, "the demo was over before anything was killed"
    assert demo.returncode == 0, output[-6000:]


def test_everything_killed_at_once_comes_back_with_all_data(stack: Any) -> None:
    before = stack.run("reconcile", "--json").stdout
    for entry in stack.status()["services"]:
        if entry["pid"] is not None:
            os.kill(entry["pid"], signal.SIGKILL)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("telestream_devstack.supervisor" in word for word in words) and any(
            str(stack.state_dir) in w for w in words
        ):
            process.kill()
    up = stack.up()
    assert up.returncode == 0, up.stdout + up.stderr
    again = stack.run("reconcile", "--wait", "60", "--json")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == before.strip()
