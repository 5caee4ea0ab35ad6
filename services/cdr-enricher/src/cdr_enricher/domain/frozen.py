"""The identities of one closed segment: arrays sorted by (event minute, identity), never changed again.

24 bytes an identity. A lookup reads a few pages of what lies on disk, and only of segments that hold the minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cdr_enricher.domain.hashing import U64, Ints, TextKey

U32 = npt.NDArray[np.uint32]

FREED = 1 << 32
"""In place of a content hash: the identity was stored, withdrawn, and is free again."""

ROW_BYTES = 24
_MINUTE_MS = 60_000
_MINUTE_BITS = 26  # to the year 2097; beyond it minutes share a place, which costs time and no exactness
_MINUTES = np.int64((1 << _MINUTE_BITS) - 1)
_PLACE_SHIFT = np.uint64(64 - _MINUTE_BITS)
_KEY_SHIFT = np.uint64(_MINUTE_BITS)
_FREED_BIT = np.uint32(1 << 31)
_HOUR = 60


def minutes_of(event_ms: Ints) -> Ints:
    """The minute that an event's identity is filed under, never negative."""
    minutes: Ints = (event_ms // _MINUTE_MS) & _MINUTES
    return minutes


def places_of(minutes: Ints, first_key: U64) -> U64:
    """What the arrays are sorted by: the minute, then the first bits of the identity."""
    places: U64 = (minutes.view(np.uint64) << _PLACE_SHIFT) | (first_key >> _KEY_SHIFT)
    return places


@dataclass(frozen=True, slots=True)
class Frozen:
    """``place`` ascends; ``second``: the second key; ``offset`` within the segment, its top bit set where the identity
    is free; ``content``: the content hash. ``release`` gives back what memory a mapped file takes."""

    place: U64
    second: U64
    offset: U32
    content: U32
    release: Callable[[], None] = field(default=lambda: None, compare=False)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def columns(self) -> tuple[U64, U64, U32, U32]:
        return self.place, self.second, self.offset, self.content

    @property
    def nbytes(self) -> int:
        return ROW_BYTES * len(self)

    def find(self, place: U64, second: U64) -> Ints:
        """The row of each identity, or −1."""
        rows = np.full(len(place), -1, np.int64)
        at = np.searchsorted(self.place, place)
        todo = np.arange(len(place))
        while len(todo):
            same = np.flatnonzero(self.place.take(at, mode="clip") == place)
            same = same[at.take(same) < len(self)]
            at, todo, place, second = at.take(same), todo.take(same), place.take(same), second.take(same)
            hit = self.second.take(at) == second
            rows[todo[hit]] = at[hit]
            # equal places of different identities are rare, and stand side by side
            on = np.flatnonzero(~hit)
            at, todo, place, second = at.take(on) + 1, todo.take(on), place.take(on), second.take(on)
        return rows

    def values(self, rows: Ints) -> tuple[Ints, Ints]:
        """The offset within the segment and the content hash, or FREED, of these rows."""
        offset = self.offset.take(rows)
        freed = (offset & _FREED_BIT) != 0
        content = self.content.take(rows).astype(np.int64)
        content[freed] = FREED
        return (offset & ~_FREED_BIT).astype(np.int64), content

    def hours(self) -> dict[int, int]:
        """The hours in which it has events, each with one bit per minute of it."""
        minutes = (self.place >> _PLACE_SHIFT).astype(np.int64)
        if not len(minutes):
            return {}
        return hours_of(minutes[np.concatenate(([True], minutes[1:] != minutes[:-1]))])


def hours_of(minutes: Ints) -> dict[int, int]:
    """Ascending, distinct minutes as hour → one bit per minute of it."""
    hours = minutes // _HOUR
    starts = np.flatnonzero(np.concatenate(([True], hours[1:] != hours[:-1])))
    bits = np.uint64(1) << (minutes % _HOUR).astype(np.uint64)
    return dict(zip(hours[starts].tolist(), np.bitwise_or.reduceat(bits, starts).tolist(), strict=True))


def freeze(key: TextKey, minutes: Ints, offset: Ints, content: Ints) -> Frozen:
    """The sorted form of a segment's entries; ``content`` may be FREED."""
    place = places_of(minutes, key[0])
    order = np.argsort(place)
    sorted_place = place.take(order)
    if (sorted_place[1:] == sorted_place[:-1]).any():
        order = np.lexsort((key[1], place))
        sorted_place = place.take(order)
    freed = content == FREED
    offsets = offset.astype(np.uint32)
    offsets[freed] |= _FREED_BIT
    contents = np.where(freed, 0, content).astype(np.uint32)
    return Frozen(sorted_place, key[1].take(order), offsets.take(order), contents.take(order))
