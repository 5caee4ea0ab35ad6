"""What was known of an entity at a time: all its versions, looked up for a whole batch at once.

A version is (valid_from, offset); it holds until the next one, and at equal valid_from the later offset wins. The
answer does not depend on the order in which versions came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from cdr_enricher.domain.hash_table import Bools, HashTable
from cdr_enricher.domain.hashing import Ints, TextKey, text_key

_T = TypeVar("_T", bound=np.generic)

NO_VERSION = 0
_CHUNKS = 8  # of the bodies, before they are joined into one: looking up in several is dearer


class Versions:
    """All versions of one kind of entity.

    Version 0 is "none": its body is all nulls. Each entity's versions hang on a chain, newest first, so adding never
    sorts or moves what is there; a lookup walks as many links as there are newer versions. ``add`` changes the value in
    place, as ``Seen``: its holder is the only one.
    """

    def __init__(self, id_field: str, body: Sequence[str]) -> None:
        self.id_field, self.body = id_field, tuple(body)
        self._entities = HashTable()
        self._entity_count = 1
        self._head = np.zeros(1024, np.int64)
        self._older = np.zeros(1024, np.int64)
        self._valid_from = np.full(1024, np.iinfo(np.int64).min)
        self._offset = np.full(1024, -1, np.int64)
        self._deleted = np.zeros(1024, np.bool_)
        self._bodies = pl.DataFrame({field: [None] for field in self.body}, schema=dict.fromkeys(self.body, pl.String))
        self.count = 0

    def add(self, versions: pl.DataFrame, offsets: Ints) -> None:
        """Add versions with their offsets: columns of the id field, ``valid_from``, ``deleted`` and the body's."""
        new = versions.height
        if not new:
            return
        self._reserve(self.count + 1 + new)
        numbers = np.arange(self.count + 1, self.count + 1 + new)
        self.count += new
        deleted = versions["deleted"].to_numpy()
        self._valid_from[numbers] = versions["valid_from"].to_physical().to_numpy()
        self._offset[numbers] = offsets
        self._deleted[numbers] = deleted
        empty = pl.Series(deleted)
        self._bodies = self._bodies.vstack(
            versions.select(pl.when(empty).then(None).otherwise(pl.col(f).cast(pl.String)).alias(f) for f in self.body)
        )
        if self._bodies.n_chunks() > _CHUNKS or new * _CHUNKS > self.count:
            self._bodies = self._bodies.rechunk()
        entities = self._numbered(text_key(versions[self.id_field]))
        # of one entity's versions only one at a time can be hung on its chain
        for wave in _waves(entities):
            self._hang(entities[wave], numbers[wave])

    def at(self, key: TextKey, times_ms: Ints) -> Ints:
        """The version that held at each time (``text_key`` of the ids), NO_VERSION where none did."""
        entities = self._entities.find(key)
        version = np.zeros(len(times_ms), np.int64)
        version[entities.present] = self._head[entities.first[entities.present]]
        walking = np.flatnonzero(self._valid_from[version] > times_ms)
        while len(walking):
            version[walking] = self._older[version[walking]]
            walking = walking[self._valid_from[version[walking]] > times_ms[walking]]
        return version

    def deleted(self, version: Ints) -> Bools:
        """Whether each version is a deletion."""
        return self._deleted[version]

    def bodies(self, version: Ints) -> pl.DataFrame:
        """The bodies of these versions; nulls for deletions and NO_VERSION."""
        return self._bodies[version]

    def _numbered(self, key: TextKey) -> Ints:
        proposed = np.arange(self._entity_count, self._entity_count + len(key[0]))
        found = self._entities.find_or_insert(key, proposed, np.zeros_like(proposed))
        self._entity_count += len(proposed)
        self._head = _grown(self._head, self._entity_count)
        return np.where(found.present, found.first, proposed)

    def _hang(self, entities: Ints, numbers: Ints) -> None:
        newer = np.zeros(len(numbers), np.int64)
        older = self._head[entities]
        walking = np.flatnonzero(self._before(numbers, older))
        while len(walking):
            newer[walking] = older[walking]
            older[walking] = self._older[older[walking]]
            walking = walking[self._before(numbers[walking], older[walking])]
        self._older[numbers] = older
        at_head = newer == 0
        self._head[entities[at_head]] = numbers[at_head]
        self._older[newer[~at_head]] = numbers[~at_head]

    def _before(self, one: Ints, other: Ints) -> Bools:
        mine, theirs = self._valid_from[one], self._valid_from[other]
        earlier = (mine < theirs) | ((mine == theirs) & (self._offset[one] < self._offset[other]))
        before: Bools = (other != NO_VERSION) & earlier
        return before

    def _reserve(self, size: int) -> None:
        self._older = _grown(self._older, size)
        self._valid_from = _grown(self._valid_from, size)
        self._offset = _grown(self._offset, size)
        self._deleted = _grown(self._deleted, size)


def _grown(values: npt.NDArray[_T], size: int) -> npt.NDArray[_T]:
    if size <= len(values):
        return values
    grown = np.zeros(max(size, len(values) * 3 // 2), values.dtype)
    grown[: len(values)] = values
    return grown


def _waves(entities: Ints) -> list[Ints]:
    """Indexes in groups in which every entity comes once, in input order."""
    order = np.argsort(entities, kind="stable")
    ordered = entities[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if len(starts) == len(entities):
        return [np.arange(len(entities))]
    rank = np.arange(len(entities)) - np.repeat(starts, np.diff(np.r_[starts, len(entities)]))
    by_rank = np.argsort(rank, kind="stable")
    return np.split(order[by_rank], np.flatnonzero(np.diff(rank[by_rank])) + 1)
