"""Freshness: from a CDR's 202 at the gateway until it counts in ``/v1/metrics/realtime``, at a steady rate.

    TELESTREAM_API_KEY=… python benchmarks/freshness.py [--rate 5000] [--seconds 20] [--json]

Drives a running stack (``TELESTREAM_GATEWAY``, ``TELESTREAM_QUERY_API``, ``TELESTREAM_API_KEY``). Each request of 500
carries one probe: a record in a cell, and so in a region, of its own. A probe is visible when its region has a record.
The API is asked again and again, so a figure is too large by up to one poll, never too small. It asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

REQUEST_RECORDS = 500
CONNECTIONS = 4
POLL_S = 0.05
WAIT_S = 30.0
SOURCE = "freshness"
CELLS, SUBSCRIBERS = 2_000, 20_000
WARM_UP_S = 2.0


@dataclass(slots=True)
class Run:
    """What happened, in seconds of ``time.monotonic``."""

    name: str
    accepted_at: dict[int, float] = field(default_factory=dict)
    visible_at: dict[int, float] = field(default_factory=dict)
    answer_s: list[float] = field(default_factory=list)
    poll_s: list[float] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    failed: int = 0

    def region(self, probe: int) -> str:
        return f"{self.name}-{probe:04d}"


def cell(number: int) -> str:
    return f"001-01-{number}"


def probe_cell(run: Run, probe: int) -> str:
    return f"001-02-{int(run.name[1:], 36) % 10_000}{probe:04d}"


def load_reference(client: httpx.Client, run: Run, probes: int) -> None:
    """Cells of the background in a hundred regions, and one cell and region per probe."""
    valid_from = "2020-01-01T00:00:00Z"
    cells = [
        {"cell_id": cell(number), "region_id": f"FRESH-{number % 100:02d}", "valid_from": valid_from}
        for number in range(1, CELLS + 1)
    ]
    cells += [
        {"cell_id": probe_cell(run, probe), "region_id": run.region(probe), "valid_from": valid_from}
        for probe in range(probes)
    ]
    for first in range(0, len(cells), 1_000):
        answer = client.post("/v1/reference/cell", params={"source": SOURCE}, json=cells[first : first + 1_000])
        answer.raise_for_status()


def body_of(run: Run, request: int, probe: int | None) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    lines = []
    for index in range(REQUEST_RECORDS):
        number = request * REQUEST_RECORDS + index
        where = cell(1 + number * 7 % CELLS) if probe is None or index else probe_cell(run, probe)
        lines.append(
            f'{{"event_id":"{run.name}-{number}","started_at":"{now}","record_type":"VOICE","status":"COMPLETED",'
            f'"msisdn":"+3361{number * 13 % SUBSCRIBERS:07d}","cell_id":"{where}","duration_ms":0,'
            f'"charge_micros":1000,"currency":"EUR"}}'
        )
    return "\n".join(lines).encode()


def send(gateway: str, headers: dict[str, str], run: Run, rate: int, seconds: int, probes: range) -> None:
    """One request each ``REQUEST_RECORDS / rate`` seconds, over a few connections; all of them before it returns."""
    clients = [httpx.Client(base_url=gateway, headers=headers, timeout=30) for _ in range(CONNECTIONS)]
    lock, idle = threading.Lock(), list(clients)

    def post(request: int, probe: int | None) -> None:
        with lock:
            client = idle.pop()
        began = time.monotonic()
        try:
            answer = client.post(
                "/v1/events/cdr",
                params={"source": SOURCE},
                content=body_of(run, request, probe),
                headers={"Content-Type": "application/x-ndjson"},
            )
            now, found = time.monotonic(), answer.json()
            with lock:
                if answer.status_code == 202:
                    run.accepted += found["accepted"]
                    run.refused += found["refused"]
                    run.answer_s.append(now - began)
                    if probe is not None and found["refused"] == 0:
                        run.accepted_at[probe] = now
                else:
                    run.failed += 1
        except httpx.HTTPError:
            with lock:
                run.failed += 1
        finally:
            with lock:
                idle.append(client)

    step = REQUEST_RECORDS / rate
    began, warm = time.monotonic(), int(WARM_UP_S / step)
    waiting = iter(probes)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for request in itertools.count():
            due = began + request * step
            if due - began >= seconds + WARM_UP_S:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(post, request, next(waiting, None) if request >= warm else None)
    for client in clients:
        client.close()


def watch(query: str, headers: dict[str, str], run: Run, done: threading.Event) -> None:
    """Note when each probe's region has its record."""
    with httpx.Client(base_url=query, headers=headers, timeout=30) as client:
        while not done.is_set():
            began = time.monotonic()
            try:
                answer = client.get("/v1/metrics/realtime", params={"group_by": "region", "minutes": 5})
            except httpx.HTTPError:
                time.sleep(POLL_S)
                continue
            now = time.monotonic()
            if answer.status_code == 200:
                run.poll_s.append(now - began)
                for row in answer.json()["data"]["rows"]:
                    if row["region_id"].startswith(run.name) and row["records"] > 0:
                        run.visible_at.setdefault(int(row["region_id"].rsplit("-", 1)[1]), now)
            time.sleep(max(0.0, POLL_S - (time.monotonic() - began)))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def measure(rate: int, seconds: int) -> dict[str, float | int]:
    gateway = os.environ.get("TELESTREAM_GATEWAY", "http://127.0.0.1:18080")
    query = os.environ.get("TELESTREAM_QUERY_API", "http://127.0.0.1:18081")
    headers = {"X-API-Key": os.environ["TELESTREAM_API_KEY"]}
    run = Run(f"F{_base36(time.time_ns() // 1_000_000 % 36**6)}")
    probes = range(min(1_000, max(1, seconds * rate // REQUEST_RECORDS)))
    with httpx.Client(base_url=gateway, headers=headers, timeout=60) as client:
        load_reference(client, run, len(probes))
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(query, headers, run, done), daemon=True)
    watcher.start()
    began = time.monotonic()
    send(gateway, headers, run, rate, seconds, probes)
    took = time.monotonic() - began
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and len(run.visible_at) < len(run.accepted_at):
        time.sleep(POLL_S)
    done.set()
    watcher.join(timeout=35)
    ages = [
        max(0.0, run.visible_at[probe] - accepted)
        for probe, accepted in run.accepted_at.items()
        if probe in run.visible_at
    ]
    return {
        "rate": run.accepted / took,
        "accepted": run.accepted,
        "refused": run.refused,
        "failed_requests": run.failed,
        "probes": len(run.accepted_at),
        "probes_never_seen": len(run.accepted_at) - len(ages),
        "p50_s": quantile(ages, 0.50),
        "p95_s": quantile(ages, 0.95),
        "max_s": max(ages, default=float("nan")),
        "answer_p95_s": quantile(run.answer_s, 0.95),
        "poll_p95_s": quantile(run.poll_s, 0.95),
    }


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5_000, help="CDRs a second")
    parser.add_argument("--seconds", type=int, default=20, help="how long, after two seconds of warm-up")
    parser.add_argument("--json", action="store_true", help="one line for machines")
    options = parser.parse_args()
    if "TELESTREAM_API_KEY" not in os.environ:
        sys.exit("set TELESTREAM_API_KEY; the embedded stack shows it in: telestream status --json")
    try:
        found = measure(options.rate, options.seconds)
    except httpx.HTTPError as err:
        sys.exit(f"{type(err).__name__}: {err}; is the stack up?")
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>18} {value:,.3f}" if isinstance(value, float) else f"{name:>18} {value:,}")


if __name__ == "__main__":
    main()
