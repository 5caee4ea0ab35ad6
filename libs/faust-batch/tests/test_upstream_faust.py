"""Defects of stock faust-streaming that this library is built around: each test asserts what would be right.

Strict: when one passes, upstream has mended it, and what the library does because of it may be reconsidered. Nothing
here needs a broker. Row numbers are those of the table in docs/faust-defects.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.stores.memory import Store
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

TOPIC = "t"
FIRST = TP(TOPIC, 0)


def defect(row: str, what: str) -> Any:
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"faust row {row}: {what}")


class Stock(driver.Consumer):
    """The stock consumer, whose broker takes every commit."""

    def __init__(self, app: Any, **options: Any) -> None:
        async def nothing(*_: Any) -> None: ...

        callbacks = {"callback": nothing, "on_partitions_revoked": nothing, "on_partitions_assigned": nothing}
        super().__init__(app.transport, **(callbacks | options))
        self.commits: list[dict[TP, int]] = []
        self.accepts = True

    def assignment(self) -> set[TP]:
        return {FIRST}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        return self.accepts

    def processed(self, *offsets: int) -> None:
        self._acked[FIRST] += offsets
        self._acked_index[FIRST].update(offsets)


def stock_app() -> Any:
    app = faust.App("stock", broker="kafka://127.0.0.1:1", web_enabled=False)
    app.finalize()
    return app


def with_stock(scenario: Callable[[Any, Stock], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        app = stock_app()
        app.producer.flush = _nothing
        consumer = Stock(app, **options)
        app._consumer = consumer
        await scenario(app, consumer)

    asyncio.run(run())


async def _nothing(*_: Any) -> None: ...


async def turns() -> None:
    """Let everything happen that can; no clock, which a busy machine would make wrong."""
    for _ in range(500):
        await asyncio.sleep(0)


# -- which offset is committed ----------------------------------------------------------------------------------------


@defect("1", "#606, #312, #378: a commit jumps past one record that is still in work")
def test_the_commit_stops_before_a_record_in_work() -> None:
    async def scenario(_: Any, consumer: Stock) -> None:
        consumer._committed_offset[FIRST] = 100  # the next to read; it is in work
        consumer.processed(101)
        await consumer.commit()
        assert consumer.commits == []

    with_stock(scenario)


@pytest.mark.parametrize("committed", [None, 0])
@defect("2", "#606: a new group commits past everything that is still in work")
def test_the_first_commit_of_a_group_stops_before_a_record_in_work(committed: int | None) -> None:
    async def scenario(_: Any, consumer: Stock) -> None:
        consumer._committed_offset[FIRST] = committed
        consumer._read_offset[FIRST] = 8
        consumer.processed(7, 8)  # 0 to 6 are in work
        await consumer.commit()
        assert consumer.commits == []

    with_stock(scenario)


@defect("3", "#606, r#401: the record behind a hole in the offsets counts as processed before it is")
def test_the_commit_stops_before_a_record_in_work_behind_a_hole() -> None:
    async def scenario(_: Any, consumer: Stock) -> None:
        consumer._committed_offset[FIRST] = 100
        consumer.processed(100)
        await consumer._add_gap(FIRST, 101, 105)  # as when 105 is read after 100
        await consumer._add_gap(FIRST, 106, 106)
        consumer.processed(106)  # 105 is in work
        await consumer.commit()
        assert all(offsets[FIRST] <= 105 for offsets in consumer.commits)

    with_stock(scenario)


@defect("4", "#502: a rebalance forgets what was acknowledged since the last commit, so it is processed again")
def test_a_revocation_commits_what_was_processed() -> None:
    consumers: list[Stock] = []

    async def revoked(_: Any) -> None:
        await consumers[0].commit()  # as the app does

    async def scenario(_: Any, consumer: Stock) -> None:
        consumers.append(consumer)
        consumer.processed(0, 1)
        await consumer.on_partitions_revoked({FIRST})
        assert consumer.commits == [{FIRST: 2}]

    with_stock(scenario, on_partitions_revoked=revoked)


@defect("16", "a commit that the group refused is booked as done")
def test_a_refused_commit_is_not_booked() -> None:
    async def scenario(_: Any, consumer: Stock) -> None:
        consumer.accepts = False
        consumer.processed(0, 1)
        await consumer.commit()
        assert consumer.commits == [{FIRST: 2}]
        assert consumer._committed_offset[FIRST] is None

    with_stock(scenario)


# -- what is acknowledged ---------------------------------------------------------------------------------------------


def message(app: Any, offset: int, generation: int = 0) -> ConsumerMessage:
    made = ConsumerMessage(
        topic=TOPIC,
        partition=0,
        offset=offset,
        timestamp=0.0,
        timestamp_type=1,
        headers={},
        key=None,
        value=b"v",
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=1,
        tp=FIRST,
        generation_id=generation,
    )
    made.refcount = 1  # one agent has it
    return made


Agent = Callable[[Any], Awaitable[None]]


def acknowledged_by(agent: Agent, messages: int = 1, *, cancel: bool = False, generation: int = 0) -> list[bool]:
    """Which of its messages an agent that ends badly leaves acknowledged."""
    found: list[bool] = []

    async def scenario(app: Any, consumer: Stock) -> None:
        app.flow_control.resume()
        app.topics._acking_topics.add(TOPIC)
        stream = app.stream(app.topic(TOPIC, value_type=bytes))
        given = [message(app, offset, generation) for offset in range(messages)]
        for each in given:
            await stream.channel.queue.put(app.create_event(None, b"v", {}, each))
        task = asyncio.create_task(agent(stream))  # type: ignore[arg-type]
        await turns()
        if cancel:
            task.cancel()
        await asyncio.wait([task], timeout=0.5)
        if task.done() and not task.cancelled():
            task.exception()
        del task
        gc.collect()
        await turns()
        found.extend(each.acked for each in given)
        await stream.stop()

    with_stock(scenario)
    return found


async def raising(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        raise ValueError("not to my taste")


async def raising_on_many(stream: Any) -> None:
    async for _ in stream.take(3, within=0.1):
        raise ValueError("not to my taste")


async def hanging(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        await asyncio.sleep(60)


@defect("6", "#189, #315: an agent that raises acknowledges the event, which is lost")
def test_an_agent_that_raises_acknowledges_nothing() -> None:
    assert acknowledged_by(raising) == [False]


@defect("6", "#189, #315: with take, all that was taken is lost")
def test_an_agent_that_raises_on_a_buffer_acknowledges_nothing() -> None:
    assert acknowledged_by(raising_on_many, 3) == [False, False, False]


@defect("7", "r#75: an agent that is cancelled acknowledges what it was doing")
def test_a_cancelled_agent_acknowledges_nothing() -> None:
    assert acknowledged_by(hanging, cancel=True) == [False]


async def patient(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        pass


def test_the_compiled_stream_loop_does_not_acknowledge_what_it_skips() -> None:
    assert acknowledged_by(patient, 1, generation=7, cancel=True) == [False]


@defect("5", "without its extension Faust acknowledges events that it skips: we refuse to start")
def test_the_pure_python_stream_loop_does_not_acknowledge_what_it_skips() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_upstream_faust as t\n"
        "print(t.acknowledged_by(t.patient, 1, generation=7, cancel=True))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NO_CYTHON": "0"}, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() in ("[True]", "[False]") or pytest.fail(run.stderr)
    assert run.stdout.strip() == "[False]"


@defect("10", "stream_publish_on_commit publishes the output of a record that is still in work")
def test_what_is_attached_to_a_record_in_work_is_not_published() -> None:
    async def scenario(app: Any, _: Stock) -> None:
        app._attachments.put(message(app, 9), app.topic("out"), None, b"v")
        assert list(app._attachments._attachments_for(FIRST, 9)) == []  # 9 is the next to read

    with_stock(scenario)


@defect("11", "#517, #177: producers of transactions are shared by all instances of the class")
def test_two_producers_do_not_share_their_transactions() -> None:
    async def scenario(app: Any, _: Stock) -> None:
        one, two = (driver.Producer(app.transport) for _ in range(2))
        assert one._transaction_producers is not two._transaction_producers

    with_stock(scenario)


# -- flow -------------------------------------------------------------------------------------------------------------


@defect("21", "#253, #256, #263: waiting for the flow to stop waits for nothing")
def test_waiting_for_a_stopped_flow_waits_for_the_fetch_in_work() -> None:
    async def scenario(app: Any, consumer: Stock) -> None:
        fetched = asyncio.Event()

        async def getmany(**_: Any) -> dict[Any, Any]:
            await fetched.wait()
            return {}

        consumer._getmany = getmany  # type: ignore[method-assign]
        consumer._active_partitions = {FIRST}
        fetching = asyncio.create_task(consumer._wait_next_records(1.0))
        await turns()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(consumer.wait_for_stopped_flow(), 0.05)
            assert fetching.done(), "the fetch is still in work"
        fetched.set()
        await fetching

    with_stock(scenario)


@defect("24", "#74, #88: the pressure callback takes up a partition that was revoked")
def test_a_revoked_partition_is_not_taken_up_when_its_buffer_drains() -> None:
    async def scenario(app: Any, consumer: Stock) -> None:
        consumer._active_partitions = {FIRST}
        consumer.on_buffer_full(FIRST)
        await consumer.on_partitions_revoked({FIRST})
        consumer.on_buffer_drop(FIRST)
        assert FIRST not in consumer._active_partitions

    with_stock(scenario)


# -- tables -----------------------------------------------------------------------------------------------------------


@defect("tables", "#171, #174: a value of 0 behind a tombstone is deleted on recovery")
def test_a_falsy_value_behind_a_tombstone_survives_recovery() -> None:
    def change(value: Any) -> Any:
        return SimpleNamespace(key=b"k", value=value, message=SimpleNamespace(value=value, partition=0))

    async def scenario(app: Any, _: Stock) -> None:
        store: Any = Store("memory://", app, app.Table("counts"))
        store.apply_changelog_batch([change(None), change(0)], lambda key: key, lambda value: value)
        assert store.data == {b"k": 0}

    with_stock(scenario)
