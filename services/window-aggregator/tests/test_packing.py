"""State is held narrow, and loses nothing by it."""

from __future__ import annotations

import polars as pl

from window_aggregator.domain.families import families
from window_aggregator.domain.measures import LABEL, group_type, merged, packed

CELL = families()["cell"]
ROWS = 3_000


def _rows(value: int, cell: str) -> pl.DataFrame:
    sums = {name: pl.Series([1] * ROWS, dtype=pl.Int32) for name in CELL.sums("cdr")}
    for name in ("duration_ms", "holding_ms", "bytes_up", "bytes_down", "charge_micros"):
        sums[name] = pl.Series([value] * ROWS, dtype=pl.Int64)
    return pl.DataFrame(
        {
            "partition": pl.Series([0] * ROWS, dtype=pl.Int32),
            "window": [n * 900_000 for n in range(ROWS)],
            "cell_id": pl.Series([cell] * ROWS, dtype=LABEL),
            "currency": pl.Series(["EUR"] * ROWS, dtype=LABEL),
            "touched": list(range(ROWS)),
            "event_end": list(range(ROWS)),
            "late_at": pl.Series([None] * ROWS, dtype=pl.Int64),
            **sums,
        }
    )


def test_packed_sums_that_outgrow_their_type_are_added_exactly():
    frames = [packed(_rows(value, "a"), CELL, "cdr") for value in (2**31 - 1, 2**31 - 1, 127, 2**60)]
    assert frames[0].schema["duration_ms"] == pl.Int32
    assert frames[0].schema["records"] == pl.Int8
    found = merged([*frames, *frames[:1]], CELL, "cdr")
    assert found.height == ROWS
    assert found["duration_ms"].unique().to_list() == [3 * (2**31 - 1) + 127 + 2**60]
    assert found["records"].unique().to_list() == [5]


def test_many_small_counts_do_not_overflow_their_narrow_type():
    frame = packed(_rows(100, "a").with_columns(window=pl.lit(0, pl.Int64)), CELL, "cdr")
    found = merged([frame] * 100, CELL, "cdr")
    assert found["records"].to_list() == [100 * ROWS]
    assert found["charge_micros"].to_list() == [100 * 100 * ROWS]


def test_packed_sums_take_less_than_half():
    rows, sums = _rows(100_000, "208-01-100017"), CELL.sums("cdr")
    assert packed(rows, CELL, "cdr").select(sums).estimated_size() < 0.5 * rows.select(sums).estimated_size()


def test_subscribers_are_no_labels():
    assert group_type("cell_id") == LABEL
    assert group_type("subscriber_id") == pl.String()
