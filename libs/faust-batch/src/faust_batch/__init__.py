"""A Faust transport whose event is a whole fetch, committed in one Kafka transaction per round."""

from faust_batch.batch import Batch, Committed, Output
from faust_batch.config import WorkerConfig
from faust_batch.errors import (
    AssignmentLost,
    BatchError,
    ClientFailed,
    ConfigInvalid,
    HandOverStalled,
    NotCompiled,
    OffsetOutOfRange,
    OutputRefused,
    PartitionStopped,
    ReadStalled,
    SourceUnusable,
    StageFailed,
    TopicMadeAnew,
    TopicMissing,
    TransactionFailed,
)
from faust_batch.faust_runner import FaustRunner
from faust_batch.health import Condition, Health
from faust_batch.observer import NullObserver, Observer
from faust_batch.patience import log_range
from faust_batch.plain import PlainRunner
from faust_batch.reader import TopicTail, end_offsets, read_partition
from faust_batch.source import Source
from faust_batch.stage import NeedsQuiet, Stage, StatelessStage
from faust_batch.topic_ids import NO_ID, TopicIds

__all__ = [
    "NO_ID",
    "AssignmentLost",
    "Batch",
    "BatchError",
    "ClientFailed",
    "Committed",
    "Condition",
    "ConfigInvalid",
    "FaustRunner",
    "HandOverStalled",
    "Health",
    "NeedsQuiet",
    "NotCompiled",
    "NullObserver",
    "Observer",
    "OffsetOutOfRange",
    "Output",
    "OutputRefused",
    "PartitionStopped",
    "PlainRunner",
    "ReadStalled",
    "Source",
    "SourceUnusable",
    "Stage",
    "StageFailed",
    "StatelessStage",
    "TopicIds",
    "TopicMadeAnew",
    "TopicMissing",
    "TopicTail",
    "TransactionFailed",
    "WorkerConfig",
    "end_offsets",
    "log_range",
    "read_partition",
]
