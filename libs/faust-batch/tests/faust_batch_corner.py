"""A corner of a real Kafka for one test: topics, producers, workers in threads and in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from faust_batch_worker import CopyStage

from faust_batch import FaustRunner, NullObserver, PlainRunner, Source, WorkerConfig, end_offsets, read_partition
from faust_batch.topic_ids import unstamped

WORKER = Path(__file__).parent / "faust_batch_worker.py"
STRUCK_WORKER = Path(__file__).parent / "faust_batch_struck_worker.py"
RUNNERS = {"plain": PlainRunner, "faust": FaustRunner}


class Rounds(NullObserver):
    """Remembers the rounds."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, int, float]] = []

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        self.rounds.append((records, nbytes, seconds))

    @property
    def records(self) -> int:
        return sum(records for records, _, _ in self.rounds)


@dataclass
class Running:
    """A worker in a thread of the test."""

    runner: Any
    stage: CopyStage
    observer: Rounds
    stop: threading.Event
    thread: threading.Thread
    failure: list[BaseException]

    def finish(self) -> None:
        """Stop it and raise what it raised."""
        self.stop.set()
        self.ended()

    def ended(self, timeout_s: float = 30.0) -> None:
        """Wait until it has ended and raise what it raised."""
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the worker did not stop"
        if self.failure:
            raise self.failure[0]


@dataclass
class Process:
    """A worker in a process of its own."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> Process:
        """Wait until it has joined the group."""
        until(lambda: "assigned" in self.said or self.popen.poll() is not None)
        return self

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(20)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.popen.terminate()
        return self.ended(timeout_s)

    def ended(self, timeout_s: float = 40.0) -> int:
        """The exit code, once it has ended by itself."""
        return self.popen.wait(timeout_s)


class Supervised:
    """A worker that is started again until it is stopped."""

    def __init__(self, spawn: Callable[[], Process]) -> None:
        self._spawn = spawn
        self._stopping = threading.Event()
        self.lives = [spawn()]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            if self.lives[-1].popen.poll() is not None:
                self.lives.append(self._spawn())

    @property
    def current(self) -> Process:
        return self.lives[-1]

    def leave(self) -> None:
        """Do not start it again."""
        self._stopping.set()
        self._thread.join()

    def stop(self) -> None:
        """SIGTERM, for good; what is left of its partitions goes to others."""
        self.leave()
        if self.current.popen.poll() is None:
            self.current.stop()

    @property
    def complaints(self) -> list[str]:
        """The last line of each life that ended badly."""
        return [line for life in self.lives if life.popen.poll() for line in life.said.splitlines()[-1:]]


@dataclass
class Corner:
    bootstrap: str
    prefix: str
    folder: Path
    processes: list[Process] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    supervised: list[Supervised] = field(default_factory=list)
    observers: dict[str, Consumer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})

    def topics(self, *names: str, partitions: int = 4, **config: str) -> list[str]:
        full = [self.prefix + name for name in names]
        made = self.admin.create_topics([NewTopic(name, partitions, 1, config=config) for name in full])
        for future in made.values():
            future.result()
        for name in full:
            until(lambda name=name: name in self.admin.list_topics(timeout=10).topics)
        return full

    def produce(self, topic: str, values: Mapping[int, Sequence[bytes]]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20})
        for partition, part in values.items():
            for start in range(0, len(part), 20_000):
                chunk = [{"key": b"k", "value": value} for value in part[start : start + 20_000]]
                assert producer.produce_batch(topic, chunk, partition=partition) == len(chunk)
                producer.flush()

    @contextmanager
    def transaction(self, name: str = "upstream", *, commit: bool = True) -> Iterator[Callable[..., None]]:
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": self.prefix + name})
        producer.init_transactions(20)
        producer.begin_transaction()

        def send(topic: str, partition: int, *values: bytes) -> None:
            for value in values:
                producer.produce(topic, value, partition=partition)
            producer.flush()

        yield send
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)

    def cut(self, topic: str, partition: int, offset: int) -> None:
        """Delete what lies before `offset`, as retention does."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(20)

    def values(self, topic: str, partition: int) -> list[bytes | None]:
        """What a committed reader sees, in order."""
        batches = read_partition(self.bootstrap, Source(topic, partition), None, settled=True)
        return [value for batch in batches for value in batch.values]

    def all_values(self, topic: str) -> dict[int, list[bytes | None]]:
        return {
            source.partition: self.values(topic, source.partition) for source in end_offsets(self.bootstrap, [topic])
        }

    def committed(self, topic: str, group: str = "group") -> dict[int, tuple[int, str | None]]:
        if group not in self.observers:
            self.observers[group] = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.prefix + group})
        consumer = self.observers[group]
        deadline = time.monotonic() + 30
        while True:
            try:
                partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
                found = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=20)
                break
            except KafkaException:  # a broker that has just started knows no coordinator yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        return {tp.partition: (tp.offset, unstamped(tp.metadata or "")[1]) for tp in found}

    def config(self, worker: int = 0, **changes: Any) -> WorkerConfig:
        return WorkerConfig(**self._identity(worker), **changes)

    def _identity(self, worker: int) -> dict[str, str]:
        return {
            "bootstrap": self.bootstrap,
            "group": self.prefix + "group",
            "instance": f"{self.prefix}instance-{worker}",
            "transactional_id": f"{self.prefix}worker-{worker}",
        }

    def start(self, runner: str, stage: CopyStage, worker: int = 0, **changes: Any) -> Running:
        """A worker in a thread."""
        observer, stop = Rounds(), threading.Event()
        made = RUNNERS[runner](stage, self.config(worker, **changes), observer)
        failure: list[BaseException] = []

        def run() -> None:
            try:
                made.run(stop)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, daemon=True)
        running = Running(made, stage, observer, stop, thread, failure)
        self.running.append(running)
        thread.start()
        return running

    def spawn(
        self,
        runner: str,
        stage: Mapping[str, Any],
        worker: int = 0,
        env: Mapping[str, str] | None = None,
        strike: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> Process:
        """A worker in a process; `strike`: see faust_batch_struck_worker."""
        order = {"runner": runner, "stage": stage, "config": {**self._identity(worker), **config}}
        script = WORKER
        if strike is not None:
            order["strike"], script = strike, STRUCK_WORKER
        log = self.folder / f"worker-{len(self.processes)}.log"
        with log.open("w") as stderr:
            popen = subprocess.Popen(
                [sys.executable, str(script), json.dumps(order)], stderr=stderr, env={**os.environ, **(env or {})}
            )
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def supervise(self, runner: str, stage: Mapping[str, Any], worker: int, **config: Any) -> Supervised:
        """A worker in a process that is started again whenever it ends by itself, as in production."""
        supervised = Supervised(lambda: self.spawn(runner, stage, worker, **config))
        self.supervised.append(supervised)
        return supervised

    def close(self) -> None:
        for supervised in self.supervised:
            supervised.leave()
        for running in self.running:
            running.stop.set()
        for running in self.running:
            running.thread.join(20)
        for process in self.processes:
            process.kill()
        for consumer in self.observers.values():
            consumer.close()


def until(condition: Callable[[], Any], timeout_s: float = 60.0, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every_s)


def numbered(partitions: int, count: int) -> dict[int, list[bytes]]:
    """`count` distinct values for each partition, whose order is theirs."""
    return {p: [b"%d|%06d|" % (p, i) + b"x" * 100 for i in range(count)] for p in range(partitions)}
