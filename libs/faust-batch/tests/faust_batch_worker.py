"""A worker that copies topics, for the tests: imported by them, and run as a process of its own.

`python faust_batch_worker.py '{"runner": "plain", …}'`; SIGTERM stops it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from faust_batch import Batch, BatchError, Committed, FaustRunner, Output, PlainRunner, Source, WorkerConfig


@dataclass(frozen=True)
class Seen:
    """The state of a copied partition: how many records were copied, ever, and how often the clock struck."""

    records: int = 0
    ticks: int = 0


@dataclass
class CopyStage:
    """Copies each record to `target`, same partition; counts in the commit's metadata.

    `fail_at`: the record with this value makes the stage raise. `sleep_s`: how long a batch takes.
    `tick_every_ms`: how often `due` puts out a record `tick` for each partition.
    """

    topics: Sequence[str]
    target: str
    fail_at: bytes | None = None
    sleep_s: float = 0.0
    tick_every_ms: int = 0
    swell_at: bytes | None = None
    restored: list[tuple[Source, Committed | None]] = field(default_factory=list)
    given_up: list[Source] = field(default_factory=list)
    rounds: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    ticked_at_ms: int = 0

    def restore(self, source: Source, committed: Committed | None) -> Seen:
        self.restored.append((source, committed))
        return Seen(**json.loads(committed.metadata)) if committed and committed.metadata else Seen()

    def before_round(self, batches: Sequence[Batch]) -> None:
        self.rounds += 1

    def on_batch(self, batch: Batch, state: Seen) -> tuple[Sequence[Output], Seen]:
        self.batch_sizes.append(len(batch))
        if self.sleep_s:
            time.sleep(self.sleep_s)
        if self.fail_at is not None and self.fail_at in batch.values:
            raise ValueError(f"record {self.fail_at!r} is not to my taste")
        messages: list[dict[str, bytes | None]] = [
            {"key": key, "value": value} for key, value in zip(batch.keys, batch.values, strict=True)
        ]
        if self.swell_at is not None and self.swell_at in batch.values:
            messages[batch.values.index(self.swell_at)]["value"] = b"x" * 3_000_000
        seen = Seen(state.records + len(batch), state.ticks)
        return [Output(self.target, batch.source.partition, messages)], seen

    def due(self, states: Mapping[Source, Seen], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, Seen]]:
        if not self.tick_every_ms or now_ms - self.ticked_at_ms < self.tick_every_ms:
            return (), {}
        self.ticked_at_ms = now_ms
        return (
            [Output(self.target, source.partition, [{"key": b"tick", "value": b"tick"}]) for source in states],
            {source: Seen(state.records, state.ticks + 1) for source, state in states.items()},
        )

    def metadata(self, source: Source, state: Seen) -> str:
        return json.dumps(asdict(state))

    def revoked(self, source: Source) -> None:
        self.given_up.append(source)


def main(order: Mapping[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faulthandler.register(signal.SIGUSR1)  # where it stands, for whoever wonders
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stage = CopyStage(**{name: _bytes(name, value) for name, value in order["stage"].items()})
    config = WorkerConfig(**order["config"])
    runner = FaustRunner(stage, config) if order["runner"] == "faust" else PlainRunner(stage, config)
    try:
        runner.run(stop)
    except BatchError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _bytes(name: str, value: Any) -> Any:
    return value.encode() if name in ("fail_at", "swell_at") else value


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
