"""Writes the raw log at a steady pace, as the gateway does: idempotent, acknowledged by all, in order."""

from __future__ import annotations

import threading
import time

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from .traffic import Traffic

_TURN_S = 0.5
_FIRST = 200
_MOST_PENDING = 1_500_000  # what a broker's absence may pile up in the producer


class Feeder(threading.Thread):
    """``total`` records over ``partitions``, evenly, ``rate`` a second once ``begin`` is set.

    ``error``: why it ended before its time.
    """

    def __init__(
        self, kafka: str, topic: str, traffic: Traffic, schema_id: int, partitions: int, total: int, rate: float
    ) -> None:
        super().__init__(name="feeder", daemon=True)
        self._topic, self._traffic, self._schema_id = topic, traffic, schema_id
        self.partitions, self.each = partitions, total // partitions
        self._rate = rate
        self._ending = threading.Event()
        self.begin = threading.Event()
        self.made = 0  # in each partition
        self.acknowledged = np.zeros(partitions, np.int64)
        self.error: str | None = None
        self.finished = False
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": 1_000_000,
                "message.timeout.ms": 0,  # a broker that is away is waited for
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
                "log_level": 2,
                "on_delivery": self._delivered,
            }
        )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.error = self.error or f"{message.topic()}[{message.partition()}]: {error}"
        else:
            self.acknowledged[message.partition()] += 1

    def run(self) -> None:
        try:
            self._feed()
            while len(self._producer) and not self._ending.is_set() and self.error is None:
                self._producer.flush(1.0)
            self.finished = self.error is None and not len(self._producer)
        except Exception as err:
            self.error = f"{type(err).__name__}: {err}"

    def _feed(self) -> None:
        # a few, so that the workers have something to show that they work
        self._make(min(_FIRST, self.each))
        while not self.begin.wait(0.1) and not self._ending.is_set():
            self._producer.poll(0)
        began = time.monotonic()
        while self.made < self.each and not self._ending.is_set() and self.error is None:
            due = min(int((time.monotonic() - began) * self._rate / self.partitions), self.each)
            if due > self.made and len(self._producer) < _MOST_PENDING:
                # never far more than a turn's at once: records are in memory thrice meanwhile
                self._make(min(due, self.made + 10_000))
            else:
                self._producer.poll(0)
                self._ending.wait(_TURN_S)

    def _make(self, until: int) -> None:
        n = np.arange(self.made, until)
        for partition in range(self.partitions):
            records = self._traffic.records(np.full(len(n), partition), n)
            values = self._traffic.values(records, self._schema_id)
            keys = [who.encode() for who in records["subscriber_id"].to_list()]
            messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
            queued = self._producer.produce_batch(self._topic, messages, partition=partition)
            if queued != len(messages):
                failed = next((m["_error"] for m in messages if "_error" in m), "no reason")
                raise RuntimeError(f"{len(messages) - queued} records were not taken: {failed}")
            self._producer.poll(0)
        self.made = until

    def stop(self) -> None:
        self._ending.set()
