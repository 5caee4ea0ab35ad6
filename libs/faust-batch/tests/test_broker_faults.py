"""Brokers that restart, stand still or answer late, and connections cut in the middle of a transaction.

Workers are started again whenever they end, as in production. Nothing is ever lost, doubled or out of order.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil
import pytest
from confluent_kafka import Producer
from faust_batch_broker import Broker
from faust_batch_corner import Corner, numbered, until
from faust_batch_proxy import ADD_OFFSETS, ADD_PARTITIONS, END_TXN, PRODUCE, TXN_OFFSET_COMMIT, Fault
from faust_batch_worker import CopyStage

from faust_batch.topic_ids import TopicIds

pytestmark = [pytest.mark.stack, pytest.mark.faults]

API_KEYS = {
    "Produce": PRODUCE,
    "AddPartitionsToTxn": ADD_PARTITIONS,
    "AddOffsetsToTxn": ADD_OFFSETS,
    "TxnOffsetCommit": TXN_OFFSET_COMMIT,
    "EndTxn": END_TXN,
}
FAULTS: dict[str, Callable[[int], Fault]] = {
    "cut after it was forwarded": lambda key: Fault(key, after=3, times=2, cut=True),
    "answered late": lambda key: Fault(key, after=3, times=2, answer_late_s=2.0),
    "never answered": lambda key: Fault(key, after=3, silence=True),
    # longer than the call may take: it arrives when the successor is at work
    "forwarded late": lambda key: Fault(key, after=3, hold_s=12.0),
}


def position(corner: Corner, topic: str) -> int:
    return sum(max(offset, 0) for offset, _ in corner.committed(topic).values())


class Feed:
    """Sends values over some seconds, each once and in order, whatever the broker does."""

    def __init__(self, bootstrap: str, topic: str, values: Mapping[int, Sequence[bytes]], seconds: float) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0, "linger.ms": 20}
        )
        self._topic, self._values, self._seconds = topic, values, seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self, steps: int = 50) -> None:
        share = len(self._values[0]) // steps
        for step in range(steps):
            for partition, values in self._values.items():
                chunk = [{"key": b"k", "value": value} for value in values[step * share : (step + 1) * share]]
                assert self._producer.produce_batch(self._topic, chunk, partition=partition) == share
            self._producer.poll(0)
            time.sleep(self._seconds / steps)

    def finish(self) -> None:
        self._thread.join()
        assert self._producer.flush(60) == 0


@pytest.mark.parametrize("runner", ["plain", "faust"])
def test_a_broker_that_restarts_under_load_costs_neither_records_nor_order(
    own_corner: Corner, broker: Broker, runner: str
) -> None:
    source, target = own_corner.topics("in", "out")
    values = numbered(4, 20_000)
    stage = {"topics": [source], "target": target}
    workers = [own_corner.supervise(runner, stage, number, max_batch_records=1_000) for number in range(2)]
    for worker in workers:
        worker.current.ready()
    feed = Feed(own_corner.bootstrap, source, values, 40.0)
    for end in (broker.stop, broker.kill, broker.stop, broker.kill):
        time.sleep(5)
        end()
        time.sleep(1)
        broker.start()
    feed.finish()
    until(lambda: position(own_corner, source) == 80_000, 120)
    for worker in workers:
        worker.stop()
    assert own_corner.all_values(target) == values


def test_a_broker_that_stands_still_beyond_all_timeouts_costs_nothing(own_corner: Corner, broker: Broker) -> None:
    source, target = own_corner.topics("in", "out")
    values = numbered(4, 10_000)
    worker = own_corner.supervise("plain", {"topics": [source], "target": target}, 0, max_batch_records=500)
    worker.current.ready()
    feed = Feed(own_corner.bootstrap, source, values, 5.0)
    time.sleep(2)
    broker.freeze()
    time.sleep(30)
    broker.thaw()
    feed.finish()
    until(lambda: position(own_corner, source) == 40_000, 120)
    worker.stop()
    assert own_corner.all_values(target) == values


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_name", API_KEYS)
def test_a_fault_in_a_transaction_is_never_seen_in_the_output(
    own_corner: Corner, broker: Broker, request_name: str, fault: str
) -> None:
    source, target = own_corner.topics("in", "out", partitions=2)
    values = numbered(2, 4_000)
    own_corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.02}
    struck = broker.proxy.set(FAULTS[fault](API_KEYS[request_name]))
    worker = own_corner.supervise(
        "plain",
        stage,
        0,
        bootstrap=broker.proxied,
        max_batch_records=200,
        transaction_timeout_ms=3_000,
        session_timeout_ms=6_000,
    )
    until(lambda: struck.struck == struck.times or position(own_corner, source) == 8_000, 60)
    until(lambda: position(own_corner, source) == 8_000, 120)
    if struck.hold_s:
        time.sleep(struck.hold_s)  # what was held back comes now
    worker.stop()
    assert struck.struck == struck.times
    assert own_corner.all_values(target) == values


def answers(bootstrap: str) -> bool:
    """The port is open, which is before the broker knows its leaders."""
    host, port = bootstrap.split(":")
    with socket.socket() as tried:
        tried.settimeout(0.5)
        return tried.connect_ex((host, int(port))) == 0


def test_topic_ids_asked_of_a_broker_that_starts_are_waited_for(own_corner: Corner, broker: Broker) -> None:
    source, target = own_corner.topics("in", "out", partitions=2)
    ids = TopicIds(own_corner.bootstrap, {})
    ids.pin([source])
    broker.stop()
    start = threading.Thread(target=broker.start)
    start.start()
    until(lambda: answers(own_corner.bootstrap))
    ids.pin([source, target])
    start.join()


def test_a_transactional_call_that_never_returns_ends_the_process(own_corner: Corner, broker: Broker) -> None:
    """librdkafka does not keep the timeout of this call while the group's coordinator is out of reach."""
    source, target = own_corner.topics("in", "out", partitions=1)
    values = numbered(1, 2_000)
    own_corner.produce(source, values)
    stage = {"topics": [source], "target": target}
    broker.proxy.set(Fault(TXN_OFFSET_COMMIT, after=2, away=True))
    limits = {"max_batch_records": 200, "max_round_records": 200, "transaction_timeout_ms": 2_000}
    worker = own_corner.spawn("plain", stage, bootstrap=broker.proxied, **limits)
    until(lambda: broker.proxy.away)
    struck_at = time.monotonic()
    assert worker.ended(60) == -signal.SIGKILL
    assert "wedged: a transactional call overstayed its timeout by" in worker.said.splitlines()[-1]
    assert time.monotonic() - struck_at < 30
    broker.proxy.restore()
    healed = own_corner.start("plain", CopyStage([source], target))
    until(lambda: position(own_corner, source) == 2_000)
    healed.finish()
    assert own_corner.all_values(target) == values


@pytest.mark.parametrize("step", ["half produced", "flushed", "offsets sent", "in the commit"])
def test_a_zombie_stopped_in_its_transaction_is_refused_when_it_wakes_up(corner: Corner, step: str) -> None:
    source, target = corner.topics("in", "out", partitions=2)
    values = numbered(2, 5_000)
    corner.produce(source, values)
    stage = {"topics": [source], "target": target, "sleep_s": 0.01}
    zombie = corner.spawn(
        "plain",
        stage,
        strike={"step": step, "at": 3, "signal": signal.SIGSTOP},
        max_batch_records=200,
        max_round_records=400,
        session_timeout_ms=6_000,
    )
    until(lambda: psutil.Process(zombie.popen.pid).status() == psutil.STATUS_STOPPED)
    # with another identity: only the group and the transaction's timeout tell that the first one is gone
    heir = corner.spawn("plain", {**stage, "sleep_s": 0.0}, 1, session_timeout_ms=6_000)
    until(lambda: position(corner, source) == 10_000)
    zombie.signal(signal.SIGCONT)
    if step == "in the commit":
        # the broker may have had it all: then nothing was open, and it joins again
        time.sleep(5)
        zombie.stop()
    else:
        assert zombie.ended() != 0, zombie.said
    assert heir.stop() == 0, heir.said
    assert corner.all_values(target) == values
