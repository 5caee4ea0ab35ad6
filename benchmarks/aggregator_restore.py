"""What it costs the window-aggregator to restore a partition: CPU, from a real broker.

    .venv/bin/python benchmarks/aggregator_restore.py [--records 900000] [--subscribers 1000000] [--port-base 24000]

One of four partitions of a live load (10,000 CDRs/s, 2,000 cells) is aggregated up to a source offset that nearly fills
the open subscriber-day segment; what the stage emits is written to Kafka beside the judged records. Then the partition
is restored by the process's own code: from the log alone, and from the last snapshot and the log behind it.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

os.environ.setdefault("POLARS_MAX_THREADS", "1")

from aggregator import LIVE_PER_S, PARTITIONS, NoLog, _batch, cdrs
from confluent_kafka import Producer

from faust_batch import Committed, Output, Source
from telestream_contracts import Registry, apply_topics, encode, enriched_schema
from telestream_devstack import start_parts
from telestream_domain import FAMILIES, Topics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import families
from window_aggregator.domain.rhythm import Rhythm, default_beats
from window_aggregator.kafka import KafkaLog
from window_aggregator.snapshot import Snapshot
from window_aggregator.snapshot_cache import SnapshotCache, SnapshotFiles
from window_aggregator.snapshots import SnapshotRhythm
from window_aggregator.stage import Aggregator

BATCH = 5_000
FROM_MS = 1_790_000_000_000
FASTER_THAN_LIVE = 15
"""So many times as fast as live, about, the load is taken: snapshots, which may take a share of the time, keep up."""


@dataclass
class Written(NoLog):
    """Sends what a stage emits to Kafka, and knows where each topic ends."""

    producer: Any
    topics: Topics
    kafka: KafkaLog
    ends: dict[str, int] = field(default_factory=dict)

    def agg_end(self, family: str, partition: int) -> int:
        return self.ends.get(self.topics.agg(family), 0)

    def ids(self, source: Source, families: Sequence[str]) -> str | None:
        return self.kafka.ids(source, families)

    def send(self, topic: str, messages: Sequence[tuple[bytes | None, bytes]]) -> None:
        for key, value in messages:
            while True:
                try:
                    self.producer.produce(topic, value, key, partition=0)
                    break
                except BufferError:
                    self.producer.poll(0.1)
        self.producer.flush()
        self.ends[topic] = self.ends.get(topic, 0) + len(messages)

    def emitted(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self.send(output.topic, [(m["key"], m["value"]) for m in output.messages])


class Timed:
    """Snapshot files, and what writing them costs."""

    def __init__(self, files: SnapshotFiles) -> None:
        self._files = files
        self.written: list[tuple[int, float]] = []

    def read(self, source: Source) -> Snapshot | None:
        return self._files.read(source)

    def keep(self, source: Source, snapshot: Snapshot) -> None:
        begun = time.process_time()
        self._files.keep(source, snapshot)
        self.written.append((snapshot.next_src, time.process_time() - begun))

    def drop(self, source: Source) -> None:
        raise AssertionError(f"{source}: its snapshot was refused")


def stage_on(codec: Codec, topics: Topics, log: Any, files: SnapshotCache | None = None) -> Aggregator:
    return Aggregator(
        topics,
        families(),
        Rhythm(default_beats(), 2_000),
        ZoneInfo("UTC"),
        codec,
        log,
        snapshots=files,
        snapshot_rhythm=SnapshotRhythm(share_of_time=FASTER_THAN_LIVE * SnapshotRhythm().share_of_time),
    )


def load(
    stage: Aggregator, source: Source, log: Written, schema_id: int, records: int, subscribers: int
) -> list[tuple[int, Committed]]:
    """The source offsets and positions of all commits of a load of so many records at the live rate."""
    schema = enriched_schema("cdr")
    state, step_ms = stage.restore(source, None), BATCH * 1_000 * PARTITIONS // LIVE_PER_S
    commits = []
    for first in range(0, records, BATCH):
        now_ms = FROM_MS + first // BATCH * step_ms
        table = cdrs(first, BATCH, 0, now_ms, step_ms, None, seed=first, subscribers=subscribers)
        values = encode(table, schema, schema_id)
        log.send(source.topic, [(None, value) for value in values])
        outputs, state = stage.on_batch(_batch(source, values, first), state)
        log.emitted(outputs)
        outputs, changed = stage.due({source: state}, now_ms + step_ms)
        state = {source: state, **changed}[source]
        log.emitted(outputs)
        commits.append((state.next_src or 0, Committed(state.position, stage.metadata(source, state))))
    return commits


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--records", type=int, default=900_000)
    asked.add_argument("--subscribers", type=int, default=1_000_000)
    asked.add_argument("--port-base", type=int, default=24_000)
    options = asked.parse_args()
    gc.set_threshold(100_000, 20, 20)  # as in the service's process
    with (
        tempfile.TemporaryDirectory() as directory,
        start_parts(Path(directory), options.port_base, only=("kafka", "registry", "postgres")) as parts,
    ):
        topics = Topics()
        apply_topics(parts.kafka, topics, PARTITIONS)
        registry = Registry(parts.registry)
        ids = registry.register_all(topics)
        codec = Codec(registry.schema, {family: ids[topics.agg(family)] for family in FAMILIES})
        producer = Producer({"bootstrap.servers": parts.kafka, "linger.ms": 20, "compression.type": "lz4"})
        kafka = KafkaLog(parts.kafka, topics)
        log = Written(producer, topics, kafka)
        source = Source(topics.enriched("cdr"), 0)
        files = Timed(SnapshotFiles(Path(directory) / "snapshots"))
        stage = stage_on(codec, topics, log, files)
        begun = time.process_time()
        commits = load(stage, source, log, ids[source.topic], options.records, options.subscribers)
        loaded_s = time.process_time() - begun
        print(
            f"{options.records:,} records of one partition: {log.ends[topics.agg('subscriber_day')]:,} upserts of "
            f"subscriber-days in the log, {loaded_s:.0f} s of CPU to make and take"
        )
        write_s = [took for _, took in files.written]
        size_mb = sum(path.stat().st_size for path in (Path(directory) / "snapshots").iterdir()) / 1e6
        print(
            f"{len(write_s)} snapshots written, the last {size_mb:.0f} MB in {write_s[-1]:.2f} s of CPU, "
            f"all together {sum(write_s) / options.records * 1e6:.2f} µs a record"
        )
        kept_to = files.written[-1][0]
        behind = [(next_src - kept_to, committed) for next_src, committed in commits if next_src >= kept_to]
        cases: list[tuple[str, Committed, SnapshotCache | None]] = [("the log alone", commits[-1][1], None)]
        for records, committed in (behind[0], behind[len(behind) // 2], behind[-1]):
            cases.append((f"a snapshot and {records:,} records", committed, files))
        for text, committed, cache in cases * 2:
            fresh = stage_on(codec, topics, KafkaLog(parts.kafka, topics), cache)
            wall, cpu = time.monotonic(), time.process_time()
            restored = fresh.restore(source, committed)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            print(f"restored from {text}: {cpu:.2f} s of CPU, {wall:.2f} s, {restored.windows():,} rows")


if __name__ == "__main__":
    main()
