"""The partitions a worker holds: their chains, their states, and what is noted about each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from confluent_kafka import TopicPartition

from faust_batch.chain import Chain
from faust_batch.source import Source

S = TypeVar("S")


@dataclass(slots=True)
class Holdings(Generic[S]):
    """`committed`: the position the group has; `stamps`: the metadata stored with it, where there is any; `fresh`:
    assigned since the last fetch; `moved`: since when a position stands past control records without a commit;
    `first_offered`: when the head of a chain was first handed out; `paused`: until there is room; `resting`: for good,
    at their ends."""

    chains: dict[Source, Chain] = field(default_factory=dict)
    states: dict[Source, S] = field(default_factory=dict)
    committed: dict[Source, int] = field(default_factory=dict)
    stamps: dict[Source, str] = field(default_factory=dict)
    first_offered: dict[Source, float] = field(default_factory=dict)
    fresh: set[Source] = field(default_factory=set)
    moved: dict[Source, float] = field(default_factory=dict)
    paused: set[Source] = field(default_factory=set)
    resting: set[Source] = field(default_factory=set)

    def add(self, chain: Chain, state: S) -> None:
        self.chains[chain.source], self.states[chain.source] = chain, state
        self.committed[chain.source] = chain.position

    def drop(self, source: Source) -> None:
        for noted in (self.chains, self.states, self.committed, self.stamps, self.first_offered, self.moved):
            noted.pop(source, None)
        self.paused.discard(source)
        self.resting.discard(source)
        self.fresh.discard(source)

    @property
    def waiting(self) -> bool:
        """Something waits to be judged."""
        return any(chain.held for chain in self.chains.values())

    @property
    def held_bytes(self) -> int:
        return sum(chain.held_bytes for chain in self.chains.values())


def handles(sources: Iterable[Source]) -> list[TopicPartition]:
    """What librdkafka calls them."""
    return [TopicPartition(source.topic, source.partition) for source in sources]
