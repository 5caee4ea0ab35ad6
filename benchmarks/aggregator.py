"""What the window-aggregator costs: CPU per record, and upserts per record by family.

    .venv/bin/python benchmarks/aggregator.py [--kafka] [--records 400000] [--port-base 24000]

Without --kafka the stage runs alone against a simulated clock, in two shapes: *live* (10,000 CDRs/s over 4 partitions,
2,000 cells, 100 regions, 12 plans, 20,000 subscribers) and *file* (a day of records in one file, as fast as it goes);
*old* is a file of 300 days.
With --kafka, a worker process reads both from a real broker, fetching and producing included. Under a minute each.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import psutil
import pyarrow as pa

from faust_batch import Batch, Source
from telestream_contracts import Registry, apply_topics, arrow_schema, encode, enriched_schema, load_schema
from telestream_domain import FAMILIES, Topics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import families
from window_aggregator.domain.rhythm import Rhythm, default_beats
from window_aggregator.stage import Aggregator

PARTITIONS = 4
CELLS = 2_000
SUBSCRIBERS = 20_000
LIVE_PER_S = 10_000
DAY_MS = 86_400_000
DAYS = {"file": 1, "old": 300}
AGG_IDS = {family: 20 + number for number, family in enumerate(FAMILIES)}
BUDGET_S = 25.0


def cdrs(
    first: int,
    count: int,
    partition: int,
    from_ms: int,
    span_ms: int,
    arrived_ms: int | None,
    seed: int,
    subscribers: int = SUBSCRIBERS,
) -> pa.RecordBatch:
    """Judged CDRs spread evenly over ``span_ms``, jittered by 20 s, as the enriched schema's columns.

    They arrived at ``arrived_ms``, or where it is None half a minute after their event. A subscriber's records are all
    in one partition, as raw topics are keyed.
    """
    rng = np.random.default_rng(seed)
    schema = arrow_schema(enriched_schema("cdr"))
    cell = rng.integers(CELLS, size=count)
    subscriber = rng.integers(subscribers // PARTITIONS, size=count) * PARTITIONS + partition
    at = from_ms + (np.arange(count) * span_ms // count) - rng.integers(20_000, size=count)
    charged = rng.random(count) < 0.5
    kinds, statuses = np.array(["VOICE", "SMS", "DATA"]), np.array(["COMPLETED", "NO_ANSWER", "DROPPED"])
    frame = pl.DataFrame(
        {
            "src_partition": pl.repeat(partition, count, dtype=pl.Int64, eager=True),
            "src_offset": np.arange(first, first + count),
            "appended_at": np.maximum(at, from_ms) + 30_000 if arrived_ms is None else np.full(count, arrived_ms),
            "content_hash": np.arange(count),
            "local_date": (at // DAY_MS).astype(np.int32),
            "started_at": at,
            "ingested_at": at,
            "duration_ms": rng.integers(1_000, 200_000, size=count),
            "charge_micros": rng.integers(0, 900_000, size=count),
            "line": np.arange(count),
            "cell": cell,
            "subscriber": subscriber,
            "plan": subscriber % 12,
            "record_type": kinds[rng.choice(3, size=count, p=[0.5, 0.2, 0.3])].tolist(),
            "status": statuses[rng.choice(3, size=count, p=[0.85, 0.1, 0.05])].tolist(),
            "direction": np.where(charged, "MO", "MT").tolist(),
            "currency": np.where(charged, "EUR", None).tolist(),
        }
    ).with_columns(
        verdict=pl.lit("STORED"),
        sign=pl.lit(1, pl.Int64),
        rules_version=pl.lit(1, pl.Int64),
        warnings=pl.lit([], pl.List(pl.String)),
        region_id=pl.format("R{}", pl.col("cell") % 100),
        technology=pl.lit("LTE"),
        vendor=pl.lit("Vendor"),
        customer_id=pl.format("C{}", "subscriber"),
        plan_id=pl.format("P{}", "plan"),
        segment=pl.lit("CONSUMER"),
        roaming=pl.lit("HOME"),
        event_uid=pl.col("src_offset").cast(pl.String).str.zfill(22),
        subscriber_id=pl.format("k1.{}", pl.col("subscriber").cast(pl.String).str.zfill(22)),
        subscriber_kind=pl.lit("MSISDN"),
        cell_id=pl.format("208-01-{}", pl.col("cell") + 100_000),
        charge_micros=pl.when(pl.col("currency").is_not_null()).then("charge_micros"),
        peer_id=pl.format("k1.{}", pl.col("src_offset").cast(pl.String).str.zfill(22)),
        peer_kind=pl.lit("E164"),
        peer_country=pl.lit("FR"),
        is_partial=pl.lit(False),
        source=pl.lit("msc1"),
        batch_id=pl.lit(1, pl.Int64),
    )
    columns = []
    for field in schema:
        if field.name == "ext":
            columns.append(pa.array([{}] * count, type=field.type))
        elif field.name in frame.columns:
            columns.append(frame[field.name].to_arrow().cast(field.type))
        else:
            columns.append(pa.nulls(count, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class NoLog:
    """For a stage that never restores."""

    def enriched_start(self, source: Source) -> int:
        return 0

    def enriched(self, source: Source, start: int, end: int) -> Iterator[Batch]:
        return iter(())

    def agg_end(self, family: str, partition: int) -> int:
        return 0

    def upserts(self, family: str, partition: int, start: int) -> Iterator[Batch]:
        return iter(())

    def ids(self, source: Source, families: Sequence[str]) -> str | None:
        return None


def stage_alone(shape: str, records: int) -> None:
    """Rounds of one batch per partition; ``live``: 200 ms of traffic each, ``file``: 20,000 records."""
    topics = Topics()
    schemas: dict[int, Any] = {7: enriched_schema("cdr")}
    schemas |= {number: load_schema(f"agg_{family}") for family, number in AGG_IDS.items()}
    stage = Aggregator(
        topics,
        families(),
        Rhythm(default_beats(), 2_000),
        ZoneInfo("UTC"),
        Codec(schemas.get, AGG_IDS),
        NoLog(),
    )
    now_ms = 1_790_000_000_000
    sources = [Source(topics.enriched("cdr"), partition) for partition in range(PARTITIONS)]
    states = {source: stage.restore(source, None) for source in sources}
    per_batch = LIVE_PER_S // PARTITIONS // 5 if shape == "live" else 20_000
    round_ms = 200 if shape == "live" else 1_000
    rounds = max(records // (PARTITIONS * per_batch), 1)
    span_ms = rounds * round_ms if shape == "live" else DAYS[shape] * DAY_MS
    from_ms = now_ms if shape == "live" else now_ms - span_ms
    counted: dict[str, int] = {}
    done, cpu_s, begun = 0, 0.0, time.monotonic()

    def count(outputs: Any) -> None:
        for output in outputs:
            counted[output.topic] = counted.get(output.topic, 0) + len(output.messages)

    for number in range(rounds):
        if time.monotonic() - begun > BUDGET_S:
            break
        batches = []
        for source in sources:
            table = cdrs(
                number * per_batch,
                per_batch,
                source.partition,
                from_ms + number * span_ms // rounds,
                span_ms // rounds,
                None if shape == "live" else now_ms,
                seed=number * PARTITIONS + source.partition,
            )
            batches.append(_batch(source, encode(table, schemas[7], 7), number * per_batch))
        started = time.process_time()
        for batch in batches:
            outputs, states[batch.source] = stage.on_batch(batch, states[batch.source])
            count(outputs)
        now_ms += round_ms
        outputs, changed = stage.due(states, now_ms)
        states |= changed
        count(outputs)
        cpu_s += time.process_time() - started
        done += PARTITIONS * per_batch
    started = time.process_time()
    idle_ms = 1
    while True:  # a call emits a bounded number
        outputs, changed = stage.due(states, now_ms + idle_ms)
        states |= changed
        count(outputs)
        if not outputs and idle_ms > 1:
            break
        idle_ms = 2_001
    last_s = time.process_time() - started
    print(
        f"\nstage alone, {shape}: {done:,} CDRs in batches of {per_batch:,}: {cpu_s / done * 1e6:.2f} µs of CPU a "
        f"record, {(cpu_s + last_s) / done * 1e6:.2f} with the flush at the end"
    )
    for topic, upserts in sorted(counted.items()):
        print(f"  {topic:34} {upserts:>9,} upserts   {upserts / done:.3f} a record")


def _batch(source: Source, values: list[bytes], first: int) -> Batch:
    count = len(values)
    return Batch(
        source=source,
        offsets=np.arange(first, first + count),
        timestamps_ms=np.zeros(count, np.int64),
        keys=[None] * count,
        values=list(values),
        next_offset=first + count,
        high_watermark=first + count,
        epoch=0,
        nbytes=0,
    )


def on_kafka(shape: str, records: int, port_base: int, runner: str) -> None:
    """A worker process catches up with what was written before it started."""
    from confluent_kafka import Producer

    from faust_batch import end_offsets
    from telestream_devstack import start_parts

    with (
        tempfile.TemporaryDirectory() as directory,
        start_parts(Path(directory), port_base, only=("kafka", "registry", "postgres")) as parts,
    ):
        topics = Topics()
        apply_topics(parts.kafka, topics, PARTITIONS)
        ids = Registry(parts.registry).register_all(topics)
        topic = topics.enriched("cdr")
        producer = Producer({"bootstrap.servers": parts.kafka, "linger.ms": 20, "compression.type": "lz4"})
        now_ms, per_partition = int(time.time() * 1_000), records // PARTITIONS
        span_ms = records * 1_000 // LIVE_PER_S if shape == "live" else DAYS[shape] * DAY_MS
        for partition in range(PARTITIONS):
            for first in range(0, per_partition, 20_000):
                part = min(20_000, per_partition - first)
                from_ms = now_ms - span_ms + span_ms * first // per_partition
                arrived_ms = None if shape == "live" else now_ms
                span = span_ms * part // per_partition
                table = cdrs(first, part, partition, from_ms, span, arrived_ms, seed=first + partition)
                for value in encode(table, enriched_schema("cdr"), ids[topic]):
                    producer.produce(topic, value, partition=partition)
                    producer.poll(0)
                producer.flush()
        environment = {**os.environ, **parts.environment(), "TELESTREAM_RUNNER": runner}
        environment["TELESTREAM_ADMIN_PORT"] = str(port_base + 103)
        worker = subprocess.Popen(
            [sys.executable, "-m", "window_aggregator"], env=environment, stderr=subprocess.DEVNULL
        )
        process = psutil.Process(worker.pid)
        try:
            metrics = f"http://127.0.0.1:{port_base + 103}/metrics"
            first_at = begun = time.monotonic()
            cpu_0 = 0.0
            taken = 0.0
            while taken < per_partition * PARTITIONS and time.monotonic() - begun < BUDGET_S * 2:
                time.sleep(0.1)
                found = _counted(metrics, "telestream_aggregator_records_total")
                if not taken:
                    first_at, cpu_0 = time.monotonic(), sum(process.cpu_times()[:2])
                    started = found
                taken = found
            seconds, cpu_s = time.monotonic() - first_at, sum(process.cpu_times()[:2]) - cpu_0
            took = taken - started
            rss = process.memory_info().rss / 1e6
            written: dict[str, int] = {}
            while time.monotonic() - begun < BUDGET_S * 2:
                ends = {family: sum(end_offsets(parts.kafka, [topics.agg(family)]).values()) for family in FAMILIES}
                if ends == written:
                    break
                written = ends
                time.sleep(3)
            cpu_all = sum(process.cpu_times()[:2]) - cpu_0
            peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker.pid}/status").read_text())[1]) / 1e3
            print(
                f"\nworker on Kafka, {runner}, {shape}: {took:,.0f} CDRs in {seconds:.1f} s = {took / seconds:,.0f}/s, "
                f"{cpu_s / took * 1e6:.2f} µs of CPU a record, {cpu_all / took * 1e6:.2f} with the last flush; "
                f"{rss:.0f} MB resident, {peak:.0f} at most"
            )
            print("  " + "  ".join(f"{family} {count / taken:.3f}" for family, count in written.items()), "a record")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)


def _counted(url: str, name: str) -> float:
    import httpx

    try:
        lines = httpx.get(url, timeout=2).text.splitlines()
    except httpx.HTTPError:
        return 0.0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--kafka", action="store_true", help="a worker on a real broker")
    asked.add_argument("--shape", choices=("live", "file", "old", "both"), default="both")
    asked.add_argument("--runner", choices=("faust", "plain"), default="faust")
    asked.add_argument("--records", type=int, default=400_000)
    asked.add_argument("--port-base", type=int, default=24_000)
    options = asked.parse_args()
    for shape in ("live", "file") if options.shape == "both" else (options.shape,):
        if options.kafka:
            on_kafka(shape, options.records, options.port_base, options.runner)
        else:
            stage_alone(shape, options.records)


if __name__ == "__main__":
    main()
