"""Distinct subscribers: what a sketch says, whatever order and portions its records came in."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from telestream_domain.sketch import STANDARD_ERROR, estimate, registers_and_ranks
from window_aggregator.domain.families import families
from window_aggregator.domain.measures import LABEL
from window_aggregator.domain.sketches import Entries, Sketch, entries, marks, of_windows, restored_entries

CELL = families()["cell"]
QUARTER_MS = 900_000


def _rows(subscribers: list[str], cell: str = "a", window: int = 0) -> pl.DataFrame:
    count = len(subscribers)
    return pl.DataFrame(
        {
            "partition": pl.Series([0] * count, dtype=pl.Int32),
            "window": pl.Series([window] * count, dtype=pl.Int64),
            "cell_id": pl.Series([cell] * count, dtype=LABEL),
            "subscriber_id": subscribers,
        }
    ).with_columns(mark=marks(pl.lit(True)))


def _sketch(rows: pl.DataFrame) -> Sketch:
    found = entries(rows, CELL, "cdr")
    assert found is not None
    return Sketch().add(found)


def _window(sketch: Sketch, rows: pl.DataFrame) -> tuple[list[int], list[int]]:
    registers, ranks = of_windows(rows[:1], CELL, {0: sketch})
    return registers[0].to_list(), ranks[0].to_list()


def test_register_and_rank_are_those_of_the_shared_definition():
    import polars_hash as plh

    names = [f"k1.{n}" for n in range(50_000)]
    frame = pl.DataFrame({"subscriber_id": names})
    hashes = frame.select(plh.col("subscriber_id").nchash.xxh3_64(seed=0)).to_series().to_numpy()
    registers, ranks = registers_and_ranks(hashes)
    found = frame.select(marks(pl.lit(True))).to_series().to_numpy().astype(np.int64)
    assert np.array_equal(found, registers * 64 + ranks)
    empty = pl.DataFrame({"it": [""]}).select(plh.col("it").nchash.xxh3_64(seed=0)).item()
    assert empty == 0x2D06800538D394C2  # of xxHash's own documentation


@pytest.mark.parametrize("count", [1, 40, 900, 2_600, 60_000])
def test_the_error_is_that_of_the_textbook(count):
    errors = []
    for trial in range(8):
        rows = _rows([f"k1.{trial}.{n}" for n in range(count)])
        registers, ranks = _window(_sketch(rows), rows)
        assert registers == sorted(set(registers))
        errors.append(estimate(ranks) / count - 1)
    assert np.sqrt(np.mean(np.square(errors))) < 1.8 * STANDARD_ERROR


def test_order_portions_and_repeats_change_nothing():
    rng = random.Random(4)
    names = [f"k1.{n % 3_000}" for n in range(6_000)]
    rows = pl.concat([_rows(names, cell, window * QUARTER_MS) for cell in "ab" for window in (1, 2)])
    whole = _sketch(rows)
    for _ in range(3):
        order = list(range(rows.height))
        rng.shuffle(order)
        shuffled, sketch, at = rows[order], Sketch(), 0
        while at < rows.height:
            size = rng.choice((1, 50, 2_000))
            sketch = sketch.add(entries(shuffled[at : at + size], CELL, "cdr"))
            at += size
        assert np.array_equal(sketch.values(), whole.values())
        assert np.array_equal(sketch.add(entries(rows, CELL, "cdr")).values(), whole.values())
    assert len(whole.values()) <= 4 * 1_024


def test_a_sketch_comes_back_from_its_upserts_and_from_its_rows():
    rows = pl.concat([_rows([f"k1.{n}" for n in range(2_000)], cell, QUARTER_MS) for cell in "ab"])
    sketch = _sketch(rows)
    registers, ranks = of_windows(rows.unique("cell_id"), CELL, {0: sketch})
    upserts = rows.unique("cell_id", maintain_order=False).with_columns(pl.col("cell_id").cast(pl.String))
    frame = rows.unique("cell_id")
    registers, ranks = of_windows(frame, CELL, {0: sketch})
    upserts = frame.select(
        "partition", pl.col("window").cast(pl.Datetime("ms", "UTC")).alias("window_start"), pl.col("cell_id")
    ).with_columns(registers, ranks)
    found = restored_entries(upserts, CELL, "cdr")
    assert found is not None
    assert np.array_equal(Sketch().add(found).values(), sketch.values())
    again = Sketch.of_rows([sketch.rows(rows["cell_id"].unique())])
    assert np.array_equal(again.values(), sketch.values())


def test_windows_that_an_entry_cannot_name_have_no_sketch():
    for window in (-QUARTER_MS, QUARTER_MS << 22):
        rows = _rows(["k1.a"], window=window)
        assert _window(_sketch(rows), rows) == ([], [])


def test_only_quarter_hours_count_subscribers_and_only_those_there_are(world, cdr):
    w = world()
    w.write(
        "cdr",
        0,
        [
            cdr(0, subscriber_id="k1.alice"),
            cdr(1, subscriber_id="k1.alice"),
            cdr(2, subscriber_id="k1.bob"),
            cdr(3, subscriber_kind="NONE", subscriber_id="its uid"),
            cdr(4, subscriber_id="k1.carol", verdict="DUPLICATE"),
            cdr(5, subscriber_id="k1.dave", sign=-1),
        ],
    )
    w.take_all()
    for (family, _), value in w.latest().items():
        if family in ("cell", "region", "plan"):
            assert len(value["subscriber_registers"]) == (2 if value["size_s"] == 900 else 0)
            assert estimate(value["subscriber_ranks"]) == pytest.approx(2 if value["size_s"] == 900 else 0, abs=0.01)


def test_entries_of_one_partition_are_kept_apart():
    both = Entries(np.array([5, 6], np.uint64), np.array([0, 3], np.int32))
    assert both.of_partition(3).values.tolist() == [6]
