"""What comes out is what a plain loop over the records gives."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from telestream_contracts import load_schema
from telestream_domain import FAMILIES, TelestreamError
from window_aggregator.domain.days import local_midnight
from window_aggregator.domain.families import families

YEAR_MS = 365 * 86_400_000


@pytest.mark.parametrize("seed", range(4))
def test_all_families_and_sizes_equal_a_plain_model_over_segment_borders(world, some, seed):
    w = world(zone="Europe/Paris")
    for partition in (0, 3):
        w.write("cdr", partition, some("cdr", 600, seed, first=30, partition=partition, zone="Europe/Paris"), 9)
        w.write("network", partition, some("network", 300, seed, partition=partition), 7)
    w.take_all()
    assert len(w.windows()) > 1_000
    assert w.windows() == w.expected()


def _only(w, family, size_s):
    found = [v for (f, _), v in w.latest().items() if f == family and v["size_s"] == size_s]
    return sorted(found, key=lambda v: (v["segment"], v["window_start"]))


def test_a_year_old_record_touches_a_window_of_the_open_segment_only(world, cdr, now_ms):
    w = world(bits=2, day_bits=2)
    old = now_ms - YEAR_MS
    w.write("cdr", 0, [cdr(n, started_at=old if n in (1, 6) else now_ms - 1_000) for n in range(8)])
    w.take_all()
    segments = [(v["segment"], v["records"]) for v in _only(w, "plan", 900) if v["window_start"].year == 2025]
    assert segments == [(0, 1), (1, 1)]
    assert w.windows() == w.expected()


def test_a_reversal_subtracts_all_it_reverses(world, cdr, now_ms):
    w = world()
    w.write(
        "cdr",
        0,
        [
            cdr(0, charge_micros=5, currency="EUR", bytes_up=7),
            cdr(1, sign=-1, charge_micros=5, currency="EUR", bytes_up=7),
        ],
    )
    w.take_all()
    (window,) = _only(w, "region", 60)
    assert (window["records"], window["attempts"], window["completed"], window["duration_ms"]) == (0, 0, 0, 0)
    assert (window["bytes_up"], window["charge_currencies"], window["charge_micros"]) == (0, ["EUR"], [0])
    (quality,) = _only(w, "quality", 3_600)
    assert (quality["records"], quality["reversals"], quality["bytes"]) == (1, 1, 0)


def test_charges_are_summed_per_currency_in_sorted_arrays(world, cdr):
    w = world()
    charges = [("USD", 3), ("EUR", 10), (None, None), ("EUR", 20), ("GBP", 0), ("CHF", None)]
    w.write("cdr", 0, [cdr(n, currency=c, charge_micros=m) for n, (c, m) in enumerate(charges)])
    w.take_all()
    for family in ("cell", "region", "plan"):
        for window in (*_only(w, family, 60), *_only(w, family, 900)):
            assert window["charge_currencies"] == ["EUR", "GBP", "USD"]
            assert window["charge_micros"] == [30, 0, 3]
    by_currency = {v["currency"]: v["charge_micros"] for v in _only(w, "subscriber_day", 86_400)}
    assert by_currency == {"EUR": 30, "USD": 3, "GBP": 0, "CHF": 0, "": 0}


def test_doubles_are_rounded_per_record_half_away_from_zero_and_what_is_no_number_is_not_counted(world, event):
    w = world()
    latencies = [0.0005, 0.0015, 0.00149, -0.0005, float("nan"), float("inf"), 1e300, None]
    w.write("network", 0, [event(n, latency_ms=value) for n, value in enumerate(latencies)])
    w.take_all()
    (window,) = _only(w, "cell", 60)
    assert (window["latency_us"], window["latency_us_count"], window["events"]) == (1 + 2 + 1 - 1, 4, 8)


def test_the_freshest_event_end_is_never_past_its_arrival(world, cdr, now_ms):
    w = world()
    w.write("cdr", 0, [cdr(0, started_at=now_ms - 9_000, duration_ms=3_000, holding_ms=4_000)])
    w.take_all()
    assert _only(w, "cell", 60)[0]["freshest_event_end_at"].timestamp() * 1_000 == now_ms - 5_000
    w.write("cdr", 0, [cdr(1, started_at=now_ms - 9_000, duration_ms=60_000)])
    w.take_all(now_ms + 10_000)
    assert _only(w, "cell", 60)[0]["freshest_event_end_at"].timestamp() * 1_000 == now_ms


def test_an_interconnect_record_has_no_subscriber_day_but_counts_elsewhere(world, cdr):
    w = world()
    w.write("cdr", 0, [cdr(0, subscriber_kind="NONE", subscriber_id="its uid")])
    w.take_all()
    assert _only(w, "subscriber_day", 86_400) == []
    assert _only(w, "cell", 60)[0]["records"] == 1


def test_groups_that_hold_the_key_s_separator_never_share_a_key(world, cdr):
    w = world()
    groups = [("a", "b|c"), ("a|b", "c"), ("a%7Cb", "c")]
    w.write("cdr", 0, [cdr(n, subscriber_id=s, plan_id=p) for n, (s, p) in enumerate(groups)])
    w.take_all()
    assert sorted((v["subscriber_id"], v["plan_id"]) for v in _only(w, "subscriber_day", 86_400)) == sorted(groups)


def test_keys_read_as_the_design_says(world, cdr, now_ms):
    w = world()
    w.write("cdr", 3, [cdr(64, partition=3)])
    w.take_all()
    minute = (now_ms - 5_000) // 60_000 * 60_000
    assert ("cell", f"cdr|60|{minute}|208-01-17|3|1") in w.latest()
    assert ("cell", "cdr|60|marker|3") in {(family, key) for family, key, _ in w.upserts()}


def test_a_gap_and_a_repeat_stop_the_worker_with_their_position(world, cdr):
    for offsets, message in (
        ((0, 1, 3), r"g1\[0\]@2: src_offset 3 where 2 follows"),
        ((0, 1, 1), "src_offset 1 where 2"),
    ):
        w = world()
        source = w.write("cdr", 0, [cdr(n) for n in offsets])
        with pytest.raises(TelestreamError, match=message):
            w.take(source, 3)
    w = world()
    source = w.write("cdr", 0, [cdr(n) for n in (0, 1, 3)])
    w.take(source, 2)
    with pytest.raises(TelestreamError, match=r"@2: src_offset 3 where 2 follows"):
        w.take(source, 1)


def test_a_record_of_another_partition_stops_the_worker(world, cdr):
    w = world()
    source = w.write("cdr", 2, [cdr(0, partition=1)])
    with pytest.raises(TelestreamError, match="stems from raw partition 1"):
        w.take(source, 1)


def test_minutes_count_what_arrived_within_two_hours_and_quarter_hours_count_all(world, cdr, now_ms):
    w = world()
    two_hours = 2 * 3_600_000
    late = (two_hours, two_hours + 1, 400 * 86_400_000)
    w.write("cdr", 0, [cdr(n, appended_at=now_ms, started_at=now_ms - age) for n, age in enumerate(late)])
    w.take_all()
    for family in ("cell", "region", "plan"):
        assert sum(v["records"] for v in _only(w, family, 60)) == 1
        assert sum(v["records"] for v in _only(w, family, 900)) == 3


def test_measures_are_the_schemas_fields():
    about = {"type", "size_s", "window_start", "local_date", "partition", "segment", "src_to", "marker_offset"}
    for family in families().values():
        fields = {field["name"] for field in load_schema(f"agg_{family.topic}")["fields"]}
        charges = {"charge_currencies", "charge_micros"} if family.charges else {"charge_micros"}
        other = {"freshest_event_end_at"} if family.event_end else set()
        other |= {"late_at"} if family.late else {"latency_buckets", "warning_codes", "warning_counts"}
        other |= {"subscriber_registers", "subscriber_ranks"} if family.late and family.charges else set()
        own = set(family.groups) | set(family.all_sums()) | charges | other
        assert fields == about - ({"local_date"} - fields) | own
    assert {family.topic for family in families().values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("UTC", date(2026, 3, 29), "2026-03-29T00:00+00:00"),
        ("Europe/Paris", date(2026, 3, 30), "2026-03-30T00:00+02:00"),
        # clocks jump from midnight to one, or pass midnight twice
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-24T00:00+02:00"),
        ("Atlantic/Azores", date(2026, 10, 25), "2026-10-25T00:00+00:00"),
    ],
)
def test_a_local_day_begins_at_its_first_instant(zone, day, expected):
    from datetime import datetime

    assert local_midnight(day, ZoneInfo(zone)) == int(datetime.fromisoformat(expected).timestamp()) * 1_000
