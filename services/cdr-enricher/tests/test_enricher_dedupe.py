from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from cdr_enricher.domain.dedupe import NO_OFFSET, Seen
from cdr_enricher.domain.hashing import ContentHash, TextKeys, identity_key

SCHEMA = {
    "text": pl.String(),
    "count": pl.Int64(),
    "ratio": pl.Float64(),
    "flag": pl.Boolean(),
    "at": pl.Datetime("ms"),
    "ext": pl.Map(pl.String(), pl.String()),
}


def keys(uids: list[str], times: list[int], holders: list[str]) -> tuple[np.ndarray, np.ndarray]:
    hashed = TextKeys("uid", "holder").of(pl.DataFrame({"uid": uids, "holder": holders}))
    return identity_key(hashed["uid"], np.array(times, np.int64), hashed["holder"])


def judge(seen: Seen, uids: list[str], first: int, contents: list[int] | None = None) -> tuple[list[int], list[bool]]:
    found = seen.judge(
        keys(uids, [5] * len(uids), ["s"] * len(uids)),
        np.full(len(uids), 5),
        np.arange(first, first + len(uids)),
        np.array(contents or [1] * len(uids), np.int64),
        np.zeros(len(uids), np.int64),
    )
    return found.first_offset.tolist(), found.conflict.tolist()


def test_a_record_is_never_its_own_duplicate() -> None:
    assert judge(Seen(), ["a", "b", "c"], 0)[0] == [NO_OFFSET] * 3


def test_repeats_name_the_first_offset_within_and_between_batches() -> None:
    seen = Seen()
    assert judge(seen, ["a", "b", "a", "a"], 10)[0] == [NO_OFFSET, NO_OFFSET, 10, 10]
    assert judge(seen, ["b", "c", "a", "c"], 14)[0] == [11, NO_OFFSET, 10, 15]
    assert len(seen) == 3


def test_the_same_identity_with_other_content_is_a_conflict_and_is_not_remembered() -> None:
    seen = Seen()
    assert judge(seen, ["a", "a", "a"], 0, [1, 2, 1]) == ([NO_OFFSET, 0, 0], [False, True, False])
    assert judge(seen, ["a", "a"], 3, [2, 1]) == ([0, 0], [True, False])


@pytest.mark.parametrize("other", [("v", 5, "s"), ("u", 6, "s"), ("u", 5, "t")])
def test_another_uid_time_or_subscriber_is_another_record(other: tuple[str, int, str]) -> None:
    uids, times, holders = (list(column) for column in zip(("u", 5, "s"), other, strict=True))
    found = Seen().judge(
        keys(uids, times, holders), np.array(times), np.arange(2), np.zeros(2, np.int64), np.zeros(2, np.int64)
    )
    assert found.first_offset.tolist() == [NO_OFFSET, NO_OFFSET]


@pytest.mark.parametrize("seed", range(4))
def test_fast_dedupe_agrees_with_a_plain_dict_on_random_input(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, plain, offset = Seen(), {}, 0
    for size in rng.integers(1, 6_000, 25).tolist():
        ids, contents = rng.integers(0, 40_000, size), rng.integers(0, 3, size)
        expected_first, expected_conflict = [], []
        for place, (uid, content) in enumerate(zip(ids.tolist(), contents.tolist(), strict=True)):
            first, held = plain.setdefault(uid, (offset + place, content))
            repeats = first != offset + place
            expected_first.append(first if repeats else NO_OFFSET)
            expected_conflict.append(repeats and held != content)
        assert judge(seen, [f"u{uid}" for uid in ids.tolist()], offset, contents.tolist()) == (
            expected_first,
            expected_conflict,
        )
        offset += size
    assert len(seen) == len(plain)


def test_the_table_stays_exact_when_many_keys_share_a_slot() -> None:
    seen = Seen()
    first = np.full(500, 1 << 20, np.uint64)
    second = np.arange(500, dtype=np.uint64)
    for start, expected in ((0, np.full(500, NO_OFFSET)), (500, np.arange(500))):
        zeros = np.zeros(500, np.int64)
        found = seen.judge((first, second), zeros, np.arange(start, start + 500), second.view(np.int64), zeros)
        assert found.first_offset.tolist() == expected.tolist()


def frame(**columns: list[object]) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    return pl.DataFrame({name: columns.get(name, [None] * height) for name in SCHEMA}, schema=SCHEMA)


def content(rows: pl.DataFrame) -> list[int]:
    return ContentHash(SCHEMA, SCHEMA).of(rows).tolist()


def test_the_content_hash_never_changes() -> None:
    rows = frame(
        text=["VOICE", None, "é"],
        count=[7, -1, None],
        ratio=[0.1, None, -2.5e300],
        flag=[True, False, None],
        at=[1_790_000_000_000, None, 0],
        ext=[{"a": "1", "b": "2"}, {}, {"k": ""}],
    )
    assert content(rows) == GOLDEN


GOLDEN = [1718479237, 260342520, 1099835803]


def test_equal_content_hashes_alike_whatever_stands_beside_it() -> None:
    together = content(frame(text=["a", None], count=[None, 3], ext=[{}, {"x": "y"}]))
    alone = content(frame(text=["a"])) + content(frame(count=[3], ext=[{"x": "y"}]))
    assert together == alone


def test_a_null_a_zero_and_an_empty_text_differ() -> None:
    hashes = content(
        frame(
            text=[None, "", None, None, None],
            count=[None, None, 0, None, None],
            flag=[None, None, None, False, None],
            ratio=[None, None, None, None, 0.0],
        )
    )
    assert len(set(hashes)) == 5


def test_the_order_of_a_maps_entries_and_the_sign_of_zero_do_not_count() -> None:
    one, other = content(frame(ext=[{"a": "1", "b": "2"}, {"b": "2", "a": "1"}], ratio=[0.0, -0.0]))
    assert one == other
    swapped = content(frame(ext=[{"a": "2", "b": "1"}], ratio=[0.0]))[0]
    assert swapped != one


def test_a_value_in_another_field_hashes_differently() -> None:
    fields = {"first": pl.Int64(), "second": pl.Int64()}
    rows = pl.DataFrame({"first": [1, None], "second": [None, 1]}, schema=fields)
    one, other = ContentHash(fields, fields).of(rows).tolist()
    assert one != other
    assert ContentHash(reversed(fields), fields).of(rows).tolist() == [one, other]
