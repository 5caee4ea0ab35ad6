"""When so much is rejected that the fault is not in the records: a wrong profile, a bad deployment, another's topic.

Counted by blocks of raw offsets, so that the answer depends on the records alone, however they came in batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import Ints

_BLOCKS = 10  # to a window: it moves on by a tenth of itself


@dataclass(frozen=True, slots=True)
class Rejections:
    """How many records of the last blocks of a partition were rejected; the last block, ``block``, may not be full."""

    records: int = 0
    block: int = 0
    counts: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """A short form for commit metadata."""
        return {"of": self.records, "block": self.block, "counts": list(self.counts)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Rejections:
        """Of what ``as_json`` gave."""
        return cls(int(saved["of"]), int(saved["block"]), tuple(int(count) for count in saved["counts"]))


@dataclass(frozen=True, slots=True)
class Excess:
    """From ``since`` on, so many records up to ``until`` were rejected."""

    since: int
    until: int
    rejected: int


@dataclass(frozen=True, slots=True)
class RejectionLimit:
    """More than ``share`` of ``records`` rejected among the last ``records`` of a partition are too many.

    With a share of 1 nothing ever is.
    """

    share: float = 0.5
    records: int = 10_000

    def after(self, recent: Rejections, offsets: Ints, rejected: Bools) -> tuple[Rejections, Excess | None]:
        """The count with a batch of dense offsets that follows it, and the first excess, if any."""
        size = max(self.records // _BLOCKS, 1)
        first, last = int(offsets[0]) // size, int(offsets[-1]) // size
        counts = np.zeros(last - first + 1, np.int64)
        if rejected.any():
            counts += np.bincount(offsets[rejected] // size - first, minlength=len(counts))
        # under another setting the blocks were others
        before = list(recent.counts) if recent.records == self.records else []
        if before and recent.block == first:
            counts[0] += before.pop()
        series = np.r_[np.array(before, np.int64), counts]
        start = last + 1 - len(series)
        running = np.r_[0, np.cumsum(series)]
        since = np.maximum(np.arange(1, len(running)) - _BLOCKS, 0)
        window = running[1:] - running[since]
        over = np.flatnonzero(window > self.share * self.records)
        excess = None
        if len(over):
            at = int(over[0])
            until = min((start + at + 1) * size - 1, int(offsets[-1]))
            excess = Excess((start + int(since[at])) * size, until, int(window[at]))
        return Rejections(self.records, last, tuple(series[-_BLOCKS:].tolist())), excess
