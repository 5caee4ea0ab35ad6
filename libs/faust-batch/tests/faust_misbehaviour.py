"""Faust workers whose agents do what they must not; imported by tests, and run as a process of its own.

`python faust_misbehaviour.py raises '{"runner": "faust", …}'` is a worker of faust_batch_worker.py with such agents.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faust_batch_corner import Corner, Process, Rounds, Running
from faust_batch_worker import CopyStage, main

from faust_batch import Batch, FaustRunner
from faust_batch.handover import HandOver

MISBEHAVES_AT = 3  # the number of the first batch that is treated badly


class Counting(HandOver):
    """Counts what reaches the agents, which behave."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.given = 0
        self.refused: list[Batch] = []

    async def judge(self, batch: Batch) -> bool:
        self.given += 1
        if not await self.act(batch):
            return False
        judged = await super().judge(batch)
        if not judged:
            self.refused.append(batch)
        return judged

    async def act(self, batch: Batch) -> bool:
        """False: the agent goes on to the next event as if this one were done, so that Faust acknowledges it."""
        return True


class Raising(Counting):
    async def act(self, batch: Batch) -> bool:
        if self.given == MISBEHAVES_AT:
            raise ValueError("the agent has a mistake")
        return True


class Cancelled(Counting):
    async def act(self, batch: Batch) -> bool:
        if self.given == MISBEHAVES_AT:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        return True


class CancelledInWork(Counting):
    """The owning thread may be judging the batch at the moment when the agent is cancelled."""

    async def act(self, batch: Batch) -> bool:
        if self.given == MISBEHAVES_AT:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.01, task.cancel)
        return True


class Hanging(Counting):
    async def act(self, batch: Batch) -> bool:
        if self.given >= MISBEHAVES_AT:
            await asyncio.Event().wait()
        return True


class Blocking(Counting):
    """Not only the agent stands still: the whole event loop does."""

    async def act(self, batch: Batch) -> bool:
        if self.given >= MISBEHAVES_AT:
            time.sleep(600)
        return True


class Skipping(Counting):
    """The first batch of every partition is acknowledged without having been judged, the second one twice given."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.skipped: dict[Any, Batch] = {}

    async def act(self, batch: Batch) -> bool:
        if batch.source in self.skipped:
            return True
        self.skipped[batch.source] = batch
        return False


class Doubling(Counting):
    """Every batch is judged twice, the second time when it has been judged already."""

    async def judge(self, batch: Batch) -> bool:
        judged = await super().judge(batch)
        await super().judge(batch)
        return judged


class Late(Counting):
    """Agents hold each batch until `gate` is opened, whatever Faust and the group do meanwhile."""

    gate: threading.Event
    held: list[Batch]

    async def act(self, batch: Batch) -> bool:
        self.held.append(batch)
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        return True


class _NeverSet(asyncio.Event):
    def set(self) -> None:
        raise ValueError("no wish to start")


class NotStarting(Counting):
    """Faust fails before it wants any partition."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.wanted = _NeverSet()


KINDS: Mapping[str, type[HandOver]] = {
    "behaves": Counting,
    "raises": Raising,
    "cancelled": Cancelled,
    "cancelled in work": CancelledInWork,
    "hangs": Hanging,
    "blocks": Blocking,
    "skips": Skipping,
    "doubles": Doubling,
}


def start(
    corner: Corner,
    kind: type[HandOver],
    stage: CopyStage,
    worker: int = 0,
    observer: Rounds | None = None,
    **changes: Any,
) -> Running:
    """A Faust worker with agents of this kind, in a thread; `running.runner.made` is its hand-over."""
    observer = observer or Rounds()
    runner = FaustRunner(stage, corner.config(worker, **changes), observer)
    stop, failure = threading.Event(), []

    def handover(loop: asyncio.AbstractEventLoop) -> HandOver:
        made = kind(loop)
        runner.made = made  # type: ignore[attr-defined]
        return made

    runner.handover = handover  # type: ignore[assignment]

    def run() -> None:
        try:
            runner.run(stop)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    running = Running(runner, stage, observer, stop, thread, failure)
    corner.running.append(running)
    thread.start()
    return running


class Restarting:
    """A Faust worker in a thread that is started again whenever it ends by itself, as in production."""

    def __init__(self, corner: Corner, source: str, target: str, worker: int, **changes: Any) -> None:
        self.lives: list[Running] = []
        self.complaints: list[str] = []
        self._make = lambda: start(corner, Counting, CopyStage([source], target, sleep_s=0.002), worker, **changes)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def records(self) -> int:
        """How many records were judged in committed rounds, in all its lives."""
        return sum(life.observer.records for life in self.lives)

    @property
    def partitions(self) -> frozenset[Any]:
        made = getattr(self.lives[-1].runner, "made", None) if self.lives else None
        return frozenset() if made is None else made.assignment

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self.lives:
                self.lives[-1].stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the worker did not stop"

    def _live(self) -> None:
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                self.lives.append(self._make())
            life = self.lives[-1]
            life.thread.join()
            self.complaints += map(str, life.failure)


def spawn(
    corner: Corner, kind: str, stage: Mapping[str, Any], worker: int = 0, runner: str = "faust", **config: Any
) -> Process:
    """The same in a process."""
    order = {"runner": runner, "stage": stage, "config": {**corner._identity(worker), **config}}
    log = corner.folder / f"worker-{len(corner.processes)}.log"
    with log.open("w") as stderr:
        popen = subprocess.Popen(
            [sys.executable, str(Path(__file__)), kind, json.dumps(order)], stderr=stderr, env=dict(os.environ)
        )
    process = Process(popen, log)
    corner.processes.append(process)
    return process


DYNAMIC = {"consumer_options": {"group.instance.id": ""}}  # members that leave are missed at once
# a member that keeps partitions through a rebalance is where Faust drops, and epochs mix
COOPERATIVE: dict[str, Any] = {
    "consumer_options": {"group.instance.id": "", "partition.assignment.strategy": "cooperative-sticky"}
}


def complaints(said: str) -> list[str]:
    """What a worker logged above INFO, and what was not logged at all: lines of tracebacks among it."""
    return [line for line in said.splitlines() if " INFO " not in line]


if __name__ == "__main__":
    FaustRunner.handover = KINDS[sys.argv[1]]
    main(json.loads(sys.argv[2]))
