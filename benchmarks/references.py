"""What it takes to hold millions of customers: memory and start of a fresh process, from the topic to the first answer.

    python benchmarks/references.py                        starts an embedded Kafka and registry of its own
    python benchmarks/references.py --kafka … --registry … uses running ones

A customer with an MSISDN and an IMSI is two records of ``ref.customer``, each in the partition of its identifier. One
worker holds the identifiers of all partitions here; of three workers each would hold a third.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from confluent_kafka import Producer

from cdr_enricher.domain.hashing import text_key
from cdr_enricher.domain.references import CUSTOMER, customers_at
from cdr_enricher.reference_reader import ReferenceReader
from telestream_contracts import Registry, apply_topics, encode, load_schema
from telestream_domain import Topics
from telestream_runtime.lean import give_back_memory

PARTITIONS, CHUNK, BATCH = 4, 50_000, 20_000
NOW_MS = 1_790_000_000_000
PLANS, SEGMENTS, REGIONS = 40, 4, 100


def identifiers(numbers: np.ndarray) -> pl.Series:
    """As long and as random as pseudonyms are."""
    mixed = (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tolist()
    return pl.Series([f"k1.{number:016x}{number % 999_983:06d}" for number in mixed])


def customers(first: int, count: int) -> pl.DataFrame:
    """One version each, valid from some midnight of the last years."""
    rng = np.random.default_rng(first)
    numbers = np.arange(first, first + count)

    def some(prefix: str, kinds: int) -> pl.Series:
        return pl.Series([f"{prefix}{n}" for n in range(kinds)]).gather(rng.integers(0, kinds, count))

    return pl.DataFrame(
        {
            "identifier": identifiers(numbers),
            "identifier_kind": pl.Series(["MSISDN"]).sample(count, with_replacement=True),
            "valid_from": pl.Series(NOW_MS - 86_400_000 * rng.integers(0, 2_000, count)).cast(pl.Datetime("ms")),
            "deleted": np.zeros(count, np.bool_),
            "customer_id": [f"C{number:08d}" for number in numbers.tolist()],
            "plan_id": some("plan-", PLANS),
            "segment": some("segment-", SEGMENTS),
            "region_id": some("region-", REGIONS),
            "status": pl.Series(["ACTIVE"]).sample(count, with_replacement=True),
            "activated_at": pl.Series([NOW_MS]).sample(count, with_replacement=True).cast(pl.Datetime("ms")),
            "bill_cycle_day": rng.integers(1, 29, count),
            "source": pl.Series(["crm"]).sample(count, with_replacement=True),
            "batch_id": np.ones(count, np.int64),
            "line": numbers,
            "ingested_at": pl.Series([NOW_MS]).sample(count, with_replacement=True).cast(pl.Datetime("ms")),
        }
    )


def load(kafka: str, topics: Topics, schema_id: int, records: int) -> None:
    """Fill ``ref.customer``, chunk by chunk to one partition after the other."""
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 400_000,
        }
    )
    topic, schema = topics.ref(CUSTOMER), load_schema(CUSTOMER)
    for number, first in enumerate(range(0, records, CHUNK)):
        values = encode(customers(first, min(CHUNK, records - first)), schema, schema_id)
        producer.flush(60)
        producer.produce_batch(topic, [{"value": value, "key": b"k"} for value in values], number % PARTITIONS)
    producer.flush(60)


def hold() -> int:
    """In a process of its own: hold all partitions and print what that took."""
    asked = json.loads(os.environ["BENCH_REFERENCES"])
    process = psutil.Process()
    reader = ReferenceReader(asked["kafka"], Topics(asked["prefix"]), Registry(asked["registry"]))
    reader.catch_up()
    give_back_memory()
    idle_mb, began, cpu = process.memory_info().rss / 1e6, time.perf_counter(), time.process_time()
    for partition in range(PARTITIONS):
        reader.hold_customers(partition)
        give_back_memory()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    held = reader.references
    found = {
        "records": held.count(CUSTOMER),
        "idle_mb": idle_mb,
        "rss_mb": process.memory_info().rss / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "held_mb": held.nbytes(CUSTOMER) / 1e6,
        "start_s": seconds,
        "start_cpu_us": cpu / held.count(CUSTOMER) * 1e6,
        "lookup_cpu_us": _lookup_us(reader, asked["records"]),
    }
    reader.close()
    print(json.dumps(found))
    return 0


def _lookup_us(reader: ReferenceReader, records: int) -> float:
    """Of identifiers of the first partition, in batches as they are judged."""
    rng = np.random.default_rng(1)
    chunks = np.arange(0, max(records // CHUNK, 1), PARTITIONS)
    times = np.full(BATCH, NOW_MS)
    used, rounds = 0.0, 20
    for _ in range(rounds):
        numbers = rng.choice(chunks, BATCH) * CHUNK + rng.integers(0, min(CHUNK, records), BATCH)
        key = text_key(identifiers(numbers))
        began = time.process_time()
        _, known = customers_at(reader.references.customers(0), key, times)
        used += time.process_time() - began
        assert known.all()
    return used / rounds / BATCH * 1e6


def measure(kafka: str, registry_url: str, records: int) -> dict[str, float]:
    prefix = f"bench{uuid.uuid4().hex[:8]}."
    topics = Topics(prefix)
    apply_topics(kafka, topics, partitions=PARTITIONS)
    load(kafka, topics, Registry(registry_url).register_all(topics)[topics.ref(CUSTOMER)], records)
    asked = {"kafka": kafka, "registry": registry_url, "prefix": prefix, "records": records}
    lean = f"from telestream_runtime.lean import run_lean; raise SystemExit(run_lean('{Path(__file__).stem}:hold'))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "BENCH_REFERENCES": json.dumps(asked)}
    done = subprocess.run([sys.executable, "-c", lean], env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _parts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if arguments.kafka:
        yield arguments.kafka, arguments.registry
        return
    from telestream_devstack import start_parts

    with (
        tempfile.TemporaryDirectory() as directory,
        start_parts(Path(directory), arguments.port_base, only=("kafka", "registry")) as parts,
    ):
        yield parts.kafka, parts.registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka")
    parser.add_argument("--registry")
    parser.add_argument("--port-base", type=int, default=24_000)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000_000, 5_000_000])
    arguments = parser.parse_args()
    columns = ("idle_mb", "rss_mb", "peak_mb", "held_mb", "start_s", "start_cpu_us", "lookup_cpu_us")
    print(f"{'identifiers':>12}" + "".join(f"{column:>15}" for column in columns))
    with _parts(arguments) as (kafka, registry):
        for records in arguments.records:
            found = measure(kafka, registry, records)
            print(f"{records:>12,}" + "".join(f"{found[column]:>15.2f}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
