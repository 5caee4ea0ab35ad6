"""Everything faust-batch raises.

BatchError
├── NotCompiled            Faust runs without its compiled extension
├── ConfigInvalid          a worker's configuration contradicts itself
├── StageFailed            the stage raised while judging, restoring or flushing
├── PartitionStopped       raised by a stage: this partition goes no further, the worker's others do
├── OutputRefused          the producer would not take a message of the open round
├── TransactionFailed      a transactional call failed or timed out; the producer must not be used again
├── AssignmentLost         the group gave our partitions away while a round was open
├── SourceUnusable         a topic cannot be read as asked
│   ├── OffsetOutOfRange   the position lies outside the log
│   ├── TopicMadeAnew      the topic is not the one the position was committed for
│   ├── TopicMissing       the topic does not exist
│   └── ReadStalled        a bounded read made no progress
├── ClientFailed           the Kafka client reported an error it cannot recover from
├── HandOverStalled        Faust did not bring a batch back
└── DrainTimedOut          the worker did not stop in time

A worker that meets one (PartitionStopped apart) ends: whoever supervises the process starts it again, and the next
start goes on from the last committed round.
"""

from __future__ import annotations

from faust_batch.source import Source


class BatchError(Exception):
    """Base of all errors of this library; `str()` is one line that says what was tried, on what, and what to do."""


class NotCompiled(BatchError):
    """Faust's stream loop is the pure Python one, which acknowledges what it skips."""


class ConfigInvalid(BatchError):
    """A setting of `WorkerConfig` cannot work."""


class StageFailed(BatchError):
    """The stage raised; nothing of the open round is visible and its offsets were not committed."""


class PartitionStopped(BatchError):
    """Raised by a stage's `on_batch`: nothing of the batch takes effect, and the partition is read no further.

    The only one that does not end the worker. Its position stays before the batch; whoever gets the partition next
    restores it there and judges the same batch again.
    """


class OutputRefused(BatchError):
    """The producer refused a message (too large, unknown partition, …); the round was aborted."""


class TransactionFailed(BatchError):
    """A transactional call failed or timed out: its outcome is unknown to us, so the process must end (KIP-890)."""


class AssignmentLost(BatchError):
    """The group took partitions away without asking while their round was open."""


class SourceUnusable(BatchError):
    """A topic or partition cannot be read."""


class OffsetOutOfRange(SourceUnusable):
    """The position to read from is not in the log; going on anywhere else would skip or repeat records."""

    def __init__(self, source: Source, offset: int, low: int, high: int) -> None:
        self.source, self.offset, self.low, self.high = source, offset, low, high
        what = (
            f"{low - offset} offsets ({offset} to {low - 1}) were removed before they were read"
            if offset < low
            else f"its end is {offset - high} offsets short of what was read (restored from a backup?)"
        )
        super().__init__(
            f"{source}: position {offset} is outside the log [{low}, {high}]: {what}; "
            "restore the topic, or start a new consumer group on purpose"
        )


class TopicMadeAnew(SourceUnusable):
    """The topic was deleted and created again: its offsets mean other records than the position was committed for."""

    def __init__(self, where: str, offset: int | None, known_id: str, found_id: str) -> None:
        self.where, self.offset, self.known_id, self.found_id = where, offset, known_id, found_id
        what = "while it was read" if offset is None else f"since offset {offset} was committed"
        super().__init__(
            f"{where} was made anew {what} (topic id {known_id} before, {found_id} now): offsets mean other records; "
            "bring the old topic back, or start a new consumer group on purpose"
        )


class TopicMissing(SourceUnusable):
    """The topic, or the partition asked for, does not exist."""


class ReadStalled(SourceUnusable):
    """A bounded read made no progress for too long (an open transaction, or an unreachable broker)."""


class ClientFailed(BatchError):
    """librdkafka reported a fatal or unexpected error."""


class HandOverStalled(BatchError):
    """A batch given to Faust's agents did not come back for judgement."""
