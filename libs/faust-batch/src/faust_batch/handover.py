"""The bridge between the owning thread and Faust's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Future

from faust_batch.batch import Batch
from faust_batch.source import Source


class WorkerEnding(Exception):
    """The owning thread has failed, and says why: nothing is judged any more."""


class HandOver:
    """Batches on their way to the agents, and the partitions the worker has.

    `offer` and `assigned` are called by the owning thread, everything else on the loop. What was taken and not judged
    is kept: Faust drops what it holds at a rebalance, `again` gives it out once more, and the engine refuses doubles.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Source, Batch] = {}
        self._taken: dict[Source, Batch] = {}
        self._something = asyncio.Event()
        self._submit: Callable[[Batch], Future[bool]] | None = None
        self.assignment: frozenset[Source] = frozenset()
        self.assignment_changed = asyncio.Event()
        self.wanted = asyncio.Event()

    def judged_by(self, submit: Callable[[Batch], Future[bool]]) -> None:
        self._submit = submit

    def offer(self, batch: Batch) -> None:
        self._call(self._put, batch)

    def assigned(self, sources: frozenset[Source]) -> None:
        self._call(self._assign, sources)

    async def take(self, allowed: Callable[[Source], bool], timeout_s: float) -> list[Batch]:
        """At most one batch of each partition that is `allowed`; empty after `timeout_s`."""
        if not self._waiting:
            try:
                await asyncio.wait_for(self._something.wait(), timeout_s)
            except TimeoutError:
                return []
        batches = [batch for source, batch in self._waiting.items() if allowed(source)]
        if not batches:
            await asyncio.sleep(0.01)  # partitions that Faust has paused
            return []
        for batch in batches:
            del self._waiting[batch.source]
            self._taken[batch.source] = batch
        if not self._waiting:
            self._something.clear()
        return batches

    def again(self) -> None:
        """Give out once more what was taken and not judged."""
        for source, batch in self._taken.items():
            self._waiting.setdefault(source, batch)
        self._taken.clear()
        if self._waiting:
            self._something.set()

    async def judge(self, batch: Batch) -> bool:
        """Have the owning thread judge a batch; False: it was refused. Raises WorkerEnding if that ends the worker."""
        if self._submit is None:
            raise RuntimeError("no engine is attached")
        try:
            judged = await asyncio.wrap_future(self._submit(batch))
        except Exception as error:
            raise WorkerEnding from error
        if self._taken.get(batch.source) is batch:
            del self._taken[batch.source]
        return judged

    def _put(self, batch: Batch) -> None:
        self._waiting[batch.source] = batch
        self._something.set()

    def _assign(self, sources: frozenset[Source]) -> None:
        self.assignment = sources
        _keep(self._waiting, sources)
        _keep(self._taken, sources)
        self.assignment_changed.set()

    def _call(self, act: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, argument)


def _keep(batches: dict[Source, Batch], sources: Collection[Source]) -> None:
    for gone in batches.keys() - sources:
        del batches[gone]
