"""Which records repeat one that was stored before (I4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdr_enricher.domain.hash_table import Bools, HashTable
from cdr_enricher.domain.hashing import Ints, TextKey

NO_OFFSET = -1
_FREED = 1 << 32  # in place of a content hash: the identity is free again


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

    __slots__ = ("_stored", "_table", "_withdrawn")

    def __init__(self, expected: int = 0) -> None:
        self._table = HashTable(expected)
        self._stored: set[int] = set()
        self._withdrawn: set[int] = set()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes

    def judge(self, key: TextKey, event_ms: Ints, offsets: Ints, content: Ints, appended_ms: Ints) -> Repeats:
        """Find the repeats in a batch, in input order, and remember the others as stored at their offsets.

        A record repeats one that was remembered before, or an earlier one of the same batch, never itself. ``key`` is
        ``identity_key``; only records that would otherwise be stored may be given, by ascending offset.
        """
        found = self._table.find(key)
        freed = np.flatnonzero(found.present & (found.second == _FREED))
        if len(freed):
            again = (key[0][freed], key[1][freed])
            self._table.assign(again, offsets[freed], content[freed])
        found = self._table.find_or_insert(key, offsets, content)
        mine = found.first == offsets
        found.present[mine] = False
        self._stored.update(offsets[~found.present].tolist())
        return Repeats(np.where(found.present, found.first, NO_OFFSET), found.present & (found.second != content))

    def standing(self, offsets: Ints) -> Bools:
        """Whether the record at each raw offset was stored and not withdrawn since, however long ago."""
        return np.array([o in self._stored and o not in self._withdrawn for o in offsets.tolist()], np.bool_)

    def withdraw(self, key: TextKey, event_ms: Ints, offsets: Ints, at_offsets: Ints) -> None:
        """The stored records at ``offsets`` are withdrawn by reversals judged ``at_offsets``: their identities are free.

        ``key`` and ``event_ms`` are those of the records withdrawn; ``at_offsets`` ascend, ``offsets`` are standing.
        """
        self._withdrawn.update(offsets.tolist())
        found = self._table.find(key)
        theirs = np.flatnonzero(found.present & (found.first == offsets))
        self._table.assign((key[0][theirs], key[1][theirs]), at_offsets[theirs], np.full(len(theirs), _FREED))

    def advance(self, next_offset: int) -> None:
        """All raw offsets below are judged, whatever came of them."""
