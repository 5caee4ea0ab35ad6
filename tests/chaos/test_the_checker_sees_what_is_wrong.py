"""The chaos run proves nothing unless its checker can fail: each defect put in by hand is seen, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from telestream_contracts import encode_payloads, encode_record, enriched_head, frame, load_schema

from . import aggregates
from .aggregates import FAMILIES, Truth, differences
from .check import Partition
from .faults import schedule
from .traffic import JUNK, RESENT, REVERSAL, Ints, Traffic

COUNT, RAW_ID, NOW_MS = 4_000, 7, 1_790_000_000_000
TRAFFIC = Traffic(5, NOW_MS, 1.0)
Log = list[tuple[bytes, bytes]]


def _raw() -> tuple[pl.DataFrame, list[bytes | None], Ints]:
    n = np.arange(COUNT)
    records = TRAFFIC.records(np.zeros(COUNT, np.int64), n)
    return records, TRAFFIC.values(records, RAW_ID), NOW_MS + 60_000 + n


def _judged() -> tuple[Log, list[bytes]]:
    """What a correct enricher writes: judged records and dead letters."""
    records, values, appended = _raw()
    carried = TRAFFIC.passed_on(records, RAW_ID)
    arrived = appended[np.where(records["kind"] == REVERSAL, records["target"], records["n"])]
    judged = TRAFFIC.judged(records).with_columns(
        content_hash=pl.lit(0, pl.Int64),
        appended_at=pl.Series(arrived).cast(pl.Datetime("ms")),
        warnings=pl.when(pl.col("warnings") == "").then([]).otherwise(pl.col("warnings").str.split(",")),
    )
    fields = [one["name"] for one in enriched_head("cdr")["fields"]]
    heads = encode_payloads(judged.select(fields), enriched_head("cdr"))
    keys = [who.encode() for who in records["subscriber_id"]]
    log = [
        (key, frame(9) + head + ((raw or b"")[5:] if kind != JUNK else b"empty"))
        for key, head, raw, kind in zip(keys, heads, carried, records["kind"], strict=True)
    ]
    letters = [
        encode_record(
            {
                **dict.fromkeys(("type", "src_topic", "reason"), ""),
                **dict.fromkeys(("field", "source", "batch_id", "line", "event_uid")),
                "src_partition": 0,
                "src_offset": at,
                "appended_at": int(appended[at]),
                "rule": judged["rule"][at],
                "rules_version": 1,
                "original": values[at] or b"",
            },
            load_schema("dead_letter"),
            8,
        )
        for at in np.flatnonzero((judged["verdict"] == "REJECTED").to_numpy()).tolist()
    ]
    return log, letters


def _check(log: Log, letters: list[bytes]) -> Partition:
    _, values, appended = _raw()
    check = Partition(TRAFFIC, 0, COUNT, RAW_ID)
    check.raw(np.arange(COUNT), appended, values)
    check.raw_end()
    for at in range(0, len(log), 1_000):
        part = log[at : at + 1_000]
        check.judged(np.arange(at, at + len(part)), [key for key, _ in part], [value for _, value in part])
    check.judged_end()
    check.dead_letters(letters)
    return check


def _counts(check: Partition) -> dict[str, int]:
    named = ("lost", "doubled", "invented", "misordered", "wrong", "wrong_raw", "wrong_dead_letters")
    return {name: getattr(check.found, name) for name in named if getattr(check.found, name)}


def test_what_is_right_passes_and_every_kind_of_record_is_in_it() -> None:
    log, letters = _judged()
    assert _counts(_check(log, letters)) == {}
    assert set(_raw()[0]["kind"]) == set(range(RESENT + 1))


def _swapped(log: Log) -> Log:
    return [*log[:50], log[51], log[50], *log[52:]]


def _of_another(log: Log) -> Log:
    key, value = log[60]
    return [*log[:60], (key, value[:-1] + bytes([value[-1] ^ 1])), *log[61:]]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda log: log[:1_999] + log[2_000:], {"lost": 1}),
        (lambda log: log[:-1], {"lost": 1}),
        (lambda log: [*log[:2_000], log[1_990], *log[2_000:]], {"doubled": 1}),
        (lambda log: [*log[:2_000], *log[1_000:]], {"doubled": 1_000}),
        (_swapped, {"misordered": 1}),
        (_of_another, {"wrong": 1}),
        (lambda log: [*log[:70], (b"another", log[70][1]), *log[71:]], {"wrong": 1}),
    ],
    ids=["lost", "lost at the end", "doubled", "a batch judged twice", "swapped", "other bytes", "other key"],
)
def test_each_defect_is_counted_once(spoil: Callable[[Log], Log], expected: dict[str, int]) -> None:
    log, letters = _judged()
    check = _check(spoil(log), letters)
    assert _counts(check) == expected
    assert check.found.said


def test_another_log_a_lost_dead_letter_and_another_judgement_are_seen() -> None:
    log, letters = _judged()
    assert _counts(_check(log, letters[:-1])) == {"wrong_dead_letters": 1}
    assert _counts(_check(log, [letters[1], letters[0], *letters[2:]])) == {"wrong_dead_letters": 2}
    other = Partition(replace(TRAFFIC, seed=6), 0, COUNT, RAW_ID)
    other.raw(np.arange(COUNT), _raw()[2], _raw()[1])
    assert other.found.wrong_raw > COUNT * 0.9


def test_a_missing_a_wrong_and_a_foreign_upsert_are_seen() -> None:
    records, _, appended = _raw()
    judged = TRAFFIC.judged(records).with_columns(appended_ms=pl.Series(appended))
    truth, without_one = Truth(), Truth()
    truth.add(judged[:1_000])
    truth.add(judged[1_000:])
    stored_at = int(np.flatnonzero((judged["verdict"] == "STORED").to_numpy())[10])
    without_one.add(judged.filter(pl.col("n") != stored_at))
    assert {family.topic for family in FAMILIES} == {"cell", "region", "plan", "quality", "subscriber_day"}
    for family in FAMILIES:
        right = truth.of(family).with_columns(of_other_types=pl.lit(0, pl.Int64))
        assert differences(truth.of(family), right, family) == (0, [])
        assert differences(truth.of(family), right[1:], family)[0] == 1
        assert differences(truth.of(family)[1:], right, family)[0] == 1
        changed = right.with_columns(pl.col(family.sums[0]) + (pl.int_range(pl.len()) == 3))
        assert differences(truth.of(family), changed, family)[0] == 1
        if family.topic == "quality":
            assert differences(truth.of(family), without_one.of(family).with_columns(of_other_types=0), family)[0] == 1


def test_the_same_seed_gives_the_same_faults_and_every_kind_of_them() -> None:
    faults = schedule(3, 1_200, 5, 2)
    assert faults == schedule(3, 1_200, 5, 2) != schedule(4, 1_200, 5, 2)
    assert len({fault.kind for fault in faults}) >= 6
    assert len({fault.kind for fault in schedule(3, 60, 5, 2)}) >= 6


def test_portions_of_upserts_are_compared_as_all_of_them_are(monkeypatch: pytest.MonkeyPatch) -> None:
    records, _, appended = _raw()
    truth = Truth()
    truth.add(TRAFFIC.judged(records).with_columns(appended_ms=pl.Series(appended)))
    family = FAMILIES[0]
    right = truth.of(family).with_columns(of_other_types=pl.lit(0, pl.Int64))
    monkeypatch.setattr(aggregates, "_PORTION", 100)
    monkeypatch.setattr(aggregates, "latest", lambda some, _: right[[int(one) for one in some]])

    def compared(*places: int) -> int:
        return aggregates.all_differences(truth.of(family), [b"%d" % place for place in places], family)[0]

    assert right.height > 300
    assert compared(*range(right.height)) == 0
    assert compared(*range(5, right.height)) == 5
    assert compared() == right.height
