"""The transactional producer, crash-only.

librdkafka lacks the client half of KIP-890: a timed-out call may still take effect inside the *next* transaction of
the same producer. So after any failed transactional call the producer is not used again and the process ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from faust_batch.batch import Output
from faust_batch.config import WorkerConfig
from faust_batch.errors import OutputRefused, TransactionFailed

_log = logging.getLogger(__name__)

MAX_CHUNK = 50_000  # messages a call: what fits well below the producer's queue
ABORT_TIMEOUT_S = 5.0


class Transactions:
    """One producer and at most one open transaction. Not thread-safe: the owning thread alone calls it."""

    def __init__(self, config: WorkerConfig) -> None:
        settings = config.producer_settings()
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
        try:
            with self._bounded(timeout_s):
                self._producer.init_transactions(timeout_s)
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
        self._producer.poll(0)

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
                raise self._refused(output, str(error)) from error
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
            raise self._refused(output, f"{queued} of {len(messages)} messages were taken, {len(failed)} had an error")
        other = next((error for error in errors if _code(error) != KafkaError._QUEUE_FULL), None)
        if other is not None:
            raise self._refused(output, str(other))
        if failed[0] != len(messages) - len(failed):
            raise self._refused(output, "the queue was full and a later message overtook an earlier one")
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

    def _refused(self, output: Output, reason: str) -> OutputRefused:
        return OutputRefused(
            f"{output.topic}[{output.partition}]: the producer refused a message ({reason}); "
            "the round was aborted and its input is judged again after a restart"
        )

    def _failed(self, step: str, error: KafkaException) -> TransactionFailed:
        self._broken = True
        detail = error.args[0]
        text = f"{detail.name()}: {detail.str()}" if isinstance(detail, KafkaError) else str(error)
        return TransactionFailed(
            f"transaction {self._id}: {step} failed ({text}); the process must end, its successor goes on from the "
            "last committed round"
        )


def _code(error: object) -> int | None:
    return error.code() if isinstance(error, KafkaError) else None
