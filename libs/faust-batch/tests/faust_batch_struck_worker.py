"""A worker that sends itself a signal at a named step of a round: the product has no switches for that.

As faust_batch_worker, with `"strike": {"step": …, "at": n, "signal": 9}`: at the n-th round that came so far.
With the step `deaf` the consumer brings nothing more from then on, without a word.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import faust_batch_worker
from faust_batch_worker import CopyStage

from faust_batch.intake import Intake
from faust_batch.transactions import Transactions

STEPS = (
    "fetched",
    "in the stage",
    "half produced",
    "flushed",
    "offsets sent",
    "in the commit",
    "committed",
)


def _nothing(self: Any, count: int, timeout_s: float) -> list[Any]:
    time.sleep(min(timeout_s, 0.1))
    return []


class Strike:
    def __init__(self, step: str, at: int, number: int) -> None:
        self._step, self._at, self._number = step, at, number

    def __call__(self, step: str) -> None:
        if step != self._step:
            return
        self._at -= 1
        if self._at == 0:
            if step == "deaf":
                Intake.consume = _nothing  # type: ignore[method-assign]
                return
            os.kill(os.getpid(), self._number)


class Steps:
    """A producer that tells where in a commit it is, of transactions that hold messages."""

    def __init__(self, producer: Any, strike: Strike) -> None:
        self._producer, self._strike, self._filled = producer, strike, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def __len__(self) -> int:
        return len(self._producer)

    def produce_batch(self, *args: Any, **kwargs: Any) -> Any:
        self._filled = True
        return self._producer.produce_batch(*args, **kwargs)

    def send_offsets_to_transaction(self, *args: Any) -> None:
        if self._filled:
            self._producer.flush()
            self._strike("flushed")
        self._producer.send_offsets_to_transaction(*args)

    def commit_transaction(self, timeout_s: float) -> None:
        if not self._filled:
            self._producer.commit_transaction(timeout_s)
            return
        self._filled = False
        self._strike("offsets sent")
        with ThreadPoolExecutor(1) as pool:
            committing = pool.submit(self._producer.commit_transaction, timeout_s)
            time.sleep(0.002)  # about when the request is under way
            self._strike("in the commit")
            committing.result()
        self._strike("committed")


def arm(strike: Strike) -> None:
    take, on_batch, send, init = Intake.take, CopyStage.on_batch, Transactions.send, Transactions.__init__

    def taken(self: Any, messages: Any) -> Any:
        batches = take(self, messages)
        if batches:
            strike("deaf")
            strike("fetched")
        return batches

    def judged(self: Any, batch: Any, state: Any) -> Any:
        result = on_batch(self, batch, state)
        strike("in the stage")
        return result

    def sent(self: Any, output: Any) -> None:
        half = len(output.messages) // 2
        send(self, replace(output, messages=output.messages[:half]))
        strike("half produced")
        send(self, replace(output, messages=output.messages[half:]))

    def made(self: Any, config: Any) -> None:
        init(self, config)
        self._producer = Steps(self._producer, strike)

    Intake.take, CopyStage.on_batch = taken, judged  # type: ignore[method-assign]
    Transactions.send, Transactions.__init__ = sent, made  # type: ignore[method-assign]


def main(order: Mapping[str, Any]) -> None:
    wanted = order["strike"]
    arm(Strike(wanted["step"], wanted.get("at", 2), wanted.get("signal", signal.SIGKILL)))
    faust_batch_worker.main(order)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
