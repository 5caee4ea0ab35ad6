"""One chaos run: the stack, the workers, the faults, calm, and what is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer

from telestream_contracts import Registry, apply_topics
from telestream_devstack import start_parts
from telestream_domain import FAMILIES, Topics

from . import faults as f
from .broker import Broker
from .check import Found
from .feeder import Feeder
from .traffic import Traffic, encoded_versions
from .verify import Job, verify
from .watch import Tail
from .workers import Worker, environment

PREFIX = "chaos."
ENRICHERS, AGGREGATORS = 3, 2
_TICK_S, _SAY_EVERY_S = 0.1, 10.0
_QUIET_S = 20.0  # nothing came out so long: what was due has been emitted
_DRAIN_S, _STALL_S = 900.0, 180.0
_ROLLING_PAUSE_S = 6.0
JUDGED, SUMMED = "cdr-enricher", "window-aggregator"


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    minutes: float
    records: int
    partitions: int
    state_dir: Path
    port_base: int

    @property
    def seconds(self) -> float:
        return self.minutes * 60


@dataclass(slots=True)
class Result:
    """What a run came to. ``failures``: everything that makes it a failed one, in words."""

    sent: int = 0
    began_at: float = 0.0
    fed_s: float = 0.0
    drained_s: float = 0.0
    found: list[Found] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    struck: list[tuple[float, str]] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    tail: Tail | None = None
    failures: list[str] = field(default_factory=list)


class Run:
    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self._say = plan, say
        self.result = Result()
        self._topics = Topics(PREFIX)
        self._rolling: list[tuple[float, Worker]] = []
        self._again: list[tuple[float, Worker, bool]] = []
        self._later: list[tuple[float, f.Fault]] = []
        self._said_at = 0.0
        self._stalled: set[str] = set()

    def go(self) -> Result:
        """Everything in its order. Whatever happens, all processes are ended."""
        broker = Broker(self.plan.state_dir, self.plan.port_base)
        try:
            with start_parts(self.plan.state_dir, self.plan.port_base, only=("registry", "postgres")) as parts:
                broker.start()
                self._say(f"broker {broker.url}, state and logs in {self.plan.state_dir}")
                traffic, schema_id = self._prepare(broker.url, parts.registry)
                self.result.workers = self._workers(parts.environment())
                try:
                    self._under_fire(broker, traffic, schema_id)
                finally:
                    self._end_workers(broker)
                self._verify(broker.url, traffic, schema_id)
        finally:
            broker.close()
        return self.result

    # -- before -------------------------------------------------------------------------------------------------------

    def _prepare(self, kafka: str, registry_url: str) -> tuple[Traffic, int]:
        registry, plan = Registry(registry_url), self.plan
        apply_topics(kafka, self._topics, partitions=plan.partitions)
        ids = registry.register_all(self._topics)
        rate = plan.records / plan.seconds
        traffic = Traffic(plan.seed, int(time.time() * 1_000), 1_000 * plan.partitions / rate)
        producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 20, "log_level": 2})
        cells = traffic.cell_versions()
        topic = self._topics.ref("cell")
        for key, value in zip(cells["cell_id"], encoded_versions(cells, "cell", ids[topic]), strict=True):
            producer.produce(topic, value, key, partition=0)
        topic = self._topics.ref("customer")
        for partition in range(plan.partitions):
            versions = traffic.customer_versions(partition)
            for key, value in zip(
                versions["identifier"], encoded_versions(versions, "customer", ids[topic]), strict=True
            ):
                producer.produce(topic, value, key, partition=partition)
        if producer.flush(60):
            raise SystemExit("the reference data could not be written")
        return traffic, ids[self._topics.raw("cdr")]

    def _workers(self, base: dict[str, str]) -> list[Worker]:
        """Those that always work first, then the two that join now and then."""
        kinds = (
            ("cdr-enricher", "cdr_enricher", ENRICHERS, 110),
            ("window-aggregator", "window_aggregator", AGGREGATORS, 130),
        )
        always, joining = [], []
        for name, package, count, port in kinds:
            for instance in range(count + 1):
                folder = self.plan.state_dir / "workers" / f"{name}-{instance}"
                settings = {
                    "topic_prefix": PREFIX,
                    "instance": str(instance),
                    "admin_port": str(self.plan.port_base + port + instance),
                    "state_dir": str(folder / "state"),
                    "log_format": "json",
                }
                own = environment(base, settings)
                worker = Worker(f"{name}-{instance}", package, own, folder, wanted=instance < count)
                (always if instance < count else joining).append(worker)
        return always + joining

    # -- under fire ---------------------------------------------------------------------------------------------------

    def _under_fire(self, broker: Broker, traffic: Traffic, schema_id: int) -> None:
        plan, result = self.plan, self.result
        stages = {JUDGED: [self._topics.enriched("cdr")], SUMMED: [self._topics.agg(family) for family in FAMILIES]}
        tail = result.tail = Tail(broker.url, stages, plan.partitions)
        tail.start()
        feeder = Feeder(
            broker.url,
            self._topics.raw("cdr"),
            traffic,
            schema_id,
            plan.partitions,
            plan.records,
            plan.records / plan.seconds,
        )
        schedule = f.schedule(plan.seed, plan.seconds, ENRICHERS + AGGREGATORS, 2)
        self._warm(broker, feeder, tail)
        result.began_at = began = time.monotonic()
        feeder.begin.set()
        tail.begin()
        try:
            while not feeder.finished or time.monotonic() - began < plan.seconds:
                now = time.monotonic() - began
                while schedule and schedule[0].at_s <= now:
                    self._strike(schedule.pop(0), broker, began)
                for later in [one for one in self._later if one[0] <= now + began]:
                    self._later.remove(later)
                    self._strike(later[1], broker, began)
                self._look(broker, feeder, tail, began)
                if feeder.error or tail.error:
                    result.failures.append(f"the test's own clients failed: {feeder.error or tail.error}")
                    return
                if now > plan.seconds + _STALL_S:
                    result.failures.append(f"the feeder did not end {_STALL_S:.0f} s after its time")
                    return
                time.sleep(_TICK_S)
            result.fed_s = time.monotonic() - began
            self._calm(broker, feeder, tail, began)
        finally:
            result.outages_s = broker.outages_s
            result.sent = int(feeder.acknowledged.sum())
            feeder.stop()
            tail.stop()

    def _warm(self, broker: Broker, feeder: Feeder, tail: Tail) -> None:
        """Until all workers are there and records flow: the faults are to hit a pipeline, not its first start."""
        feeder.start()
        deadline = time.monotonic() + 120
        while len(tail.last_in) < 2 * self.plan.partitions:
            if time.monotonic() > deadline:
                raise SystemExit(f"no records flow: {tail.records}; see the logs in {self.plan.state_dir / 'workers'}")
            for worker in self.result.workers:
                if (ended := worker.look(True)) is not None:
                    self._say(f"{worker.name} ended: {ended}")
            time.sleep(_TICK_S)

    def _strike(self, fault: f.Fault, broker: Broker, began: float) -> None:
        result, now = self.result, time.monotonic()
        worker = result.workers[fault.worker] if fault.worker >= 0 else None
        named = f"{fault.kind} of {worker.name}" if worker else fault.kind
        match fault.kind:
            case f.KILL if worker:
                if worker.process is None:
                    return
                worker.kill()
            case f.STOP if worker:
                if not worker.running:
                    return
                worker.stop_and_continue(fault.for_s)
            case f.ROLLING:
                always = result.workers[: ENRICHERS + AGGREGATORS]
                self._rolling += [(now + number * _ROLLING_PAUSE_S, one) for number, one in enumerate(always)]
            case f.LEAVE | f.JOIN if worker:
                worker.wanted = fault.kind == f.JOIN
                if fault.kind == f.LEAVE:
                    worker.terminate()
                self._again.append((now + fault.for_s, worker, not worker.wanted))
            case f.BROKER_KILL | f.BROKER_STOP:
                if not broker.well:
                    self._later.append((now + 5, fault))
                    return
                (broker.kill if fault.kind == f.BROKER_KILL else broker.stop_and_continue)(fault.for_s)
        result.faults[fault.kind] += 1
        result.struck.append((now - began, named + (f" for {fault.for_s:.0f} s" if fault.for_s >= 1 else "")))

    def _look(self, broker: Broker, feeder: Feeder, tail: Tail, began: float) -> None:
        now = time.monotonic()
        if (back := broker.look()) is not None:
            self._say(f"{now - began:6.0f} s  {back}")
        for due in [one for one in self._rolling if one[0] <= now]:
            self._rolling.remove(due)
            due[1].terminate()
        for again in [one for one in self._again if one[0] <= now]:
            self._again.remove(again)
            again[1].wanted = again[2]
            if not again[2]:
                again[1].terminate()
        for worker in self.result.workers:
            worker.look(broker.well)
        if now - self._said_at > _SAY_EVERY_S:
            self._said_at = now
            self._progress(broker, feeder, tail, began)

    def _progress(self, broker: Broker, feeder: Feeder, tail: Tail, began: float) -> None:
        silent, seconds = tail.longest_silence()
        up = "".join("+" if w.running else ("z" if w.process else "-") for w in self.result.workers)
        exits = sum(sum(worker.exits.values()) for worker in self.result.workers)
        self._say(
            f"{time.monotonic() - began:6.0f} s  sent {int(feeder.acknowledged.sum()):>11,}"
            f"  judged {tail.records[JUDGED]:>11,}  upserts {tail.records[SUMMED]:>11,}"
            f"  faults {sum(self.result.faults.values()):>4}  exits {exits:>4}"
            f"  workers {up}  silent longest: {silent}, {seconds:.0f} s"
        )
        last_fault_s = self.result.struck[-1][0] if self.result.struck else 0.0
        left_in_peace_s = min(seconds, time.monotonic() - broker.well_since, time.monotonic() - began - last_fault_s)
        if broker.well and left_in_peace_s > _STALL_S and silent not in self._stalled and not tail.ended:
            self._stalled.add(silent)
            self.result.failures.append(f"{silent}: nothing came out for {_STALL_S:.0f} s without a fault")

    # -- calm ---------------------------------------------------------------------------------------------------------

    def _calm(self, broker: Broker, feeder: Feeder, tail: Tail, began: float) -> None:
        """No more faults; wait until everything has come out."""
        result = self.result
        self._again.clear()
        self._rolling.clear()
        for number, worker in enumerate(result.workers):
            worker.wanted = number < ENRICHERS + AGGREGATORS
            if not worker.wanted:
                worker.terminate()
        self._say(f"{time.monotonic() - began:6.0f} s  calm: waiting until everything has come out")
        sent, started = int(feeder.acknowledged.sum()), time.monotonic()
        tail.end()
        while True:
            now = time.monotonic()
            self._look(broker, feeder, tail, began)
            quiet_s = now - max(tail.last_at.values())
            if broker.well and quiet_s > _QUIET_S and tail.records[JUDGED] >= sent and now - started > _QUIET_S:
                break
            if now - started > _DRAIN_S or quiet_s > _STALL_S or tail.error:
                result.failures.append(
                    f"not drained {now - started:.0f} s after the last fault: {tail.records[JUDGED]:,} of {sent:,} "
                    f"judged, silent for {quiet_s:.0f} s {tail.error or ''}"
                )
                break
            time.sleep(_TICK_S)
        result.drained_s = max(tail.last_at.values()) - started

    def _end_workers(self, broker: Broker) -> None:
        for worker in self.result.workers:
            worker.wanted = False
            worker.stop_and_continue(0)
            worker.terminate()
        deadline = time.monotonic() + 45
        while any(worker.process for worker in self.result.workers) and time.monotonic() < deadline:
            for worker in self.result.workers:
                worker.look(broker.well)
            time.sleep(_TICK_S)
        for worker in self.result.workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
            self.result.failures += worker.failures

    def _verify(self, kafka: str, traffic: Traffic, schema_id: int) -> None:
        each = self.plan.records // self.plan.partitions
        if self.result.sent != each * self.plan.partitions:
            self.result.failures.append(f"{self.result.sent:,} records acknowledged of {each * self.plan.partitions:,}")
            return
        self._say(f"verifying {self.result.sent:,} records against the truth")
        started = time.monotonic()
        jobs = [Job(kafka, PREFIX, traffic, p, each, schema_id) for p in range(self.plan.partitions)]
        self.result.found = verify(jobs)
        cpu_s, mb = sum(one.cpu_s for one in self.result.found), max(one.peak_rss for one in self.result.found) // 10**6
        self._say(f"verified in {time.monotonic() - started:.0f} s, {cpu_s:.0f} s of CPU, {mb} MB at most")
        for one in self.result.found:
            if one.bad:
                self.result.failures += one.said
