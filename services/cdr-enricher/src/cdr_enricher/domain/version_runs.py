"""Versions sorted by entity and time, packed: what one lookup searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import U64, Ints, TextKey
from cdr_enricher.domain.packed import Packed

_PER_BUCKET = 2  # versions found by the upper bits of the key alone; the rest is bisected
_CHECK = np.uint64(0xFFFF)

Check = npt.NDArray[np.uint16]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Rows:
    """Versions in columns, in any order. ``check`` makes 80 bits of ``key``'s 64; ``own`` are texts of the body."""

    key: U64
    check: Check
    valid_from: Ints
    offset: Ints
    code: Ints
    own: tuple[pa.Array, ...]

    def __len__(self) -> int:
        return len(self.key)


class Run:
    """Versions in the order of (key, check, valid_from, offset), in about 20 bytes each and their own texts.

    Of versions with equal key and valid_from only that with the latest offset is kept: the others never answer.
    """

    __slots__ = ("_bits", "_starts", "check", "code", "key", "offset", "own", "valid_from")

    def __init__(self, parts: Sequence[Rows | Run]) -> None:
        # one column after the other: together, unpacked, they would take several times what is kept
        key = np.concatenate([part.key for part in parts])
        order = _order(key, parts)
        key = key.take(order)
        check = np.concatenate([part.check for part in parts]).take(order)
        valid_from = _ints([part.valid_from for part in parts]).take(order)
        again = (key[1:] == key[:-1]) & (check[1:] == check[:-1]) & (valid_from[1:] == valid_from[:-1])
        if again.any():
            last = np.flatnonzero(np.r_[~again, True])
            order, key, check, valid_from = order.take(last), key.take(last), check.take(last), valid_from.take(last)
        self.key: U64 = key
        self.check: Check = check
        self.valid_from: Packed = Packed.of(valid_from)
        del valid_from
        self.offset: Packed = Packed.of(_ints([part.offset for part in parts]).take(order))
        self.code: Packed = Packed.of(_ints([part.code for part in parts]).take(order))
        where = pa.array(order)
        self.own: tuple[pa.Array, ...] = tuple(
            pa.concat_arrays(columns).take(where) for columns in zip(*(part.own for part in parts), strict=True)
        )
        self._bits = max((len(key) // _PER_BUCKET).bit_length(), 1)
        firsts = np.arange(1 << self._bits, dtype=np.uint64) << np.uint64(64 - self._bits)
        self._starts = np.r_[np.searchsorted(key, firsts), len(key)].astype(np.uint32)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def nbytes(self) -> int:
        packed = (self.key, self.check, self._starts, self.valid_from, self.offset, self.code)
        return int(sum(column.nbytes for column in packed) + sum(column.nbytes for column in self.own))

    def latest(self, key: U64, check: Check, times: Ints) -> Ints:
        """The place of the last version of each key that began at or before each time, −1 where there is none."""
        bucket = (key >> np.uint64(64 - self._bits)).view(np.int64)
        low = self._starts.take(bucket).astype(np.int64)
        high = self._starts.take(bucket + 1).astype(np.int64)
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            before = self._not_after(middle, key, check, times) & (low < high)
            low = np.where(before, middle + 1, low)
            high = np.where(before, high, middle)
        place = low - 1
        # in an empty bucket, or below all of an entity's versions, it is another's
        same = (_take(self.key, place) == key) & (_take(self.check, place) == check)
        return np.where(same & (place >= 0), place, -1)

    def _not_after(self, place: Ints, key: U64, check: Check, times: Ints) -> Bools:
        found = _take(self.key, place)
        before: Bools = found < key
        equal = np.flatnonzero(found == key)
        if len(equal):
            at = place.take(equal)
            mine, wanted = _take(self.check, at), check.take(equal)
            early = self.valid_from.take(at) <= times.take(equal)
            before[equal] = (mine < wanted) | ((mine == wanted) & early)
        return before


def _take(values: npt.NDArray[_T], place: Ints) -> npt.NDArray[_T]:
    # clipping, a place before the first or after the last reads a neighbour: the caller knows
    return values.take(place, mode="clip")


def key_of(key: TextKey) -> tuple[U64, Check]:
    """The 80 bits of a text's hashes by which it is found."""
    return key[0], (key[1] & _CHECK).astype(np.uint16)


def _ints(columns: Sequence[Ints | Packed]) -> Ints:
    return np.concatenate([column.all() if isinstance(column, Packed) else column for column in columns])


def _order(key: U64, parts: Sequence[Rows | Run]) -> Ints:
    order: Ints = np.argsort(key, kind="stable")
    ordered = key.take(order)
    alike = ordered[1:] == ordered[:-1]
    if alike.any():
        # few entities have several versions: only those are put in order of the rest
        places = np.flatnonzero(np.r_[alike, False] | np.r_[False, alike])
        some = order.take(places)
        offset = _ints([part.offset for part in parts]).take(some)
        valid_from = _ints([part.valid_from for part in parts]).take(some)
        check = np.concatenate([part.check for part in parts]).take(some)
        order[places] = some.take(np.lexsort((offset, valid_from, check, key.take(some))))
    return order
