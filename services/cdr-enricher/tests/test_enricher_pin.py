"""Which records are judged with pinned reference data depends on type, partition and offset alone."""

from __future__ import annotations

import numpy as np
import pytest

from cdr_enricher.pin import Pin
from faust_batch import Batch, Source

RAW = "telestream.cdr.raw"
PIN = Pin({"cdr": {0: 100, 1: 0}}, {"telestream.ref.cell": {0: 7}})


def batch(first: int, count: int, partition: int = 0) -> Batch:
    offsets = np.arange(first, first + count)
    keys: list[bytes | None] = [b"%d" % offset for offset in offsets]
    return Batch(Source(RAW, partition), offsets, offsets * 10, keys, list(keys), first + count, 500, 1, 0)


@pytest.mark.parametrize(
    ("first", "count", "parts"),
    [
        (90, 10, [(90, 99, True)]),
        (90, 11, [(90, 99, True), (100, 100, False)]),
        (99, 5, [(99, 99, True), (100, 103, False)]),
        (100, 5, [(100, 104, False)]),
    ],
)
def test_a_batch_is_cut_where_pinned_records_end(first: int, count: int, parts: list[tuple[int, int, bool]]) -> None:
    given = batch(first, count)
    found = PIN.parts("cdr", given)
    assert [(part.first_offset, part.last_offset, pinned) for part, pinned in found] == parts
    assert [value for part, _ in found for value in part.values] == given.values
    assert [key for part, _ in found for key in part.keys] == given.keys
    assert np.concatenate([part.timestamps_ms for part, _ in found]).tolist() == given.timestamps_ms.tolist()


def test_other_partitions_other_types_and_generations_without_a_reference_position_are_not_pinned() -> None:
    assert not PIN.holds("cdr", 1, 0)
    assert not PIN.holds("network", 0, 5)
    assert not Pin({"cdr": {0: 100}}).holds("cdr", 0, 5)
    assert (PIN.reference_end("telestream.ref.cell", 0), PIN.reference_end("telestream.ref.customer", 3)) == (7, 0)
