"""What is known of batches before they are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from cdr_enricher.ahead import Ahead, Known, ReadAhead
from cdr_enricher.decode import Decoded
from cdr_enricher.domain.hashing import Ints
from cdr_enricher.errors import JudgedCut
from faust_batch import Batch, Source

P0, P1 = Source("raw", 0), Source("raw", 1)


def batch(first: int, count: int = 4, source: Source = P0) -> Batch:
    offsets = np.arange(first, first + count)
    return Batch(source, offsets, offsets, [b"k"] * count, [b"v"] * count, first + count, first + count, 1, count)


def known(of: Batch, *reverses: int | None) -> Known:
    records = pl.DataFrame({"reverses_offset": reverses}, {"reverses_offset": pl.Int64})
    return Known.of(of, Decoded(records, [], {}))


def test_reversals_name_each_offset_before_their_batch_once() -> None:
    found = known(batch(100), 40, None, 7, 40)
    assert found.named.tolist() == [7, 40]
    assert known(batch(100), 100, -3, None, 120).named.tolist() == []
    assert known(batch(100), None, None, None, None).named.tolist() == []


def test_only_what_was_judged_and_not_read_yet_is_to_be_read() -> None:
    found = known(batch(100), 7, 40, 90, None)
    assert found.before(90).tolist() == [7, 40]
    found.originals[7] = b"seven"
    assert found.before(1_000).tolist() == [40, 90]


def test_a_batch_is_taken_once_and_what_came_before_it_is_forgotten() -> None:
    ahead, first, second, again, other = Ahead(), batch(0), batch(4), batch(4), batch(0, source=P1)
    for each in (first, second, other):
        ahead.put(known(each, None))
    assert ahead.find(again) is None  # the same records, fetched anew
    assert ahead.find(second) is not None
    taken = ahead.take(second)
    assert taken is not None
    assert taken.batch is second
    assert ahead.find(first) is ahead.take(second) is None
    ahead.drop(P0)
    assert ahead.take(other) is not None


class Log:
    def read(self, src_offsets: Ints) -> list[bytes]:
        if 9 in src_offsets:
            raise JudgedCut("gone")
        return [b"%d" % src for src in src_offsets]


@pytest.mark.parametrize("wanted", [[], [3], [1, 2, 3], [2, 5]])
def test_what_was_not_read_ahead_is_read_when_it_is_needed(wanted: Sequence[int]) -> None:
    originals = ReadAhead({2: b"2", 5: b"5"}, Log())
    assert originals.read(np.array(wanted, np.int64)) == [b"%d" % src for src in wanted]
    with pytest.raises(JudgedCut):
        originals.read(np.array([*wanted, 9]))
