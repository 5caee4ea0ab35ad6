"""Long frames of sums are held compressed, in memory or on disk, and say the same."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from window_aggregator.domain.families import families
from window_aggregator.domain.held import PRESSED_FROM_ROWS, Held, keep_with
from window_aggregator.domain.held import _in_memory as in_memory
from window_aggregator.domain.levels import LONG_ROWS, Levels, Wanted, changed
from window_aggregator.shelf import Shelf

FAMILY = families()["quality"]
ROWS = 2 * LONG_ROWS


def sums(first: int, rows: int, touched: int) -> pl.DataFrame:
    """Quality by one source per window, of windows ``first`` and behind."""
    return pl.DataFrame({"window": range(first, first + rows)}).select(
        pl.lit(0, pl.Int32).alias("partition"),
        "window",
        *(pl.lit("x").cast(pl.Categorical).alias(name) for name in (*FAMILY.groups, "currency", "warning")),
        pl.lit(touched, pl.Int64).alias("touched"),
        *(pl.lit(1, pl.Int64).alias(name) for name in FAMILY.sums("cdr")),
    )


@pytest.fixture(params=["memory", "disk"])
def _place(request, tmp_path):
    keep_with(Shelf(tmp_path / "windows").put if request.param == "disk" else in_memory)
    yield
    keep_with(in_memory)


@pytest.mark.usefixtures("_place")
def test_a_long_frame_comes_back_as_it_was_with_its_labels_numbers():
    frame = sums(10, PRESSED_FROM_ROWS, 7).with_columns(
        source=pl.Series([f"s{n % 50}" for n in range(PRESSED_FROM_ROWS)], dtype=pl.Categorical)
    )
    numbers = frame["source"].to_physical()
    held = Held.of(frame)
    assert not isinstance(held.kept, pl.DataFrame)
    assert (held.windows, held.touched, held.height) == ((10, 9 + PRESSED_FROM_ROWS), (7, 7), PRESSED_FROM_ROWS)
    wanted = frame.clone()
    del frame
    assert_frame_equal(held.frame(), wanted)
    assert held.frame(["source"])["source"].to_physical().equals(numbers)
    again = Held.of_ipc(held.ipc())
    assert again is not None
    assert_frame_equal(again.frame(), wanted)


@pytest.mark.usefixtures("_place")
def test_windows_in_many_long_frames_are_emitted_whole_and_once_in_portions():
    levels = Levels()
    for touched in range(3):
        levels = levels.add(sums(touched * 10_000, ROWS, touched), FAMILY, "cdr")
    assert [held.height for held in levels.frames] == [ROWS] * 3
    portions = list(changed([Wanted(levels, 0)], FAMILY, "cdr", portion_rows=5_000))
    assert len(portions) > 10
    assert max(portion.height for portion in portions) < 10_000
    found = pl.concat(portions).sort("window")
    # what the first frame touched alone is not wanted; where it meets the others, it counts
    assert found["window"].to_list() == list(range(10_000, 20_000 + ROWS))
    both = [sum(start <= window < start + ROWS for start in (0, 10_000, 20_000)) for window in found["window"]]
    assert found["records"].to_list() == both
    counted = levels.counted(0, 10, FAMILY)
    assert counted.gathered == 10_000 + ROWS
    assert levels.counted(0, 3 * ROWS, FAMILY).gathered == 2 * ROWS


def test_what_nobody_holds_gives_its_disk_back(tmp_path):
    def open_files() -> int:
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            try:
                found += str(tmp_path) in os.readlink(entry)
            except OSError:
                continue
        return found

    shelf = Shelf(tmp_path, block_bytes=100)
    held = [shelf.put(bytes([number]) * 60) for number in range(5)]
    assert [read() for read in held] == [bytes([number]) * 60 for number in range(5)]
    assert open_files() == 5
    assert list(tmp_path.iterdir()) == []
    del held[:4]
    gc.collect()
    assert open_files() == 1


def test_what_the_disk_refuses_stays_in_memory(tmp_path):
    (tmp_path / "file").touch()
    assert Shelf(tmp_path / "file").put(b"sums")() == b"sums"
