"""warehouse-sink alone: judged CDRs from a filled topic into ClickHouse, CPU of both sides and memory.

    python benchmarks/sink.py --records 1000000

Starts a broker, a registry and ClickHouse of its own in a temporary directory; takes under a minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
from confluent_kafka import Producer

from telestream_contracts import Registry, Schema, apply_topics, arrow_schema, encode, enriched_schema
from telestream_devstack import reserve_base, start_parts
from telestream_domain import Topics
from telestream_warehouse import ClickHouse, Query, books_of, judged_positions, migrate, reconciliation

PARTITIONS = 4
BLOCK = 50_000
LIMIT_S = 60.0
SUBSCRIBERS, CELLS = 20_000, 2_000
START_MS = 1_767_225_600_000


def block(partition: int, first: int, count: int, schema: Schema) -> pa.RecordBatch:
    """Judged CDRs with plausible widths: 2 % duplicates, 0.5 % rejected, the rest stored."""
    rng = np.random.default_rng(first * PARTITIONS + partition)
    who = rng.integers(0, SUBSCRIBERS // PARTITIONS, count) * PARTITIONS + partition
    cell = rng.integers(0, CELLS, count)
    chance = rng.random(count)
    at = START_MS + (first + np.arange(count)) * 20 + rng.integers(0, 60_000, count)
    uid = [f"{first + i:06x}{partition}{tail:015x}" for i, tail in enumerate(rng.integers(0, 2**60, count).tolist())]
    verdict = np.where(chance < 0.02, "DUPLICATE", np.where(chance < 0.025, "REJECTED", "STORED"))
    values: dict[str, object] = {
        "src_partition": np.full(count, partition),
        "src_offset": np.arange(first, first + count),
        "appended_at": at + 1_000,
        "verdict": verdict,
        "sign": np.ones(count, np.int64),
        "rule": [{"REJECTED": "negative_value"}.get(v) for v in verdict.tolist()],
        "content_hash": rng.integers(0, 2**32, count),
        "rules_version": np.ones(count, np.int64),
        "region_id": [f"R{c % 100}" for c in cell.tolist()],
        "technology": "LTE",
        "vendor": "ACME",
        "local_date": np.full(count, START_MS // 86_400_000, np.int32),
        "customer_id": [f"C{w}" for w in who.tolist()],
        "plan_id": [f"P{w % 8}" for w in who.tolist()],
        "segment": "CONSUMER",
        "customer_region_id": [f"R{w % 100}" for w in who.tolist()],
        "roaming": "HOME",
        "event_uid": uid,
        "started_at": at,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": [f"k1.{w:022d}" for w in who.tolist()],
        "subscriber_kind": "MSISDN",
        "cell_id": [f"208-01-{c:09d}" for c in cell.tolist()],
        "duration_ms": rng.integers(0, 600_000, count),
        "charge_micros": rng.integers(0, 1_000_000, count),
        "currency": "EUR",
        "direction": "MO",
        "peer_id": [f"k1.{u}" for u in uid],
        "peer_kind": "E164",
        "peer_country": "FR",
        "home_plmn": "208-01",
        "serving_plmn": "208-01",
        "is_partial": np.zeros(count, bool),
        "source": "msc1",
        "batch_id": np.ones(count, np.int64),
        "line": np.arange(count),
        "ingested_at": at + 900,
        "rat": "LTE",
        "domain": "IMS",
        "holding_ms": rng.integers(0, 600_000, count),
        "session_id": [f"s{u}" for u in uid],
        "node_id": "msc1",
        "node_seq": np.arange(count),
    }
    columns = []
    for field in arrow_schema(schema):
        value = values.get(field.name)
        if value is None:
            empty: list[object] = [None if field.nullable else []] * count
            columns.append(pa.array(empty, field.type))
        elif isinstance(value, str):
            columns.append(pa.repeat(pa.scalar(value, field.type), count))
        else:
            columns.append(pa.array(value).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, names=arrow_schema(schema).names)


def fill(bootstrap: str, topics: Topics, registry: Registry, records: int) -> None:
    schema, schema_id = enriched_schema("cdr"), registry.id_for(topics.enriched("cdr"))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "compression.type": "lz4"})
    each = records // PARTITIONS
    for first in range(0, each, BLOCK):
        for partition in range(PARTITIONS):
            values = encode(block(partition, first, min(BLOCK, each - first), schema), schema, schema_id)
            producer.produce_batch(topics.enriched("cdr"), [{"value": v} for v in values], partition=partition)
            producer.flush()


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(t.user + t.system for t in (process.cpu_times() for process in processes if process.is_running()))


def clickhouse_of(url: str) -> psutil.Process:
    port = url.rsplit(":", 1)[1].rstrip("/")
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if port in line and any("clickhouse" in part for part in line):
            return process
    raise SystemExit("ClickHouse's process was not found")


def ticks() -> Iterator[float]:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < LIMIT_S:
        yield passed
        time.sleep(0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--port-base", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args()
    records = arguments.records // PARTITIONS * PARTITIONS
    base = arguments.port_base or reserve_base()
    with (
        tempfile.TemporaryDirectory() as directory,
        start_parts(Path(directory), base, ("kafka", "registry", "clickhouse", "postgres")) as parts,
    ):
        topics = Topics("bench.")
        apply_topics(parts.kafka, topics, PARTITIONS)
        registry = Registry(parts.registry)
        registry.register_all(topics)
        migrate(parts.clickhouse, "bench")
        fill(parts.kafka, topics, registry, records)
        clickhouse = ClickHouse(parts.clickhouse, "bench")
        environment = {
            **os.environ,
            **parts.environment(),
            "TELESTREAM_TOPIC_PREFIX": topics.prefix,
            "TELESTREAM_CLICKHOUSE_DATABASE": "bench",
            "TELESTREAM_ADMIN_PORT": str(base + 104),
        }
        server = clickhouse_of(parts.clickhouse)
        server_before = cpu_s([server])
        process = subprocess.Popen([sys.executable, "-m", "warehouse_sink"], env=environment)
        first_at, written, rss, server_rss = 0.0, 0, 0, 0
        sink_cpu = 0.0
        try:
            for passed in ticks():
                if process.poll() is not None:
                    raise SystemExit(f"the sink ended with {process.returncode}")
                rss = max(rss, sum(p.memory_info().rss for p in family(process.pid)))
                server_rss = max(server_rss, server.memory_info().rss)
                rows = clickhouse.rows(judged_positions("cdr", 1))
                written = sum(row["src_next"] or 0 for row in rows)
                if written and not first_at:
                    first_at, first_written = passed, written
                sink_cpu = cpu_s(family(process.pid))
                if written >= records:
                    break
            lag = [
                line
                for line in httpx.get(f"http://127.0.0.1:{base + 104}/metrics").text.splitlines()
                if line.startswith("telestream_sink_lag_records")
            ]
        finally:
            process.terminate()
            process.wait(30)
        busy = cpu_s([server]) - server_before
        time.sleep(5)  # merges that were still owed
        settled = cpu_s([server]) - server_before
        books = books_of(clickhouse.rows(reconciliation("cdr", [records // PARTITIONS] * PARTITIONS))[0])
        rate = (written - first_written) / max(passed - first_at, 0.001)
        disk = clickhouse.rows(
            Query(
                "SELECT sum(bytes_on_disk) / sum(rows) AS b FROM system.parts WHERE active AND table = 'fact_cdr_all'"
            )
        )
        print(f"records written            {written:>10,} of {records:,}, balanced: {books.balanced}")
        print(f"records/s                  {rate:>10,.0f} (after the first batch; {written / passed:,.0f} from start)")
        print(f"sink, us CPU/record        {sink_cpu / written * 1e6:>10.2f} (its start included)")
        print(f"ClickHouse, us CPU/record  {busy / written * 1e6:>10.2f}")
        print(f"  with merges settled      {settled / written * 1e6:>10.2f}")
        print(f"sink, MB resident          {rss / 1e6:>10.0f}")
        print(f"ClickHouse, MB resident    {server_rss / 1e6:>10.0f}")
        print(f"bytes a fact on disk       {disk[0]['b']:>10.1f}")
        print(*lag)


if __name__ == "__main__":
    main()
