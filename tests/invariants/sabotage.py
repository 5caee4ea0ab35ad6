"""Starts a real service with switches that no product code has: parameters, faults and sabotage.

`python sabotage.py SERVICE [SWITCH[=VALUE] …]` patches a few named functions in this process, and then is the service.
A parameter makes something small, a fault ends the process at a chosen step, and sabotage takes one protection out:
the negative controls of the invariants run on it.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from telestream_runtime.lean import run_lean

STARTS = {
    "cdr-enricher": "cdr_enricher.app:main",
    "window-aggregator": "window_aggregator.app:main",
    "warehouse-sink": "warehouse_sink.app:main",
    "ingest-gateway": "ingest_gateway.app:main",
    "query-api": "query_api.run:main",
}
PR_SET_PDEATHSIG = 1
SWITCHES: dict[str, Callable[[str], None]] = {}


def switch(act: Callable[[str], None]) -> Callable[[str], None]:
    """Register under the function's name, with dashes."""
    SWITCHES[act.__name__.replace("_", "-")] = act
    return act


def _at(path: str) -> tuple[Any, str]:
    """The object that holds ``module:name.name``, and the last name."""
    module, _, names = path.partition(":")
    held: Any = importlib.import_module(module)
    *outer, last = names.split(".")
    for name in outer:
        held = getattr(held, name)
    getattr(held, last)  # a switch whose target is gone must not pass unseen
    return held, last


def patch(path: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` in the original's place."""
    held, name = _at(path)
    setattr(held, name, make(getattr(held, name)))


# -- parameters ---------------------------------------------------------------------------------------------------


@switch
def segment_bits(value: str) -> None:
    """The aggregator's segments, so that they close within a test; subscriber-days' are four times as large."""
    bits = int(value)
    patch("window_aggregator.app:families", lambda families: lambda zone: families(bits, bits + 2, zone))


@switch
def small_rounds(_: str) -> None:
    """A round has two batches at most, however fast they come."""
    full = importlib.import_module("faust_batch.rounds").CommitPolicy.full
    patch(
        "faust_batch.rounds:CommitPolicy.full",
        lambda _: lambda self, round_, now: full(replace(self, max_records=15), round_, now),
    )


@switch
def enriched_of(value: str) -> None:
    """Read another generation's judged records: derived topics and groups stay this one's."""
    other = int(value)
    patch(
        "telestream_domain.names:Topics.enriched",
        lambda named: lambda t, kind: named(replace(t, generation=other), kind),
    )


@switch
def own_group(value: str) -> None:
    """A sink beside its like instead of one that shares their partitions."""
    patch("warehouse_sink.app:group_id", lambda named: lambda service, topics: f"{named(service, topics)}.{value}")


# -- faults -------------------------------------------------------------------------------------------------------


@switch
def killed_in_commit(value: str) -> None:
    """STEP:N: the process dies by SIGKILL in its Nth commit that has records, at one of the steps

    produced (everything delivered, no offsets), offsets (offsets added, not committed), committed (not yet known here).
    """
    step, _, number = value.partition(":")
    rounds = {"left": int(number)}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(commit: Any) -> Any:
        def wrapped(self: Any, positions: Any, group_metadata: Any) -> None:
            rounds["left"] -= bool(self.sent_records)
            self.sent_records = 0
            if rounds["left"]:
                commit(self, positions, group_metadata)
                return
            self._producer.flush(10)
            if step == "offsets":
                self._producer.send_offsets_to_transaction(list(positions), group_metadata(), 10)
            if step == "committed":
                commit(self, positions, group_metadata)
            die()

        return wrapped

    def counting(send: Any) -> Any:
        def wrapped(self: Any, output: Any) -> None:
            if not output.topic.rsplit(".", 1)[0].endswith("progress"):
                self.sent_records = getattr(self, "sent_records", 0) + len(output.messages)
            send(self, output)

        return wrapped

    transactions = importlib.import_module("faust_batch.transactions").Transactions
    transactions.__slots__ = ()
    transactions.sent_records = 0
    patch("faust_batch.transactions:Transactions.send", counting)
    patch("faust_batch.transactions:Transactions.commit", dying)


# -- sabotage -----------------------------------------------------------------------------------------------------


@switch
def answers_before_the_flush(_: str) -> None:
    """I1: the gateway says yes before Kafka did."""
    from concurrent.futures import Future

    def eager(send: Any) -> Any:
        def wrapped(self: Any, *arguments: Any) -> Future[None]:
            send(self, *arguments)
            done: Future[None] = Future()
            done.set_result(None)
            return done

        return wrapped

    patch("ingest_gateway.kafka:Sender.send", eager)


@switch
def forgets_a_judgement(_: str) -> None:
    """I2: one judged record in a hundred is not written."""

    def forgetful(enriched: Any) -> Any:
        def wrapped(self: Any, batch: Any, *arguments: Any) -> Any:
            judged = enriched(self, batch, *arguments)
            return [one for one, offset in zip(judged, batch.offsets.tolist(), strict=True) if offset % 100 != 99]

        return wrapped

    patch("cdr_enricher.stage:Judge._enriched", forgetful)


@switch
def no_dense_check(_: str) -> None:
    """I2: the aggregator takes whatever comes."""
    patch("window_aggregator.stage:check_dense", lambda _: lambda *_: None)


@switch
def without_transactions(_: str) -> None:
    """I3: outputs are sent at once, offsets are committed behind them."""
    from confluent_kafka import Producer

    made = importlib.import_module("faust_batch.transactions").Transactions

    def init(self: Any, config: Any) -> None:
        settings = config.producer_settings()
        for name in ("transactional.id", "transaction.timeout.ms"):
            del settings[name]
        self._id, self._timeout_s, self._room = config.transactional_id, 15.0, 200_000
        self._producer, self._open, self._broken, self.deadline = Producer(settings), False, False, None

    def commit(self: Any, positions: Any, group_metadata: Any) -> None:
        self._producer.flush(10)
        if positions:
            group_metadata.__self__.commit(offsets=list(positions), asynchronous=False)
        self._open = False

    def begin(self: Any) -> None:
        self._open = True

    made.__init__, made.commit, made.begin = init, commit, begin
    made.start = made.abort = lambda self, *_: None


@switch
def knows_no_duplicates(_: str) -> None:
    """I4: everything is new."""
    import numpy as np

    def blind(judge: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            found = judge(*arguments)
            nothing = np.full(len(found.first_offset), importlib.import_module("cdr_enricher.domain.dedupe").NO_OFFSET)
            return replace(found, first_offset=nothing, conflict=found.conflict & False)

        return wrapped

    patch("cdr_enricher.domain.dedupe:Seen.judge", blind)


@switch
def rejected_leave_a_trace(_: str) -> None:
    """I4: a rejected record is remembered like a stored one."""

    def remembering(dedupe: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            bound = inspect.signature(dedupe).bind(*arguments)
            bound.arguments["rejected"] = bound.arguments["rejected"] & False
            return dedupe(*bound.args)

        return wrapped

    patch("cdr_enricher.stage:_dedupe", remembering)


@switch
def forgets_at_a_restart(_: str) -> None:
    """I4: a worker begins as if nothing had been stored in the open segment before."""
    patch("cdr_enricher.restore:Restorer._tell", lambda _: lambda *_: None)


@switch
def forgets_closed_segments(_: str) -> None:
    """I4: only the open segment is looked through."""
    patch("cdr_enricher.domain.closed:ClosedSegments.search", lambda _: lambda self, key, event_ms, todo, found: todo)


@switch
def reverses_anything(_: str) -> None:
    """I4, I8: a reversal takes effect whether or not its original stands."""
    import numpy as np

    patch("cdr_enricher.domain.dedupe:Seen.standing", lambda _: lambda self, offsets: np.ones(len(offsets), np.bool_))


@switch
def publishes_increments(_: str) -> None:
    """I5: an upsert holds what came since the last one, not the full state."""
    patch("window_aggregator.stage:Aggregator._flush", _forgetting)


def _forgetting(flush: Any) -> Any:
    from window_aggregator.domain.levels import Levels

    def wrapped(self: Any, record_type: Any, family: Any, states: Any, flushes: Any, now_ms: Any) -> Any:
        emissions, after = flush(self, record_type, family, states, flushes, now_ms)
        for source, state in after.items():
            emptied = replace(state.families[family.name], levels=Levels())
            after[source] = replace(state, families={**state.families, family.name: emptied})
        return emissions, after

    return wrapped


@switch
def no_src_to_check(_: str) -> None:
    """I5: after a crash records are added whether or not an upsert holds them already."""

    def adding_all(with_missing: Any) -> Any:
        def wrapped(open_: Any, rows: Any, family: Any, record_type: Any, included: Any) -> Any:
            nothing = open_.first_src(family) - 1
            blind = replace(open_, cursor=replace(open_.cursor, all_to=nothing))
            found = with_missing(blind, rows, family, record_type, None)
            return replace(open_, levels=found.levels)

        return wrapped

    patch("window_aggregator.recovery:_with_missing", adding_all)


def main(arguments: list[str]) -> int:
    service, *switches = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # no test run leaves services behind
    start = STARTS[service]

    def begin() -> int:
        sys.argv = [service]
        for given in switches:
            name, _, value = given.partition("=")
            SWITCHES[name](value)
        module, _, function = start.partition(":")
        return int(getattr(importlib.import_module(module), function)())

    # run_lean imports what it is told to start: this module, under a name of its own
    sys.modules["sabotaged_start"] = type(sys)("sabotaged_start")
    sys.modules["sabotaged_start"].begin = begin  # type: ignore[attr-defined]
    return run_lean("sabotaged_start:begin")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
