"""How fast the enricher judges: its stage alone, then as a whole process against real Kafka, with and without Faust.

    python benchmarks/enricher.py                        starts an embedded Kafka and registry of its own
    python benchmarks/enricher.py --kafka … --registry … uses running ones

Everything shares this machine's cores: broker, enricher and, before the clock starts, the producer. CPU is that of the
enricher's process, all threads, divided by the records judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
from confluent_kafka import Producer

from cdr_enricher.decode import RawDecoder
from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.kinds import KINDS
from cdr_enricher.domain.references import References
from cdr_enricher.stage import Judge, State, Target
from faust_batch import Batch, Source, end_offsets
from telestream_contracts import Registry, apply_topics, arrow_schema, encode, load_schema
from telestream_domain import Topics

SUBSCRIBERS, CELLS, PARTITIONS = 20_000, 2_000, 4
BATCH = 20_000
NOW_MS = int(time.time() * 1000)
LIMIT_S = 25.0


def pseudonyms(count: int, rng: np.random.Generator) -> np.ndarray:
    """Texts of the length and randomness of real ones."""
    words = rng.integers(0, 2**63, (count, 2))
    return np.array([f"k1.{a:011x}{b:011x}"[:25] for a, b in words.tolist()], dtype=object)


class Traffic:
    """Plausible CDRs by columns: half calls, a third data, the rest messages; 2 % sent twice."""

    def __init__(self, seed: int = 7) -> None:
        self._rng = np.random.default_rng(seed)
        self.subscribers = pseudonyms(SUBSCRIBERS, self._rng)
        self.cells = np.array([f"208-01-{number}" for number in range(CELLS)], dtype=object)

    def cdrs(self, count: int) -> pa.RecordBatch:
        rng = self._rng
        kind = rng.choice(np.array(["VOICE", "SMS", "DATA"], dtype=object), count, p=[0.5, 0.2, 0.3])
        voice, data = kind == "VOICE", kind == "DATA"
        started = NOW_MS - 60_000 + np.sort(rng.integers(0, 60_000, count))
        duration = rng.integers(0, 600_000, count)
        pick = rng.integers(0, SUBSCRIBERS, (3, count))

        def only(where: np.ndarray, values: object) -> pl.Series:
            return pl.Series(values).set(pl.Series(~where), None)

        columns = {
            "event_uid": pseudonyms(count, rng),
            "started_at": pl.Series(started).cast(pl.Datetime("ms")),
            "record_type": kind,
            "status": pl.Series(["COMPLETED"]).sample(count, with_replacement=True),
            "subscriber_id": self.subscribers[pick[0]],
            "subscriber_kind": pl.Series(["MSISDN"]).sample(count, with_replacement=True),
            "cell_id": self.cells[rng.integers(0, CELLS, count)],
            "duration_ms": only(voice | data, duration),
            "bytes_up": only(data, rng.integers(1, 10**7, count)),
            "bytes_down": only(data, rng.integers(1, 10**8, count)),
            "charge_micros": rng.integers(0, 10**6, count),
            "currency": pl.Series(["EUR"]).sample(count, with_replacement=True),
            "direction": pl.Series(["MO"]).sample(count, with_replacement=True),
            "peer_id": only(~data, self.subscribers[pick[1]]),
            "home_plmn": pl.Series(["208-01"]).sample(count, with_replacement=True),
            "is_partial": np.zeros(count, np.bool_),
            "source": pl.Series(["bench"]).sample(count, with_replacement=True),
            "batch_id": np.ones(count, np.int64),
            "line": np.arange(count),
            "ingested_at": pl.Series(started).cast(pl.Datetime("ms")),
            "rat": pl.Series(["LTE"]).sample(count, with_replacement=True),
            "holding_ms": only(voice, duration + 5_000),
            "imsi": self.subscribers[pick[2]],
            "device_tac": pl.Series(["35332211"]).sample(count, with_replacement=True),
        }
        schema = arrow_schema(load_schema("cdr"))
        given = pl.DataFrame(columns).to_arrow()
        arrays = []
        for field in schema:
            if field.name in columns:
                arrays.append(given.column(field.name).combine_chunks().cast(field.type))
            elif field.name == "ext":
                arrays.append(pa.array([[]] * count, field.type))
            else:
                arrays.append(pa.nulls(count, field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def values(self, count: int, schema_id: int) -> list[bytes]:
        values = encode(self.cdrs(count), load_schema("cdr"), schema_id)
        values[-count // 50 :] = values[: count // 50]
        return values

    def customers(self) -> pl.DataFrame:
        return _versions(
            {"identifier": self.subscribers, "identifier_kind": ["MSISDN"] * SUBSCRIBERS},
            {
                "customer_id": [f"C{n:07d}" for n in range(SUBSCRIBERS)],
                "plan_id": "P1",
                "segment": "S",
                "region_id": "R1",
            },
        )

    def cell_rows(self) -> pl.DataFrame:
        return _versions({"cell_id": self.cells}, {"region_id": "R1", "technology": "LTE", "vendor": "acme"})


def _versions(keys: dict[str, object], body: dict[str, object]) -> pl.DataFrame:
    known = pl.DataFrame(keys)
    return known.with_columns(
        pl.lit(0).cast(pl.Datetime("ms")).alias("valid_from"),
        pl.lit(False).alias("deleted"),
        *(pl.Series(n, v) if isinstance(v, list) else pl.lit(v).alias(n) for n, v in body.items()),
        pl.lit("bench").alias("source"),
        pl.lit(1, pl.Int64).alias("batch_id"),
        pl.lit(1, pl.Int64).alias("line"),
        pl.lit(0).cast(pl.Datetime("ms")).alias("ingested_at"),
    )


def stage_alone(records: int, batch_records: int) -> tuple[float, float]:
    """(records/s, CPU µs/record) of judging in memory."""
    traffic, references = Traffic(), References()
    references.add("customer", traffic.customers(), np.arange(SUBSCRIBERS))
    references.add("cell", traffic.cell_rows(), np.arange(CELLS))
    judge = Judge(KINDS["cdr"], Target("raw", "enriched", "rejected", 2, 3), RawDecoder("cdr", 1, lambda _: None))
    state = State(None, 0, Seen())
    wall = cpu = 0.0
    for first in range(0, records, batch_records):
        values = traffic.values(batch_records, 1)
        offsets = np.arange(first, first + batch_records)
        batch = Batch(
            Source("raw", 0),
            offsets,
            np.full(batch_records, NOW_MS),
            [b"key"] * batch_records,
            values,
            first + batch_records,
            first + batch_records,
            1,
            sum(map(len, values)),
        )
        began_wall, began_cpu = time.perf_counter(), time.process_time()
        _, state = judge.on_batch(batch, state, references)
        if first:  # the first batch warms up
            wall += time.perf_counter() - began_wall
            cpu += time.process_time() - began_cpu
    judged = records - batch_records
    return judged / wall, cpu / judged * 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    rate: float
    cpu_us: float
    rss_mb: float
    judged: int


def against_kafka(kafka: str, registry_url: str, runner: str, values: int, admin_port: int) -> Measured:
    """Load raw and reference topics, then start the enricher on them and time it from its first judged record."""
    prefix = f"bench{uuid.uuid4().hex[:8]}."
    topics = Topics(prefix)
    registry = Registry(registry_url)
    apply_topics(kafka, topics, partitions=PARTITIONS)
    ids = registry.register_all(topics)
    traffic = Traffic()
    for entity, rows, key in (
        ("customer", traffic.customers(), "identifier"),
        ("cell", traffic.cell_rows(), "cell_id"),
    ):
        body = encode(_complete(rows, entity), load_schema(entity), ids[topics.ref(entity)])
        # the records below lie in any partition, so each has all customers
        for partition in range(PARTITIONS if entity == "customer" else 1):
            _produce(kafka, topics.ref(entity), partition, list(zip(rows[key].to_list(), body, strict=True)))
    for number in range(values // BATCH):
        body = traffic.values(BATCH, ids[topics.raw("cdr")])
        _produce(kafka, topics.raw("cdr"), number % PARTITIONS, [("k" * 22, value) for value in body])
    environment = os.environ | {
        "TELESTREAM_KAFKA": kafka,
        "TELESTREAM_REGISTRY": registry_url,
        "TELESTREAM_TOPIC_PREFIX": prefix,
        "TELESTREAM_RUNNER": runner,
        "TELESTREAM_ADMIN_PORT": str(admin_port),
        "TELESTREAM_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "cdr_enricher"], env=environment)
    try:
        return _watch(psutil.Process(process.pid), kafka, topics, values)
    finally:
        process.terminate()
        process.wait(30)


def _complete(rows: pl.DataFrame, entity: str) -> pl.DataFrame:
    missing = [name for name in arrow_schema(load_schema(entity)).names if name not in rows.columns]
    kinds = {
        "latitude": pl.Float64,
        "longitude": pl.Float64,
        "bill_cycle_day": pl.Int64,
        "activated_at": pl.Datetime("ms"),
    }
    return rows.with_columns(pl.lit(None, kinds.get(name, pl.String)).alias(name) for name in missing)


def _produce(kafka: str, topic: str, partition: int, messages: list[tuple[str, bytes]]) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka, "compression.type": "lz4", "linger.ms": 20, "batch.size": 1_000_000}
    )
    for key, value in messages:
        producer.produce(topic, value, key, partition)
    producer.flush(60)


def _watch(process: psutil.Process, kafka: str, topics: Topics, records: int) -> Measured:
    def judged() -> int:
        return sum(end_offsets(kafka, [topics.enriched("cdr")], client_options={"log_level": "4"}).values())

    deadline = time.monotonic() + LIMIT_S
    while not judged() and time.monotonic() < deadline:
        time.sleep(0.05)
    first, began, cpu = judged(), time.perf_counter(), sum(process.cpu_times()[:2])
    rss = 0.0
    count, ended = first, began
    while count < records and time.monotonic() < deadline:
        time.sleep(0.1)
        now = judged()
        if now != count:
            count, ended, used = now, time.perf_counter(), sum(process.cpu_times()[:2]) - cpu
        rss = max(rss, process.memory_info().rss / 1e6)
    if count <= first:
        raise SystemExit("the enricher judged nothing")
    return Measured((count - first) / (ended - began), used / (count - first) * 1e6, rss, count)


@contextlib.contextmanager
def _parts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if arguments.kafka:
        yield arguments.kafka, arguments.registry
        return
    from telestream_devstack import start_parts

    with (
        tempfile.TemporaryDirectory() as directory,
        start_parts(Path(directory), arguments.port_base, only=("kafka", "registry", "postgres")) as parts,
    ):
        yield parts.kafka, parts.registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka")
    parser.add_argument("--registry")
    parser.add_argument("--port-base", type=int, default=23_000)
    parser.add_argument("--records", type=int, default=600_000)
    arguments = parser.parse_args()
    print(f"{'what':<34}{'records/s':>12}{'CPU µs/record':>16}{'memory MB':>12}")
    for batch_records in (BATCH, 1_000, 100):
        rate, cpu = stage_alone(min(arguments.records, 12 * batch_records), batch_records)
        print(f"{f'stage, batches of {batch_records:,}':<34}{rate:>12,.0f}{cpu:>16.2f}")
    with _parts(arguments) as (kafka, registry):
        for runner in ("plain", "faust"):
            found = against_kafka(kafka, registry, runner, arguments.records, arguments.port_base + 102)
            print(f"{f'Kafka, {runner} runner':<34}{found.rate:>12,.0f}{found.cpu_us:>16.2f}{found.rss_mb:>12.0f}")


if __name__ == "__main__":
    main()
