"""Sending to Kafka: one thread, one idempotent producer, group commit.

What is waiting is produced together and then flushed once; an outcome is known for every send before the next begins.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest_gateway.errors import NotAcknowledged, ProducerLost, Stopping
from ingest_gateway.metrics import ACK_SECONDS, UNACKNOWLEDGED
from telestream_domain import TelestreamError

GROUP_BYTES = 64 << 20
GROUP_MESSAGES = 200_000
FLUSH_GRACE_S = 5.0
FLUSH_STEP_S = 0.5
FOR_EVER = 0  # librdkafka's word for it
METADATA_TIMEOUT_S = 5.0


@dataclass(slots=True)
class _Send:
    topic: str
    messages: list[dict[str, Any]]
    nbytes: int
    give_up_at: float
    done: Future[None]
    failure: str | None = None


def messages_of(
    values: list[bytes], keys: list[bytes], shards: npt.NDArray[np.int64] | Sequence[int], partitions: int
) -> list[dict[str, Any]]:
    """Messages in the same order, each with its partition."""
    numbers = (np.asarray(shards, np.int64) % partitions).tolist()
    return [
        {"value": value, "key": key, "partition": partition}
        for value, key, partition in zip(values, keys, numbers, strict=True)
    ]


class Sender:
    """``send`` may be called from any thread. After a fatal error of the producer nothing is sent any more.

    ``ack_timeout_s`` None: a send waits for Kafka as long as it takes, and what the producer repeats meanwhile is
    stored once (it is idempotent). With a time a send fails after it, and may have been stored all the same.
    """

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        ack_timeout_s: float | None,
        linger_ms: float,
        on_lost: Callable[[str], None],
    ) -> None:
        from confluent_kafka import Producer

        self._ack_timeout_s = ack_timeout_s
        self._closing = False
        self._on_lost = on_lost
        self._lost: str | None = None
        self._queue: queue.SimpleQueue[_Send | None] = queue.SimpleQueue()
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "message.timeout.ms": int((ack_timeout_s or FOR_EVER) * 1000),
                "linger.ms": linger_ms,
                "batch.size": 1 << 20,
                "batch.num.messages": 50_000,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 2 * GROUP_MESSAGES,
                "queue.buffering.max.kbytes": 512 << 10,
                "delivery.report.only.error": True,
                "retry.backoff.ms": 100,
                "socket.keepalive.enable": True,
                "error_cb": self._on_error,
                "log_level": 3,
            }
        )
        self._thread = threading.Thread(target=self._run, name=client_id, daemon=True)
        self._thread.start()

    def send(self, topic: str, messages: list[dict[str, Any]], nbytes: int) -> Future[None]:
        """Resolves once Kafka has acknowledged every message; fails with NotAcknowledged, ProducerLost or Stopping."""
        done: Future[None] = Future()
        if self._lost is not None:
            done.set_exception(ProducerLost(self._lost))
            return done
        if not messages:
            done.set_result(None)
            return done
        give_up_at = time.monotonic() + (self._ack_timeout_s or math.inf)
        self._queue.put(_Send(topic, messages, nbytes, give_up_at, done))
        return done

    def partitions(self, topic: str) -> int:
        """The topic's partition count; raises TelestreamError if Kafka does not answer or has no such topic."""
        from confluent_kafka import KafkaException

        try:
            found = self._producer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic]
        except KafkaException as err:
            raise TelestreamError(f"Kafka does not answer: {err.args[0].str()}") from err
        if found.error is not None or not found.partitions:
            raise TelestreamError(f'topic {topic} is missing; run "telestream topics apply"')
        return len(found.partitions)

    def close(self) -> None:
        """Finish what is being sent, within seconds; what waits fails with Stopping."""
        self._closing = True
        self._queue.put(None)
        self._thread.join((self._ack_timeout_s or 0) + FLUSH_GRACE_S)

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                break
            group, last = self._collect(first)
            self._send_group(group)
            if last:
                break
        while True:
            try:
                left = self._queue.get_nowait()
            except queue.Empty:
                return
            if left is not None:
                left.done.set_exception(Stopping("the gateway is stopping"))

    def _collect(self, first: _Send) -> tuple[list[_Send], bool]:
        group, nbytes, count = [first], first.nbytes, len(first.messages)
        while nbytes < GROUP_BYTES and count < GROUP_MESSAGES:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return group, True
            group.append(more)
            nbytes += more.nbytes
            count += len(more.messages)
        return group, False

    def _send_group(self, group: list[_Send]) -> None:
        now = time.monotonic()
        begun = []
        for send in group:
            if self._lost is not None:
                send.done.set_exception(ProducerLost(self._lost))
            elif send.give_up_at <= now:
                send.done.set_exception(NotAcknowledged("Kafka was too busy to begin; nothing of this was sent"))
            else:
                begun.append(send)
                self._produce(send)
                send.messages = []  # the producer has its own copy
        left = self._flush()
        ACK_SECONDS.observe(time.monotonic() - now)
        for send in begun:
            if left and send.failure is None:
                send.failure = f"{left} messages without an answer"
            if send.failure is None:
                send.done.set_result(None)
            elif left and self._closing:
                send.done.set_exception(Stopping("the gateway is stopping"))
            elif self._lost is not None:
                send.done.set_exception(ProducerLost(self._lost))
            else:
                UNACKNOWLEDGED.inc()
                send.done.set_exception(NotAcknowledged(f"Kafka did not acknowledge in time: {send.failure}"))

    def _flush(self) -> int:
        """Wait for acknowledgements; returns how many are missing."""
        if self._ack_timeout_s is not None:
            return int(self._producer.flush(self._ack_timeout_s + FLUSH_GRACE_S))
        closing_since: float | None = None
        while left := int(self._producer.flush(FLUSH_STEP_S)):
            if self._lost is not None:
                break
            if self._closing:
                closing_since = closing_since or time.monotonic()
                if time.monotonic() - closing_since > FLUSH_GRACE_S / 2:
                    break
        return left

    def _produce(self, send: _Send) -> None:
        from confluent_kafka import KafkaException

        def on_delivery(err: Any, _message: Any) -> None:
            if err is not None and send.failure is None:
                send.failure = err.str()
            if err is not None and err.fatal():
                self._lose(err.str())

        try:
            queued = self._producer.produce_batch(send.topic, send.messages, on_delivery=on_delivery)
        except (BufferError, KafkaException) as err:
            send.failure = str(err)
            return
        if queued != len(send.messages):
            bad = next((message["_error"] for message in send.messages if "_error" in message), "not queued")
            send.failure = str(bad)

    def _on_error(self, err: Any) -> None:
        if err.fatal():
            self._lose(err.str())

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = f"the Kafka producer is lost: {reason}; the process ends, a fresh one starts"
            self._on_lost(self._lost)
