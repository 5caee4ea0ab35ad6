"""The transactional producer, crash-only.

librdkafka lacks the client half of KIP-890: a timed-out call may still take effect inside the *next* transaction of
the same producer. So after any failed transactional call the producer is not used again and the process ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from faust_batch.batch import Output
from faust_batch.config import WorkerConfig
from faust_batch.errors import OutputRefused, TransactionFailed
from faust_batch.patience import patiently

_log = logging.getLogger(__name__)

MAX_CHUNK = 50_000  # messages a call: what fits well below the producer's queue
ABORT_TIMEOUT_S = 5.0
REPORT_WAIT_S = 0.5  # the report of what was not delivered may come after the error that it caused


class Transactions:
    """One producer and at most one open transaction. Not thread-safe: the owning thread alone calls it."""

    def __init__(self, config: WorkerConfig) -> None:
        self._undelivered: tuple[str, int, int, str] | None = None
        settings = config.producer_settings() | {
            # only what was not delivered is reported: nothing per message in health
            "delivery.report.only.error": True,
            "on_delivery": self._was_not_delivered,
        }
        self._id = config.transactional_id
        self._timeout_s = config.call_timeout_s
        self._room = int(settings["queue.buffering.max.messages"])
        self._producer = Producer(settings, logger=logging.getLogger("faust_batch.librdkafka"))
        self._open = False
        self._broken = False
        #: monotonic time by which the call in work must have returned, by its own timeout; None between calls
        self.deadline: float | None = None

    def start(self, timeout_s: float) -> None:
        """Fence any predecessor of the same id and end its transaction."""

        def init() -> None:
            with self._bounded(timeout_s):
                self._producer.init_transactions(timeout_s)

        try:
            patiently(init, timeout_s)  # a broker that has just started does not know its coordinators yet
        except KafkaException as error:
            raise self._failed("init_transactions", error) from error

    @property
    def open(self) -> bool:
        return self._open

    def send(self, output: Output) -> None:
        """Queue an output's messages in order, in the open transaction (opened if there is none)."""
        self.begin()
        for start in range(0, len(output.messages), MAX_CHUNK):
            chunk = output.messages[start : start + MAX_CHUNK] if len(output.messages) > MAX_CHUNK else output.messages
            self._send_chunk(output, chunk)

    def begin(self) -> None:
        if self._broken:
            raise TransactionFailed(f"transaction {self._id}: used after a failure")
        if not self._open:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise self._failed("begin_transaction", error) from error
            self._open = True

    def commit(self, positions: Sequence[TopicPartition], group_metadata: Callable[[], Any]) -> None:
        """Commit outputs and positions as one; on any error the transaction's fate is unknown and we raise."""
        self.begin()
        step = "send_offsets_to_transaction"
        try:
            with self._bounded(self._timeout_s):
                if positions:
                    self._producer.send_offsets_to_transaction(list(positions), group_metadata(), self._timeout_s)
            step = "commit_transaction"
            with self._bounded(self._timeout_s):
                self._producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            raise self._failed(step, error) from error
        self._open = False

    def abort(self) -> None:
        """Best effort, for readers' sake: the next start of this id would do it anyway. Then never used again."""
        if self._open and not self._broken:
            self._broken = True
            try:
                with self._bounded(ABORT_TIMEOUT_S):
                    self._producer.abort_transaction(ABORT_TIMEOUT_S)
            except KafkaException as error:
                _log.warning("transaction %s: abort failed (%s); the broker will time it out", self._id, error)
        self._broken = True

    def serve(self) -> None:
        """Let librdkafka deliver its log lines and callbacks."""
        try:
            self._producer.poll(0)
        except KafkaException as error:
            raise self._failed("poll", error) from error

    @contextmanager
    def _bounded(self, timeout_s: float) -> Iterator[None]:
        """librdkafka was seen to overstay its timeouts after a broker's restart: the watchdog needs to know them."""
        self.deadline = time.monotonic() + timeout_s
        try:
            yield
        finally:
            self.deadline = None

    def _send_chunk(self, output: Output, messages: list[dict[str, bytes | None]]) -> None:
        while messages:
            self._make_room(len(messages))
            try:
                queued = self._producer.produce_batch(output.topic, messages, partition=output.partition)
            except (KafkaException, BufferError) as error:
                raise self._refused(output, messages, str(error)) from error
            # the count alone is not trusted: a message left out lets the ones behind it go on
            failed = [index for index, message in enumerate(messages) if "_error" in message]
            if not failed and queued == len(messages):
                return
            messages = self._rest(output, messages, failed, queued)

    def _rest(
        self, output: Output, messages: list[dict[str, bytes | None]], failed: list[int], queued: int
    ) -> list[dict[str, bytes | None]]:
        """The messages still to send after a full queue; anything else than a full queue is refused."""
        errors: list[Any] = [messages[index]["_error"] for index in failed]
        if queued + len(failed) != len(messages):
            raise self._refused(
                output, messages, f"{queued} of {len(messages)} messages were taken, {len(failed)} had an error"
            )
        other = next((error for error in errors if _code(error) != KafkaError._QUEUE_FULL), None)
        if other is not None:
            raise self._refused(output, [m for m in messages if m.get("_error") is other], str(other))
        if failed[0] != len(messages) - len(failed):
            raise self._refused(output, messages, "the queue was full and a later message overtook an earlier one")
        rest = messages[failed[0] :]
        for message in rest:
            del message["_error"]
        return rest

    def _make_room(self, count: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while len(self._producer) + count > self._room:
            self._producer.poll(0.01)
            if time.monotonic() > deadline:
                self._broken = True
                raise TransactionFailed(
                    f"transaction {self._id}: {len(self._producer)} messages were not acknowledged within "
                    f"{self._timeout_s:.0f} s; is the broker well?"
                )

    def _was_not_delivered(self, error: KafkaError | None, message: Any) -> None:
        """The largest of the messages that were not delivered is the one to name."""
        size = len(message.value() or b"") + len(message.key() or b"")
        if error is None or error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            return  # they fell with others
        if self._undelivered is None or size > self._undelivered[2]:
            self._undelivered = (message.topic(), message.partition(), size, error.name())

    def _delivery(self) -> str:
        deadline = time.monotonic() + REPORT_WAIT_S
        while self._undelivered is None and len(self._producer) and time.monotonic() < deadline:
            with suppress(KafkaException):  # a fatal error is told again by every call
                self._producer.poll(0.05)
        if self._undelivered is None:
            return ""
        topic, partition, size, name = self._undelivered
        return f"; {topic}[{partition}] was not delivered ({name}), its largest message has {size} bytes"

    def _refused(self, output: Output, messages: list[dict[str, bytes | None]], reason: str) -> OutputRefused:
        size = max((len(m.get("value") or b"") + len(m.get("key") or b"") for m in messages), default=0)
        return OutputRefused(
            f"{output.topic}[{output.partition}]: the producer refused a message of up to {size} bytes ({reason}"
            f"{self._delivery()}); the round was aborted and its input is judged again after a restart"
        )

    def _failed(self, step: str, error: KafkaException) -> TransactionFailed:
        detail, delivery = error.args[0], self._delivery()
        # A message the broker refused is a known outcome: the transaction can be aborted for its readers' sake.
        # Whatever else went wrong, what the broker has is unknown, and nothing more is sent.
        refused = bool(delivery) and isinstance(detail, KafkaError) and detail.txn_requires_abort()
        self._broken = not refused
        text = f"{detail.name()}: {detail.str()}" if isinstance(detail, KafkaError) else str(error)
        return TransactionFailed(
            f"transaction {self._id}: {step} failed ({text}{delivery}); the process must end, its successor "
            "goes on from the last committed round"
        )


def _code(error: object) -> int | None:
    return error.code() if isinstance(error, KafkaError) else None
