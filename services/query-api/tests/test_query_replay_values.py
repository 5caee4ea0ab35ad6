"""What a replay begins with, how far it is and whether it may be shown, as plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from query_api import examples, models, models_generations
from query_api.domain.problems import Problem
from query_api.domain.replay_gate import Found, Limits, checks_of, failed_words
from query_api.domain.replay_progress import (
    Aggregated,
    Pace,
    Part,
    aggregated_of,
    costs_shown,
    progress_shown,
)
from query_api.domain.replay_request import Raw, require_anything, starts_of, wanted_of, within

SEGMENT = 1 << 20


def wanted(**body: Any) -> Any:
    return wanted_of(
        {"reason": "a test", "types": ["cdr"], **{name.rstrip("_"): value for name, value in body.items()}}
    )


def raw(low: int, end: int, at: int | None = None) -> Raw:
    return Raw({0: low}, {0: end}, {0: at})


def test_a_request_is_read_as_it_was_meant() -> None:
    assert wanted(from_="17").from_offset == 17
    assert wanted(from_=17).from_offset == 17
    assert wanted(from_="1788220800000").from_time == datetime(2026, 9, 1, tzinfo=UTC)
    assert wanted(from_="2026-09-01").from_time == datetime(2026, 9, 1, tzinfo=UTC)
    assert wanted(sample="6h", compare_only=True).sample == timedelta(hours=6)
    assert wanted_of({"reason": " why "}).types == ("cdr", "network")
    assert wanted(types=["network", "cdr"]).types == ("cdr", "network")
    assert wanted(from_="17", rules="x").words() == {"types": "cdr", "from": "17", "rules": "given"}


@pytest.mark.parametrize(
    ("body", "low", "end", "start"),
    [
        ({}, 0, 5, 0),
        ({"from": "7"}, 0, 9, 0),
        ({"from": str(3 * SEGMENT + 7)}, 0, 9 * SEGMENT, 3 * SEGMENT),
        # the border before it is gone: what was asked for is derived, and cannot be kept before
        ({"from": str(SEGMENT + 7)}, SEGMENT + 5, 9 * SEGMENT, SEGMENT + 7),
        # nothing was asked for: what lies before the border is another generation's
        ({}, SEGMENT + 5, 9 * SEGMENT, 2 * SEGMENT),
        ({}, SEGMENT + 5, SEGMENT + 50, SEGMENT + 5),
        ({"compare_only": True}, SEGMENT + 5, 9 * SEGMENT, SEGMENT + 5),
        ({"compare_only": True, "from": str(SEGMENT + 7)}, 0, 9 * SEGMENT, SEGMENT + 7),
    ],
)
def test_what_may_be_activated_begins_on_a_border(body: dict[str, Any], low: int, end: int, start: int) -> None:
    asked = wanted_of({"reason": "a test", "types": ["cdr"], **body})
    assert starts_of(asked, "cdr", raw(low, end), {}) == {0: start}


def test_a_time_finds_its_offset_by_partition() -> None:
    logs = Raw({0: 0, 1: 0}, {0: 9, 1: 4}, {0: 5, 1: None})
    asked = wanted(from_="2026-09-01", compare_only=True)
    assert starts_of(asked, "cdr", logs, {}) == {0: 5, 1: 4}


@pytest.mark.parametrize(
    ("body", "log", "first_ms", "code", "words"),
    [
        ({"from": "3"}, raw(4, 9), 1_788_220_800_000, "beyond_retention", r"cdr.raw\[0\]: offset 3 .* 2026-09-01T00"),
        ({"from": "10"}, raw(4, 9), None, "past_the_end", r"cdr.raw\[0\]: offset 10 .* it ends at 9"),
        ({"from": "2026-08-31"}, raw(4, 9, 4), 1_788_220_800_000, "beyond_retention", "there is 4 to 9"),
    ],
)
def test_a_beginning_that_is_not_there_is_refused_with_what_there_is(
    body: dict[str, Any], log: Raw, first_ms: int | None, code: str, words: str
) -> None:
    asked = wanted_of({"reason": "a test", "types": ["cdr"], **body})
    with pytest.raises(Problem, match=words) as caught:
        starts_of(asked, "cdr", log, {0: first_ms})
    assert caught.value.code == code


def test_a_time_since_which_nothing_arrived_is_refused_unless_another_type_has_something() -> None:
    asked = wanted_of({"reason": "a test", "from": "2026-09-01"})
    require_anything(asked, {"cdr": raw(0, 9, 5), "network": raw(0, 9)})
    with pytest.raises(Problem, match=r"cdr\.raw and network\.raw: 2026-09-01T.* nothing arrived since"):
        require_anything(asked, {"cdr": raw(0, 9), "network": raw(0, 9)})
    require_anything(wanted_of({"reason": "a test"}), {"cdr": raw(0, 0)})


def test_ends_taken_over_must_lie_behind_the_beginning() -> None:
    within({0: 5}, {0: 5}, "cdr", 2)
    with pytest.raises(Problem, match=r"cdr\.raw\[0\] would begin at 6, after generation 2's end 5"):
        within({0: 6}, {0: 5}, "cdr", 2)


def test_what_the_aggregator_commits_says_how_far_every_window_is() -> None:
    text = '{"v":1,"rules":"","next":900,"f":{"cell":[0,3,1,0,899],"subscriber_day":[0,3,1,0,499]}}'
    assert aggregated_of(text) == Aggregated(read=900, published=500)
    for other in (None, "", "{}", "[]", '{"v":2,"next":5,"f":{}}', '{"v":1,"next":null,"f":{}}', '{"v":1,"next":1}'):
        assert aggregated_of(other) is None


def part(stored: int, published: int, end: int | None = 10, start: int = 0) -> Part:
    return Part("cdr", 0, start, end, 12, 10, 10, published, stored)


def test_a_partition_is_through_once_all_windows_are_published() -> None:
    assert part(10, 10).through
    assert not part(10, 9).through
    assert not part(9, 10).through
    assert part(0, 0, end=None).through
    assert part(4, 0, end=4, start=4).through
    assert (part(9, 9).lag(False), part(9, 9).lag(True)) == (3, 1)


def test_progress_tells_the_time_that_is_left() -> None:
    pace = Pace()
    pace.note(0.0, 0)
    assert pace.per_second() is None
    for second in range(1, 200):
        pace.note(float(second), second * (10 if second < 100 else 20))
    assert pace.per_second() == pytest.approx(20)
    assert len(pace.seen) < 70
    shown = progress_shown([part(4, 4)], False, 2.0, False, {})
    assert (shown["done_ratio"], shown["seconds_left"], shown["records_per_second"]) == (0.4, 3, 2.0)
    empty = progress_shown([part(4, 0, end=4, start=4)], False, None, True, {})
    assert (empty["done_ratio"], empty["seconds_left"]) == (1.0, 0)
    first = progress_shown([part(4, 4, end=None)], False, None, True, {})
    assert (first["done_ratio"], first["seconds_left"]) == (None, None)


def test_costs_are_of_one_generation() -> None:
    rows = [
        {"generation": number, "table": table, "rows": 5, "bytes_on_disk": 100}
        for number in (1, 2)
        for table in ("fact_cdr_all", "judgement_all")
    ]
    found = costs_shown(rows, 2)
    assert (found["rows"], found["bytes_on_disk"], sorted(found["tables"])) == (
        10,
        200,
        ["fact_cdr_all", "judgement_all"],
    )


def test_the_gate_names_what_fails_with_value_and_limit() -> None:
    found = Found("cdr", (5, 100), (4, 80), (2, 80), 0, 0, 7)
    checks = checks_of(found, Limits(0.05, 0.01, 7))
    assert {check.check: check.passed for check in checks} == {
        "rejected_share": True,
        "rejected_rise": False,
        "books_unbalanced": True,
        "records_missing": True,
        "lag_records": True,
    }
    assert failed_words(checks) == "rejected_rise of cdr is 0.025 (limit 0.01)"
    empty = checks_of(Found("cdr", (0, 0), (0, 0), (0, 0), 0, 0, 0), Limits(0, 0, 0))
    assert all(check.passed for check in empty)


def test_examples_have_the_shape_that_the_document_promises() -> None:
    generation, progress = models_generations.Generation, models_generations.GenerationProgress
    for key, model in (
        (("GET", "/v1/generations"), list[generation]),  # type: ignore[valid-type]
        (("POST", "/v1/generations"), generation),
        (("GET", "/v1/generations/{n}"), progress),
        (("POST", "/v1/generations/{n}/activate"), models_generations.Activated),
        (("POST", "/v1/generations/rollback"), models_generations.Activated),
        (("DELETE", "/v1/generations/{n}"), generation),
    ):
        models.Answer[model].model_validate(examples.ANSWERS[key])
