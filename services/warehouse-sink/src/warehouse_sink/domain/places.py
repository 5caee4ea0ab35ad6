"""Where the sink stands in each partition, and whether the log still reaches from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warehouse_sink.errors import GapFound, PositionLost, TopicMadeAnew


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Place:
    """``next_offset`` in this topic; ``src_next`` in raw, of enriched topics once one record was seen."""

    topic_id: str
    next_offset: int
    src_next: int | None


def place_of(
    source: Source, saved: Place | None, topic_id: str, low: int, high: int, src_start: int | None = None
) -> Place:
    """Where to read on: at the saved place, or without one where the log begins.

    ``low`` and ``high`` are the log's range, ``src_start`` is the first raw offset to expect if that is known. Raises
    PositionLost if going on would leave a hole or mix two logs.
    """
    if saved is None:
        return Place(topic_id, low, src_start)
    if saved.topic_id != topic_id:
        raise TopicMadeAnew(
            f"{source} was made anew (topic id {saved.topic_id} before, {topic_id} now), so offset {saved.next_offset} "
            "means something else: derive a new generation, or restore the topic"
        )
    if saved.next_offset > high:
        raise PositionLost(
            f"{source} ends at {high}, but the warehouse is written up to {saved.next_offset}: the topic was cut short "
            "(restored from a backup?); derive a new generation, or restore the topic"
        )
    if saved.next_offset < low:
        raise PositionLost(
            f"{source} begins at {low}, but the warehouse is written up to {saved.next_offset} only: retention has "
            f"removed {low - saved.next_offset} offsets that were never written; derive a new generation"
        )
    return saved


@dataclass(frozen=True, slots=True)
class Density:
    """What a batch of judged records says of raw's offsets: where it ends, how many came again."""

    src_next: int
    repeats: int


def check_dense(source: Source, src_offsets: npt.NDArray[np.int64], expected: int | None) -> Density:
    """``src_offsets`` (not empty) must go on from ``expected`` without a hole; None: they may begin anywhere.

    Repeats are counted, not refused: writing a record again changes nothing. Raises GapFound.
    """
    first = int(src_offsets[0]) if expected is None else expected
    count = len(src_offsets)
    if int(src_offsets[0]) == first and bool(np.all(np.diff(src_offsets) == 1)):
        return Density(first + count, 0)
    before = np.maximum.accumulate(np.concatenate(([first - 1], src_offsets)))
    gaps = np.flatnonzero(src_offsets > before[:-1] + 1)
    if len(gaps):
        at = int(gaps[0])
        raise GapFound(
            f"{source}: source offset {int(before[at]) + 1} should come next, {int(src_offsets[at])} came: judged "
            "records are missing; nothing behind the gap is written"
        )
    return Density(int(before[-1]) + 1, int(np.count_nonzero(src_offsets <= before[:-1])))
