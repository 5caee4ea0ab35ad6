"""What faust-batch costs beside stock Faust and a plain loop, and what its transactions cost, in one run.

    python benchmarks/faust_batch_runners.py [--records 600000] [--stock-records 40000] [--bootstrap HOST:PORT]

Everyone copies records of 130 bytes from one topic of four partitions to another, keys and partitions kept. Each
measurement is a process of its own, counted from the first record it sees to its last commit (stock Faust: its last
flush); CPU is that process's, the broker's is not in it. Without `--bootstrap` it starts a Kafka of its own. Bounded:
what has not begun after three and a half minutes is left out. It asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

import faust_batch.ledger
from faust_batch import Batch, FaustRunner, NullObserver, Output, PlainRunner, Source, StatelessStage, WorkerConfig
from faust_batch.transactions import Transactions

PARTITIONS = 4
RECORD_BYTES = 130
CHUNK = 20_000
TAKE = 1_000
COMMIT_EVERY_S = 0.1
ONE_LIMIT_S = 40.0
STOCK_LIMIT_S = 15.0  # what it has done by then is counted
ALL_LIMIT_S = 210.0


@dataclass(frozen=True)
class Order:
    """One measurement, as it is told to its process."""

    kind: str
    bootstrap: str
    source: str
    target: str
    records: int


class Stopwatch:
    """Wall and CPU time between the first record and the latest commit."""

    def __init__(self) -> None:
        self.records = self.commits = 0
        self._began: tuple[float, float] | None = None
        self._ended = (0.0, 0.0)

    def begin(self) -> None:
        if self._began is None:
            self._began = (time.monotonic(), time.process_time())

    def committed(self, records: int) -> None:
        if records:
            self.records += records
            self.commits += 1
            self._ended = (time.monotonic(), time.process_time())

    def report(self) -> dict[str, float]:
        began = self._began or (0.0, 0.0)
        return {
            "records": self.records,
            "commits": self.commits,
            "wall_s": self._ended[0] - began[0],
            "cpu_s": self._ended[1] - began[1],
        }


# -- faust-batch ------------------------------------------------------------------------------------------------------


class Copy(StatelessStage):
    def __init__(self, order: Order, watch: Stopwatch) -> None:
        self.topics = (order.source,)
        self._target = order.target
        self._watch = watch

    def judge(self, batch: Batch) -> Sequence[Output]:
        self._watch.begin()
        messages = [{"key": key, "value": value} for key, value in zip(batch.keys, batch.values, strict=True)]
        return [Output(self._target, batch.source.partition, messages)]


class Rounds(NullObserver):
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        self._watch.committed(records)

    def on_assigned(self, sources: Sequence[Source]) -> None: ...


class Untransacted(Transactions):
    """The same rounds without transactions: flush, then commit the offsets. At least once; for measuring only."""

    def __init__(self, config: WorkerConfig) -> None:
        super().__init__(config)
        settings = config.producer_settings()
        del settings["transactional.id"], settings["transaction.timeout.ms"]
        self._producer = Producer(settings)

    def start(self, timeout_s: float) -> None: ...

    def begin(self) -> None: ...

    def abort(self) -> None: ...

    def commit(self, positions: Sequence[TopicPartition], group_metadata: Callable[[], Any]) -> None:
        consumer: Consumer = group_metadata.__self__  # type: ignore[attr-defined]
        if self._producer.flush(self._timeout_s):
            raise RuntimeError("not delivered in time")
        if positions:
            consumer.commit(offsets=list(positions), asynchronous=False)


def with_runner(
    order: Order, watch: Stopwatch, kind: type[PlainRunner[None]] | type[FaustRunner[None]], transactions: bool
) -> None:
    if not transactions:
        faust_batch.ledger.Transactions = Untransacted  # type: ignore[misc]
    name = order.target
    config = WorkerConfig(order.bootstrap, name, name, name)
    runner, stop = kind(Copy(order, watch), config, Rounds(watch)), threading.Event()
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    wait(lambda: watch.records >= order.records or not thread.is_alive())
    stop.set()
    thread.join()


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ONE_LIMIT_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)


# -- a plain loop -----------------------------------------------------------------------------------------------------


def with_loop(order: Order, watch: Stopwatch, transactions: bool) -> None:
    """What one would write with confluent-kafka alone: consume many, send many, flush, commit."""
    own = {"transactional.id": order.target} if transactions else {}
    producer = Producer(
        {
            "bootstrap.servers": order.bootstrap,
            "linger.ms": 5,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 200_000,
            **own,
        }
    )
    consumer = Consumer(
        {
            "bootstrap.servers": order.bootstrap,
            "group.id": order.target,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 16 * 1024,
        }
    )
    if transactions:
        producer.init_transactions(30)
    consumer.subscribe([order.source])
    deadline = time.monotonic() + ONE_LIMIT_S
    positions: dict[int, int] = {}
    open_records, opened_at = 0, 0.0
    while watch.records < order.records and time.monotonic() < deadline:
        messages: list[Message] = consumer.consume(CHUNK, 0.02)
        if messages:
            watch.begin()
            if not open_records:
                opened_at = time.monotonic()
                if transactions:
                    producer.begin_transaction()
            by_partition: dict[int, list[dict[str, Any]]] = {}
            for message in messages:
                sent = by_partition.setdefault(message.partition() or 0, [])
                sent.append({"key": message.key(), "value": message.value()})
                positions[message.partition() or 0] = (message.offset() or 0) + 1
            for partition, sent in by_partition.items():
                while len(producer) + len(sent) > 200_000:
                    producer.poll(0.01)
                producer.produce_batch(order.target, sent, partition=partition)
            open_records += len(messages)
        if open_records and (not messages or time.monotonic() - opened_at > COMMIT_EVERY_S):
            offsets = [TopicPartition(order.source, p, offset) for p, offset in positions.items()]
            if transactions:
                producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 10)
                producer.commit_transaction(10)
            else:
                producer.flush(10)
                consumer.commit(offsets=offsets, asynchronous=False)
            watch.committed(open_records)
            open_records = 0
    consumer.close()


# -- stock Faust ------------------------------------------------------------------------------------------------------


def with_stock(order: Order, watch: Stopwatch, take: bool) -> None:
    asyncio.run(_stock(order, watch, take))


async def _stock(order: Order, watch: Stopwatch, take: bool) -> None:
    """An agent as the documentation of Faust has it; bytes pass through, so that no codec is measured."""
    import faust

    app = faust.App(
        order.target,
        broker=f"kafka://{order.bootstrap}",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.005,
        producer_compression_type="lz4",
        producer_max_batch_size=1_000_000,
        stream_wait_empty=False,
        datadir=tempfile.mkdtemp(),
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    source, target = app.topic(order.source, **raw), app.topic(order.target, **raw)
    ended = asyncio.Event()
    seen = 0

    async def send(event: Any) -> None:
        nonlocal seen
        await target.send(key=event.key, value=event.value, partition=event.message.partition)
        seen += 1
        if seen == order.records:
            await app.producer.flush()
            watch.committed(seen)
            ended.set()

    async def one(stream: Any) -> None:
        async for event in stream.events():
            watch.begin()
            await send(event)

    async def many(stream: Any) -> None:
        async for events in stream.take_events(TAKE, within=0.1):
            watch.begin()
            for event in events:
                await send(event)

    app.agent(source)(many if take else one)
    starting = asyncio.create_task(app.start())
    try:
        await asyncio.wait_for(ended.wait(), STOCK_LIMIT_S)
    except TimeoutError:
        watch.committed(seen)
    os.write(1, json.dumps(watch.report()).encode())
    starting.cancel()
    os._exit(0)  # stopping it in order may take long, and is not what is measured


# -- one run ----------------------------------------------------------------------------------------------------------

STOCK_ONE = "stock Faust agent, one event at a time"
STOCK_TAKE = f"stock Faust agent, take({TAKE:,})"
FAUST, PLAIN, LOOP = "faust-batch, Faust runner", "faust-batch, plain runner", "plain confluent-kafka loop"
WITHOUT = ", without transactions"
KINDS: dict[str, Callable[[Order, Stopwatch], None]] = {
    STOCK_ONE: lambda order, watch: with_stock(order, watch, take=False),
    STOCK_TAKE: lambda order, watch: with_stock(order, watch, take=True),
    FAUST: lambda order, watch: with_runner(order, watch, FaustRunner, transactions=True),
    FAUST + WITHOUT: lambda order, watch: with_runner(order, watch, FaustRunner, transactions=False),
    PLAIN: lambda order, watch: with_runner(order, watch, PlainRunner, transactions=True),
    PLAIN + WITHOUT: lambda order, watch: with_runner(order, watch, PlainRunner, transactions=False),
    LOOP: lambda order, watch: with_loop(order, watch, transactions=True),
    LOOP + WITHOUT: lambda order, watch: with_loop(order, watch, transactions=False),
}


def fill(bootstrap: str, topic: str, records: int) -> None:
    make(bootstrap, topic)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    for start in range(0, records // PARTITIONS, CHUNK):
        for partition in range(PARTITIONS):
            values = (b"%d|%d|" % (partition, n) for n in range(start, min(start + CHUNK, records // PARTITIONS)))
            messages = [{"key": b"k", "value": value.ljust(RECORD_BYTES, b"x")} for value in values]
            producer.produce_batch(topic, messages, partition=partition)
        producer.flush()


def make(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result()


def measure(order: Order) -> dict[str, float] | None:
    """Run one measurement in a process; None if it did not get through."""
    make(order.bootstrap, order.target)
    command = [sys.executable, __file__, "--one", json.dumps(asdict(order))]
    try:
        run = subprocess.run(command, capture_output=True, timeout=ONE_LIMIT_S + 20)
        report: dict[str, float] = json.loads(run.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        print(f"{order.kind}: {error}", file=sys.stderr)
        return None
    return report if report["records"] else None


@dataclass(frozen=True)
class Figures:
    """The runs of one kind: records/s, CPU µs a record, records a commit."""

    rates: list[float]
    cpu_us: list[float]
    per_commit: float

    @classmethod
    def of(cls, reports: list[dict[str, float]]) -> Figures:
        return cls(
            [report["records"] / report["wall_s"] for report in reports],
            [report["cpu_s"] / report["records"] * 1e6 for report in reports],
            sum(report["records"] for report in reports) / sum(report["commits"] for report in reports),
        )

    @property
    def rate(self) -> float:
        return sum(self.rates) / len(self.rates)

    @property
    def cpu(self) -> float:
        return sum(self.cpu_us) / len(self.cpu_us)


def tables(found: dict[str, Figures]) -> Iterator[str]:
    """Markdown, line by line."""
    stock = found.get(STOCK_ONE)
    yield "| who | records/s | CPU µs/record | records a commit | records/s, stock = 1 | CPU, stock = 1 |"
    yield "|---|---|---|---|---|---|"
    for kind, figures in found.items():
        ratios = f"{figures.rate / stock.rate:.1f} | {figures.cpu / stock.cpu:.3f}" if stock else "|"
        commits = "" if kind in (STOCK_ONE, STOCK_TAKE) else f"{figures.per_commit:,.0f}"
        rates = " – ".join(f"{rate:,.0f}" for rate in sorted(figures.rates))
        cpu = " – ".join(f"{cpu:.2f}" for cpu in sorted(figures.cpu_us))
        yield f"| {kind} | {rates} | {cpu} | {commits} | {ratios} |"
    yield ""
    yield "| transactions on, off = 1 | records/s | CPU |"
    yield "|---|---|---|"
    for kind in (LOOP, PLAIN, FAUST):
        on, off = found.get(kind), found.get(kind + WITHOUT)
        if on and off:
            yield f"| {kind} | {on.rate / off.rate:.2f} | {on.cpu / off.cpu:.2f} |"
    faust, plain, loop = found.get(FAUST), found.get(PLAIN), found.get(LOOP)
    if faust and plain and loop:
        yield ""
        yield (
            f"Faust's runner beside the plain one: {faust.rate / plain.rate:.2f} of its records/s, "
            f"{faust.cpu - plain.cpu:+.2f} µs CPU a record. The plain one beside the loop: "
            f"{plain.rate / loop.rate:.2f}, {plain.cpu - loop.cpu:+.2f} µs."
        )


@contextmanager
def kafka(bootstrap: str | None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    from telestream_devstack import reserve_base, start_parts

    with tempfile.TemporaryDirectory() as folder, start_parts(Path(folder), reserve_base(), only=("kafka",)) as parts:
        yield parts.kafka


def compare(bootstrap: str, records: int, stock_records: int, rounds: int) -> dict[str, Figures]:
    prefix = f"bench.{uuid.uuid4().hex[:8]}."
    sources = {count: f"{prefix}in-{count}" for count in (records, stock_records)}
    for count, topic in sources.items():
        fill(bootstrap, topic, count)
    reports: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    deadline = time.monotonic() + ALL_LIMIT_S
    for round_ in range(rounds):
        # by turns, so that what else the machine does hits all alike
        for kind in KINDS if round_ % 2 == 0 else reversed(KINDS):
            count = stock_records if kind in (STOCK_ONE, STOCK_TAKE) else records
            if time.monotonic() > deadline:
                print(f"round {round_ + 1} of {kind} left out: no time left", file=sys.stderr)
                continue
            target = f"{prefix}out-{uuid.uuid4().hex[:8]}"
            report = measure(Order(kind, bootstrap, sources[count], target, count))
            if report is not None:
                reports[kind].append(report)
    return {kind: Figures.of(found) for kind, found in reports.items() if found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=600_000)
    parser.add_argument("--stock-records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bootstrap")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        order, watch = Order(**json.loads(given.one)), Stopwatch()
        KINDS[order.kind](order, watch)
        sys.stdout.write(json.dumps(watch.report()))
        return
    load = os.getloadavg()[0]
    with kafka(given.bootstrap) as bootstrap:
        found = compare(bootstrap, given.records, given.stock_records, given.rounds)
    print(
        f"{os.cpu_count()} cores, load {load:.1f} before the start; {given.records:,} records "
        f"(stock Faust: {given.stock_records:,}) of {RECORD_BYTES} B, {PARTITIONS} partitions\n"
    )
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
