"""One partition's batches in the only order they may be judged in.

Faust may drop what it holds, or bring it late. So the chain keeps every fetched batch until it has been judged, and
only its head may be: a batch of an earlier assignment, one judged already, or one out of turn is refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from faust_batch.batch import Batch
from faust_batch.source import Source


@dataclass(slots=True)
class Chain:
    """`position`: next to judge; `fetched`: next to fetch; `offered_at`: when the head was last handed out, or None.

    `stopped`: it goes no further than `position`. `end`: nothing from there on is judged.
    """

    source: Source
    epoch: int
    position: int
    fetched: int
    held: deque[Batch] = field(default_factory=deque)
    held_bytes: int = 0
    offered_at: float | None = None
    stopped: bool = False
    end: int | None = None

    @classmethod
    def starting_at(cls, source: Source, epoch: int, position: int, end: int | None = None) -> Chain:
        return cls(source, epoch, position, position, end=end)

    @property
    def done(self) -> bool:
        """It goes no further, whatever more there is."""
        return self.stopped or (self.end is not None and self.position >= self.end)

    def append(self, batch: Batch) -> None:
        self.held.append(batch)
        self.held_bytes += batch.nbytes
        self.fetched = batch.next_offset

    def reached(self, end: int) -> bool:
        """The log's end was seen at `end` with no records before it: step over control records. True if that moved."""
        if self.end is not None:
            end = min(end, self.end)
        if self.stopped or self.held or end <= self.fetched:
            return False
        self.fetched = self.position = end
        return True

    def ended(self) -> bool:
        """Records behind `end` were seen, so all before it was fetched. True if that moved the position."""
        before, self.fetched = self.position, max(self.fetched, self.end or 0)
        if not self.held:
            self.position = self.fetched
        return self.position > before

    def stop(self) -> None:
        """Go no further: what was fetched is forgotten."""
        self.held.clear()
        self.held_bytes = 0
        self.offered_at = None
        self.stopped = True

    def follows(self, batch: Batch) -> bool:
        """Whether this very batch is the next to judge."""
        return bool(self.held) and self.held[0] is batch and batch.epoch == self.epoch

    def judged(self) -> None:
        """The head was judged."""
        batch = self.held.popleft()
        self.held_bytes -= batch.nbytes
        self.position = batch.next_offset if self.held else self.fetched
        self.offered_at = None
