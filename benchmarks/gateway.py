"""How fast the gateway takes CDRs in: requests of 500 as NDJSON, and one CSV file, into a real Kafka.

    python benchmarks/gateway.py                starts an embedded Kafka, registry and PostgreSQL of its own
    python benchmarks/gateway.py --seconds 15 --rows 600000

Broker, gateway and this sender share the machine's cores. CPU is that of the gateway's process, all threads, divided by
the records taken in. Records are the simulator's: all 37 columns, known faults among them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import httpx
import psutil

from ingest_gateway.domain.fields import CDR_FIELDS, Kind
from telestream_contracts import Registry, apply_topics
from telestream_devstack import Parts, reserve_base, start_parts
from telestream_devstack.ports import port
from telestream_domain import Topics
from telestream_opstore import ensure_development_key, migrate
from telestream_simulator import Scenario, write_files

KEY = "benchmark"
REQUEST_RECORDS = 500
CONNECTIONS = 4
READY_S = 60.0


class Gateway:
    """One gateway process and its figures."""

    def __init__(self, parts: Parts, folder: Path, base: int) -> None:
        self.url = f"http://127.0.0.1:{port(base, 'gateway')}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")}
        environment |= parts.environment() | {
            "TELESTREAM_HTTP_PORT": str(port(base, "gateway")),
            "TELESTREAM_ADMIN_PORT": str(base + 101),
            "TELESTREAM_STATE_DIR": str(folder),
            "TELESTREAM_IDENTITY_KEY": secrets.token_hex(32),
            "TELESTREAM_PERMANENT_KEY": secrets.token_hex(32),
        }
        with (folder / "gateway.log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "ingest_gateway"], env=environment, stderr=log)
        self.seen = psutil.Process(self.process.pid)
        self.client = httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=120)
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.client.get("/openapi.json")
                return
            except httpx.TransportError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "gateway.log").read_text()) from None
                time.sleep(0.1)

    def cpu_s(self) -> float:
        times = self.seen.cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> int:
        return int(self.seen.memory_info().rss) >> 20

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def requests_of(path: Path, count: int) -> list[bytes]:
    """NDJSON bodies of 500 records, made from the simulator's CSV."""
    kinds = {field.name: field.kind for field in CDR_FIELDS}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in itertools.islice(csv.DictReader(file), count * REQUEST_RECORDS) if None not in row]
    lines = []
    for row in rows:
        record: dict[str, object] = {}
        for name, text in row.items():
            if not text:
                continue
            if kinds[name] is Kind.LONG and text.lstrip("-").isdigit():
                record[name] = int(text)
            elif kinds[name] is Kind.BOOL:
                record[name] = text == "true"
            else:
                record[name] = text
        lines.append(json.dumps(record).encode())
    return [b"\n".join(lines[at : at + REQUEST_RECORDS]) for at in range(0, len(lines), REQUEST_RECORDS)]


def by_requests(gateway: Gateway, bodies: list[bytes], seconds: float) -> tuple[int, float]:
    """Records taken in and the time it took."""
    taken, lock, until = 0, threading.Lock(), time.monotonic() + seconds

    def send(first: int) -> None:
        nonlocal taken
        at = first
        with httpx.Client(base_url=gateway.url, headers={"X-API-Key": KEY}, timeout=60) as client:
            while time.monotonic() < until:
                answer = client.post(
                    "/v1/events/cdr?source=bench",
                    content=bodies[at % len(bodies)],
                    headers={"Content-Type": "application/x-ndjson"},
                )
                answer.raise_for_status()
                with lock:
                    taken += answer.json()["accepted"]
                at += CONNECTIONS

    began = time.monotonic()
    threads = [threading.Thread(target=send, args=(first,)) for first in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, time.monotonic() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=10, help="of requests")
    arguments.add_argument("--rows", type=int, default=300_000, help="of the file")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="telestream-bench-") as temporary:
        folder = Path(temporary)
        scenario = Scenario(start=date(2026, 1, 5), records=chosen.rows, customers=20_000, cells=2_000, seed=11)
        write_files(scenario, folder / "data")
        source = folder / "data" / "cdr.csv"
        base = reserve_base()
        with start_parts(folder / "parts", base, only=("kafka", "registry", "postgres")) as parts:
            topics = Topics()
            apply_topics(parts.kafka, topics)
            Registry(parts.registry).register_all(topics)
            migrate(parts.postgres)
            ensure_development_key(parts.postgres, KEY)
            (folder / "gateway").mkdir()
            gateway = Gateway(parts, folder / "gateway", base)
            try:
                bodies = requests_of(source, 100)
                by_requests(gateway, bodies, 2)  # imports, caches and connections
                cpu = gateway.cpu_s()
                taken, seconds = by_requests(gateway, bodies, chosen.seconds)
                cpu = gateway.cpu_s() - cpu
                print(
                    f"NDJSON, {REQUEST_RECORDS} a request, {CONNECTIONS} connections: {taken / seconds:>9,.0f} "
                    f"records/s  {cpu / taken * 1e6:5.1f} µs CPU/record  {gateway.rss_mib()} MiB"
                )
                for name in ("first", "again, another source"):
                    cpu, began = gateway.cpu_s(), time.monotonic()
                    with source.open("rb") as file:
                        answer = gateway.client.put(f"/v1/files/{name[:5]}/cdr.csv?type=cdr", content=file)
                    answer.raise_for_status()
                    seconds, cpu, rows = time.monotonic() - began, gateway.cpu_s() - cpu, answer.json()["rows"]
                    print(
                        f"CSV, {rows:,} rows, {source.stat().st_size / rows:.0f} bytes each, {name}: "
                        f"{rows / seconds:>9,.0f} records/s  {cpu / rows * 1e6:5.1f} µs CPU/record  "
                        f"{gateway.rss_mib()} MiB"
                    )
            finally:
                gateway.end()


if __name__ == "__main__":
    main()
