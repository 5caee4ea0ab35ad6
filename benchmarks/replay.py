"""How fast a replay is, through all stages into ClickHouse, beside a live installation; a part of `make bench` too.

    python benchmarks/replay.py                                  (300,000 CDRs, about a minute and a half)
    python benchmarks/replay.py --records 300000 --times 10      (then ten times as many: time and memory beside it)

Real parts, services as processes. Everything is loaded and derived once by the first generation, whose workers then
stay beside the replay. The rate counts from the first judged record of the replay until ClickHouse holds all of its
judged records and every aggregate of quality. It asserts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from run import Bench, machine, scenario, wait_for_all, watched_memory

from telestream_devstack import reserve_base, start_parts
from telestream_devstack.bootstrap import prepare
from telestream_devstack.services import DERIVING, SERVICES, own_dir, service_environment
from telestream_simulator import write_files

PATIENCE_S = 1_800.0
LOOK_EVERY_S = 0.5  # counting costs what is being measured
GOAL = "goal 40,000"


@dataclass(frozen=True, slots=True)
class Replayed:
    """``seconds`` from the first judged record; ``cpu_s`` and ``peak_mib`` of the replay's own workers."""

    records: int
    seconds: float
    cpu_s: dict[str, float]
    peak_mib: dict[str, int]

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of all three a record."""
        return sum(self.cpu_s.values()) / self.records * 1e6


class Workers:
    """The workers of a generation beside the first, as a supervisor would run them."""

    def __init__(self, bench: Bench, generation: int) -> None:
        self._bench, self._generation = bench, generation
        self._names = {s.name: f"{s.short}, replay" for s in SERVICES if s.name in DERIVING}

    def __enter__(self) -> Workers:
        for service in SERVICES:
            if service.name not in DERIVING:
                continue
            own = own_dir(self._bench.state, service.name, self._generation)
            own.mkdir(parents=True, exist_ok=True)
            log = (self._bench.state / f"{own.name}.log").open("ab")
            self._bench.running[self._names[service.name]] = subprocess.Popen(
                [sys.executable, "-m", service.package],
                env=service_environment(
                    service, self._bench.parts, self._bench.state, self._bench.base, self._generation
                ),
                cwd=own,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._bench.stop(*self._names.values())

    def cpu_s(self) -> dict[str, float]:
        found = {}
        for name in self._names.values():
            times = psutil.Process(self._bench.running[name].pid).cpu_times()
            found[name] = float(times.user + times.system)
        return found

    def ended(self) -> str | None:
        """Which of them is no longer there, or None."""
        return next((n for n in self._names.values() if self._bench.running[n].poll() is not None), None)


def begin(bench: Bench) -> int:
    """Ask for a replay of CDRs; its generation, once its workers are wanted."""
    made = bench.client.post(f"{bench.query}/v1/generations", json={"types": ["cdr"], "reason": "how fast a replay is"})
    made.raise_for_status()
    generation = int(made.json()["data"]["generation"])
    deadline = time.monotonic() + 60
    while True:
        state = bench.client.get(f"{bench.query}/v1/generations/{generation}").json()["data"]
        if state["state"] == "RUNNING":
            return generation
        if time.monotonic() > deadline:
            raise SystemExit(f"generation {generation} is {state['state']}: {state['problem']}")
        time.sleep(0.2)


def replay(bench: Bench, records: int) -> Replayed:
    """Derive the log of ``records`` CDRs once more; then the generation is dropped."""
    generation = begin(bench)
    sql = (
        f"SELECT (SELECT count() FROM telestream.judgement_all WHERE generation = {generation}), "
        f"(SELECT sum(records) FROM telestream.agg_quality_all FINAL WHERE generation = {generation} AND type = 'cdr')"
    )

    def have() -> tuple[int, int]:
        answer = httpx.post(bench.parts.clickhouse, content=sql, timeout=60).text.split("\t")
        return int(answer[0] or 0), int(float(answer[1].strip() or 0))

    with watched_memory(bench) as peaks, Workers(bench, generation) as workers:
        deadline = time.monotonic() + PATIENCE_S
        enricher = DERIVING[0]
        began: float | None = None
        cpu: dict[str, float] = {}
        while True:
            if began is None:
                if _judged(bench, generation, enricher):
                    began, cpu = time.monotonic(), workers.cpu_s()
            elif min(have()) >= records:
                break
            if gone := workers.ended():
                raise SystemExit(f"{gone} has ended; see {bench.state}")
            if time.monotonic() > deadline:
                raise SystemExit(f"ClickHouse had {have()} of {records:,} after {PATIENCE_S:.0f} s")
            time.sleep(0.02 if began is None else LOOK_EVERY_S)
        took = time.monotonic() - began
        used = {name: after - cpu[name] for name, after in workers.cpu_s().items()}
    bench.client.delete(f"{bench.query}/v1/generations/{generation}", params={"reason": "measured"}).raise_for_status()
    return Replayed(records, took, used, {name: peaks.get(name, 0) >> 20 for name in used})


def _judged(bench: Bench, generation: int, enricher: str) -> bool:
    service = next(s for s in SERVICES if s.name == enricher)
    environment = service_environment(service, bench.parts, bench.state, bench.base, generation)
    try:
        text = httpx.get(f"http://127.0.0.1:{environment['TELESTREAM_ADMIN_PORT']}/metrics", timeout=5).text
    except httpx.HTTPError:
        return False
    counted = [line for line in text.splitlines() if line.startswith("telestream_enricher_records_total{")]
    return any(float(line.rsplit(" ", 1)[1]) > 0 for line in counted)


def measure_replay(bench: Bench, records: int) -> Replayed:
    """As a row of the bench's table; all services of the first generation but the query-api run."""
    bench.start("query-api")
    found = replay(bench, records)
    bench.note(
        "replay into a second generation, all three stages",
        f"{found.rate:,.0f} CDRs/s, {found.cpu_us:.1f} µs CPU each",
        GOAL,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000, help="CDRs of the log that is replayed first")
    parser.add_argument("--times", type=int, default=1, help="then a log so many times as long")
    parser.add_argument("--keep", action="store_true", help="leave the directory with data and logs")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"on {machine()}")
    state = Path(tempfile.mkdtemp(prefix="telestream-bench-"))
    base = reserve_base()
    table = Table("CDRs", "seconds", "CDRs/s", "µs CPU each", "peak resident, MiB", title="A replay")
    try:
        with start_parts(state, base) as parts:
            prepare(parts, state)
            bench = Bench(parts, state, base, console)
            try:
                bench.start("gateway", "enricher", "aggregator", "sink", "query-api")
                there = 0
                sizes = [options.records, options.records * options.times] if options.times > 1 else [options.records]
                for number, size in enumerate(sizes, 1):
                    there += load(bench, size - there, number, state / f"files{number}")
                    wait_for_all(bench, there)
                    found = replay(bench, there)
                    table.add_row(
                        f"{found.records:,}",
                        f"{found.seconds:.1f}",
                        f"{found.rate:,.0f}",
                        f"{found.cpu_us:.1f}",
                        ", ".join(f"{name.split(',')[0]} {mib}" for name, mib in found.peak_mib.items()),
                    )
            finally:
                bench.stop(*list(bench.running))
        console.print(table)
    finally:
        if not options.keep:
            shutil.rmtree(state, ignore_errors=True)


def load(bench: Bench, records: int, number: int, out: Path) -> int:
    """One more day of CDRs; how many were accepted."""
    source = f"replay{number}"
    written = write_files(scenario(records, 10 + number, source), out)
    for kind, path in written.reference.items():
        bench.put(path, kind, source)
    return int(bench.put(written.cdr[0], "cdr", source)["accepted"])


if __name__ == "__main__":
    main()
