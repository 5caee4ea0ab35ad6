"""Live freshness while a file of old records is loaded: without it, with it at full speed, with it as a backfill.

    python benchmarks/backfill.py [--rows 1000000] [--rate 2000] [--seconds 90]      (some ten minutes)

Live CDRs go in through NDJSON all the time; a probe in each request shows when it counts in ``/v1/metrics/realtime``,
as in ``freshness.py``. Meanwhile a CSV of records up to a year old goes through the same gateway. Probes count from the
moment the file is given until it is judged to its end. Afterwards every old window is compared with Polars over
``fact_cdr``. Starts real parts and services of its own. Exit code 1 if a window or a count differs; the figures are for
people.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import freshness
import httpx
from old_files import OldFile, Watch, made, scenario, settled, verdict
from rich.console import Console
from rich.table import Table
from run import Bench, watched_memory

from telestream_devstack import reserve_base, start_parts
from telestream_devstack.bootstrap import prepare
from telestream_warehouse import ClickHouse, Query

SERVICES = ("gateway", "enricher", "aggregator", "sink", "query-api")
SCENARIOS = ("no file", "at full speed", "as a backfill")
FIRST_S = 5.0
"""Live traffic alone before the file is given."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one scenario showed; seconds."""

    name: str
    probes: int
    unseen: int
    ages: list[float]
    answers: list[float]
    failed: int
    file_s: float | None
    judged_s: float | None
    accepted: int
    peaks: dict[str, int]


class Scene:
    """One stack on which the scenarios are played one after the other."""

    def __init__(self, bench: Bench, watch: Watch, options: argparse.Namespace) -> None:
        self._bench, self._watch, self._options = bench, watch, options
        self._headers = {"X-API-Key": bench.key}
        self._judged = 0

    def play(self, name: str, file: OldFile | None) -> Found:
        options, bench = self._options, self._bench
        run = freshness.Run(f"F{freshness._base36(time.time_ns() // 1_000_000 % 36**6)}")
        probes = range(min(1_000, options.seconds * options.rate // freshness.REQUEST_RECORDS))
        with httpx.Client(base_url=bench.gateway, headers=self._headers, timeout=60) as client:
            freshness.load_reference(client, run, len(probes))
        done = threading.Event()
        watcher = threading.Thread(target=freshness.watch, args=(bench.query, self._headers, run, done), daemon=True)
        watcher.start()
        with watched_memory(bench) as peaks, ThreadPoolExecutor(2) as pool:
            sending = pool.submit(
                freshness.send, bench.gateway, self._headers, run, options.rate, options.seconds, probes
            )
            time.sleep(FIRST_S)
            given = time.monotonic()
            put = None if file is None else pool.submit(self._put, file, name == SCENARIOS[2])
            judged = self._wait_for(put, run, sending)
            sending.result()
        deadline = time.monotonic() + freshness.WAIT_S
        while time.monotonic() < deadline and len(run.visible_at) < len(run.accepted_at):
            time.sleep(freshness.POLL_S)
        done.set()
        watcher.join(35)
        accepted = int(put.result()["accepted"]) if put is not None else 0
        self._judged += run.accepted + accepted
        until = judged if judged is not None else float("inf")
        during = {probe: at for probe, at in run.accepted_at.items() if given <= at <= until}
        ages = [max(0.0, run.visible_at[probe] - at) for probe, at in during.items() if probe in run.visible_at]
        file_s = float(put.result()["seconds"]) if put is not None else None
        return Found(
            name,
            len(during),
            len(during) - len(ages),
            ages,
            run.answer_s,
            run.failed,
            file_s,
            None if judged is None else judged - given,
            accepted,
            dict(peaks),
        )

    def _wait_for(self, put: Future[dict[str, Any]] | None, run: freshness.Run, sending: Future[None]) -> float | None:
        """When the file had been judged to its end, or as long as live records were sent."""
        judged: float | None = None
        while put is not None and judged is None:
            time.sleep(1.0)
            if not put.done():
                continue
            seen = self._bench.metric("enricher", "telestream_enricher_records_total") - self._judged
            # live ones are always on their way
            if seen >= int(put.result()["accepted"]) + run.accepted - 2 * self._options.rate:
                judged = time.monotonic()
        return judged

    def _put(self, file: OldFile, backfill: bool) -> dict[str, Any]:
        with file.path.open("rb") as body:
            answer = self._bench.client.put(
                f"{self._bench.gateway}/v1/files/oldfiles/{file.path.parent.name}-{file.path.name}",
                params={"type": "cdr", "profile": "generic", "priority": "backfill" if backfill else "live"},
                content=body,
            )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def drained(self) -> None:
        """Until everything of the scenario is stored."""
        self._watch.until(lambda sample: sample["judged"] >= self._judged)


def run(options: argparse.Namespace, console: Console, state: Path) -> int:
    base = options.port_base or reserve_base()
    old = replace(scenario(options.rows, options.days, 2_000, 20_000), block=int(time.time()) // 10)
    files = [made(replace(old, seed=seed, block=old.block + seed), state / f"old{seed}") for seed in (1, 2)]
    console.print(f"two files of {options.rows:,} CDRs over {options.days} days, {options.rate:,} live CDRs a second")
    with start_parts(state, base) as parts:
        prepare(parts, state)
        bench = Bench(parts, state, base, console)
        bench.client.timeout = httpx.Timeout(60, read=None)  # the answer comes when the whole file is in the log
        clickhouse = ClickHouse(parts.clickhouse, parts.clickhouse_database)
        try:
            bench.start(*SERVICES)
            for kind, path in files[0].reference.items():
                bench.put(path, kind, "oldfiles")
            scene = Scene(bench, Watch(bench, clickhouse), options)
            found = []
            for name, file in zip(SCENARIOS, (None, *files), strict=True):
                found.append(scene.play(name, file))
                console.print(summary(found[-1]))
                scene.drained()
            console.print(table(found))
            right = [one.accepted for one in found[1:]] == [file.accepted for file in files]
            stored = int(clickhouse.rows(Query("SELECT count() AS n FROM fact_cdr"))[0]["n"])
            scene._watch.until(lambda _: settled(clickhouse, stored))
            return verdict(console, clickhouse, right)
        finally:
            bench.stop(*list(bench.running))


def summary(found: Found) -> str:
    speed = f"{found.accepted / found.file_s:,.0f} rows/s" if found.file_s else "-"
    return (
        f"{found.name}: {found.probes} probes, P50 {freshness.quantile(found.ages, 0.5):.2f} s, "
        f"P95 {freshness.quantile(found.ages, 0.95):.2f} s; file {speed}"
    )


def table(found: list[Found]) -> Table:
    shown = Table(
        "the file",
        "rows/s",
        "judged after s",
        "probes (unseen)",
        "live P50 s",
        "P95 s",
        "most s",
        "202 P95 s",
        "failed",
        "peak MiB",
        title="freshness of live CDRs, from their 202 until /v1/metrics/realtime counts them",
    )
    for one in found:
        shown.add_row(
            one.name,
            f"{one.accepted / one.file_s:,.0f}" if one.file_s else "-",
            f"{one.judged_s:,.0f}" if one.judged_s is not None else "-",
            f"{one.probes} ({one.unseen})",
            f"{freshness.quantile(one.ages, 0.5):.2f}",
            f"{freshness.quantile(one.ages, 0.95):.2f}",
            f"{max(one.ages, default=float('nan')):.2f}",
            f"{freshness.quantile(one.answers, 0.95):.2f}",
            f"{one.failed}",
            ", ".join(f"{name} {peak >> 20}" for name, peak in one.peaks.items()),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="records in each of the two files")
    parser.add_argument("--rate", type=int, default=2_000, help="live CDRs a second")
    parser.add_argument("--seconds", type=int, default=90, help="how long live CDRs are sent in each scenario")
    parser.add_argument("--days", type=int, default=300)
    parser.add_argument("--state-dir", type=Path, help="an empty directory for data and logs, kept afterwards")
    parser.add_argument("--port-base", type=int, help="first of the ports (default: a free range)")
    parser.add_argument("--keep", action="store_true", help="leave the directory with data and logs")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    state = options.state_dir or Path(tempfile.mkdtemp(prefix="telestream-backfill-"))
    state.mkdir(parents=True, exist_ok=True)
    try:
        code = run(options, console, state)
    finally:
        if not options.keep and options.state_dir is None:
            subprocess.run(["rm", "-rf", str(state)], check=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
