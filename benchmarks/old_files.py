"""A file of records spread over three hundred days, nearly a year old: right windows, flat memory, no insert refused.

    python benchmarks/old_files.py --records 500000            (two minutes)
    python benchmarks/old_files.py --records 5000000 --keep    (a quarter of an hour, 4 GB of disk)

One CSV from the simulator goes through the real gateway into the real stack. While it drains, the memory of every
process, ClickHouse's parts and what the sink had to put off are watched; afterwards every window of a cell and quarter
hour, a region and day and a subscriber and day is compared with Polars over ``fact_cdr``. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table
from run import Bench

from telestream_devstack import reserve_base, start_parts
from telestream_devstack.bootstrap import prepare
from telestream_simulator import Scenario, write_files
from telestream_warehouse import ClickHouse, Query

OLDEST_DAYS = 365
SOURCE = "oldfiles"
SERVICES = ("gateway", "enricher", "aggregator", "sink")
LOOK_EVERY_S = 2.0
PATIENCE_S = 150.0
"""Nothing was written for so long (the rarest flush is every two minutes): what is there is compared."""
MEASURES = ("records", "duration_ms", "bytes_up", "bytes_down", "charge_micros")


def scenario(records: int, days: int, cells: int, customers: int) -> Scenario:
    start = datetime.now(UTC).date() - timedelta(days=OLDEST_DAYS)
    return Scenario(
        start=start,
        days=days,
        records=records,
        network_records=0,
        customers=customers,
        cells=cells,
        block=int(time.time()) // 10,
        source=SOURCE,
    )


@dataclass(frozen=True, slots=True)
class OldFile:
    """What was made of it is kept; the simulator's columns are not."""

    path: Path
    reference: dict[str, Path]
    accepted: int
    stored: int


def made(wanted: Scenario, out: Path) -> OldFile:
    written = write_files(wanted, out)
    truth = written.truth["cdr"]
    return OldFile(written.cdr[0], dict(written.reference), int(truth["accepted"]), int(truth["stored"]))


class Watch:
    """Looks at memory, CPU and parts while the file drains; ``samples`` are rows of numbers by name."""

    def __init__(self, bench: Bench, clickhouse: ClickHouse) -> None:
        self._bench, self._clickhouse = bench, clickhouse
        self._began = time.monotonic()
        self.samples: list[dict[str, float]] = []
        parent = psutil.Process()
        marks = {"telestream_devstack.clickhouse_server": "clickhouse", "kafka.Kafka": "kafka"}
        self._parts: dict[str, psutil.Process] = {}
        for child in parent.children(recursive=True):
            words = " ".join(child.cmdline())
            for mark, name in marks.items():
                if mark in words:
                    self._parts[name] = child

    def processes(self) -> dict[str, psutil.Process]:
        services = {name: psutil.Process(child.pid) for name, child in self._bench.running.items()}
        return services | self._parts

    def cpu_s(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes().items()}

    def look(self) -> dict[str, float]:
        sample = {"s": time.monotonic() - self._began}
        for name, process in self.processes().items():
            sample[f"{name}_mib"] = process.memory_info().rss / 2**20
        parts = self._clickhouse.rows(
            Query(
                "SELECT sum(n) AS parts, max(n) AS most FROM (SELECT count() AS n FROM system.parts "
                "WHERE active AND database = currentDatabase() GROUP BY table, partition)"
            )
        )[0]
        rows = self._clickhouse.rows(
            Query(
                "SELECT (SELECT count() FROM judgement_all) AS judged, (SELECT count() FROM agg_cell_all) + "
                "(SELECT count() FROM agg_subscriber_day_all) AS upserts"
            )
        )[0]
        sample |= {name: float(value or 0) for name, value in {**parts, **rows}.items()}
        sample["put_off"] = self._bench.metric("sink", "telestream_sink_insert_failures_total")
        self.samples.append(sample)
        return sample

    def until(self, done: Callable[[dict[str, float]], bool]) -> None:
        """Look every two seconds until done, or until nothing has moved for a while."""
        moved, last = time.monotonic(), (-1.0, -1.0)
        while True:
            sample = self.look()
            if done(sample):
                return
            seen = sample["judged"], sample["upserts"]
            if seen != last:
                moved, last = time.monotonic(), seen
            for name, child in self._bench.running.items():
                if child.poll() is not None:
                    raise SystemExit(f"{name} ended with code {child.returncode}; see its log in {self._bench.state}")
            if time.monotonic() - moved > PATIENCE_S:
                return
            time.sleep(LOOK_EVERY_S)


def facts(clickhouse: ClickHouse, since: datetime, until: datetime) -> pl.DataFrame:
    """What windows are made of, nothing null; month by month, so that 5 million rows are never held as one answer.

    A window's ``duration_ms`` is that of calls, a group that is not known is ''.
    """
    groups = ("cell_id", "region_id", "plan_id", "direction", "currency")
    sql = (
        f"SELECT subscriber_id, subscriber_kind, roaming, local_date, started_at, "
        f"{', '.join(f'ifNull(toString({name}), {chr(39) * 2}) AS {name}' for name in groups)}, "
        "if(record_type IN ('VOICE', 'VIDEO'), ifNull(duration_ms, 0), 0) AS duration_ms, "
        "ifNull(bytes_up, 0) AS bytes_up, ifNull(bytes_down, 0) AS bytes_down, "
        "ifNull(charge_micros, 0) AS charge_micros "
        "FROM fact_cdr AS f "
        "WHERE f.started_at >= {since:DateTime64(3, 'UTC')} AND f.started_at < {until:DateTime64(3, 'UTC')}"
    )
    return clickhouse.frame(Query(sql, {"since": since, "until": until}))


def months(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    edges = [start]
    while edges[-1] < end:
        edges.append((edges[-1].replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0))
    return list(itertools.pairwise(edges))


def compare(clickhouse: ClickHouse, since: datetime, until: datetime) -> dict[str, tuple[int, int]]:
    """By family: windows compared, windows that differ."""
    fact = facts(clickhouse, since, until)
    if fact.is_empty():
        return {}
    fact = fact.with_columns(pl.col("started_at").dt.truncate("15m").alias("window_start"))
    sums = [pl.len().cast(pl.Int64).alias("records"), *(pl.col(name).sum() for name in MEASURES[1:])]
    found = {}
    for family, group in (("cell", "cell_id"), ("region", "region_id"), ("plan", "plan_id")):
        wanted = fact.group_by(group, "window_start").agg(sums)
        charge = "arraySum(mapValues(charge_micros)) AS charge_micros"
        columns = ", ".join(name for name in MEASURES if name != "charge_micros")
        sql = (
            f"SELECT {group}, window_start, {columns}, {charge} FROM agg_{family} WHERE type = 'cdr' AND size_s = 900 "
            "AND window_start >= {since:DateTime64(3, 'UTC')} AND window_start < {until:DateTime64(3, 'UTC')} "
            "AND records != 0"
        )
        have = clickhouse.frame(Query(sql, {"since": since, "until": until}))
        found[family] = differing(wanted, have, [group, "window_start"])
    keys = ["subscriber_id", "local_date", "plan_id", "roaming", "direction", "currency"]
    # an interconnect record has no subscriber
    wanted = fact.filter(pl.col("subscriber_kind") != "NONE").group_by(keys).agg(sums)
    sql = (
        f"SELECT {', '.join(keys)}, {', '.join(MEASURES)} FROM agg_subscriber_day WHERE type = 'cdr' AND records != 0 "
        "AND window_start >= {since:DateTime64(3, 'UTC')} AND window_start < {until:DateTime64(3, 'UTC')}"
    )
    have = clickhouse.frame(Query(sql, {"since": since, "until": until}))
    found["subscriber_day"] = differing(wanted, have, keys)
    return found


def differing(wanted: pl.DataFrame, have: pl.DataFrame, keys: Sequence[str]) -> tuple[int, int]:
    texts = [pl.col(name).cast(pl.String) for name in keys if name not in ("window_start", "local_date")]
    times = [pl.col(name).cast(pl.Datetime("ms", "UTC")) for name in keys if name == "window_start"]
    days = [pl.col(name).cast(pl.Date) for name in keys if name == "local_date"]
    sums = [pl.col(name).cast(pl.Int64) for name in MEASURES]
    columns = [*keys, *MEASURES]
    left, right = (frame.select(columns).with_columns(*texts, *times, *days, *sums) for frame in (wanted, have))
    both = left.join(right, on=columns, how="inner")
    return left.height, left.height + right.height - 2 * both.height


def run(options: argparse.Namespace, console: Console, state: Path) -> int:
    base = options.port_base or reserve_base()
    began = time.process_time()
    file = made(scenario(options.records, options.days, options.cells, options.customers), state / "files")
    size = file.path.stat().st_size / 1e6
    console.print(
        f"file of {options.records:,} CDRs over {options.days} days, {size:,.0f} MB, "
        f"made in {time.process_time() - began:.0f} s CPU"
    )
    with start_parts(state, base) as parts:
        prepare(parts, state)
        bench = Bench(parts, state, base, console)
        clickhouse = ClickHouse(parts.clickhouse, parts.clickhouse_database)
        try:
            bench.start(*SERVICES)
            for kind, path in file.reference.items():
                bench.put(path, kind, SOURCE)
            return drain(console, bench, clickhouse, file)
        finally:
            bench.stop(*list(bench.running))


def drain(console: Console, bench: Bench, clickhouse: ClickHouse, file: OldFile) -> int:
    watch = Watch(bench, clickhouse)
    watch.look()
    cpu = watch.cpu_s()
    bench.client.timeout = httpx.Timeout(60, read=None)  # the answer comes when the whole file is in the log
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(bench.put, file.path, "cdr", SOURCE)
        watch.until(lambda sample: putting.done())
        accepted = int(putting.result()["accepted"])
    drained = time.monotonic()
    watch.until(lambda sample: sample["judged"] >= accepted and settled(clickhouse, file.stored))
    used = {name: seconds - cpu.get(name, 0.0) for name, seconds in watch.cpu_s().items()}
    stored = int(clickhouse.rows(Query("SELECT count() AS n FROM fact_cdr"))[0]["n"])
    console.print(f"the last window was right {time.monotonic() - drained:.0f} s after the file had been taken in")
    console.print(f"accepted {accepted:,} (truth {file.accepted:,}), stored {stored:,} (truth {file.stored:,})")
    shown(console, watch, used, accepted)
    return verdict(console, clickhouse, (accepted, stored) == (file.accepted, file.stored))


def settled(clickhouse: ClickHouse, stored: int) -> bool:
    """Whether the rarest windows hold every stored record. Reads much, so it is asked of a drained log only."""
    days = "SELECT sum(records) AS n FROM agg_subscriber_day"
    quarters = "SELECT sum(records) AS n FROM agg_cell WHERE size_s = 900"
    of_subscribers = "SELECT count() AS n FROM fact_cdr WHERE subscriber_kind != 'NONE'"
    if int(clickhouse.rows(Query(quarters))[0]["n"] or 0) < stored:
        return False
    return int(clickhouse.rows(Query(days))[0]["n"] or 0) >= int(clickhouse.rows(Query(of_subscribers))[0]["n"])


def shown(console: Console, watch: Watch, used: dict[str, float], accepted: int) -> None:
    names = [*watch.processes()]
    table = Table("s", *(f"{name} MiB" for name in names), "parts", "most in one", "put off", "judged")
    step = max(1, len(watch.samples) // 12)
    for sample in [*watch.samples[::step], watch.samples[-1]]:
        memory = (f"{sample[f'{name}_mib']:,.0f}" for name in names)
        rest = (f"{sample[name]:,.0f}" for name in ("parts", "most", "put_off", "judged"))
        table.add_row(f"{sample['s']:.0f}", *memory, *rest)
    console.print(table)
    peaks = {name: max(sample[f"{name}_mib"] for sample in watch.samples) for name in names}
    console.print("peak MiB: " + ", ".join(f"{name} {peak:,.0f}" for name, peak in peaks.items()))
    console.print("CPU µs a record: " + ", ".join(f"{name} {s / accepted * 1e6:.1f}" for name, s in used.items()))
    most, parts = (max(sample[name] for sample in watch.samples) for name in ("most", "parts"))
    put_off = watch.samples[-1]["put_off"]
    console.print(
        f"parts at most {parts:,.0f}, in one partition {most:,.0f}; inserts put off or unanswered: {put_off:,.0f}"
    )


def verdict(console: Console, clickhouse: ClickHouse, counts_right: bool) -> int:
    """Compare every window of every month that has any."""
    span: dict[str, Any] = clickhouse.rows(
        Query("SELECT min(started_at) AS low, max(started_at) AS high FROM fact_cdr")
    )[0]
    low, high = (datetime.fromisoformat(str(span[name]).replace("Z", "+00:00")) for name in ("low", "high"))
    low = low.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    windows: dict[str, list[int]] = {}
    for since, until in months(low, high.astimezone(UTC) + timedelta(seconds=1)):
        for family, (count, wrong) in compare(clickhouse, since, until).items():
            sums = windows.setdefault(family, [0, 0])
            sums[0] += count
            sums[1] += wrong
    for family, (count, wrong) in windows.items():
        console.print(f"windows of {family}: {count:,} compared with Polars over fact_cdr, {wrong:,} differ")
    refused = clickhouse.rows(
        Query(
            "SELECT name, value FROM system.errors WHERE name IN "
            "('TOO_MANY_PARTS', 'TOO_MANY_PARTITIONS', 'MEMORY_LIMIT_EXCEEDED') AND value > 0"
        )
    )
    console.print(f"refused by ClickHouse: {json.dumps(refused) if refused else 'nothing'}")
    good = counts_right and windows and not refused and not any(wrong for _, wrong in windows.values())
    console.print("[bold]right[/bold]" if good else "[bold red]WRONG[/bold red]")
    return 0 if good else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--days", type=int, default=300)
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--state-dir", type=Path, help="an empty directory for data and logs, kept afterwards")
    parser.add_argument("--port-base", type=int, help="first of the ports (default: a free range)")
    parser.add_argument("--keep", action="store_true", help="leave the directory with data and logs")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    state = options.state_dir or Path(tempfile.mkdtemp(prefix="telestream-old-"))
    state.mkdir(parents=True, exist_ok=True)
    try:
        code = run(options, console, state)
    finally:
        if not options.keep and options.state_dir is None:
            subprocess.run(["rm", "-rf", str(state)], check=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
