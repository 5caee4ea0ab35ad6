"""States kept over a rebalance: it takes every partition from everybody, and gives most of them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from confluent_kafka import TopicPartition

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Parked(Generic[S]):
    """A state as of the group's committed position: its offset, and the metadata as it is stored.

    The metadata names the very commit (`topic_ids.stamped`). So a position that is equal was committed by nobody
    since, and nobody has written anything that a restore would find, however often the partition has changed hands.
    """

    state: S
    offset: int
    metadata: str

    def is_still(self, known: TopicPartition) -> bool:
        """Whether the group's position is the parked one."""
        return bool(known.offset == self.offset and known.metadata == self.metadata)
