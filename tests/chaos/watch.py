"""A committed reader that runs all the time, and notes how long nothing came out of a stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

PAUSE_S = 1.5  # the feeder writes every half second, and a round takes a while: shorter is no pause


@dataclass(frozen=True, slots=True)
class Pause:
    """``began`` on the monotonic clock."""

    stage: str
    began: float
    seconds: float


class Tail(threading.Thread):
    """``stages``: topics by stage. Times are when records could be read, whatever their own timestamps say."""

    def __init__(self, kafka: str, stages: Mapping[str, Sequence[str]], partitions: int) -> None:
        super().__init__(name="tail", daemon=True)
        self._stage_of = {topic: stage for stage, topics in stages.items() for topic in topics}
        self._ending = threading.Event()
        self.records: dict[str, int] = dict.fromkeys(stages, 0)
        self.last_at: dict[str, float] = dict.fromkeys(stages, time.monotonic())
        self.last_in: dict[tuple[str, int], float] = {}
        self.pauses: list[Pause] = []
        self.partition_pauses: list[Pause] = []
        self.error: str | None = None
        self._from, self._until = float("inf"), float("inf")
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": "chaos-tail",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": 32_768,
                "fetch.queue.backoff.ms": 10,
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(t, p, 0) for t in self._stage_of for p in range(partitions)])

    def begin(self) -> None:
        """From now on silence is a pause."""
        self._from = now = time.monotonic()
        self.last_at = dict.fromkeys(self.last_at, now)
        self.last_in = dict.fromkeys(self.last_in, now)

    def end(self) -> None:
        """What falls silent from now on may: all is done. A pause that has begun before ends when it ends."""
        self._until = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._until < float("inf")

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._take()
        except Exception as err:
            self.error = f"{type(err).__name__}: {err}"
        finally:
            self._consumer.close()

    def _take(self) -> None:
        messages = self._consumer.consume(10_000, timeout=0.2)
        now = time.monotonic()
        came: dict[tuple[str, int], int] = defaultdict(int)
        for message in messages:
            if message.error() is None:
                came[self._stage_of[message.topic()], message.partition()] += 1
        for stage in {stage for stage, _ in came}:
            self.records[stage] += sum(count for (of, _), count in came.items() if of == stage)
            self._came(self.pauses, stage, self.last_at[stage], now)
            self.last_at[stage] = now
        for stage, partition in came:
            before = self.last_in.get((stage, partition), now)
            self._came(self.partition_pauses, f"{stage}, partition {partition}", before, now)
            self.last_in[stage, partition] = now

    def _came(self, pauses: list[Pause], stage: str, before: float, now: float) -> None:
        if self._from <= before <= self._until - PAUSE_S and now - before > PAUSE_S:
            pauses.append(Pause(stage, before, now - before))

    def longest_silence(self) -> tuple[str, float]:
        """Which partition of which stage has been silent longest, and for how many seconds."""
        if not self.last_in:
            return "nothing came yet", 0.0
        (stage, partition), at = min(self.last_in.items(), key=lambda item: item[1])
        return f"{stage}, partition {partition}", time.monotonic() - at

    def stop(self) -> None:
        self._ending.set()
        self.join(10)


def percentiles(pauses: Sequence[Pause]) -> dict[str, float]:
    """Of their lengths in seconds."""
    lengths = sorted(pause.seconds for pause in pauses)
    if not lengths:
        return {}
    at: Callable[[float], float] = lambda share: round(lengths[min(int(share * len(lengths)), len(lengths) - 1)], 1)  # noqa: E731
    return {"count": len(lengths), "p50_s": at(0.5), "p95_s": at(0.95), "p99_s": at(0.99), "max_s": at(1.0)}
