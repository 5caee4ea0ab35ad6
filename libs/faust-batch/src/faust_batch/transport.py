"""The Faust transport `batch://`: one event is one fetch of one partition.

Membership, fetching and committing are the engine's (engine.py); Faust dispatches events to agents, and none of its
acknowledgement, commit or producer code decides anything. Overridden is what would otherwise act on its own. The
seams are private to faust-streaming 0.15.3: a new version of it is a deliberate step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, Protocol, cast

import faust
from faust.tables.manager import TableManager
from faust.transport import base
from faust.transport.consumer import Fetcher as StockFetcher
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from faust_batch.batch import Batch
from faust_batch.handover import HandOver
from faust_batch.source import Source

TAKE_TIMEOUT_S = 1.0


class BatchApp(Protocol):
    """The app a `batch://` transport works for: it brings the bridge to its engine."""

    handover: HandOver


class BatchSchema(faust.Schema[None, Batch]):
    """Hands a batch to the agent as it is."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, message.headers, message)

        return decode


class Consumer(base.Consumer):
    """What Faust takes for its consumer: the engine's batches, and no say in what is committed."""

    @property
    def _handover(self) -> HandOver:
        return cast(BatchApp, self.app).handover

    # -- events -----------------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.can_resume_flow_or_stop()
                continue
            async for _, message in self.getmany(TAKE_TIMEOUT_S):
                # an event that is dropped here, or later, comes again: the engine keeps its batch until it is judged
                await self.wait_first(self.callback(message), self.suspend_flow.wait())

    async def can_resume_flow_or_stop(self) -> None:
        """Until Faust has settled after a rebalance, or the consumer is stopped."""
        await self.wait(self.can_resume_flow.wait())

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        active = self._get_active_partitions()
        batches = await self._handover.take(lambda source: TP(source.topic, source.partition) in active, timeout)
        for batch in batches:
            if not self.flow_active:
                return
            tp = TP(batch.source.topic, batch.source.partition)
            yield tp, self._to_message(tp, batch)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        raise NotImplementedError("batches come through getmany")

    def _to_message(self, tp: TP, record: Batch) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.last_offset,
            timestamp=int(record.timestamps_ms[-1]) / 1000,
            timestamp_type=1,
            headers=None,
            key=None,
            value=cast(Any, record),
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=record.nbytes,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    # -- positions: the engine's ------------------------------------------------------------------------------------

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Forget what was acknowledged: the engine commits what was judged."""
        self._acked.clear()
        self._acked_index.clear()
        self._gap.clear()
        self._n_acked = 0
        return False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return False

    async def wait_empty(self) -> None:
        """Nothing to wait for: an event in work is either judged in time or refused."""

    async def perform_seek(self) -> None:
        """Faust has dropped what it held: hand it out again."""
        self._handover.again()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {}

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("a position is only moved by judging")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        raise NotImplementedError("a position is only moved by judging")

    async def position(self, tp: TP) -> int | None:
        return None

    def highwater(self, tp: TP) -> int:
        return 0

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {}

    # -- membership: the engine's -----------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        """The agents are up: the engine may join the group."""
        self._handover.wanted.set()

    def assignment(self) -> set[TP]:
        return {TP(source.topic, source.partition) for source in self.followed}

    #: the assignment Faust was told of, which may be a moment behind the engine's
    followed: frozenset[Source] = frozenset()

    # -- pressure: the engine bounds what is held; a buffer that is full must not take a partition out ----------------

    def on_buffer_full(self, tp: TP) -> None: ...

    def on_buffer_drop(self, tp: TP) -> None: ...

    # -- not ours ---------------------------------------------------------------------------------------------------

    async def create_topic(self, topic: str, partitions: int, replication: int, **_: Any) -> None:
        """Topics are made by whoever owns them."""

    def topic_partitions(self, topic: str) -> int | None:
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


class Fetcher(StockFetcher):
    """Draws events from the consumer; when it is cancelled, it ends."""

    @Service.task
    async def _fetcher(self) -> None:
        # The stock one, cancelled while the app rebalances, crashes with a traceback. Stopping a worker is such a
        # moment: its partitions have just been given back.
        try:
            await cast(Consumer, self.app.consumer)._drain_messages(self)
        finally:
            self.set_shutdown()


class Producer(base.Producer):
    """Sends nothing: a stage's outputs go through the engine's transaction."""

    async def send(self, *_: Any, **__: Any) -> Awaitable[Any]:
        raise NotImplementedError("return an Output from the stage instead")

    async def send_and_wait(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("return an Output from the stage instead")

    async def flush(self) -> None: ...

    async def create_topic(self, topic: str, partitions: int, replication: int, **_: Any) -> None: ...

    def key_partition(self, topic: str, key: bytes) -> TP:
        raise NotImplementedError("return an Output from the stage instead")

    def supports_headers(self) -> bool:
        return False


class NoTables(TableManager):
    """Nothing to recover, so nothing to wait for: the stock one sleeps for a second at each start."""

    async def on_start(self) -> None:
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class Transport(base.Transport):
    """Registered as `batch` in the entry point group `faust.transports`."""

    Consumer = Consumer
    Producer = Producer
    Fetcher = Fetcher
    driver_version = "faust-batch"
    default_port = 9092
