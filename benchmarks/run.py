"""`make bench`: the whole pipeline on this machine, one table.

    python benchmarks/run.py [--records 300000] [--keep]

Starts real parts of its own in a temporary directory and the services as processes, measures each stage with everything
else that it needs on the same cores, and prints one table. It asserts nothing: figures are for people. A few minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from telestream_devstack import reserve_base, start_parts
from telestream_devstack.bootstrap import prepare
from telestream_devstack.keys import make_keys
from telestream_devstack.parts import Parts
from telestream_devstack.ports import port
from telestream_devstack.services import SERVICES, Service, service_environment
from telestream_simulator import Scenario, Written, write_files

ROOT = Path(__file__).resolve().parents[1]
REQUEST_RECORDS = 500
CONNECTIONS = 4
READY_S = 90.0
DRAIN_S = 240.0
LIVE_RATE = 5_000
LIVE_SECONDS = 20
BY_NAME = {service.short: service for service in SERVICES}


class Bench:
    """Parts, services and what was measured."""

    def __init__(self, parts: Parts, state: Path, base: int, console: Console) -> None:
        self.parts, self.state, self.base, self.console = parts, state, base, console
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.rows: list[tuple[str, str, str]] = []
        self.key = make_keys(state).api_key.read_text().strip()
        self.gateway = f"http://127.0.0.1:{port(base, 'gateway')}"
        self.query = f"http://127.0.0.1:{port(base, 'query-api')}"
        self.client = httpx.Client(headers={"X-API-Key": self.key}, timeout=httpx.Timeout(60, read=600))

    def note(self, what: str, figure: str, goal: str = "") -> None:
        self.rows.append((what, figure, goal))
        self.console.print(f"   {what}: [bold]{figure}[/bold] {goal}")

    def start(self, *names: str) -> None:
        for name in names:
            service = BY_NAME[name]
            (self.state / "services" / service.name).mkdir(parents=True, exist_ok=True)
            log = (self.state / f"{service.name}.log").open("ab")
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", service.package],
                env=service_environment(service, self.parts, self.state, self.base),
                cwd=self.state / "services" / service.name,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + READY_S
        for name in names:
            while not self._ready(BY_NAME[name]):
                if self.running[name].poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not become ready; see {self.state}/{BY_NAME[name].name}.log")
                time.sleep(0.1)

    def stop(self, *names: str) -> None:
        for name in names:
            if name in self.running:
                self.running[name].send_signal(signal.SIGTERM)
        for name in names:
            child = self.running.pop(name, None)
            if child is not None:
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _admin(self, service: Service) -> str:
        return f"http://127.0.0.1:{port(self.base, f'{service.short}-admin')}"

    def _ready(self, service: Service) -> bool:
        try:
            return httpx.get(f"{self._admin(service)}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def metric(self, name: str, metric: str) -> float:
        """The sum of a metric's series on a service's admin port; 0 if there is none (yet)."""
        try:
            text = httpx.get(f"{self._admin(BY_NAME[name])}/metrics", timeout=10).text
        except httpx.HTTPError:
            return 0.0
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == metric
        )

    def cpu_s(self, name: str) -> float:
        times = psutil.Process(self.running[name].pid).cpu_times()
        return float(times.user + times.system)

    def put(self, path: Path, kind: str, source: str) -> dict[str, Any]:
        with path.open("rb") as body:
            answer = self.client.put(
                f"{self.gateway}/v1/files/{source}/{path.name}",
                params={"type": kind, "profile": "generic"},
                content=body,
            )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def drained(self, name: str, metric: str, wanted: float) -> float:
        """Records a second, from the first look that shows any to the one that shows `wanted`."""
        deadline = time.monotonic() + DRAIN_S
        began: tuple[float, float] | None = None
        while time.monotonic() < deadline:
            now, seen = time.monotonic(), self.metric(name, metric)
            if began is None and seen:
                began = now, seen
            if began is not None and seen >= wanted:
                return (wanted - began[1]) / max(1e-9, now - began[0])
            time.sleep(0.05)
        raise SystemExit(f"{name} had {self.metric(name, metric):,.0f} of {wanted:,.0f} after {DRAIN_S:.0f} s")


def scenario(records: int, seed: int, source: str) -> Scenario:
    today = datetime.now(UTC).date()
    return Scenario(
        start=today - timedelta(days=1),
        records=records,
        network_records=0,
        customers=20_000,
        cells=2_000,
        invalid=0.0,
        seed=seed,
        block=int(time.time()) // 10 + seed,
        source=source,
    )


def ndjson_requests(path: Path) -> list[bytes]:
    """The rows of a CSV as NDJSON bodies of 500; empty fields are left out."""
    import polars as pl

    frame = pl.read_csv(path, infer_schema=False)
    whole = {"duration_ms", "bytes_up", "bytes_down", "charge_micros", "holding_ms", "pdd_ms", "record_seq", "node_seq"}
    whole |= {"cause_code", "segments", "rating_group"}
    lines = []
    for row in frame.iter_rows(named=True):
        record: dict[str, Any] = {}
        for name, value in row.items():
            if value is None or value == "":
                continue
            if name in whole:
                record[name] = int(value)
            elif name == "is_partial":
                record[name] = value == "true"
            else:
                record[name] = value
        lines.append(json.dumps(record, separators=(",", ":")))
    return (
        ["\n".join(chunk).encode() for chunk in itertools.batched(lines, REQUEST_RECORDS)]
        if sys.version_info
        >= (
            3,
            12,
        )
        else ["\n".join(lines[i : i + REQUEST_RECORDS]).encode() for i in range(0, len(lines), REQUEST_RECORDS)]
    )


def measure_ndjson(bench: Bench, bodies: list[bytes], source: str) -> None:
    clients = [httpx.Client(headers={"X-API-Key": bench.key}, timeout=60) for _ in range(CONNECTIONS)]
    sent = itertools.count()
    accepted = [0] * CONNECTIONS

    def work(which: int) -> None:
        while (at := next(sent)) < len(bodies):
            answer = clients[which].post(
                f"{bench.gateway}/v1/events/cdr",
                params={"source": source},
                content=bodies[at],
                headers={"Content-Type": "application/x-ndjson"},
            )
            answer.raise_for_status()
            accepted[which] += answer.json()["accepted"]

    cpu, began = bench.cpu_s("gateway"), time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(work, range(CONNECTIONS)))
    took, total = time.monotonic() - began, sum(accepted)
    used = bench.cpu_s("gateway") - cpu
    bench.note(
        f"gateway, NDJSON in requests of {REQUEST_RECORDS}",
        f"{total / took:,.0f} CDRs/s, {used / total * 1e6:.1f} µs CPU each",
        "goal 15,000",
    )


def measure_csv(bench: Bench, path: Path, source: str) -> int:
    cpu, began = bench.cpu_s("gateway"), time.monotonic()
    accepted = int(bench.put(path, "cdr", source)["accepted"])
    took, used = time.monotonic() - began, bench.cpu_s("gateway") - cpu
    bench.note(
        "gateway, CSV file", f"{accepted / took:,.0f} CDRs/s, {used / accepted * 1e6:.1f} µs CPU each", "goal 60,000"
    )
    return accepted


@contextmanager
def watched_memory(bench: Bench) -> Iterator[dict[str, int]]:
    """Peak resident bytes of each service while the context lasts."""
    peaks: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            for name, child in list(bench.running.items()):
                try:
                    rss = psutil.Process(child.pid).memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                peaks[name] = max(peaks.get(name, 0), rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def measure(bench: Bench, records: int, work: Path) -> None:
    first = write_files(scenario(records, 1, "bench1"), work / "first")
    second = write_files(scenario(2 * records, 2, "bench2"), work / "second")
    small = write_files(scenario(min(records, 100_000), 3, "bench3"), work / "third")

    bench.start("gateway", "enricher", "aggregator", "sink", "query-api")
    with watched_memory(bench) as peaks:
        live = freshness(bench)
    for name in bench.running:
        bench.note(f"{name}, peak resident at {LIVE_RATE:,} CDRs/s", f"{peaks.get(name, 0) >> 20} MiB", "goal 450 MB")
    wait_for_all(bench, live)
    bench.stop("enricher", "aggregator", "sink", "query-api")

    with watched_memory(bench) as peaks:
        bulk(bench, live, first, second, small)
    for name, peak in peaks.items():
        bench.note(f"{name}, peak resident while all that was loaded", f"{peak >> 20} MiB")


def bulk(bench: Bench, live: int, first: Written, second: Written, small: Written) -> None:
    """Requests, files, a backlog for the enricher alone, and one for all three stages."""
    for written, source in ((first, "bench1"), (second, "bench2"), (small, "bench3")):
        for kind, path in written.reference.items():
            bench.put(path, kind, source)
    measure_ndjson(bench, ndjson_requests(small.cdr[0]), "bench3")
    measure_csv(bench, first.cdr[0], "bench1")

    judged = "telestream_enricher_records_total"
    backlog = sum(written.truth["cdr"]["accepted"] for written in (first, small))
    bench.start("enricher")
    begun = bench.cpu_s("enricher")
    rate = bench.drained("enricher", judged, backlog)
    used = bench.cpu_s("enricher") - begun
    bench.note("enricher, a backlog", f"{rate:,.0f} CDRs/s, {used / backlog * 1e6:.1f} µs CPU each", "goal 80,000")
    bench.stop("enricher")

    accepted = int(bench.put(second.cdr[0], "cdr", "bench2")["accepted"])
    bench.start("aggregator", "sink")
    wait_for_all(bench, live + backlog)
    bench.start("enricher")
    while not bench.metric("enricher", judged):
        time.sleep(0.02)
    stages = ("enricher", "aggregator", "sink")
    began, cpu = time.monotonic(), sum(map(bench.cpu_s, stages))
    wait_for_all(bench, live + backlog + accepted)
    took, used = time.monotonic() - began, sum(map(bench.cpu_s, stages)) - cpu
    bench.note(
        "raw topic → ClickHouse and aggregates, all three stages",
        f"{accepted / took:,.0f} CDRs/s, {used / accepted * 1e6:.1f} µs CPU each",
        "goal 30,000",
    )


def wait_for_all(bench: Bench, wanted: int) -> None:
    """Until ClickHouse and the aggregates have every judged CDR."""
    count = "SELECT count() FROM telestream.judgement WHERE type = 'cdr'"
    sums = "SELECT sum(records) FROM telestream.agg_quality WHERE type = 'cdr'"
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        have = [
            int(float(httpx.post(bench.parts.clickhouse, content=sql, timeout=60).text or 0)) for sql in (count, sums)
        ]
        if min(have) >= wanted:
            return
        time.sleep(0.5)  # counting costs what is being measured
    raise SystemExit(f"ClickHouse had {have} of {wanted:,} after {DRAIN_S:.0f} s")


def freshness(bench: Bench) -> int:
    """Live traffic for a while; how many CDRs were accepted."""
    env = {
        **os.environ,
        "TELESTREAM_GATEWAY": bench.gateway,
        "TELESTREAM_QUERY_API": bench.query,
        "TELESTREAM_API_KEY": bench.key,
        "TELESTREAM_KAFKA": bench.parts.kafka,
    }
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "freshness.py"),
            "--rate",
            str(LIVE_RATE),
            "--seconds",
            str(LIVE_SECONDS),
            "--json",
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"freshness was not measured: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    bench.note(
        f"freshness at {found['rate']:,.0f} CDRs/s, accepted → /v1/metrics/realtime",
        f"P50 {found['p50_s']:.2f} s, P95 {found['p95_s']:.2f} s",
        "goal P95 ≤ 2 s at 5,000/s",
    )
    return int(found["accepted"])


def machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total >> 30
    return f"{psutil.cpu_count()} cores ({model}), {memory} GiB, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--records", type=int, default=300_000, help="CDRs of the first file; the second has twice as many"
    )
    parser.add_argument("--keep", action="store_true", help="leave the directory with data and logs")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"on {machine()}")
    state = Path(tempfile.mkdtemp(prefix="telestream-bench-"))
    base = reserve_base()
    try:
        with start_parts(state, base) as parts:
            prepare(parts, state)
            bench = Bench(parts, state, base, console)
            try:
                measure(bench, options.records, state / "files")
            finally:
                bench.stop(*list(bench.running))
        table = Table("what", "measured", "", title="TeleStream, everything on one machine")
        for row in bench.rows:
            table.add_row(*row)
        console.print(table)
    finally:
        if not options.keep:
            subprocess.run(["rm", "-rf", str(state)], check=False)


if __name__ == "__main__":
    main()
