"""The moment whose reference data a replay sees: a function of partition and raw offset alone.

So two replays pinned alike give the same, whatever workers judge, and however often they are killed on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from faust_batch import Batch

Offsets = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Pin:
    """Raw offsets below ``ends`` (by type and partition) are judged with the versions that lie below ``reference``
    (by topic and partition). Nothing is pinned without ``reference``."""

    ends: Offsets = field(default_factory=dict)
    reference: Offsets = field(default_factory=dict)

    def holds(self, record_type: str, partition: int, next_offset: int) -> bool:
        """Whether the record at this raw offset is judged with what is pinned."""
        return bool(self.reference) and next_offset < self.ends.get(record_type, {}).get(partition, 0)

    def reference_end(self, topic: str, partition: int) -> int:
        """The first version that is not pinned."""
        return self.reference.get(topic, {}).get(partition, 0)

    def parts(self, record_type: str, batch: Batch) -> list[tuple[Batch, bool]]:
        """The batch, cut where pinned records end; and of each part, whether it is pinned."""
        partition = batch.source.partition
        if self.holds(record_type, partition, batch.last_offset):
            return [(batch, True)]
        if not self.holds(record_type, partition, batch.first_offset):
            return [(batch, False)]
        count = int((batch.offsets < self.ends[record_type][partition]).sum())
        return [(_part(batch, slice(None, count)), True), (_part(batch, slice(count, None)), False)]


def _part(batch: Batch, rows: slice) -> Batch:
    return replace(
        batch,
        offsets=batch.offsets[rows],
        timestamps_ms=batch.timestamps_ms[rows],
        keys=batch.keys[rows],
        values=batch.values[rows],
    )
