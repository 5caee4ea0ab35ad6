"""The closed segments of one partition: which of their identities are still remembered, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cdr_enricher.domain.frozen import FREED, Frozen, hours_of, minutes_of, places_of
from cdr_enricher.domain.hash_table import Found
from cdr_enricher.domain.hashing import Ints, TextKey

_WIDE_HOURS = 4_096  # a segment with events of more hours than that is looked into always: its index would be large
_PAGES_BYTES = 1 << 16  # what a lookup may map, at most: Linux maps the pages around one that is touched
_HOUR = 60


@dataclass(frozen=True, slots=True)
class Remembered:
    """``last_stored_ms``: when the last record of this segment, or of one before it, arrived that was stored."""

    ids: Frozen
    last_stored_ms: int
    hours: Mapping[int, int]


class ClosedSegments:
    """Finds identities in closed segments, the newest entry of each. Segments come in ascending order."""

    __slots__ = ("_bits", "_by_hour", "_segments", "_touched", "_wide")

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._segments: dict[int, Remembered] = {}
        self._by_hour: dict[int, list[tuple[int, int]]] = {}
        self._wide: list[int] = []
        self._touched: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self._segments.values())

    def __contains__(self, segment: int) -> bool:
        return segment in self._segments

    @property
    def nbytes(self) -> int:
        return sum(segment.ids.nbytes for segment in self._segments.values())

    @property
    def touched_bytes(self) -> int:
        """An upper bound of what lookups have mapped into memory since ``release``."""
        return sum(min(count * _PAGES_BYTES, self._segments[at].ids.nbytes) for at, count in self._touched.items())

    def release(self) -> None:
        """Give back the memory of mapped files: what is needed again is mapped again."""
        for segment in self._touched:
            self._segments[segment].ids.release()
        self._touched.clear()

    def add(self, segment: int, ids: Frozen, last_stored_ms: int, hours: Mapping[int, int] | None = None) -> None:
        """Remember a segment that follows all others. ``hours``: its ``Frozen.hours``, if they are known already."""
        if not len(ids):
            return
        known = ids.hours() if hours is None else hours
        self._segments[segment] = Remembered(ids, last_stored_ms, known)
        if len(known) > _WIDE_HOURS:
            self._wide.append(segment)
            return
        for hour, minutes in known.items():
            self._by_hour.setdefault(hour, []).append((segment, minutes))

    def rehouse(self, segment: int, ids: Frozen) -> None:
        """The same identities, kept elsewhere."""
        old = self._segments[segment]
        self._segments[segment] = Remembered(ids, old.last_stored_ms, old.hours)

    def drop_before(self, horizon_ms: int) -> dict[int, int]:
        """Forget the segments whose last stored record arrived before ``horizon_ms``; say which, and how many ids."""
        dropped: dict[int, int] = {}
        for at in [at for at, segment in self._segments.items() if segment.last_stored_ms < horizon_ms]:
            segment = self._segments.pop(at)
            dropped[at] = len(segment.ids)
            self._touched.pop(at, None)
            if at in self._wide:
                self._wide.remove(at)
                continue
            for hour in segment.hours:
                left = [entry for entry in self._by_hour[hour] if entry[0] != at]
                if left:
                    self._by_hour[hour] = left
                else:
                    del self._by_hour[hour]
        return dropped

    def search(self, key: TextKey, event_ms: Ints, todo: Ints, found: Found) -> Ints:
        """Look for the records at ``todo``; note in ``found`` those held, and return the others."""
        if not self._segments or not len(todo):
            return todo
        minutes = minutes_of(event_ms.take(todo))
        hours = hours_of(np.unique(minutes))
        places = places_of(minutes, key[0].take(todo))
        second = key[1].take(todo)
        open_ = np.ones(len(todo), np.bool_)
        distinct = np.fromiter(hours, np.int64, len(hours))
        for segment, masks in self._to_visit(hours):
            if masks is None or masks == hours:
                here = np.flatnonzero(open_)
            else:
                held = np.array([masks.get(hour, 0) for hour in hours], np.uint64)
                mask = held.take(np.searchsorted(distinct, minutes // _HOUR))
                here = np.flatnonzero(open_ & ((mask >> (minutes % _HOUR).astype(np.uint64)) & np.uint64(1) != 0))
            if not len(here):
                continue
            ids = self._segments[segment].ids
            self._touched[segment] = self._touched.get(segment, 0) + len(here)
            rows = ids.find(places.take(here), second.take(here))
            hits = np.flatnonzero(rows >= 0)
            if not len(hits):
                continue
            at = here.take(hits)
            open_[at] = False
            offset, content = ids.values(rows.take(hits))
            held_now = np.flatnonzero(content != FREED)
            where = todo.take(at.take(held_now))
            found.present[where] = True
            found.first[where] = (segment << self._bits) + offset.take(held_now)
            found.second[where] = content.take(held_now)
        return todo[~found.present.take(todo)]

    def _to_visit(self, hours: Mapping[int, int]) -> list[tuple[int, dict[int, int] | None]]:
        """Segments with events in these minutes, the newest first, each with its minutes of these hours (None: all)."""
        visits: dict[int, dict[int, int] | None] = dict.fromkeys(self._wide)
        for hour, minutes in hours.items():
            for segment, held in self._by_hour.get(hour, ()):
                if held & minutes:
                    visits.setdefault(segment, {})[hour] = held & minutes  # type: ignore[index]
        return sorted(visits.items(), reverse=True)
