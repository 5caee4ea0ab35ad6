"""Ranges, cursors, completeness, books and money: pure values."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.books import amount, holes, spans, total
from query_api.domain.cursors import Cursor, from_text, to_text
from query_api.domain.present import money
from query_api.domain.problems import Problem
from query_api.domain.progress import (
    HISTORY,
    Mark,
    Progress,
    Reach,
    complete_to_ms,
    freshest_ms,
    heard,
    noted,
    silent_sources,
)
from query_api.domain.ranges import dates_of, from_ms, instant, iso, range_of, to_ms, zone_of
from telestream_warehouse import Books, Sums

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 9, 1, 10, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-01", datetime(2026, 8, 31, 22, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 11, 30, 23, tzinfo=UTC)),
        ("2026-09-01T10:00:00Z", datetime(2026, 9, 1, 10, tzinfo=UTC)),
        ("2026-09-01T10:00:00+02:00", datetime(2026, 9, 1, 8, tzinfo=UTC)),
        ("2026-09-01T10:00:00 02:00", datetime(2026, 9, 1, 8, tzinfo=UTC)),
        ("1788257700123", datetime(2026, 9, 1, 10, 15, 0, 123000, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_local_date_an_instant_or_epoch_milliseconds(text: str, expected: datetime) -> None:
    assert abs(instant(text, PARIS, "from") - expected) < timedelta(microseconds=1000)


NOT_TIMES = ["", "now", "2026-9-1", "2026-09-01T10:00:00", "178825770012", "9" * 13, "2026-02-30", "'; DROP", "١" * 13]


@pytest.mark.parametrize("text", NOT_TIMES)
def test_what_is_not_a_time_is_refused_by_its_parameter(text: str) -> None:
    with pytest.raises(Problem) as refused:
        instant(text, PARIS, "to")
    assert (refused.value.status, refused.value.field) == (422, "to")
    assert not text or text not in refused.value.detail


def test_a_range_must_run_forward_and_not_too_far() -> None:
    found = range_of("2026-09-01", "2026-09-02", PARIS, NOW, DAY, DAY)
    assert found.end - found.start == DAY
    assert range_of(None, None, PARIS, NOW, DAY, DAY).end == NOW
    for start, end, field in (("2026-09-02", "2026-09-01", "to"), ("2026-08-01", "2026-09-01", "from")):
        with pytest.raises(Problem) as refused:
            range_of(start, end, PARIS, NOW, DAY, DAY)
        assert refused.value.field == field


def test_a_local_day_of_the_clock_change_has_25_hours() -> None:
    found = range_of("2026-10-25", "2026-10-26", PARIS, NOW, DAY, 2 * DAY)
    assert found.end - found.start == timedelta(hours=25)


def test_an_instant_within_a_day_takes_the_whole_local_day() -> None:
    found = dates_of("2026-09-01T23:30:00Z", "2026-09-03T00:30:00Z", PARIS, NOW, DAY, 10 * DAY)
    assert (found.start, found.end) == (date(2026, 9, 2), date(2026, 9, 4))
    assert dates_of("2026-09-01", "2026-09-03", PARIS, NOW, DAY, 10 * DAY).end == date(2026, 9, 3)


def test_a_zone_that_does_not_exist_is_refused() -> None:
    for name in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(Problem):
            zone_of(name)


@given(st.integers(946_684_800_000, 4_102_444_799_999))
def test_instants_keep_their_milliseconds(epoch_ms: int) -> None:
    assert to_ms(from_ms(epoch_ms)) == epoch_ms
    assert iso(from_ms(epoch_ms)).endswith(f".{epoch_ms % 1000:03d}Z")


@given(st.tuples(*[st.integers(0, 2**31)] * 2), st.tuples(*[st.integers(0, 2**63 - 1)] * 4))
def test_a_cursor_comes_back_as_it_was(generations: tuple[int, int], after: tuple[int, int, int, int]) -> None:
    assert from_text(to_text(Cursor(generations, after)), 4) == Cursor(generations, after)


def test_a_cursor_knows_which_types_its_list_is_of() -> None:
    cursor = Cursor.at({"network": 3}, (1,))
    assert cursor.of(["network"]) == {"network": 3}
    for others in (["cdr"], ["cdr", "network"]):
        with pytest.raises(Problem):
            cursor.of(others)


@given(st.text(max_size=60))
def test_what_is_not_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        from_text(text, 4)
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "bad_cursor", "cursor")


@given(st.integers(-(2**62), 2**62))
def test_money_is_exact_text(micros: int) -> None:
    text = pl.select(money(pl.lit(micros, pl.Int64)))[0, 0]
    assert text == amount(micros)
    whole, part = text.lstrip("-").split(".")
    assert (-1 if text[0] == "-" else 1) * (int(whole) * 10**6 + int(part)) == micros


def mark(offset: int, watermark: int | None, since: int = 0, end: int | None = None) -> Mark:
    return Mark(offset, offset if end is None else end, watermark, watermark, since)


def test_an_answer_is_as_complete_as_its_slowest_partition_that_it_includes() -> None:
    progress = noted(Progress(), [(("cdr", 0), mark(10, 100)), (("cdr", 0), mark(20, 200)), (("cdr", 1), mark(5, 150))])
    both = [("cdr", 0), ("cdr", 1)]
    assert complete_to_ms(progress, both, Reach(exact={("cdr", 0): 20, ("cdr", 1): 5})) == 150
    assert complete_to_ms(progress, both, Reach(exact={("cdr", 0): 19, ("cdr", 1): 9})) == 100
    assert complete_to_ms(progress, both, Reach(exact={("cdr", 0): 9, ("cdr", 1): 9})) is None
    assert complete_to_ms(progress, [*both, ("cdr", 2)], Reach(exact={("cdr", 0): 20, ("cdr", 1): 5})) is None
    assert freshest_ms(progress, both, Reach(exact={("cdr", 0): 20, ("cdr", 1): 5})) == 200


def test_a_source_that_is_silent_for_a_quarter_of_an_hour_is_named_until_it_is_gone() -> None:
    now = 10 * 86_400_000
    progress = heard(Progress(), [(("cdr", "msc-1"), now - 14 * 60_000), (("cdr", "msc-2"), now - 16 * 60_000)])
    progress = heard(progress, [(("cdr", "msc-3"), now - 3 * 86_400_000), (("network", "oss"), now - 3_600_000)])
    # another partition's mark, in which msc-2 was heard earlier
    progress = heard(progress, [(("cdr", "msc-2"), now - 30 * 60_000)])
    assert silent_sources(progress, ["cdr"], now) == [("cdr", "msc-2", now - 16 * 60_000)]
    assert [source for _, source, _ in silent_sources(progress, ["cdr", "network"], now)] == ["msc-2", "oss"]


def test_a_partition_without_a_record_delays_nobody() -> None:
    progress = noted(Progress(), [(("cdr", 0), mark(10, 100)), (("cdr", 1), mark(0, None))])
    assert complete_to_ms(progress, [("cdr", 0), ("cdr", 1)], Reach(exact={("cdr", 0): 10})) == 100


def test_records_that_publish_nothing_are_included_once_they_are_settled() -> None:
    progress = noted(Progress(), [(("cdr", 0), mark(10, 100, since=0)), (("cdr", 0), mark(12, 120, since=50))])
    behind = {("cdr", 0): 10}
    assert complete_to_ms(progress, [("cdr", 0)], Reach(behind, {("cdr", 0): 12}, settled_ms=49)) == 100
    assert complete_to_ms(progress, [("cdr", 0)], Reach(behind, {("cdr", 0): 12}, settled_ms=50)) == 120
    assert complete_to_ms(progress, [("cdr", 0)], Reach(behind, {("cdr", 0): 11}, settled_ms=50)) == 100


def test_a_mark_at_the_same_offset_moves_the_watermark_and_keeps_since_when() -> None:
    progress = noted(Progress(), [(("cdr", 0), mark(10, 100, since=1))])
    progress = noted(progress, [(("cdr", 0), mark(10, 130, since=9))])
    assert progress.marks["cdr", 0] == (mark(10, 100, since=1).__class__(10, 10, 130, 130, 1),)
    restarted = noted(progress, [(("cdr", 0), mark(3, 5))])
    assert [entry.next_offset for entry in restarted.marks["cdr", 0]] == [3]
    many = noted(progress, [(("cdr", 0), mark(offset, offset)) for offset in range(11, 3000)])
    assert len(many.marks["cdr", 0]) == HISTORY


def test_in_flight_is_what_lies_between_position_and_end() -> None:
    found = spans({0: 5, 1: 0}, {0: 8}, {0: 10, 1: 3})
    assert [(span.in_flight, span.judged) for span in found] == [(2, 3), (3, 0)]
    assert holes(found, {0: 3}) == []
    assert holes(found, {0: 2}) == [{"partition": 0, "judged_offsets": 3, "judged_rows": 2}]


def test_a_range_of_time_cuts_what_is_in_flight() -> None:
    found = spans({0: 0}, {0: 4}, {0: 10}, since={0: 6}, until={0: 9})
    assert [span.in_flight for span in found] == [3]
    assert [span.in_flight for span in spans({0: 0}, {0: 4}, {0: 10}, since={0: None}, until=None)] == [0]
    assert [span.in_flight for span in spans({0: 0}, {0: 4}, {0: 10}, since=None, until={0: 2})] == [0]


def test_hours_add_up() -> None:
    one = Books(Sums(2), Sums(1), Sums(), Sums(), Sums(1), Sums(), 0, {"too_old": 1})
    both = total([one, one])
    assert both.accepted.records == 4
    assert both.rejected_by_code == {"too_old": 2}
    assert both.balanced
