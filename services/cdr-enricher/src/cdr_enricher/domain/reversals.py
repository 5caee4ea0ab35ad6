"""Reversals: in which order a batch that holds some is judged, and which of them take effect.

A reversal reverses what was stored at the offset it names, under the uid it names, and still stands. Anything else is
a duplicate without effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cdr_enricher.domain.dedupe import NO_OFFSET, Repeats, Seen
from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import U64, Ints, TextKey
from telestream_domain import cuts


@dataclass(frozen=True, slots=True)
class Identities:
    """What tells records apart, at ascending raw ``offsets``."""

    offsets: Ints
    uid: TextKey
    key: TextKey
    event_ms: Ints

    def followed_by(self, later: Identities) -> Identities:
        """Both; all of ``later`` lies behind."""
        return Identities(
            np.concatenate((self.offsets, later.offsets)),
            _joined(self.uid, later.uid),
            _joined(self.key, later.key),
            np.concatenate((self.event_ms, later.event_ms)),
        )


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch. ``valid``: would be stored if it repeats nothing; ``reversal``: undoes what ``reverses`` names.

    No record is both; ``reverses`` means nothing where it is no reversal.
    """

    records: Identities
    content: Ints
    appended_ms: Ints
    valid: Bools
    reversal: Bools
    reverses: Ints

    def named_before(self) -> Ints:
        """The raw offsets before the batch that its reversals name, each once, ascending."""
        named = self.reverses[self.reversal]
        return np.unique(named[(named >= 0) & (named < self.records.offsets[0])])


def judge_in_order(arrived: Arrived, originals: Identities, seen: Seen) -> tuple[Repeats, Bools]:
    """The repeats among the records, and which reversals take effect.

    As if one record came after the other. ``originals``: of those offsets of ``named_before`` that stand.
    """
    records, count = arrived.records, len(arrived.records.offsets)
    known = originals.followed_by(records)
    repeats = Repeats(np.full(count, NO_OFFSET, np.int64), np.zeros(count, np.bool_))
    effective = np.zeros(count, np.bool_)
    for new, back in turns(arrived, seen.segment_bits):
        if len(new):
            found = seen.judge(
                _take(records.key, new),
                records.event_ms[new],
                records.offsets[new],
                arrived.content[new],
                arrived.appended_ms[new],
            )
            repeats.first_offset[new], repeats.conflict[new] = found.first_offset, found.conflict
        if len(back):
            effective[_withdraw(back, arrived, known, seen)] = True
    return repeats, effective


def turns(arrived: Arrived, segment_bits: int) -> Iterator[tuple[Ints, Ints]]:
    """The places of records to judge, and of reversals to judge after them; one turn after the other.

    Order matters only among records of one uid, so a turn takes of each uid the records up to its next reversal, and
    the reversals up to its next record. All of a turn lies in one segment.
    """
    offsets, uid, reversal = arrived.records.offsets, arrived.records.uid[0], arrived.reversal
    counting = arrived.valid | reversal
    for _, first, last in cuts(int(offsets[0]), int(offsets[-1]), segment_bits):
        begin, end = np.searchsorted(offsets, (first, last + 1)).tolist()
        here = begin + np.flatnonzero(counting[begin:end])
        if not len(here):
            continue
        turn = _turn_of(uid[here], reversal[here])
        by_turn = np.argsort(turn, kind="stable")
        for part in np.split(here[by_turn], np.flatnonzero(np.diff(turn[by_turn])) + 1):
            back = reversal[part]
            yield part[~back], part[back]


def _turn_of(uid: U64, reversal: Bools) -> Ints:
    """How often, for each record, a record of its uid has come after a reversal of it, itself included."""
    by_uid = np.argsort(uid, kind="stable")
    uid, reversal = uid[by_uid], reversal[by_uid]
    same = uid[1:] == uid[:-1]
    steps = np.concatenate(([0], np.cumsum(same & reversal[:-1] & ~reversal[1:])))
    begins = np.concatenate(([True], ~same))
    turn = np.empty(len(uid), np.int64)
    turn[by_uid] = steps - steps[begins][np.cumsum(begins) - 1]
    return turn


def _withdraw(back: Ints, arrived: Arrived, known: Identities, seen: Seen) -> Ints:
    """Those of the reversals at ``back`` that take effect, after it was told to ``seen``."""
    named = arrived.reverses[back]
    place = np.minimum(np.searchsorted(known.offsets, named), len(known.offsets) - 1)
    # its own offset and those ahead are not judged yet
    possible = (known.offsets[place] == named) & (named < arrived.records.offsets[back])
    for half in (0, 1):
        possible &= known.uid[half][place] == arrived.records.uid[half][back]
    back, place, named = back[possible], place[possible], named[possible]
    standing = seen.standing(named)
    back, place, named = back[standing], place[standing], named[standing]
    _, first = np.unique(named, return_index=True)
    first.sort()
    back, place, named = back[first], place[first], named[first]
    if len(back):
        seen.withdraw(_take(known.key, place), known.event_ms[place], named, arrived.records.offsets[back])
    return back


def _take(key: TextKey, where: Ints) -> TextKey:
    return key[0][where], key[1][where]


def _joined(first: TextKey, second: TextKey) -> TextKey:
    return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))
