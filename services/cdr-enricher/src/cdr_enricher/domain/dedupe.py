"""Which records repeat one that was stored before (I4).

The identities of the open segment stand in a hash table. When offset arithmetic closes the segment they are frozen into
sorted arrays, and go when its last stored record arrived before the horizon. Which offsets were stored, and which of
them are withdrawn, is kept as bits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from cdr_enricher.domain.bitmaps import pack, unpack
from cdr_enricher.domain.closed import ClosedSegments
from cdr_enricher.domain.frozen import FREED, Frozen, freeze, minutes_of
from cdr_enricher.domain.hash_table import Bools, Found, HashTable
from cdr_enricher.domain.hashing import Ints, TextKey
from telestream_domain import SEGMENT_BITS, cuts, segment_of, segment_start

NO_OFFSET = -1
DEDUP_HORIZON = timedelta(days=35)  # billing runs resend last month's files
_FIRST_IDS = 1 << 15
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Per record: the raw offset of the stored record it repeats, or NO_OFFSET; whether its content differs."""

    first_offset: Ints
    conflict: Bools

    @property
    def duplicate(self) -> Bools:
        duplicate: Bools = self.first_offset != NO_OFFSET
        return duplicate


@dataclass(frozen=True, slots=True)
class Closing:
    """What a segment leaves behind when it closes.

    ``stored``: its bits, packed. ``withdrawn``: the packed bits of every segment that its reversals touched.
    ``dropped``: segments whose identities went with it, and how many they were.
    """

    segment: int
    ids: Frozen
    stored: bytes
    last_stored_ms: int
    withdrawn: Mapping[int, bytes]
    dropped: Mapping[int, int]


@dataclass(slots=True)
class Past:
    """What closed segments left behind, in ascending order: enough to go on from where the last one closed.

    ``ids``: what is still remembered, with its segment's last arrival and, if they are known, its hours.
    """

    stored: dict[int, bytes] = field(default_factory=dict)
    withdrawn: dict[int, bytes] = field(default_factory=dict)
    ids: dict[int, tuple[Frozen, int, Mapping[int, int] | None]] = field(default_factory=dict)
    last_stored_ms: int = 0


class _Open:
    """The segment that is being judged."""

    __slots__ = ("minutes", "segment", "start", "stored", "table")

    def __init__(self, segment: int, bits: int) -> None:
        self.segment, self.start = segment, segment_start(segment, bits)
        self.table = HashTable(min(1 << bits, _FIRST_IDS), 1 << bits)
        self.stored: Bools = np.zeros(1 << bits, np.bool_)
        self.minutes: npt.NDArray[np.uint32] = np.zeros(1 << bits, np.uint32)

    def frozen(self) -> Frozen:
        rows = self.table.rows()
        offset, content = rows[:, 2].view(np.int64) - self.start, rows[:, 3].view(np.int64)
        return freeze((rows[:, 0], rows[:, 1]), self.minutes.take(offset).astype(np.int64), offset, content)


class Seen:
    """What is remembered of the stored records of one partition.

    Looking up and remembering are one step, and the old value is spent afterwards: a copy of the table per batch would
    cost more than all the rest. A round that fails ends the process, so nobody can see a half-told state.

    ``segment_bits`` and ``horizon`` belong to the generation: with others the same log is judged differently.
    """

    __slots__ = ("_bits", "_closed", "_closings", "_horizon_ms", "_last_stored_ms", "_open", "_past", "_touched")

    def __init__(
        self,
        segment_bits: int = SEGMENT_BITS,
        horizon: timedelta = DEDUP_HORIZON,
        past: Past | None = None,
        open_segment: int | None = None,
    ) -> None:
        self._bits, self._horizon_ms = segment_bits, horizon // _MS
        self._past = past or Past()
        self._last_stored_ms = self._past.last_stored_ms
        self._closed = ClosedSegments(segment_bits)
        for segment, (ids, last_stored_ms, hours) in self._past.ids.items():
            self._closed.add(segment, ids, last_stored_ms, hours)
        self._past.ids = {}
        self._open = None if open_segment is None else _Open(open_segment, segment_bits)
        self._touched: set[int] = set()
        self._closings: list[Closing] = []

    def __len__(self) -> int:
        return len(self._closed) + (len(self._open.table) if self._open else 0)

    @property
    def nbytes(self) -> int:
        """Of the identities, in memory or mapped."""
        return self._closed.nbytes + (self._open.table.nbytes if self._open else 0)

    @property
    def horizon(self) -> timedelta:
        return self._horizon_ms * _MS

    @property
    def withdrawn(self) -> Mapping[int, bytes]:
        """The packed withdrawn bits of every segment that has any."""
        return self._past.withdrawn

    @property
    def segment_bits(self) -> int:
        return self._bits

    @property
    def closed(self) -> ClosedSegments:
        return self._closed

    def advance(self, next_offset: int) -> None:
        """All raw offsets below are judged, whatever came of them: closes the segments that lie below."""
        if self._open is None:
            self._open = _Open(segment_of(next_offset, self._bits), self._bits)
        while segment_of(next_offset, self._bits) > self._open.segment:
            self._close(self._open)
            self._open = _Open(self._open.segment + 1, self._bits)

    def take_closings(self) -> list[Closing]:
        """The segments that closed since the last call: what they leave behind must be kept with the same round."""
        taken, self._closings = self._closings, []
        return taken

    def judge(self, key: TextKey, event_ms: Ints, offsets: Ints, content: Ints, appended_ms: Ints) -> Repeats:
        """Find the repeats in a batch, in input order, and remember the others as stored at their offsets.

        A record repeats one that was remembered before, or an earlier one of the same batch, never itself. ``key`` is
        ``identity_key``; only records that would otherwise be stored may be given, by ascending offset.
        """
        parts = [
            self._judge(
                open_,
                (key[0][part], key[1][part]),
                event_ms[part],
                offsets[part],
                content[part],
                appended_ms[part],
            )
            for open_, part in self._parts(offsets)
        ]
        if len(parts) == 1:
            return parts[0]
        return Repeats(
            np.concatenate([np.empty(0, np.int64), *(part.first_offset for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.conflict for part in parts)]),
        )

    def standing(self, offsets: Ints) -> Bools:
        """Whether the record at each raw offset was stored and not withdrawn since, however long ago."""
        standing = np.zeros(len(offsets), np.bool_)
        segments = offsets >> self._bits
        for segment in np.unique(segments).tolist():
            where = np.flatnonzero(segments == segment)
            bits = self._stored_bits(segment)
            if bits is not None:
                within = offsets[where] - segment_start(segment, self._bits)
                standing[where] = bits[within] & ~self._withdrawn_bits(segment)[within]
        return standing

    def withdraw(self, key: TextKey, event_ms: Ints, offsets: Ints, at_offsets: Ints) -> None:
        """The records at ``offsets`` are withdrawn by reversals judged ``at_offsets``: their identities are free again.

        ``key`` and ``event_ms`` are those of the records withdrawn; ``at_offsets`` ascend, ``offsets`` are standing.
        """
        for open_, part in self._parts(at_offsets):
            self._withdraw(open_, (key[0][part], key[1][part]), event_ms[part], offsets[part], at_offsets[part])

    def remember(self, key: TextKey, event_ms: Ints, offsets: Ints, content: Ints, appended_ms: Ints) -> None:
        """These records of the open segment were stored when they were judged: nothing is asked again.

        The reversals among them are told to ``withdraw`` afterwards, which gives what telling all in order gives.
        """
        for open_, part in self._parts(offsets):
            within = offsets[part] - open_.start
            open_.minutes[within] = minutes_of(event_ms[part])
            open_.stored[within] = True
            # backwards: of equal keys, one withdrawn and stored again, the latest counts
            latest = (key[0][part][::-1], key[1][part][::-1])
            open_.table.assign(latest, offsets[part][::-1], content[part][::-1])
            self._arrived(appended_ms[part])

    def _parts(self, offsets: Ints) -> Iterator[tuple[_Open, slice]]:
        """Ascending offsets, cut where segments end; segments close on the way."""
        if not len(offsets):
            return
        for _, first, last in cuts(int(offsets[0]), int(offsets[-1]), self._bits):
            begin, end = np.searchsorted(offsets, (first, last + 1)).tolist()
            if begin < end:
                self.advance(int(offsets[begin]))
                if self._open is None or self._open.segment != segment_of(int(offsets[begin]), self._bits):
                    raise ValueError(f"offset {int(offsets[begin])} lies in a closed segment")
                yield self._open, slice(begin, end)

    def _judge(
        self, open_: _Open, key: TextKey, event_ms: Ints, offsets: Ints, content: Ints, appended_ms: Ints
    ) -> Repeats:
        found = open_.table.find(key)
        freed = np.flatnonzero(found.present & (found.second == FREED))
        todo = self._closed.search(key, event_ms, np.flatnonzero(~found.present), found)
        open_.table.insert(key, offsets, content, todo, found)
        if len(freed):
            _take_again(open_.table, key, offsets, content, freed, found)
        repeats = Repeats(np.where(found.present, found.first, NO_OFFSET), found.present & (found.second != content))
        stored = np.flatnonzero(~found.present)
        within = offsets.take(stored) - open_.start
        open_.stored[within] = True
        open_.minutes[within] = minutes_of(event_ms.take(stored))
        self._arrived(appended_ms.take(stored))
        return repeats

    def _withdraw(self, open_: _Open, key: TextKey, event_ms: Ints, offsets: Ints, at_offsets: Ints) -> None:
        segments = offsets >> self._bits
        for segment in np.unique(segments).tolist():
            bits = self._withdrawn_bits(segment)
            bits[offsets[segments == segment] - segment_start(segment, self._bits)] = True
            self._past.withdrawn[segment] = pack(bits)
            self._touched.add(segment)
        found = open_.table.find(key)
        self._closed.search(key, event_ms, np.flatnonzero(~found.present), found)
        # what was stored again since, past the horizon, stays
        theirs = np.flatnonzero(found.present & (found.first == offsets) & (found.second != FREED))
        open_.minutes[at_offsets[theirs] - open_.start] = minutes_of(event_ms[theirs])
        freed = np.full(len(theirs), FREED, np.int64)
        open_.table.assign((key[0][theirs], key[1][theirs]), at_offsets[theirs], freed)

    def _arrived(self, appended_ms: Ints) -> None:
        if len(appended_ms):
            self._last_stored_ms = max(self._last_stored_ms, int(appended_ms.max()))

    def _stored_bits(self, segment: int) -> Bools | None:
        if self._open is not None and segment == self._open.segment:
            return self._open.stored
        packed = self._past.stored.get(segment)
        return None if packed is None else unpack(packed, 1 << self._bits)

    def _withdrawn_bits(self, segment: int) -> Bools:
        packed = self._past.withdrawn.get(segment)
        return np.zeros(1 << self._bits, np.bool_) if packed is None else unpack(packed, 1 << self._bits)

    def _close(self, open_: _Open) -> None:
        ids, stored = open_.frozen(), pack(open_.stored)
        withdrawn = {segment: self._past.withdrawn[segment] for segment in sorted(self._touched)}
        self._past.stored[open_.segment] = stored
        self._touched.clear()
        self._closed.add(open_.segment, ids, self._last_stored_ms)
        dropped = self._closed.drop_before(self._last_stored_ms - self._horizon_ms)
        self._closings.append(Closing(open_.segment, ids, stored, self._last_stored_ms, withdrawn, dropped))


def _take_again(table: HashTable, key: TextKey, offsets: Ints, content: Ints, freed: Ints, found: Found) -> None:
    """Of these records, whose identities are free again, the first of each is stored and the others repeat it."""
    again = (key[0].take(freed), key[1].take(freed))
    table.assign(again, offsets.take(freed), content.take(freed))
    now = table.find(again)
    found.present[freed] = now.first != offsets.take(freed)
    found.first[freed], found.second[freed] = now.first, now.second
