"""A hash table from 128-bit keys to two integers, probed for a whole batch at once.

It grows by a further, larger level, so nothing ever moves and no insert pauses the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cdr_enricher.domain.hashing import U64, Ints, TextKey

Bools = npt.NDArray[np.bool_]

_FIRST_CAPACITY = 1 << 12
_FULL = 0.5  # of the slots: beyond it probing gets long, and each step costs a small batch as much as a large one
_GROWTH = 4  # few levels: each is probed for every key
_ROW = 4  # key, key, value, value: half a cache line, read at once


@dataclass(slots=True)
class _Level:
    rows: U64
    count: int = 0

    @property
    def mask(self) -> np.uint64:
        return np.uint64(len(self.rows) - 1)

    def has_room_for(self, records: int) -> bool:
        return self.count + records <= len(self.rows) * _FULL


@dataclass(frozen=True, slots=True)
class Found:
    """``present[i]``: the key was there before this record, with the values ``first[i]`` and ``second[i]``."""

    present: Bools
    first: Ints
    second: Ints


class HashTable:
    """Keys are two 64-bit hashes, the first never 0. Owned by one holder, who alone inserts."""

    __slots__ = ("_levels", "_most")

    def __init__(self, expected: int = 0, most: int | None = None) -> None:
        """For about ``expected`` keys at first, and never more than ``most``."""
        self._most = most
        self._levels = [_level_for(max(expected, int(_FIRST_CAPACITY * _FULL)))]

    def __len__(self) -> int:
        return sum(level.count for level in self._levels)

    @property
    def nbytes(self) -> int:
        return sum(level.rows.nbytes for level in self._levels)

    def find(self, key: TextKey) -> Found:
        """Look a batch of keys up."""
        found = _nothing(len(key[0]))
        self._find_in(self._levels, *key, found)
        return found

    def find_or_insert(self, key: TextKey, first: Ints, second: Ints) -> Found:
        """Look a batch of keys up and insert what is new, as if one record came after the other.

        Of equal keys in one batch the earliest is inserted and the others find it. ``first`` must be unique in the
        batch and, like all values, not negative.
        """
        found = self.find(key)
        self.insert(key, first, second, np.flatnonzero(~found.present), found)
        return found

    def insert(self, key: TextKey, first: Ints, second: Ints, todo: Ints, found: Found) -> None:
        """Insert the records at ``todo``, whose keys are not in the table, as ``find_or_insert`` does."""
        if not self._levels[-1].has_room_for(len(todo)):
            wanted = _GROWTH * len(self._levels[-1].rows) * _FULL
            if self._most is not None:
                wanted = min(wanted, self._most - len(self))
            self._levels.append(_level_for(max(wanted, len(todo))))
        _insert(self._levels[-1], key, first, second, todo, found)

    def assign(self, key: TextKey, first: Ints, second: Ints) -> None:
        """Set the values of keys, whether they were there or not; of equal keys in one batch the earliest counts."""
        self.find_or_insert(key, first, second)
        for level in self._levels:
            if level.count:
                _overwrite(level, key, first, second)

    def rows(self) -> U64:
        """All entries, as rows of key, key, first and second."""
        return np.concatenate([level.rows[level.rows[:, 0] != 0] for level in self._levels])

    @staticmethod
    def _find_in(levels: list[_Level], first_key: U64, second_key: U64, found: Found) -> None:
        for level in reversed(levels):
            if level.count:
                _find(level, first_key, second_key, found)


def _nothing(count: int) -> Found:
    return Found(np.zeros(count, np.bool_), np.full(count, -1, np.int64), np.zeros(count, np.int64))


def _level_for(records: float) -> _Level:
    capacity = 1 << max(int(np.ceil(np.log2(max(records, 1) / _FULL))), 4)
    return _Level(np.zeros((capacity, _ROW), np.uint64))


def _take(found: Found, where: Ints, rows: U64) -> None:
    found.present[where] = True
    found.first[where] = rows[:, 2].view(np.int64)
    found.second[where] = rows[:, 3].view(np.int64)


def _at(level: _Level, slot: U64) -> U64:
    """The rows of these slots: ``take`` is six times faster than indexing."""
    rows: U64 = level.rows.take(slot.view(np.int64), axis=0)
    return rows


def _find(level: _Level, first_key: U64, second_key: U64, found: Found) -> None:
    slot = first_key & level.mask
    todo = np.arange(len(first_key))
    a, b = first_key, second_key
    step = 0
    while len(todo):
        rows = _at(level, slot)
        key = rows[:, 0]
        hit = (key == a) & (rows[:, 1] == b)
        if hit.any():
            hits = np.flatnonzero(hit)
            _take(found, todo.take(hits), rows.take(hits, axis=0))
        on = np.flatnonzero((key != 0) & ~hit)
        step += 1
        todo, a, b = todo.take(on), a.take(on), b.take(on)
        slot = (slot.take(on) + np.uint64(step)) & level.mask


def _overwrite(level: _Level, key: TextKey, first: Ints, second: Ints) -> None:
    new = np.stack((*key, first.view(np.uint64), second.view(np.uint64)), axis=1)[::-1]
    slot = new[:, 0] & level.mask
    step = 0
    while len(new):
        rows = _at(level, slot)
        hit = (rows[:, 0] == new[:, 0]) & (rows[:, 1] == new[:, 1])
        level.rows[slot[hit].view(np.int64)] = new[hit]
        on = np.flatnonzero((rows[:, 0] != 0) & ~hit)
        step += 1
        new = new.take(on, axis=0)
        slot = (slot.take(on) + np.uint64(step)) & level.mask


def _insert(level: _Level, key: TextKey, first: Ints, second: Ints, todo: Ints, found: Found) -> None:
    new = np.empty((len(todo), _ROW), np.uint64)
    new[:, 0], new[:, 1] = key[0].take(todo), key[1].take(todo)
    new[:, 2], new[:, 3] = first.take(todo).view(np.uint64), second.take(todo).view(np.uint64)
    slot = new[:, 0] & level.mask
    step = 0
    while len(todo):
        free = np.flatnonzero(_at(level, slot)[:, 0] == 0)
        if len(free):
            # equal slots: the last assignment stays, so going backwards the earliest record wins
            back = free[::-1]
            level.rows[slot.take(back).view(np.int64)] = new.take(back, axis=0)
        rows = _at(level, slot)
        same = (rows[:, 0] == new[:, 0]) & (rows[:, 1] == new[:, 1])
        mine = same & (rows[:, 2] == new[:, 2])
        level.count += int(np.count_nonzero(mine))
        other = np.flatnonzero(same & ~mine)
        if len(other):
            _take(found, todo.take(other), rows.take(other, axis=0))
        on = np.flatnonzero(~same)
        step += 1
        todo, new = todo.take(on), new.take(on, axis=0)
        slot = (slot.take(on) + np.uint64(step)) & level.mask
