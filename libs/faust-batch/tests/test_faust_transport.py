"""What is left of Faust's own consumer, producer and settings on the transport `batch://`; no broker needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from faust.types import TP

from faust_batch import Batch, Source, WorkerConfig
from faust_batch.faust_runner import build_app
from faust_batch.handover import HandOver

TOPIC = "in"
FIRST = TP(TOPIC, 0)


def batch(first: int, epoch: int = 1, partition: int = 0) -> Batch:
    return Batch(
        source=Source(TOPIC, partition),
        offsets=np.arange(first, first + 10),
        timestamps_ms=np.zeros(10, np.int64),
        keys=[None] * 10,
        values=[b"v"] * 10,
        next_offset=first + 10,
        high_watermark=first + 10,
        epoch=epoch,
        nbytes=10,
    )


def with_app(scenario: Callable[[Any, HandOver], Awaitable[None]]) -> None:
    async def run() -> None:
        handover = HandOver(asyncio.get_running_loop())
        app = build_app(WorkerConfig("127.0.0.1:1", "group", "instance", "transactions"), [TOPIC], handover)
        await scenario(app, handover)

    asyncio.run(run())


def test_acknowledgements_commit_nothing_and_leave_nothing_behind() -> None:
    async def scenario(app: Any, _: HandOver) -> None:
        consumer = app.consumer
        message = consumer._to_message(FIRST, batch(100))
        app.topics._acking_topics.add(TOPIC)
        consumer.ack(message)
        assert consumer._acked[FIRST] == [109]
        assert await consumer.commit() is False
        assert not consumer._acked
        assert not consumer._acked_index
        assert not consumer._gap
        assert await consumer._commit({FIRST: 110}) is False

    with_app(scenario)


def test_waiting_for_agents_has_no_end_to_wait_for() -> None:
    async def scenario(app: Any, _: HandOver) -> None:
        consumer = app.consumer
        message = consumer._to_message(FIRST, batch(100))
        consumer.track_message(message)
        assert consumer.unacked
        await asyncio.wait_for(consumer.wait_empty(), 1)

    with_app(scenario)


def test_a_full_buffer_takes_no_partition_out_and_a_drained_one_brings_none_back() -> None:
    async def scenario(app: Any, _: HandOver) -> None:
        consumer = app.consumer
        consumer._set_active_tps({FIRST})
        consumer.on_buffer_full(FIRST)
        assert consumer._get_active_partitions() == {FIRST}
        consumer._set_active_tps(set())
        consumer.on_buffer_drop(FIRST)
        assert consumer._get_active_partitions() == set()

    with_app(scenario)


def test_nothing_is_sent_sought_or_committed_through_faust() -> None:
    async def scenario(app: Any, _: HandOver) -> None:
        with pytest.raises(NotImplementedError, match="return an Output from the stage"):
            await app.producer.send("out", b"k", b"v", None, None, None)
        with pytest.raises(NotImplementedError, match="return an Output from the stage"):
            await app.producer.send_and_wait("out", b"k", b"v", None, None, None)
        with pytest.raises(NotImplementedError, match="only moved by judging"):
            await app.consumer.seek(FIRST, 5)
        assert not app.tables.data
        assert app.conf.processing_guarantee == app.conf.processing_guarantee.AT_LEAST_ONCE
        assert app.in_transaction is False
        assert not app.conf.stream_publish_on_commit

    with_app(scenario)


def test_faust_listens_on_no_port_makes_no_topic_and_elects_no_leader() -> None:
    async def scenario(app: Any, _: HandOver) -> None:
        assert not app.conf.web_enabled
        assert not app.conf.topic_allow_declare
        assert app.conf.topic_disable_leader
        assert await app.consumer.create_topic("t", 1, 1) is None

    with_app(scenario)


def test_one_event_is_a_whole_batch_and_the_epoch_travels_in_it() -> None:
    async def scenario(app: Any, handover: HandOver) -> None:
        app.consumer._set_active_tps({FIRST})
        given = batch(100, epoch=7)
        handover._put(given)
        ((tp, message),) = [event async for event in app.consumer.getmany(0.1)]
        assert (tp, message.offset, message.value) == (FIRST, 109, given)
        assert message.value.epoch == 7

    with_app(scenario)


def test_a_stopped_flow_or_a_paused_partition_gives_out_nothing_and_loses_nothing() -> None:
    async def scenario(app: Any, handover: HandOver) -> None:
        consumer = app.consumer
        first, second = batch(100), batch(0, partition=1)
        handover._put(first)
        handover._put(second)
        consumer._set_active_tps({FIRST})  # the other one is paused
        assert [message.value async for _, message in consumer.getmany(0.1)] == [first]
        consumer.stop_flow()
        consumer.resume_partitions({TP(TOPIC, 1)})
        assert [message async for _, message in consumer.getmany(0.1)] == []
        consumer.resume_flow()
        await consumer.perform_seek()  # what Faust does after a rebalance: it has dropped what it held
        assert {message.value.source async for _, message in consumer.getmany(0.1)} == {first.source, second.source}

    with_app(scenario)


def test_a_partition_that_is_gone_is_not_given_out_again() -> None:
    async def scenario(_: Any, handover: HandOver) -> None:
        taken, waiting = batch(100), batch(0, partition=1)
        handover._put(taken)
        assert await handover.take(lambda _: True, 0.1) == [taken]
        handover._put(waiting)
        handover._assign(frozenset())
        handover.again()
        assert await handover.take(lambda _: True, 0.05) == []

    with_app(scenario)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip()


def test_the_aiokafka_driver_is_not_even_imported() -> None:
    code = (
        "import asyncio, sys\n"
        "from faust_batch import WorkerConfig\n"
        "from faust_batch.faust_runner import build_app\n"
        "from faust_batch.handover import HandOver\n"
        "async def main():\n"
        "    app = build_app(WorkerConfig('b:1', 'g', 'i', 't'), ['in'], HandOver(asyncio.get_running_loop()))\n"
        "    print(type(app.consumer).__module__, type(app.producer).__module__)\n"
        "asyncio.run(main())\n"
        "print('faust.transport.drivers.aiokafka' in sys.modules)"
    )
    assert run_python(code).splitlines() == ["faust_batch.transport faust_batch.transport", "False"]


@pytest.mark.parametrize("how", ["no_cython", "no_extension"])
def test_a_runner_refuses_faust_without_its_compiled_extension(how: str) -> None:
    before = {
        "no_cython": "import os; os.environ['NO_CYTHON'] = '0'",  # any value switches it off
        "no_extension": "import sys; sys.modules['faust._cython.streams'] = None",  # as if built from source
    }
    code = (
        f"{before[how]}\n"
        "from faust_batch import FaustRunner, NotCompiled, StatelessStage, WorkerConfig\n"
        "try:\n"
        "    FaustRunner(StatelessStage(), WorkerConfig('b:1', 'g', 'i', 't'))\n"
        "except NotCompiled as error:\n"
        "    print(error)"
    )
    assert run_python(code) == (
        "faust._cython.streams is not loaded: unset NO_CYTHON (any value switches it off) and install "
        "faust-streaming from a wheel"
    )
