"""What is known of batches before they are judged: their columns, and the originals of their reversals.

Originals may lie anywhere in the log, so looking for many takes longer than a transaction may last. They are therefore
read as soon as the reversals are fetched, with no transaction open; which of them stand is found when they are judged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from cdr_enricher.decode import Decoded
from cdr_enricher.domain.hashing import Ints
from cdr_enricher.originals import NO_ORIGINALS, Originals
from faust_batch import Batch, Source


@dataclass(slots=True)
class Known:
    """Of one batch. ``named``: the raw offsets before it that its reversals name, each once, ascending."""

    batch: Batch
    decoded: Decoded
    named: Ints
    originals: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, decoded: Decoded) -> Known:
        named = decoded.records["reverses_offset"].drop_nulls()
        if not len(named):
            return cls(batch, decoded, np.empty(0, np.int64))
        offsets = np.unique(named.to_numpy())
        return cls(batch, decoded, offsets[(offsets >= 0) & (offsets < batch.first_offset)])

    def before(self, judged: int) -> Ints:
        """Those named that lie before ``judged`` and were not read yet."""
        far = self.named[: np.searchsorted(self.named, judged)]
        return far if not self.originals else far[[src not in self.originals for src in far.tolist()]]


class Ahead:
    """The batches that wait for judgement, by partition, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[Source, deque[Known]] = {}

    def find(self, batch: Batch) -> Known | None:
        return next((known for known in self._waiting.get(batch.source, ()) if known.batch is batch), None)

    def put(self, known: Known) -> None:
        self._waiting.setdefault(known.batch.source, deque()).append(known)

    def take(self, batch: Batch) -> Known | None:
        """What is known of this batch, None if it never was told; what was known of those before it is forgotten."""
        waiting = self._waiting.get(batch.source, deque())
        while waiting:
            if (known := waiting.popleft()).batch is batch:
                return known
        return None

    def drop(self, source: Source) -> None:
        self._waiting.pop(source, None)


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """Originals of which some were read before. See ``originals.Originals``."""

    found: dict[int, bytes]
    log: Originals = NO_ORIGINALS

    def read(self, src_offsets: Ints) -> list[bytes]:
        wanted = src_offsets.tolist()
        missing = [src for src in wanted if src not in self.found]
        rest = zip(missing, self.log.read(np.array(missing, np.int64)), strict=True) if missing else ()
        known = self.found | dict(rest)
        return [known[src] for src in wanted]
