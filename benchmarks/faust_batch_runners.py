"""What the runners of faust-batch cost: records/s and CPU per record of a stage that only copies.

    python benchmarks/faust_batch_runners.py [--records 1000000] [--bootstrap HOST:PORT]

Without `--bootstrap` it starts a Kafka of its own. Bounded to a minute or so. The copying itself, a list of dicts,
is about 0.3 µs of each record.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from faust_batch import Batch, FaustRunner, NullObserver, Output, PlainRunner, Source, StatelessStage, WorkerConfig

PARTITIONS = 4
RECORD_BYTES = 130
LIMIT_S = 25.0


class Copy(StatelessStage):
    def __init__(self, source: str, target: str) -> None:
        self.topics = (source,)
        self._target = target

    def judge(self, batch: Batch) -> Sequence[Output]:
        messages = [{"key": key, "value": value} for key, value in zip(batch.keys, batch.values, strict=True)]
        return [Output(self._target, batch.source.partition, messages)]


class Clock(NullObserver):
    """Wall and CPU time from the assignment to the latest round."""

    def __init__(self) -> None:
        self.records = self.rounds = 0
        self.commit_s = 0.0
        self._started = self._ended = (0.0, 0.0)

    def on_assigned(self, sources: Sequence[Source]) -> None:
        self._started = (time.monotonic(), time.process_time())

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        if records:
            self.records += records
            self.rounds += 1
            self.commit_s += seconds
            self._ended = (time.monotonic(), time.process_time())

    @property
    def wall_s(self) -> float:
        return self._ended[0] - self._started[0]

    @property
    def cpu_us(self) -> float:
        return (self._ended[1] - self._started[1]) / max(self.records, 1) * 1e6


def fill(bootstrap: str, topics: Sequence[str], records: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics]).values():
        future.result()
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    chunk = 20_000
    for start in range(0, records // PARTITIONS, chunk):
        for partition in range(PARTITIONS):
            values = (b"%d|%d|" % (partition, n) for n in range(start, min(start + chunk, records // PARTITIONS)))
            messages = [{"key": b"k", "value": value.ljust(RECORD_BYTES, b"x")} for value in values]
            producer.produce_batch(topics[0], messages, partition=partition)
        producer.flush()


Kind = type[PlainRunner[None]] | type[FaustRunner[None]]


def measure(kind: Kind, bootstrap: str, records: int, round_: int) -> str:
    prefix = f"bench.{uuid.uuid4().hex[:8]}."
    source, target = prefix + "in", prefix + "out"
    fill(bootstrap, (source, target), records)
    clock, stop = Clock(), threading.Event()
    config = WorkerConfig(bootstrap, prefix + "group", prefix + "0", prefix + "0")
    runner = kind(Copy(source, target), config, clock)
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while clock.records < records and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join()
    if clock.records < records:
        return f"| {kind.__name__} | {round_} | only {clock.records:,} of {records:,} records in {LIMIT_S:.0f} s | | |"
    commit_ms = clock.commit_s / clock.rounds * 1000
    return (
        f"| {kind.__name__} | {round_} | {records / clock.wall_s:,.0f} | {clock.cpu_us:.2f} "
        f"| {clock.rounds} of {records / clock.rounds:,.0f} records, {commit_ms:.0f} ms |"
    )


@contextmanager
def kafka(bootstrap: str | None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    from telestream_devstack import reserve_base, start_parts

    with tempfile.TemporaryDirectory() as folder, start_parts(Path(folder), reserve_base(), only=("kafka",)) as parts:
        yield parts.kafka


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=600_000)
    parser.add_argument("--bootstrap")
    order = parser.parse_args()
    with kafka(order.bootstrap) as bootstrap:
        load = os.getloadavg()[0]
        print(
            f"{os.cpu_count()} cores, load {load:.1f} before the start; {order.records:,} records of {RECORD_BYTES} B"
        )
        print("| runner | run | records/s | CPU µs/record | rounds, commit |")
        print("|---|---|---|---|---|")
        for round_ in (1, 2):
            kinds: tuple[Kind, ...] = (PlainRunner, FaustRunner)
            for kind in kinds:
                print(measure(kind, bootstrap, order.records, round_), flush=True)


if __name__ == "__main__":
    main()
