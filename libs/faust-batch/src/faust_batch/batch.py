"""The values that pass between the engine and a stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from faust_batch.source import Source


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One fetch of one partition in offset order, without control records and holes; never empty.

    `offsets` ascend but need not be dense: transaction markers and compaction leave holes.
    `next_offset` is the position after the batch: past the last record, and past control records behind it where
    the fetch reached the end of the log. `high_watermark` is the end of the log as of the latest fetch response,
    records of open transactions included. `epoch` tells assignments of the same partition apart.
    """

    source: Source
    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]
    next_offset: int
    high_watermark: int
    epoch: int
    nbytes: int

    @property
    def first_offset(self) -> int:
        return int(self.offsets[0])

    @property
    def last_offset(self) -> int:
        return int(self.offsets[-1])

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Batch {self.source}@{self.first_offset}..{self.last_offset}, {len(self)} records, epoch {self.epoch}>"


@dataclass(frozen=True, slots=True)
class Output:
    """Messages for one partition, sent in this order: `[{"key": …, "value": …}]`, optionally with `timestamp` (ms).

    The engine hands the list to librdkafka as it is, which may write into the dicts: make them anew each time.
    """

    topic: str
    partition: int
    messages: list[dict[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group last committed for a partition: the offset to read next, and the stage's own metadata."""

    offset: int
    metadata: str
