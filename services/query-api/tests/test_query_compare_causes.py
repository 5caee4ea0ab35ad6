"""The cause of each difference, on small frames."""

from __future__ import annotations

import random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from query_api.compare_windows import agreement
from query_api.domain.compare import Cause, Grounds, Marks, Touched, changed_codes, explained, typed
from query_api.domain.compare_kpis import HOUR_MS, QUARTER_MS, Days
from query_api.domain.compare_tally import Reasons, Sums, slices
from telestream_domain.kpis import KPI
from telestream_domain.rule_changes import RuleChanges
from telestream_warehouse.compare_facts import compared_columns
from telestream_warehouse.compare_spans import Span

SPANS = [Span(0, 10, 1_000)]
_SUMS = {"duration_ms": 1_000, "bytes": 1, "charge_micros": 5, "currency": "EUR", "source": "msc-1"}


def verdict(offset: int, this: str, other: str, **more: Any) -> dict[str, Any]:
    """``this`` and ``other``: verdict and, behind a space, rule."""
    sides = {}
    for side, text in (("this", this), ("other", other)):
        name, _, rule = text.partition(" ")
        sides |= {f"{side}_verdict": name, f"{side}_rule": rule, f"{side}_original": None, f"{side}_there": 1}
    same = {"sign": 1, "booked_offset": offset, "booked_alike": 1, "values_alike": 1}
    return {"partition": 0, "offset": offset, **sides, **same, **_SUMS, **more}


def fact(offset: int, *columns: str, **more: Any) -> dict[str, Any]:
    bits = sum(1 << compared_columns("cdr").index(name) for name in columns)
    there = {"this_there": 1, "other_there": 1}
    return {"partition": 0, "offset": offset, **there, "region_id": "R1", "columns": bits, "codes": [], **_SUMS, **more}


def why(
    verdicts: list[dict[str, Any]], facts: list[dict[str, Any]], *, touched: Touched | None = None, **grounds: Any
) -> dict[int, str]:
    """Offset → cause, with the rule behind a space."""
    found = explained(
        typed(pl.DataFrame(verdicts, infer_schema_length=None), facts=False),
        typed(pl.DataFrame(facts, infer_schema_length=None), facts=True),
        Grounds("cdr", **{"this_began": {0: 10}, "other_began": {0: 0}, **grounds}),
        touched or Touched(SPANS),
    )
    return {row["offset"]: f"{row['cause']} {row['code']}".strip() for row in found.iter_rows(named=True)}


def test_a_rule_explains_what_it_rejects_or_no_longer_rejects() -> None:
    rows = [
        verdict(20, "REJECTED too_old", "STORED"),
        verdict(21, "STORED", "REJECTED too_old"),
        verdict(22, "REJECTED negative_value", "REJECTED too_old"),
        verdict(23, "REJECTED negative_value", "STORED"),
        verdict(24, "DUPLICATE", "REJECTED too_old", this_original=20),
    ]
    named = {
        20: "rule_changed too_old",
        21: "rule_changed too_old",
        22: "rule_changed too_old",
        24: "rule_changed too_old",
    }
    assert why(rows, [], changed=frozenset({"too_old"})) == {**named, 23: "unexplained"}
    # rules of another version may have changed in any way
    assert why(rows, [], rules_differ=True)[23] == "rule_changed negative_value"
    assert set(why(rows, []).values()) == {"unexplained"}


def test_what_is_judged_alike_differs_by_reference_data_or_warnings() -> None:
    facts = [
        fact(20, "customer_id", "plan_id", "roaming"),
        fact(21, "region_id"),
        fact(22, "warnings", codes=["voice_with_bytes"]),
        fact(23, "warnings", "region_id", codes=["too_old", "voice_with_bytes"]),
        fact(24, "local_date"),
        fact(25, "warnings", codes=["implausible_value"]),
        fact(26, this_there=0),
    ]
    found = why([], facts, changed=frozenset({"voice_with_bytes"}))
    assert found == {
        20: "reference_arrived",
        21: "reference_arrived",
        22: "rule_changed voice_with_bytes",
        23: "rule_changed voice_with_bytes",
        24: "unexplained",  # the time zone of the business is no reference data
        25: "unexplained",
        26: "unexplained",  # a fact that is missing
    }
    assert why([], facts[:1], pinned_below={0: 21}) == {20: "unexplained"}  # both judged with the same versions
    assert why([], facts[:1], pinned_below={0: 20}) == {20: "reference_arrived"}


def test_a_record_that_both_reject_may_be_warned_of_by_one() -> None:
    row = verdict(20, "REJECTED too_old", "REJECTED too_old")
    assert why([row], []) == {20: "unexplained"}
    assert why([row], [], changed=frozenset({"voice_with_bytes"})) == {20: "rule_changed"}


def test_what_is_repeated_or_taken_back_may_lie_before_the_start_or_differ_itself() -> None:
    rows = [
        verdict(20, "STORED", "DUPLICATE", other_original=9),  # before this one's start
        verdict(21, "REJECTED too_old", "STORED"),
        verdict(22, "STORED", "DUPLICATE", other_original=21),
        verdict(23, "STORED", "DUPLICATE", other_original=12),  # judged alike: nothing explains it
        verdict(24, "DUPLICATE conflict", "DUPLICATE", this_original=20, other_original=8),
        verdict(25, "DUPLICATE", "STORED", sign=-1, booked_offset=3),
        verdict(26, "DUPLICATE", "STORED", sign=-1, booked_offset=21),
        verdict(27, "DUPLICATE", "STORED", sign=-1, booked_offset=13),
        verdict(28, "DUPLICATE", "STORED", this_original=13),  # sent again after it was taken back in the other
    ]
    touched = Touched(SPANS)
    found = why(rows, [], touched=touched, changed=frozenset({"too_old"}))
    assert found == {
        20: Cause.ORIGINAL_BEFORE_START,
        21: "rule_changed too_old",
        22: Cause.FOLLOWS_FROM,
        23: Cause.UNEXPLAINED,
        24: Cause.ORIGINAL_BEFORE_START,
        25: Cause.ORIGINAL_BEFORE_START,
        26: Cause.FOLLOWS_FROM,
        27: Cause.REVERSAL,
        28: Cause.FOLLOWS_FROM,
    }
    # the next slice still knows
    assert why([verdict(500, "STORED", "DUPLICATE", other_original=23)], [], touched=touched) == {500: "follows_from"}


def test_a_lost_row_and_other_values_are_explained_by_nothing() -> None:
    rows = [
        verdict(20, "STORED", "", other_there=0),
        verdict(21, "STORED", "STORED", values_alike=0),
        verdict(22, "STORED", "STORED", booked_alike=0),
        verdict(23, "REJECTED too_old", "", other_there=0),
    ]
    assert set(why(rows, [], changed=frozenset({"too_old"})).values()) == {"unexplained"}


def test_a_bit_per_offset_remembers_what_differs() -> None:
    chance = np.random.default_rng(5)
    marks = Marks([Span(0, 100, 5_000), Span(3, 7, 8)])
    held = chance.choice(np.arange(100, 5_000), 700, replace=False)
    for part in np.array_split(held, 5):
        marks.mark(0, part)
    marks.mark(3, np.array([7]))
    marks.mark(0, np.array([3, 10**9]))
    asked = np.arange(0, 6_000)
    assert set(asked[marks.has(0, asked)].tolist()) == set(held.tolist())
    assert marks.has(3, np.array([7, 6])).tolist() == [True, False]
    assert not marks.has(9, np.array([1])).any()


def test_only_rules_that_are_not_the_same_in_both_are_changed() -> None:
    added = {
        "code": "long_call",
        "type": "cdr",
        "field": "duration_ms",
        "severity": "rejected",
        "when": "duration_ms > 5",
    }
    one = RuleChanges.from_json({"severities": {"too_old": "warn"}, "added": [{**added, "help": "Long."}]})
    two = RuleChanges.from_json({"severities": {"too_old": "warn"}, "added": [{**added, "help": "Longer."}]})
    three = RuleChanges.from_json({"added": [{**added, "when": "duration_ms > 6", "help": "Long."}]})
    assert changed_codes(one, two, "cdr") == frozenset()
    assert changed_codes(one, three, "cdr") == {"too_old", "long_call"}
    assert changed_codes(one, three, "network") == {"too_old"}
    assert changed_codes(one, RuleChanges.none(), "cdr") == {"too_old", "long_call"}


@pytest.mark.parametrize("most", [1, 7, 100, 10_000])
def test_slices_hold_every_offset_once_and_no_more_than_they_may(most: int) -> None:
    chance = random.Random(most)
    spans = [Span(partition, first := chance.randrange(50), first + chance.randrange(200)) for partition in range(5)]
    found = list(slices(spans, most))
    assert all(sum(map(len, piece)) <= most for piece in found)
    offsets = [(span.partition, offset) for piece in found for span in piece for offset in range(span.first, span.end)]
    assert offsets == [(span.partition, offset) for span in spans for offset in range(span.first, span.end)]


def test_samples_are_the_first_ten_over_all_slices() -> None:
    reasons = Reasons()
    for first in (100, 107, 300):
        rows = [verdict(first + n, "REJECTED too_old", "STORED") for n in range(7)]
        frame = typed(pl.DataFrame(rows, infer_schema_length=None), facts=False)
        grounds = Grounds("cdr", changed=frozenset({"too_old"}))
        reasons.add(explained(frame, typed(pl.DataFrame(), facts=True), grounds, Touched(SPANS)))
    [shown] = reasons.shown(of=2_100)
    assert (shown["records"], shown["share"], shown["rule"]) == (21, 0.01, "too_old")
    assert [sample["offset"] for sample in shown["samples"]] == [*range(100, 110)]
    assert shown["sums"]["charges"] == [{"currency": "EUR", "amount": "0.000105"}]


def test_windows_agree_differ_or_are_not_written_yet() -> None:
    books = {(0, 0): Sums(5), (0, 1): Sums(3)}
    assert agreement(books, dict(books), {0: 1})["agree"] is True
    assert agreement(books, {(0, 0): Sums(5), (0, 1): Sums(2)}, {0: 1})["agree"] is None
    assert agreement(books, {(0, 0): Sums(5), (0, 1): Sums(2)}, {})["agree"] is False
    behind = agreement(books, {(0, 0): Sums(4), (0, 1): Sums(4)}, {0: 1})
    assert (behind["agree"], behind["difference"]["records"]) == (False, 0)


def test_the_busiest_hour_of_a_local_day_ends_within_it() -> None:
    days = Days(ZoneInfo("Asia/Kolkata"))
    midnight = 1_788_201_000_000  # 2026-09-01T00:00 in Kolkata
    for quarter, held in ((0, 10), (1, 20), (40, 900_000), (43, 5), (95, 1_000_000)):
        days.add(
            {"quarter_ms": midnight + quarter * QUARTER_MS, "records": 1, "holding_ms": held, "attempts": 1}, "cdr"
        )
    [day] = days.sums
    assert day.isoformat() == "2026-09-01"
    assert days.shown(day, KPI["busy_hour_erlang"]).value == 1_000_000 / HOUR_MS
    assert days.shown(day, KPI["call_attempts"]).value == 5
    assert days.shown(day, KPI["traffic_erlang"]).den == 86_400_000
