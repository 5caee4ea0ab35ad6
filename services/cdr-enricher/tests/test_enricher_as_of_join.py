from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from cdr_enricher.domain.as_of_join import NO_VERSION, Versions
from cdr_enricher.domain.hashing import text_key

Row = tuple[str, int, dict[str, str] | None, int]


@pytest.fixture
def make(versions: Callable[..., pl.DataFrame]) -> Callable[..., Versions]:
    def build(*batches: list[Row]) -> Versions:
        held = Versions("cell_id", ("region_id",))
        for rows in batches:
            held.add(
                versions("cell_id", *(row[:3] for row in rows), body=("region_id",)),
                np.array([r[3] for r in rows], np.int64),
            )
        return held

    return build


def ask(held: Versions, *questions: tuple[str | None, int]) -> list[str | None]:
    ids = pl.Series([question[0] for question in questions], dtype=pl.String)
    version = held.at(text_key(ids), np.array([question[1] for question in questions], np.int64))
    return held.bodies(version)["region_id"].to_list()


def region(name: str) -> dict[str, str]:
    return {"region_id": name}


def test_the_version_that_held_at_the_time_answers(make: Callable[..., Versions]) -> None:
    held = make([("c", 10, region("north"), 0), ("c", 20, region("south"), 1)])
    assert ask(held, ("c", 9), ("c", 10), ("c", 19), ("c", 20), ("c", 99)) == [None, "north", "north", "south", "south"]


def test_unknown_ids_and_nulls_answer_nothing(make: Callable[..., Versions]) -> None:
    held = make([("c", 10, region("north"), 0)])
    assert ask(held, ("d", 50), (None, 50), ("c", 50)) == [None, None, "north"]
    assert ask(make(), ("c", 5)) == [None]


def test_a_deletion_ends_what_held_and_a_later_version_begins_again(make: Callable[..., Versions]) -> None:
    held = make([("c", 10, region("north"), 0), ("c", 20, None, 1), ("c", 30, region("east"), 2)])
    assert ask(held, ("c", 15), ("c", 25), ("c", 35)) == ["north", None, "east"]
    version = held.at(text_key(pl.Series(["c", "c", "d"])), np.array([15, 25, 25]))
    assert held.deleted(version).tolist() == [False, True, False]
    assert version[2] == NO_VERSION


def test_at_equal_times_the_later_offset_wins_in_any_order_of_arrival(make: Callable[..., Versions]) -> None:
    early, late = ("c", 10, region("first"), 3), ("c", 10, region("second"), 8)
    for batches in ([early, late],), ([late, early],), ([early], [late]), ([late], [early]):
        assert ask(make(*batches), ("c", 10), ("c", 11)) == ["second", "second"]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_versions_gives_what_a_plain_search_gives(make: Callable[..., Versions], seed: int) -> None:
    rng = random.Random(seed)
    rows: list[Row] = [
        (f"c{rng.randrange(40)}", rng.randrange(60), None if rng.random() < 0.2 else region(f"r{offset}"), offset)
        for offset in range(900)
    ]

    def plainly(cell: str, time: int) -> str | None:
        held = [row for row in rows if row[0] == cell and row[1] <= time]
        body = max(held, key=lambda row: (row[1], row[3]))[2] if held else None
        return body["region_id"] if body else None

    questions = [(f"c{rng.randrange(45)}", rng.randrange(-5, 65)) for _ in range(600)]
    expected: list[Any] = [plainly(*question) for question in questions]
    for _ in range(3):
        rng.shuffle(rows)
        cuts = sorted(rng.sample(range(len(rows)), 12))
        batches = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        assert ask(make(*batches), *questions) == expected
