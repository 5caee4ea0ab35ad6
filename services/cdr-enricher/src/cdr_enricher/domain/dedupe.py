"""Which records repeat one that was stored before (I4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdr_enricher.domain.hash_table import Bools, HashTable
from cdr_enricher.domain.hashing import Ints, TextKey

NO_OFFSET = -1


@dataclass(frozen=True, slots=True)
class Repeats:
    """Per record: the raw offset of the stored record it repeats, or NO_OFFSET; whether its content differs."""

    first_offset: Ints
    conflict: Bools

    @property
    def duplicate(self) -> Bools:
        duplicate: Bools = self.first_offset != NO_OFFSET
        return duplicate


class Seen:
    """The identities of the stored records of one partition, each with its raw offset and content hash.

    Looking up and remembering are one step, and the old value is spent afterwards: a copy of the table per batch would
    cost more than all the rest. A round that fails ends the process, so nobody can see a half-told state.
    """

    __slots__ = ("_table",)

    def __init__(self, expected: int = 0) -> None:
        self._table = HashTable(expected)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes

    def judge(self, key: TextKey, offsets: Ints, content: Ints) -> Repeats:
        """Find the repeats in a batch, in input order, and remember the others.

        A record repeats one that was remembered before, or an earlier one of the same batch, never itself. ``key`` is
        ``identity_key``; only records that would otherwise be stored may be given.
        """
        found = self._table.find_or_insert(key, offsets, content)
        return Repeats(np.where(found.present, found.first, NO_OFFSET), found.present & (found.second != content))
