from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdr_enricher.domain import as_of_join
from cdr_enricher.domain.as_of_join import Combinations, Versions
from cdr_enricher.domain.hashing import text_key
from cdr_enricher.domain.packed import Packed

Row = tuple[str, int, dict[str, str] | None, int]
Make = Callable[..., Versions]


def frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [row[0] for row in rows],
            "valid_from": pl.Series([row[1] for row in rows], dtype=pl.Int64).cast(pl.Datetime("ms")),
            "deleted": [row[2] is None for row in rows],
            **{
                name: pl.Series([(row[2] or {}).get(name) for row in rows], dtype=pl.String)
                for name in ("owner", "region")
            },
        }
    )


def make(*batches: list[Row]) -> Versions:
    held = Versions("id", ("region",), ("owner",))
    for rows in batches:
        held.add(frame(rows), np.array([row[3] for row in rows], np.int64))
    return held


def ask(held: Versions, *questions: tuple[str | None, int]) -> list[str | None]:
    """The region each time; and the owner is always that of the same version."""
    body, known = held.as_of(
        text_key(pl.Series([question[0] for question in questions], dtype=pl.String)),
        np.array([question[1] for question in questions], np.int64),
    )
    assert body.columns == ["owner", "region"]
    regions: list[str | None] = body["region"].to_list()
    assert body["owner"].to_list() == [None if region is None else f"owner of {region}" for region in regions]
    assert known.tolist() == [region is not None for region in regions]
    return regions


@pytest.mark.parametrize("settled", [False, True])
def test_absorbed_versions_answer_as_if_they_had_been_added(settled: bool) -> None:
    old = [("a", 10, region("old"), 1), ("b", 10, region("b"), 2)]
    new = [("a", 10, region("same time, later"), 7), ("a", 5, region("before"), 8), ("b", 20, None, 9)]
    combinations = Combinations(("region",))
    held, later = (Versions("id", ("region",), ("owner",), combinations) for _ in range(2))
    for versions, rows in ((held, old), (later, new)):
        versions.add(frame(rows), np.array([row[3] for row in rows], np.int64))
        if settled:
            versions.settle()
    held.absorb(later)
    questions = [("a", 4), ("a", 7), ("a", 12), ("b", 15), ("b", 25)]
    assert ask(held, *questions) == ask(make(old, new), *questions) == [None, "before", "same time, later", "b", None]


def region(name: str) -> dict[str, str]:
    return {"region": name, "owner": f"owner of {name}"}


def plainly(rows: list[Row], entity: str | None, time: int) -> str | None:
    held = [row for row in rows if row[0] == entity and row[1] <= time]
    body = max(held, key=lambda row: (row[1], row[3]))[2] if held else None
    return body["region"] if body else None


def test_the_version_that_held_at_the_time_answers() -> None:
    held = make([("c", 10, region("north"), 0), ("c", 20, region("south"), 1)])
    assert ask(held, ("c", 9), ("c", 10), ("c", 19), ("c", 20), ("c", 99)) == [None, "north", "north", "south", "south"]


def test_unknown_ids_and_nulls_answer_nothing() -> None:
    held = make([("c", 10, region("north"), 0)])
    assert ask(held, ("d", 50), (None, 50), ("c", 50)) == [None, None, "north"]
    assert ask(make(), ("c", 5)) == [None]
    assert ask(make([]), ("c", 5)) == [None]


def test_a_deletion_ends_what_held_and_a_later_version_begins_again() -> None:
    held = make([("c", 10, region("north"), 0), ("c", 20, None, 1)], [("c", 30, region("east"), 2)])
    assert ask(held, ("c", 15), ("c", 25), ("c", 35)) == ["north", None, "east"]


def test_a_deletion_written_with_a_body_is_a_deletion() -> None:
    held = Versions("id", ("region",), ("owner",))
    held.add(frame([("c", 10, region("north"), 0)]).with_columns(deleted=pl.lit(True)), np.zeros(1, np.int64))
    assert ask(held, ("c", 15)) == [None]


def test_a_version_without_any_of_the_fields_that_are_held_is_known_all_the_same() -> None:
    held = make([("c", 10, {}, 0)])
    body, known = held.as_of(text_key(pl.Series(["c"])), np.array([10]))
    assert (body.row(0), known.tolist()) == ((None, None), [True])


def test_at_equal_times_the_later_offset_wins_in_any_order_of_arrival() -> None:
    early, late = ("c", 10, region("first"), 3), ("c", 10, region("second"), 8)
    for batches in ([early, late],), ([late, early],), ([early], [late]), ([late], [early]):
        assert ask(make(*batches), ("c", 10), ("c", 11)) == ["second", "second"]


def test_two_ids_whose_keys_begin_alike_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(texts: pl.Series) -> Any:
        key = text_key(texts)
        return np.zeros_like(key[0]), key[1]

    monkeypatch.setattr(as_of_join, "text_key", alike)
    rows: list[Row] = [(f"c{n % 7}", n % 5 * 10, region(f"r{n}"), n) for n in range(70)]
    held = make(rows[:50], rows[50:])
    questions = [(f"c{n}", time) for n in range(8) for time in (-1, 0, 15, 99)]
    key = text_key(pl.Series([question[0] for question in questions]))
    body, _ = held.as_of((np.zeros_like(key[0]), key[1]), np.array([question[1] for question in questions]))
    assert body["region"].to_list() == [plainly(rows, *question) for question in questions]


_rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(-3, 12),
        st.one_of(st.none(), st.sampled_from(["north", "south", "east"])),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(rows=_rows, order=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_any_order_of_arrival_cut_anyhow_answers_as_a_plain_search(
    rows: list[tuple[str, int, str | None]], order: random.Random, cuts: list[int]
) -> None:
    """Overlapping, repeated and out-of-order valid_from, deletions among them; the offset alone decides a tie."""
    versions: list[Row] = [
        (entity, time, None if name is None else region(name), offset)
        for offset, (entity, time, name) in enumerate(rows)
    ]
    arrived = order.sample(versions, len(versions))
    edges = [0, *sorted(cuts), len(arrived)]
    held = make(*(arrived[a:b] for a, b in itertools.pairwise(edges)))
    questions = [(entity, time) for entity in ("a", "b", "c", "d", "e", None) for time in range(-4, 14)]
    assert ask(held, *questions) == [plainly(versions, *question) for question in questions]


def test_many_versions_in_many_rounds_answer_as_a_plain_search_between_the_rounds() -> None:
    rng = random.Random(4)
    rows: list[Row] = [
        (f"c{rng.randrange(40)}", rng.randrange(60), None if rng.random() < 0.2 else region(f"r{offset}"), offset)
        for offset in range(900)
    ]
    held = make()
    start = 0
    while start < len(rows):
        stop = start + rng.choice((1, 1, 3, 200))
        held.add(frame(rows[start:stop]), np.arange(start, min(stop, len(rows))))
        start = stop
        questions = [(f"c{rng.randrange(45)}", rng.randrange(-5, 65)) for _ in range(30)]
        assert ask(held, *questions) == [plainly(rows[:start], *question) for question in questions]


def test_what_can_never_answer_is_not_kept() -> None:
    rows: list[Row] = [("c", 10, region(f"r{offset}"), offset) for offset in range(100)]
    held = make(rows[:60], rows[60:])
    assert ask(held, ("c", 10)) == ["r99"]
    assert held.count == 1


def test_combinations_are_numbered_once_nulls_among_them() -> None:
    combinations = Combinations(("a", "b"))
    first = pl.DataFrame({"a": ["x", None, "x"], "b": [None, None, "y"]}, schema={"a": pl.String, "b": pl.String})
    codes = combinations.codes(first)
    assert sorted(codes.tolist()) == [1, 2, 3]
    assert combinations.codes(first.reverse()).tolist() == codes[::-1].tolist()
    assert combinations.rows[codes].equals(first)


@pytest.mark.parametrize(
    ("values", "nbytes"),
    [
        ([], 0),
        ([7, 7, 7], 3),
        ([1_600_000_000_000 + day * 86_400_000 for day in range(300)], 600),
        ([0, 255 * 3], 2),
        ([-5, 1 << 40], 2),  # one step
        ([-5, 0, 1 << 40], 24),
        ([-(2**63), 2**63 - 1, 0], 24),
    ],
)
def test_packed_integers_are_what_they_were(values: list[int], nbytes: int) -> None:
    given_values = np.array(values, np.int64)
    packed = Packed.of(given_values)
    assert packed.all().tolist() == values
    assert packed.take(np.arange(len(values))[::-1].copy()).tolist() == values[::-1]
    assert packed.nbytes == nbytes


def test_a_run_takes_few_bytes_a_version() -> None:
    count = 20_000
    held = make([(f"k{n}", n % 400 * 86_400_000, region("r"), n) for n in range(count)])
    held.settle()
    assert held.nbytes / count < 40
