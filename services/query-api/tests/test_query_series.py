"""KPIs over time: steps by the clock of a zone, chosen KPIs, one cell, and the proof behind a number."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from query_api.domain.measures import FAMILY_TYPES, LATE_MEASURES, MEASURES, USAGE_MEASURES, measures_of
from query_api.domain.present import kpi
from query_api.domain.problems import Problem
from query_api.domain.ranges import Range
from query_api.domain.series import chosen
from query_api.domain.steps import past, steps_of
from telestream_domain.kpis import KPI, KPIS, WINDOW_MS, Basis, kpis_of, shown
from telestream_warehouse import measures

DAY = datetime(2026, 8, 31, 22, tzinfo=UTC)  # midnight in Paris
QUARTER = timedelta(minutes=15)
ZONES = ["Europe/Paris", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham", "Africa/Cairo", "America/Havana"]


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("step", ["1h", "1d"])
def test_steps_cover_a_year_without_gap_or_overlap_and_hold_what_their_clock_says(name: str, step: str) -> None:
    zone = ZoneInfo(name)
    asked = Range(datetime(2026, 1, 1, 0, 7, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    steps = steps_of(asked, step, zone, 20_000)
    assert (steps[0].start, steps[-1].end) == (asked.start, asked.end)
    assert all(one.end == after.start for one, after in itertools.pairwise(steps))
    assert len({one.label for one in steps}) == len(steps)
    found = {one.label: one for one in steps}
    at = datetime(2026, 1, 1, 0, 15, tzinfo=UTC)
    while at < asked.end:
        local = at.astimezone(zone)
        if step == "1d":
            label = next(one.label for one in steps if one.start <= at < one.end) if local.hour == 5 else None
            assert label is None or label.astimezone(zone).date() == local.date()
        else:
            offset = local.utcoffset() or timedelta()
            label = at - (at + offset - datetime(2000, 1, 1, tzinfo=UTC)) % timedelta(hours=1)
            assert found[label].start <= at < found[label].end
        at += QUARTER * (1 if step == "1h" else 4)


def test_a_day_of_the_clock_change_has_23_or_25_hours_and_a_skipped_day_is_no_step() -> None:
    paris = ZoneInfo("Europe/Paris")
    for month, day, hours in ((3, 29, 23), (10, 25, 25), (6, 1, 24)):
        start = datetime(2026, month, day, tzinfo=paris).astimezone(UTC)
        asked = Range(start, datetime(2026, month, day + 1, tzinfo=paris).astimezone(UTC))
        assert [one.length_ms for one in steps_of(asked, "1d", paris, 10)] == [hours * 3_600_000]
        assert len(steps_of(asked, "1h", paris, 30)) == hours
    apia = ZoneInfo("Pacific/Apia")  # had no 30 December 2011
    asked = Range(datetime(2011, 12, 29, 10, tzinfo=UTC), datetime(2011, 12, 31, 10, tzinfo=UTC))
    assert [one.label.astimezone(apia).day for one in steps_of(asked, "1d", apia, 10)] == [29, 31]


def test_steps_are_cut_by_the_range_and_by_now_and_too_many_are_refused() -> None:
    asked = Range(DAY + timedelta(minutes=10), DAY + timedelta(minutes=100))
    steps = steps_of(asked, "1h", ZoneInfo("UTC"), 10)
    assert [one.length_ms // 60_000 for one in steps] == [50, 40]
    assert [one.end for one in past(steps, DAY + timedelta(minutes=70))] == [
        DAY + timedelta(minutes=60),
        DAY + timedelta(minutes=70),
    ]
    assert past(steps, DAY) == []
    assert len(steps_of(asked, "5m", ZoneInfo("Asia/Kolkata"), 100)) == 18
    with pytest.raises(Problem) as refused:
        steps_of(asked, "1m", ZoneInfo("UTC"), 89)
    assert (refused.value.code, refused.value.field) == ("too_wide", "step")


def test_kpis_by_columns_are_what_the_table_says() -> None:
    chance = random.Random(6)
    for family in FAMILY_TYPES:
        rows: list[dict[str, int]] = [
            {name: chance.choice([0, 1, chance.randrange(10**9)]) for name in (*measures_of(family), WINDOW_MS)}
            for _ in range(60)
        ]
        own = kpis_of(family, Basis.WINDOWS)
        found = pl.DataFrame(rows).select(kpi(row) for row in own).to_dicts()
        for sums, got in zip(rows, found, strict=True):
            for row in own:
                expected = shown(row, sums)
                assert got[row.name]["num"] == pytest.approx(expected.num, rel=1e-12)
                assert got[row.name]["den"] == expected.den
                assert got[row.name]["value"] == pytest.approx(expected.value)


def test_the_measures_that_are_read_are_all_that_the_aggregates_have() -> None:
    for family in FAMILY_TYPES:
        assert {*measures_of(family), *LATE_MEASURES} == set(measures(family))
    assert {*USAGE_MEASURES.all, *LATE_MEASURES} == set(measures("subscriber_day"))


def test_kpis_are_chosen_by_name_where_family_and_step_know_them() -> None:
    assert chosen(["drop_ratio", "call_attempts"], "plan", "1m", None) == (KPI["call_attempts"], KPI["drop_ratio"])
    assert chosen(None, "cell", "1d", None) == KPIS
    assert not any(row.basis is not Basis.WINDOWS for row in chosen(None, "cell", "1d", Basis.WINDOWS))
    assert {row.name for row in KPIS} - {row.name for row in chosen(None, "cell", "5m", None)} == {
        "busy_hour_erlang",
        "distinct_subscribers",
    }
    for names, family, step in (
        (["asr"], "cell", "1h"),
        (["cell_availability"], "region", "1h"),
        (["busy_hour_erlang"], "cell", "1h"),
        (["distinct_subscribers"], "cell", "5m"),
        (["latency_ms"], "plan", "1h"),
    ):
        with pytest.raises(Problem) as refused:
            chosen(names, family, step, None)
        assert (refused.value.status, refused.value.field) == (422, "kpi")


def state(
    family: str, group: str, start: datetime, kind: str = "cdr", size_s: int = 900, **sums: Any
) -> dict[str, Any]:
    return {
        **dict.fromkeys(measures(family), 0),
        "generation": 1,
        "type": kind,
        "size_s": size_s,
        "window_start": start,
        {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}[family]: group,
        "partition": 0,
        "segment": 0,
        "src_to": 9,
        "freshest_event_end_at": start + timedelta(minutes=1),
        **sums,
    }


CELL = "208-01-77"


@pytest.fixture(scope="module")
def filled(world: Any) -> None:
    """A day of one cell, of which an hour was down; two days of two plans; a minute of now."""
    quarters = [
        state("cell", CELL, DAY + n * QUARTER, records=10, attempts=8, completed=4, holding_ms=(n % 7 + 1) * 90_000)
        for n in range(96)
    ]
    quarters[5] |= {"late_records": 2, "reversals": 1}
    radio = [
        state("cell", CELL, DAY + n * QUARTER, "network", events=3, handover_known=2, handover_successes=1)
        for n in range(96)
    ]
    sketched = [
        {**row, "subscriber_registers": [n % 40, 100 + n], "subscriber_ranks": [3, 1]} for n, row in enumerate(quarters)
    ]
    world.insert("agg_cell_all", sketched)
    world.insert("agg_cell_all", radio)
    plans = [
        state("plan", plan, DAY + n * QUARTER, records=1, attempts=2, sessions=1)
        for plan in ("P1", "P2")
        for n in range(192)
    ]
    world.insert("agg_plan_all", plans)
    event = {"generation": 1, "withdrawn": 0, "src_partition": 0, "cell_id": CELL, "source": "oss", "batch_id": 1}
    world.insert(
        "fact_network_event_all",
        [
            {
                **event,
                "booked_offset": offset,
                "src_offset": offset,
                "line": offset,
                "event_uid": f"e{offset}",
                "event_type": kind,
                "occurred_at": DAY + timedelta(minutes=minute),
                "success": True if kind == "HANDOVER" else None,
            }
            for offset, (kind, minute) in enumerate((("CELL_DOWN", 90), ("CELL_UP", 150), ("HANDOVER", 1430)))
        ],
    )
    world.insert(
        "fact_cdr_all",
        [
            {
                "generation": 1,
                "booked_offset": n,
                "withdrawn": 0,
                "src_partition": 0,
                "src_offset": n,
                "event_uid": f"c{n}",
                "started_at": DAY + timedelta(hours=23, minutes=40, seconds=n),
                "record_type": "VOICE",
                "status": "COMPLETED" if n % 2 else "BUSY",
                "subscriber_id": "33612345678" if n == 3 else "k1.AAAAAAAAAAAAAAAAAAAAAA",
                "subscriber_kind": "MSISDN",
                "cell_id": CELL,
                "duration_ms": 1_000,
                "plan_id": "P1",
                "source": "msc-1",
                "batch_id": 7,
                "line": n,
            }
            for n in range(14)
        ],
    )
    world.insert(
        "reference_cell",
        [
            {
                "src_partition": 0,
                "src_offset": 1,
                "cell_id": "208-01-78",
                "valid_from": DAY - timedelta(days=9),
                "deleted": False,
                "name": "Nord 1",
                "region_id": "R1",
                "latitude": 48.5,
                "longitude": 2.25,
                "technology": "LTE",
                "vendor": "Ericsson",
                "source": "oss",
                "batch_id": 1,
                "line": 1,
                "ingested_at": DAY,
            }
        ],
    )
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=7)
    world.insert(
        "agg_region_all", [state("region", "R77", minute, size_s=60, records=6, attempts=6, holding_ms=30_000)]
    )


@pytest.mark.stack
def test_one_cell_has_its_hours_its_outage_its_subscribers_and_what_came_late(world: Any, filled: None) -> None:
    path = f"/v1/cells/{CELL}/kpis"
    asked = {"from_": "2026-09-01", "to": "2026-09-02", "tz": "Europe/Paris"}
    body = world.data(path, step="1h", **asked)
    assert (body["id"], body["cell"], len(body["rows"])) == (CELL, None, 24)
    rows = body["rows"]
    assert [row["cell_availability"]["num"] for row in rows[:4]] == [3600.0, 1800.0, 1800.0, 3600.0]
    assert rows[0]["answer_seizure_ratio"] == {"value": 0.5, "num": 16, "den": 32}
    assert rows[0]["traffic_erlang"]["den"] == 3_600_000
    assert rows[0]["handover_success_ratio"] == {"value": 0.5, "num": 4, "den": 8}
    assert rows[0]["latency_ms"] == {"value": None, "num": 0.0, "den": 0}
    assert (rows[1]["late_records"], rows[1]["reversals"], rows[1]["distinct_is_upper_bound"]) == (2, 1, True)
    assert rows[0]["distinct_subscribers"]["value"] in (8, 9)
    day = world.data(path, step="1d", kpi=["busy_hour_erlang", "cell_availability"], **asked)["rows"]
    assert len(day) == 1
    assert day[0]["cell_availability"] == {"value": 23 / 24, "num": 82_800.0, "den": 86_400.0}
    assert day[0]["busy_hour_erlang"] == {"value": (4 + 5 + 6 + 7) / 40, "num": 1_980_000, "den": 3_600_000}
    assert day[0]["busy_hour_start"] == "2026-08-31T22:45:00.000Z"
    assert "answer_seizure_ratio" not in day[0]
    silent = world.data("/v1/cells/208-01-78/kpis", **asked)
    assert silent["rows"] == []
    assert (silent["cell"]["name"], silent["cell"]["region_id"], silent["cell"]["latitude"]) == ("Nord 1", "R1", 48.5)
    unknown = world.get("/v1/cells/nowhere/kpis", **asked)
    assert (unknown.status_code, unknown.json()["field"]) == (404, "id")


@pytest.mark.stack
def test_chosen_kpis_over_time_by_plan_and_in_all(world: Any, filled: None) -> None:
    path = "/v1/metrics/timeseries"
    asked = {"family": "plan", "kpi": ["call_attempts", "data_sessions"], "from_": "2026-09-01", "to": "2026-09-02"}
    body = world.data(path, step="1d", tz="Asia/Kathmandu", plan_id="P1", **asked)
    assert [(row["step_start"], row["plan_id"]) for row in body["rows"]] == [("2026-08-31T18:15:00.000Z", "P1")]
    # the day begins in Kathmandu at 18:15 UTC, the records at 22:00
    assert body["rows"][0]["call_attempts"] == {"value": 162.0, "num": 162, "den": 1}
    assert [row["name"] for row in body["kpis"]] == ["call_attempts", "data_sessions"]
    assert set(body["rows"][0]) == {
        "step_start",
        "plan_id",
        "late_records",
        "reversals",
        "call_attempts",
        "data_sessions",
    }
    whole = world.data(path, step="1h", group_by="none", tz="Asia/Kolkata", **asked)["rows"]
    assert {row["step_start"][14:16] for row in whole} == {"30"}
    assert sum(row["call_attempts"]["value"] for row in whole) == 164 * 2
    quarter = world.data(path, step="15m", group_by="none", **asked)["rows"]
    by_hour: dict[str, float] = defaultdict(float)
    for row in quarter:
        by_hour[row["step_start"][:13]] += row["data_sessions"]["value"]
    assert set(by_hour.values()) == {8.0}


@pytest.mark.stack
def test_minutes_are_read_from_minute_windows_and_cut_by_now(world: Any, filled: None) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    asked = {"family": "region", "from_": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "region_id": "R77"}
    for step, long in (("1m", 60_000), ("5m", 300_000)):
        rows = world.data("/v1/metrics/timeseries", step=step, **asked)["rows"]
        assert [row["call_attempts"]["value"] for row in rows] == [6]
        assert 0 < rows[0]["traffic_erlang"]["den"] <= long
    for step in ("1m", "5m"):
        old = world.get("/v1/metrics/timeseries", step=step, from_="2026-08-01", to="2026-08-01T05:00:00Z")
        assert (old.status_code, old.json()["field"]) == (422, "from")


@pytest.mark.stack
def test_explain_gives_the_formula_and_ten_records_without_a_number(world: Any, filled: None) -> None:
    asked = {"from_": "2026-09-01", "to": "2026-09-02", "tz": "Europe/Paris", "explain": "1"}
    for path, more in (
        (f"/v1/cells/{CELL}/kpis", {"step": "1h"}),
        ("/v1/network/performance", {"step": "1h", "cell_id": CELL}),
        ("/v1/metrics/timeseries", {"step": "1h", "family": "cell", "cell_id": CELL}),
    ):
        found = world.get(path, **asked, **more)
        assert found.status_code == 200, found.text
        assert "33612345678" not in found.text
        told = found.json()["data"]["explain"]
        assert (told["records_from"], told["records_to"]) == ("2026-09-01T21:00:00.000Z", "2026-09-01T22:00:00.000Z")
        ratio = told["kpis"]["answer_seizure_ratio"]
        assert ratio["formula"] == "(completed + dropped) / attempts"
        assert "E.425" in ratio["standard"]
        assert ratio["denominator"] == [{"measure": "attempts", "factor": "1"}]
        assert [record["offset"] for record in ratio["records"]] == list(range(10))
        assert ratio["records"][3]["subscriber_id"] == "masked"
        assert ratio["records"][3]["adds"] == {"completed": 1, "dropped": 0, "attempts": 1}
        assert [record["event_uid"] for record in told["kpis"]["handover_success_ratio"]["records"]] == ["e2"]
    live = world.data("/v1/metrics/realtime", explain="1")["explain"]
    assert live["kpis"]["traffic_erlang"]["unit"] == "Erl"


@pytest.mark.stack
@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("/v1/metrics/timeseries", {"family": "vendor"}, "family"),
        ("/v1/metrics/timeseries", {"step": "2h"}, "step"),
        ("/v1/metrics/timeseries", {"kpi": "asr"}, "kpi"),
        ("/v1/metrics/timeseries", {"family": "plan", "kpi": "latency_ms"}, "kpi"),
        ("/v1/metrics/timeseries", {"family": "plan", "group_by": "region"}, "group_by"),
        ("/v1/metrics/timeseries", {"family": "plan", "cell_id": "c"}, "cell_id"),
        ("/v1/metrics/timeseries", {"from": "2020-01-01", "to": "2026-01-01"}, "from"),
        ("/v1/metrics/timeseries", {"explain": "maybe"}, "explain"),
        ("/v1/metrics/timeseries", {"metric": "x"}, "metric"),
        ("/v1/cells/c/kpis", {"kpi": "busy_hour_erlang"}, "kpi"),
        ("/v1/cells/c/kpis", {"tz": "Mars/Olympus"}, "tz"),
        ("/v1/network/performance", {"kpi": "x"}, "kpi"),
    ],
)
def test_a_wrong_parameter_of_a_series_is_422_and_named(
    world: Any, path: str, params: dict[str, str], field: str
) -> None:
    found = world.client.get(path, params=params)
    assert (found.status_code, found.json().get("field")) == (422, field), found.text


def test_every_measure_of_the_table_is_read() -> None:
    read = {name for group in MEASURES.values() for name in group.all}
    for row in KPIS:
        if row.basis is Basis.WINDOWS:
            assert set(row.measures) <= read, row.name
