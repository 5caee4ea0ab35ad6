"""Each measure that the KPIs are made of, on records worked through by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

MINUTE_MS = 60_000
NOON_MS = int(datetime(2026, 3, 2, 12, 0, tzinfo=UTC).timestamp()) * 1_000


def _of(w, family, size_s=900, **groups):
    """The one upsert of these groups."""
    found = [
        value
        for (name, _), value in w.latest().items()
        if name == family and value["size_s"] == size_s and all(value[k] == v for k, v in groups.items())
    ]
    (value,) = found
    return value


def _some(value, *names):
    return tuple(value[name] for name in names)


def _ms(at):
    return None if at is None else round(at.timestamp() * 1_000)


def test_the_end_of_a_call_counts_on_its_last_cell_and_all_else_on_its_first(world, cdr):
    w = world()
    moved = {"cell_id": "A", "last_cell_id": "B", "charge_micros": 5, "currency": "EUR"}
    w.write(
        "cdr",
        0,
        [
            cdr(0, **moved, status="DROPPED", region_id="R1"),
            cdr(1, **moved, status="COMPLETED", region_id="R1"),
            cdr(2, **moved, status="NO_ANSWER", region_id="R1"),  # never answered, so it did not end anywhere
            cdr(3, cell_id="A", last_cell_id=None, status="COMPLETED", region_id="R1"),
            cdr(4, cell_id=None, last_cell_id="B", status="DROPPED", region_id="R1"),
            cdr(5, cell_id="A", last_cell_id="B", record_type="DATA", status="COMPLETED", region_id="R1"),
        ],
    )
    w.take_all()
    ended = ("ended_answered", "ended_dropped")
    for size_s in (60, 900):
        first, last = _of(w, "cell", size_s, cell_id="A"), _of(w, "cell", size_s, cell_id="B")
        assert _some(first, "records", "attempts", "dropped", *ended) == (5, 4, 1, 1, 0)
        assert _some(last, "records", "attempts", "dropped", "duration_ms", *ended) == (0, 0, 0, 0, 3, 2)
        assert last["charge_currencies"] == last["subscriber_registers"] == []
        assert _some(_of(w, "cell", size_s, cell_id=""), "records", *ended) == (1, 0, 0)
        # the region of the last cell is not in the record
        assert _some(_of(w, "region", size_s), *ended) == _some(_of(w, "plan", size_s), *ended) == (4, 2)
    assert w.windows() == w.expected()


def test_a_reversal_takes_the_end_off_the_last_cell(world, cdr, now_ms):
    w = world()
    moved = {"cell_id": "A", "last_cell_id": "B", "status": "DROPPED"}
    w.write("cdr", 0, [cdr(0, **moved), cdr(1, **moved, sign=-1)])
    w.take_all()
    first, last = _of(w, "cell", cell_id="A"), _of(w, "cell", cell_id="B")
    assert _some(last, "ended_answered", "ended_dropped", "reversals", "late_records") == (0, 0, 0, 0)
    assert first["reversals"] == 1
    # its figures changed, too
    assert _ms(last["late_at"]) == _ms(first["late_at"]) == now_ms


def test_a_session_in_three_records_is_one_session(world, cdr):
    w = world()
    data = {"record_type": "DATA", "bytes_up": 10, "bytes_down": 90}
    w.write(
        "cdr",
        0,
        [
            cdr(0, **data, is_partial=True, duration_ms=1_000),
            cdr(1, **data, is_partial=True, duration_ms=2_000),
            cdr(2, **data, is_partial=False, duration_ms=3_000),
            cdr(3, **data, is_partial=False, duration_ms=0),  # as long as nothing: no throughput
            cdr(4, **data, is_partial=False, duration_ms=None),
            cdr(5, record_type="VOICE", bytes_up=7, duration_ms=9_000),
        ],
    )
    w.take_all()
    names = ("data_records", "sessions", "data_duration_ms", "data_bytes", "bytes_up", "bytes_down")
    for family in ("cell", "region", "plan"):
        assert _some(_of(w, family), *names) == (5, 3, 6_000, 300, 57, 450)
    assert _some(_of(w, "subscriber_day", 86_400), "data_records", "sessions") == (5, 3)


def test_an_sms_counts_its_segments_and_one_where_they_are_unknown(world, cdr):
    w = world()
    sms = [cdr(n, record_type="SMS", segments=segments) for n, segments in enumerate((None, 1, 3))]
    w.write("cdr", 0, [*sms, cdr(3, record_type="SMS", segments=3, sign=-1), cdr(4, segments=9)])
    w.take_all()
    assert _some(_of(w, "plan"), "sms", "sms_segments") == (2, 2)
    assert _of(w, "subscriber_day", 86_400)["sms_segments"] == 2


def test_post_dial_delay_is_summed_over_the_calls_that_know_it(world, cdr):
    w = world()
    delays = [("VOICE", 1_500), ("VIDEO", 500), ("VOICE", 0), ("VOICE", None), ("SMS", 900)]
    w.write("cdr", 0, [cdr(n, record_type=kind, pdd_ms=ms) for n, (kind, ms) in enumerate(delays)])
    w.take_all()
    assert _some(_of(w, "region"), "pdd_ms", "pdd_ms_count") == (2_000, 3)


def test_success_is_counted_by_kind_of_event_and_only_where_it_is_known(world, event):
    w = world()
    outcomes = [("RRC_SETUP", True), ("RRC_SETUP", False), ("RRC_SETUP", None), ("HANDOVER", True), ("ATTACH", False)]
    w.write("network", 0, [event(n, event_type=kind, success=s) for n, (kind, s) in enumerate(outcomes)])
    w.take_all()
    for family in ("cell", "region"):
        found = _of(w, family)
        assert _some(found, "rrc_setups", "rrc_setup_known", "rrc_setup_successes") == (3, 2, 1)
        assert _some(found, "handover_known", "handover_successes") == (1, 1)
        assert _some(found, "attach_known", "attach_successes") == (1, 0)


def test_late_is_what_arrived_more_than_five_minutes_after_the_end_of_its_window(world, cdr):
    w = world()
    quarter_end = NOON_MS + 15 * MINUTE_MS
    arrivals = [quarter_end, quarter_end + 5 * MINUTE_MS, quarter_end + 5 * MINUTE_MS + 1, quarter_end + 60 * MINUTE_MS]
    w.write("cdr", 0, [cdr(n, started_at=NOON_MS, appended_at=at) for n, at in enumerate(arrivals)])
    w.take_all()
    for family in ("cell", "region", "plan"):
        found = _of(w, family)
        assert (found["records"], found["late_records"], _ms(found["late_at"])) == (4, 2, arrivals[3])
        # minutes end fourteen minutes earlier
        assert _of(w, family, 60)["late_records"] == 4
    day = _of(w, "subscriber_day", 86_400)
    assert (day["late_records"], day["late_at"]) == (0, None)


@pytest.mark.parametrize(("day", "hours"), [(28, 24), (29, 23)])
def test_a_local_day_ends_when_its_clocks_say_so(world, cdr, day, hours):
    begin = int(datetime(2026, 3, day - 1, 23, 0, tzinfo=UTC).timestamp()) * 1_000
    end = begin + hours * 60 * MINUTE_MS
    w = world(zone="Europe/Paris")
    arrivals = [end + 5 * MINUTE_MS, end + 5 * MINUTE_MS + 1]
    w.write("cdr", 0, [cdr(n, zone=w.zone, started_at=begin, appended_at=at) for n, at in enumerate(arrivals)])
    w.take_all()
    assert _of(w, "subscriber_day", 86_400)["late_records"] == 1


def test_a_late_reversal_counts_as_both_and_subtracts_all_else(world, cdr):
    w = world()
    hour = NOON_MS + 60 * MINUTE_MS
    w.write("cdr", 0, [cdr(0, started_at=NOON_MS, appended_at=NOON_MS + 1)])
    w.take_all()
    assert _of(w, "plan")["late_at"] is None
    w.write("cdr", 0, [cdr(1, started_at=NOON_MS, appended_at=hour, sign=-1)])
    w.take_all()
    found = _of(w, "plan")
    assert (found["records"], found["late_records"], found["reversals"], _ms(found["late_at"])) == (0, 1, 1, hour)


def test_a_reversal_came_when_it_was_judged_not_when_what_it_takes_back_came(world, cdr):
    w = world()
    w.log.judged_ms = NOON_MS + 90 * 86_400_000
    arrived = NOON_MS + 1
    w.write("cdr", 0, [cdr(n, started_at=NOON_MS, appended_at=arrived, sign=sign) for n, sign in enumerate((1, -1))])
    w.take_all()
    found = _of(w, "plan")
    assert (found["late_records"], found["reversals"], _ms(found["late_at"])) == (0, 1, w.log.judged_ms)


def test_waiting_times_fall_in_buckets_whose_upper_bounds_belong_to_them(world, cdr, now_ms):
    w = world()
    waited = (-5, 0, 1_000, 1_001, 5_000, 604_800_000, 604_800_001)
    records = [cdr(n, started_at=now_ms - ms, appended_at=now_ms) for n, ms in enumerate(waited)]
    records.append(cdr(7, verdict="REJECTED", rule="undecodable", started_at=0))
    records.append(cdr(8, started_at=now_ms - 1_000, sign=-1))
    w.write("cdr", 0, records)
    w.take_all()
    assert _of(w, "quality", 3_600, verdict="STORED")["latency_buckets"] == [2, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert sum(_of(w, "quality", 3_600, verdict="REJECTED")["latency_buckets"]) == 0


def test_warnings_are_counted_by_code(world, cdr):
    w = world()
    codes = [["voice_with_bytes"], ["duration_too_long", "voice_with_bytes"], [], ["duration_too_long"]]
    records = [cdr(n, warnings=found, charge_micros=2, currency="EUR") for n, found in enumerate(codes)]
    w.write("cdr", 0, [*records, cdr(4, warnings=["duration_too_long"], charge_micros=2, currency="EUR", sign=-1)])
    w.take_all()
    found = _of(w, "quality", 3_600)
    assert (found["warning_codes"], found["warning_counts"]) == (["duration_too_long", "voice_with_bytes"], [1, 2])
    assert _some(found, "records", "warned", "charge_micros") == (4, 2, [6])
