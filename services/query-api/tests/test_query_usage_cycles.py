"""Bill cycles and allowances, worked by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.domain.usage_allowances import Terms, Version, allowances, day_in_force, days_held, share
from query_api.domain.usage_cycles import Cycle, bill_cycle_day, cycle_of, cycles, starts_of
from query_api.domain.usage_measures import explained

PARIS = ZoneInfo("Europe/Paris")
EVER = datetime(2299, 12, 31, tzinfo=UTC)


def paris(month: int, day: int, hour: int = 0, year: int = 2026) -> datetime:
    return datetime(year, month, day, hour, tzinfo=PARIS).astimezone(UTC)


def version(identifier: str, since: datetime, until: datetime, plan_id: str | None, **more: Any) -> Version:
    return Version(
        identifier,
        more.get("kind", "MSISDN"),
        since,
        until,
        more.get("mine", True),
        plan_id,
        more.get("bill_cycle_day"),
        more.get("event", identifier),
    )


def terms(
    plan_id: str, voice: int | None, sms: int | None, data: int | None, since: datetime, until: datetime
) -> Terms:
    allowed = {"voice_allowance_s": voice, "sms_allowance": sms, "data_allowance_bytes": data}
    return Terms(plan_id, since, until, f"Plan {plan_id}", allowed)


def used(subscriber_id: str, plan_id: str, **more: Any) -> dict[str, Any]:
    blank = {"duration_ms": 0, "sms_segments": 0, "bytes_up": 0, "bytes_down": 0}
    return {"subscriber_id": subscriber_id, "plan_id": plan_id, "roaming": "HOME", "direction": "MO", **blank, **more}


@pytest.mark.parametrize(
    ("on", "day", "start", "end"),
    [
        ("2026-02-27", 31, "2026-01-31", "2026-02-28"),
        ("2026-02-28", 31, "2026-02-28", "2026-03-31"),
        ("2028-02-28", 31, "2028-01-31", "2028-02-29"),
        ("2028-02-29", 31, "2028-02-29", "2028-03-31"),
        ("2026-03-30", 31, "2026-02-28", "2026-03-31"),
        ("2026-04-30", 31, "2026-04-30", "2026-05-31"),
        ("2026-02-28", 30, "2026-02-28", "2026-03-30"),
        ("2026-01-01", 1, "2026-01-01", "2026-02-01"),
        ("2026-01-14", 15, "2025-12-15", "2026-01-15"),
        ("2026-12-15", 15, "2026-12-15", "2027-01-15"),
    ],
)
def test_a_cycle_starts_on_its_day_or_on_the_last_of_a_shorter_month(on: str, day: int, start: str, end: str) -> None:
    assert cycle_of(date.fromisoformat(on), day) == Cycle(date.fromisoformat(start), date.fromisoformat(end))


@given(st.dates(date(2000, 1, 1), date(2099, 1, 1)), st.integers(1, 31), st.integers(1, 800))
def test_cycles_of_a_range_follow_each_other_and_cover_it(since: date, day: int, days: int) -> None:
    until = since + timedelta(days=days)
    found = cycles(since, until, day)
    assert found[0].start <= since < found[0].end
    assert found[-1].start < until <= found[-1].end
    assert all(one.end == following.start for one, following in pairwise(found))
    assert all(28 <= cycle.days <= 31 for cycle in found)


def test_steps_are_days_months_cycles_or_all() -> None:
    since, until = date(2026, 1, 20), date(2026, 3, 2)
    assert starts_of("day", since, until) is None
    assert starts_of("month", since, until) == [since, date(2026, 2, 1), date(2026, 3, 1)]
    assert starts_of("total", since, until) == [since]
    whole = cycles(since, until, 31)
    assert starts_of("bill_cycle", whole[0].start, whole[-1].end, whole) == [
        date(2025, 12, 31),
        date(2026, 1, 31),
        date(2026, 2, 28),
    ]


def test_the_cycle_day_is_the_newest_in_force_and_the_first_without_one() -> None:
    now = paris(9, 1)
    old = version("s1", paris(1, 1), paris(6, 1), "A", bill_cycle_day=5)
    new = version("s1", paris(6, 1), EVER, "A", bill_cycle_day=20)
    coming = version("s1", paris(10, 1), EVER, "A", bill_cycle_day=9)
    assert day_in_force([old, new, coming], now) == 20
    assert day_in_force([version("s1", paris(1, 1), EVER, "A")], now) == 1
    assert bill_cycle_day([None, 20, 7]) == 7


def test_a_plan_change_in_mid_cycle_splits_the_allowance_by_days_and_usage_by_event() -> None:
    cycle = cycle_of(date(2026, 9, 10), 1)
    versions = [version("s1", paris(1, 1), paris(9, 11, 15), "A"), version("s1", paris(9, 11, 15), EVER, "B")]
    plans = [
        terms("A", 3_000, 100, 3_000_000, paris(1, 1), EVER),
        terms("B", None, 50, 9_000_000, paris(1, 1), EVER),
    ]
    usage = pl.DataFrame(
        [
            used("s1", "A", duration_ms=900_500, sms_segments=40, bytes_up=1, bytes_down=2),
            used("s1", "B", duration_ms=60_000, sms_segments=10, bytes_down=500),
        ]
    )
    a, b = allowances(usage, versions, plans, cycle, PARIS)
    # 10 of 30 days; the day of the change counts for the plan held last on it
    assert (a["plan_id"], a["days_held"], b["days_held"], a["days_in_cycle"]) == ("A", 10, 20, 30)
    assert a["voice"] == {"used": 900.5, "allowance": 1_000, "left": 99.5, "over": 0, "unlimited": False}
    # 33.3 messages are rounded up
    assert a["sms"] == {"used": 40, "allowance": 34, "left": 0, "over": 6, "unlimited": False}
    assert a["data"] == {"used": 3, "allowance": 1_000_000, "left": 999_997, "over": 0, "unlimited": False}
    assert b["voice"] == {"used": 60, "allowance": None, "left": None, "over": None, "unlimited": True}
    assert b["sms"]["allowance"] == 34
    assert b["data"]["left"] == 6_000_000 - 500


def test_only_what_the_subscriber_did_at_home_counts_and_data_both_ways() -> None:
    cycle = cycle_of(date(2026, 9, 10), 1)
    plans = [terms("A", 600, 10, 1_000, paris(1, 1), EVER)]
    lines = [
        used("s1", "A", roaming=roaming, direction=direction, duration_ms=1_000, sms_segments=1, bytes_up=1)
        for roaming in ("HOME", "NATIONAL", "UNKNOWN", "OUTBOUND", "INBOUND")
        for direction in ("MO", "FORWARDED", "", "MT", "TRANSIT")
    ]
    (row,) = allowances(pl.DataFrame(lines), [version("s1", paris(1, 1), EVER, "A")], plans, cycle, PARIS)
    assert (row["voice"]["used"], row["sms"]["used"], row["data"]["used"]) == (9, 9, 15)


def test_a_cycle_with_a_change_of_clock_counts_local_days() -> None:
    cycle = cycle_of(date(2026, 3, 29), 29)
    versions = [version("s1", paris(1, 1), paris(3, 30), "A"), version("s1", paris(3, 30), EVER, "B")]
    held = days_held(versions, cycle, PARIS)
    assert held["s1", "A"] == [date(2026, 3, 29)]
    assert len(held["s1", "B"]) == cycle.days - 1
    autumn = cycle_of(date(2026, 10, 25), 25)
    late = [version("s1", datetime(2026, 10, 25, 22, 30, tzinfo=UTC), EVER, "A")]
    assert days_held(late, autumn, PARIS)["s1", "A"][0] == date(2026, 10, 25)


def test_an_imsi_named_beside_a_number_is_the_same_subscription() -> None:
    cycle = cycle_of(date(2026, 9, 10), 1)
    versions = [
        version("i1", paris(1, 1), EVER, "A", kind="IMSI", event="crm/1/1"),
        version("s1", paris(1, 1), EVER, "A", event="crm/1/1"),
        version("i2", paris(9, 16), EVER, "A", kind="IMSI", event="crm/1/2"),
    ]
    plans = [terms("A", 600, 10, 1_000, paris(1, 1), EVER)]
    usage = pl.DataFrame([used("s1", "A", sms_segments=2), used("i1", "A", sms_segments=3)])
    two, one = allowances(usage, versions, plans, cycle, PARIS)
    assert (one["subscriber_id"], one["sms"]["used"], one["sms"]["allowance"]) == ("s1", 5, 10)
    assert (two["subscriber_id"], two["days_held"], two["sms"]["allowance"]) == ("i2", 15, 5)


def test_terms_are_those_of_the_first_day_held_and_unknown_ones_are_not_unlimited() -> None:
    cycle = cycle_of(date(2026, 9, 10), 1)
    plans = [
        terms("A", 300, 1, 1, paris(1, 1), paris(9, 10)),
        terms("A", 900, 9, 9, paris(9, 10), EVER),
    ]
    stayed = [version("s1", paris(1, 1), EVER, "A")]
    assert allowances(pl.DataFrame(), stayed, plans, cycle, PARIS)[0]["voice"]["allowance"] == 300
    came = [version("s1", paris(9, 16), EVER, "A")]
    assert allowances(pl.DataFrame(), came, plans, cycle, PARIS)[0]["voice"]["allowance"] == 450
    usage = pl.DataFrame([used("s1", "", sms_segments=2), used("s1", "Z", sms_segments=1)])
    shown = {row["plan_id"]: row for row in allowances(usage, stayed, plans, cycle, PARIS)}
    for unknown in ("", "Z"):
        assert (shown[unknown]["sms"]["allowance"], shown[unknown]["sms"]["unlimited"]) == (None, False)
        assert shown[unknown]["days_held"] == 0


def test_days_of_another_holder_count_nothing() -> None:
    cycle = cycle_of(date(2026, 9, 10), 1)
    versions = [
        version("s1", paris(1, 1), paris(9, 6), "A"),
        version("s1", paris(9, 6), EVER, "A", mine=False),
    ]
    assert len(days_held(versions, cycle, PARIS)["s1", "A"]) == 5


@given(st.integers(0, 10**15), st.lists(st.integers(1, 31), min_size=1, max_size=5))
def test_shares_of_a_cycle_never_add_up_to_less_than_the_whole(allowance: int, days: list[int]) -> None:
    total = sum(days)
    shares = [share(allowance, part, total) for part in days]
    assert allowance <= sum(shares) < allowance + len(days)


def test_every_number_of_a_row_has_unit_and_formula() -> None:
    assert all(row["unit"] and row["formula"] for row in explained().values())
