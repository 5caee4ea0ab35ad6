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
_STARTS_AT_ONCE = 1 << 16

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

    def __init__(self, parts: list[Rows | Run]) -> None:
        """``parts`` is emptied: what it alone held is let go of on the way."""
        # one column after the other: together, unpacked, they would take several times what is kept
        given = _Columns(parts)
        parts.clear()
        key = np.concatenate(given.key)
        order = _order(key, given)
        given.key.clear()
        key = key.take(order)
        check = np.concatenate(given.check).take(order)
        given.check.clear()
        valid_from = _ints(given.valid_from).take(order)
        given.valid_from.clear()
        again = (key[1:] == key[:-1]) & (check[1:] == check[:-1]) & (valid_from[1:] == valid_from[:-1])
        if again.any():
            last = np.flatnonzero(np.r_[~again, True])
            order, key, check, valid_from = order.take(last), key.take(last), check.take(last), valid_from.take(last)
        del again
        self.key: U64 = key
        self.check: Check = check
        self.valid_from: Packed = Packed.of(valid_from)
        del valid_from
        self.offset: Packed = _packed(given.offset, order)
        self.code: Packed = _packed(given.code, order)
        where = pa.array(order)
        self.own: tuple[pa.Array, ...] = tuple(_taken(columns, where) for columns in given.own)
        del order, where
        self._bits = max((len(key) // _PER_BUCKET).bit_length(), 1)
        self._starts = _bucket_starts(key, self._bits)

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


class _Columns:
    """The parts, column by column."""

    def __init__(self, parts: Sequence[Rows | Run]) -> None:
        self.key = [part.key for part in parts]
        self.check = [part.check for part in parts]
        self.valid_from = [part.valid_from for part in parts]
        self.offset = [part.offset for part in parts]
        self.code = [part.code for part in parts]
        self.own = [list(columns) for columns in zip(*(part.own for part in parts), strict=True)]


def _packed(columns: list[Ints | Packed], order: Ints) -> Packed:
    values = _ints(columns)
    columns.clear()
    return Packed.of(values.take(order))


def _taken(columns: list[pa.Array], where: pa.Array) -> pa.Array:
    joined = pa.concat_arrays(columns)
    columns.clear()
    return joined.take(where)


def _bucket_starts(key: U64, bits: int) -> npt.NDArray[np.uint32]:
    """Where the keys with each value of the upper bits begin, and the end."""
    starts = np.empty((1 << bits) + 1, np.uint32)
    for begin in range(0, 1 << bits, _STARTS_AT_ONCE):
        firsts = np.arange(begin, min(begin + _STARTS_AT_ONCE, 1 << bits), dtype=np.uint64)
        starts[begin : begin + len(firsts)] = np.searchsorted(key, firsts << np.uint64(64 - bits))
    starts[-1] = len(key)
    return starts


def _ints(columns: Sequence[Ints | Packed]) -> Ints:
    return np.concatenate([column.all() if isinstance(column, Packed) else column for column in columns])


def _order(key: U64, given: _Columns) -> Ints:
    order: Ints = np.argsort(key, kind="stable")
    ordered = key.take(order)
    alike = ordered[1:] == ordered[:-1]
    if alike.any():
        # few entities have several versions: only those are put in order of the rest
        places = np.flatnonzero(np.r_[alike, False] | np.r_[False, alike])
        some = order.take(places)
        offset = _ints(given.offset).take(some)
        valid_from = _ints(given.valid_from).take(some)
        check = np.concatenate(given.check).take(some)
        order[places] = some.take(np.lexsort((offset, valid_from, check, key.take(some))))
    return order
