"""KPIs in ClickHouse against the table's own arithmetic, merged or not, and how much of the key their reading uses."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from telestream_domain.kpis import KPIS, WINDOW_MS, Basis, kpis_of, shown
from telestream_domain.sketch import REGISTERS, estimate, merged, registers_and_ranks
from telestream_warehouse import (
    ClickHouse,
    Query,
    busy_hours,
    contributing,
    distinct_subscribers,
    measures,
    window_kpis,
)
from telestream_warehouse.contributions import CONTRIBUTIONS, measures_behind
from telestream_warehouse.kpi_views import rendered

Insert = Callable[..., None]
DAY = datetime(2026, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
GROUPS = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
Sketch = dict[int, int]


def test_the_migration_says_what_the_table_of_kpis_says() -> None:
    file = resources.files("telestream_warehouse") / "sql" / "0011_kpi_views.sql"
    assert file.read_text(encoding="utf-8") == rendered(), "python -m telestream_warehouse.kpi_views FILE"


def test_every_measure_of_a_kpi_says_what_a_record_adds_to_it() -> None:
    for kpi in KPIS:
        kind = next(iter(kpi.needs))
        assert set(measures_behind(kpi)) <= set(CONTRIBUTIONS[kind]), kpi.name


def state(family: str, kind: str, start: datetime, group: str, **fields: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(measures(family), 0),
        "generation": 1,
        "type": kind,
        "size_s": 900,
        "window_start": start,
        GROUPS[family]: group,
        "partition": 0,
        "segment": 0,
        "src_to": 100,
        "charge_currencies": ["EUR"] if kind == "cdr" else [],
        "charge_micros": [7] if kind == "cdr" else [],
        "freshest_event_end_at": start,
        "late_at": None,
        **fields,
    }


def some_states(family: str, chance: random.Random, count: int) -> list[dict[str, Any]]:
    network = {name for kpi in kpis_of(family) if "network" in kpi.needs for name in kpi.measures} & set(
        measures(family)
    )
    keys: dict[Any, dict[str, Any]] = {}
    for _ in range(count):
        kind = chance.choice(["cdr", "cdr", "network"] if family != "plan" else ["cdr"])
        start = DAY + chance.randrange(12) * QUARTER
        group = chance.choice(["a", "b", "c", ""])
        place = {"partition": chance.randrange(3), "segment": chance.randrange(2)}
        own = network | {"events"} if kind == "network" else set(measures(family)) - network - {"events"}
        sums = {name: chance.choice([0, 1, chance.randrange(10**6)]) for name in sorted(own)}
        row = state(family, kind, start, group, **sums, **place)
        keys[kind, start, group, *place.values()] = row
    return list(keys.values())


def summed(family: str, rows: list[dict[str, Any]]) -> dict[tuple[datetime, str], dict[str, int]]:
    found: dict[tuple[datetime, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(measures(family), 0))
    for row in rows:
        sums = found[row["window_start"], row[GROUPS[family]]]
        for name in sums:
            sums[name] += row[name]
    return dict(found)


def agrees(view: Mapping[str, Any], sums: Mapping[str, int], family: str) -> None:
    for kpi in kpis_of(family, Basis.WINDOWS):
        expected = shown(kpi, {**sums, WINDOW_MS: 900_000})
        found = (view[kpi.name], view[f"{kpi.name}_num"], view[f"{kpi.name}_den"])
        assert found[1:] == pytest.approx((expected.num, expected.den), rel=1e-12), kpi.name
        assert (found[0] is None) == (expected.value is None), kpi.name
        assert found[0] is None or found[0] == pytest.approx(expected.value, rel=1e-12), kpi.name


@pytest.mark.stack
def test_views_sum_the_last_states_over_partitions_and_segments_merged_or_not(
    warehouse: ClickHouse, insert: Insert
) -> None:
    chance = random.Random(2)
    asked = {"fact_cell_kpi": "cell", "kpi_cell": "cell", "kpi_region": "region", "kpi_plan": "plan"}
    expected: dict[str, dict[tuple[datetime, str], dict[str, int]]] = {}
    for family in GROUPS:
        rows = some_states(family, chance, 120)
        expected[family] = summed(family, rows)
        noise = [{**row, "src_to": row["src_to"] - 1 - number, "attempts": 999} for number, row in enumerate(rows[:60])]
        other = [{**row, "generation": 2, "attempts": 5_000} for row in rows[:20]]
        minutes = [{**row, "size_s": 60} for row in rows[:20]]
        for block in (noise, rows[:50], rows[30:], noise[:20], other, minutes, rows[:10]):
            insert(f"agg_{family}_all", block)

    def views() -> dict[str, list[dict[str, Any]]]:
        return {view: warehouse.rows(Query(f"SELECT * FROM {view} ORDER BY ALL")) for view in asked}

    before = views()
    for view, family in asked.items():
        found = {(datetime.fromisoformat(row["window_start"]), row[GROUPS[family]]): row for row in before[view]}
        assert found.keys() == expected[family].keys()
        for key, sums in expected[family].items():
            agrees(found[key], sums, family)
    for family in GROUPS:
        warehouse.command(f"SYSTEM START MERGES {warehouse.database}.agg_{family}_all")
        warehouse.command(f"OPTIMIZE TABLE agg_{family}_all FINAL")
    assert views() == before


def sketch_of(rng: np.random.Generator, count: int) -> Sketch:
    registers, ranks = registers_and_ranks(rng.integers(0, 2**64, size=count, dtype=np.uint64))
    held = np.zeros(REGISTERS, np.int64)
    np.maximum.at(held, registers, ranks)
    return {int(register): int(held[register]) for register in np.flatnonzero(held)}


@pytest.mark.stack
def test_distinct_subscribers_are_the_same_in_sql_as_in_numpy(warehouse: ClickHouse, insert: Insert) -> None:
    rng = np.random.default_rng(8)
    sizes = {"a": (1, 0), "b": (40, 60), "c": (900, 1_500), "d": (30_000, 5), "e": (0, 0)}
    sketches = {group: [sketch_of(rng, size) for size in pair] for group, pair in sizes.items()}
    rows = [
        {
            **state("region", "cdr", DAY + number * QUARTER, group, records=1, partition=number),
            "subscriber_registers": list(sketch),
            "subscriber_ranks": list(sketch.values()),
            "reversals": 1 if group == "b" else 0,
        }
        for group, pair in sketches.items()
        for number, sketch in enumerate(pair)
    ]
    insert("agg_region_all", rows)
    span = (DAY, DAY + timedelta(hours=1))
    for generation in (1, None):
        found = warehouse.rows(distinct_subscribers("region", *span, generation=generation))
        assert [row["region_id"] for row in found] == list(sizes)
        for row in found:
            expected = estimate(list(merged(*sketches[row["region_id"]]).values()))
            assert row["distinct_estimate"] == pytest.approx(expected, rel=1e-12), row["region_id"]
            assert row["reversals"] == (2 if row["region_id"] == "b" else 0)
    whole = warehouse.rows(distinct_subscribers("region", *span, by_group=False))[0]["distinct_estimate"]
    union = merged(*(sketch for pair in sketches.values() for sketch in pair))
    assert whole == pytest.approx(estimate(list(union.values())), rel=1e-12)
    view = warehouse.rows(Query("SELECT * FROM kpi_region WHERE region_id = 'c' ORDER BY window_start LIMIT 1"))[0]
    assert view["distinct_subscribers"] == pytest.approx(estimate(list(sketches["c"][0].values())), rel=1e-12)


def busiest(traffic: Mapping[datetime, int], day: date, zone: ZoneInfo) -> int:
    """The model: the greatest of all hours on quarter hours that lie within the day."""
    quarters = [DAY - timedelta(days=1) + n * QUARTER for n in range(96 * 5)]
    own = [at for at in quarters if at.astimezone(zone).date() == day]
    return max(sum(traffic.get(at + n * QUARTER, 0) for n in range(4)) for at in own if at + 3 * QUARTER in own)


@pytest.mark.stack
def test_the_busy_hour_is_the_greatest_of_all_hours_on_quarters_of_a_local_day(
    warehouse: ClickHouse, insert: Insert
) -> None:
    chance = random.Random(4)
    rows: list[dict[str, Any]] = []
    traffic: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    for group in ("a", "b", "silent", "late"):
        for quarter in range(96 * 2) if group != "late" else [95, 191]:
            if group == "late" or chance.random() < 0.2:
                held = 0 if group == "silent" else chance.choice([60_000, 300_000, chance.randrange(1, 10**7)])
                start = DAY + quarter * QUARTER
                traffic[group][start] += 2 * held
                rows += [state("cell", "cdr", start, group, records=1, holding_ms=held, partition=p) for p in range(2)]
    insert("agg_cell_all", rows)
    for name in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
        zone = ZoneInfo(name)
        found = warehouse.rows(busy_hours("cell", DAY, DAY + timedelta(days=2), time_zone=name, generation=1))
        assert found
        for row in found:
            held_by = traffic[row["cell_id"]]
            day = datetime.fromisoformat(row["step_start"]).astimezone(zone).date()
            assert (row["holding_ms"], row["hour_ms"]) == (busiest(held_by, day, zone), 3_600_000)
            if row["holding_ms"]:
                # where several hours hold the same calls, any that holds them is right; it lies within the day
                hour = [datetime.fromisoformat(row["busy_hour_start"]) + n * QUARTER for n in range(4)]
                assert sum(held_by.get(at, 0) for at in hour) == row["holding_ms"]
                assert {at.astimezone(zone).date() for at in hour} == {day}
            else:
                assert row["busy_hour_start"] is None


@pytest.mark.stack
def test_hours_and_days_follow_the_clock_of_their_zone(warehouse: ClickHouse, insert: Insert) -> None:
    starts = [DAY + timedelta(days=27) + n * QUARTER for n in range(96 * 3)]
    insert("agg_plan_all", [state("plan", "cdr", start, "P", records=1, attempts=1) for start in starts])
    span = (starts[0], starts[-1] + QUARTER)
    for name in ("Europe/Paris", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Chatham"):
        zone = ZoneInfo(name)
        by_day: dict[date, int] = defaultdict(int)
        by_hour: dict[datetime, int] = defaultdict(int)
        for start in starts:
            local = start.astimezone(zone)
            by_day[local.date()] += 1
            offset = local.utcoffset() or timedelta()
            by_hour[start - (start + offset - DAY) % timedelta(hours=1)] += 1
        days = warehouse.rows(window_kpis("plan", *span, step_s=None, time_zone=name, generation=1))
        assert [row["attempts"] for row in days] == list(by_day.values()), name
        hours = warehouse.rows(window_kpis("plan", *span, step_s=3_600, time_zone=name))
        found = {datetime.fromisoformat(row["step_start"]): row["attempts"] for row in hours}
        assert found == dict(by_hour), name


@pytest.mark.stack
def test_what_records_add_is_what_their_windows_sum(
    warehouse: ClickHouse, insert: Insert, fact: Callable[..., dict[str, Any]]
) -> None:
    at = DAY + timedelta(hours=10)
    calls: list[dict[str, Any]] = [
        {"status": "COMPLETED", "duration_ms": 60_000, "holding_ms": 70_000, "pdd_ms": 2_000},
        {"status": "DROPPED", "duration_ms": 30_000, "holding_ms": None, "last_cell_id": "c2"},
        {"status": "BUSY", "duration_ms": 0},
        {"record_type": "DATA", "duration_ms": 1_000, "bytes_down": 500, "is_partial": True},
        {"record_type": "DATA", "duration_ms": 2_000, "bytes_down": 700, "bytes_up": 100},
        {"record_type": "SMS", "duration_ms": None, "bytes_down": None},
    ]
    base = {"holding_ms": None, "pdd_ms": None, "last_cell_id": None, "is_partial": False, "bytes_down": None}
    base |= {"subscriber_kind": "MSISDN", "cell_id": "c1", "started_at": at, "bytes_up": None, "status": "COMPLETED"}
    subscribers = ["k1.AAAAAAAAAAAAAAAAAAAAAA", "33612345678"]
    rows = [
        fact(n, **{**base, "subscriber_id": subscribers[n % 2], "batch_id": n, "line": n, **call})
        for n, call in enumerate(calls)
    ]
    insert("fact_cdr_all", rows)
    kpis = [kpi for kpi in KPIS if "cdr" in kpi.needs]

    def added(**more: Any) -> dict[str, list[dict[str, Any]]]:
        question = contributing(kpis, "cell", at, at + QUARTER, generation=1, **more)
        return question.records(warehouse.rows(question.query)[0])

    sums: dict[str, int] = defaultdict(int)
    for records in added().values():
        for record in records:
            for name, value in record["adds"].items():
                sums[f"{name}/{record['offset']}"] = value
    totals: dict[str, int] = defaultdict(int)
    for key, value in sums.items():
        totals[key.split("/")[0]] += value
    assert dict(totals) == {
        "attempts": 3,
        "completed": 1,
        "no_answer": 0,
        "busy": 1,
        "dropped": 1,
        "ended_answered": 2,
        "ended_dropped": 1,
        "holding_ms": 100_000,
        "duration_ms": 90_000,
        "pdd_ms": 2_000,
        "pdd_ms_count": 1,
        "sessions": 1,
        "bytes_up": 100,
        "bytes_down": 1_200,
        "data_bytes": 1_300,
        "data_duration_ms": 3_000,
        "distinct_estimate": 6,
    }
    of_c2 = added(groups=["c2"])
    assert [record["offset"] for record in of_c2["drop_ratio"]] == [1]
    assert of_c2["call_attempts"] == []
    assert [record["offset"] for record in added(groups=["c1"])["drop_ratio"]] == [0]
    first, second = added(limit=2)["call_attempts"]
    assert (first["subscriber_id"], second["subscriber_id"]) == ("k1.AAAAAAAAAAAAAAAAAAAAAA", "masked")
    assert (first["started_at"], first["adds"]) == ("2026-03-01T10:00:00.000Z", {"attempts": 1})
    network = contributing([kpi for kpi in KPIS if "network" in kpi.needs], "cell", at, at + QUARTER, groups=["c1"])
    assert not any(network.records(warehouse.rows(network.query)[0]).values())


# as Grafana's ClickHouse data source writes $__timeFilter, $__timeFilter_ms, and a panel's own bounds
PREDICATES = {
    "time filter": "window_start >= toDateTime(1772582400) AND window_start <= toDateTime(1772586000)",
    "time filter in ms": "window_start >= fromUnixTimestamp64Milli(1772582400000) "
    "AND window_start <= fromUnixTimestamp64Milli(1772586000000)",
    "bounds": "window_start >= toDateTime64('2026-03-04 00:00:00.000', 3, 'UTC') "
    "AND window_start < toDateTime64('2026-03-04 01:00:00.000', 3, 'UTC')",
    "macro of text": "window_start >= toDateTime64(1772582400.000, 3) AND window_start < toDateTime64(1772586000.0, 3)",
}
ASKED = {"fact_cell_kpi": "cell_id = 'c7'", "kpi_cell": "cell_id = 'c7'", "agg_cell": "cell_id = 'c7' AND size_s = 900"}


def granules(warehouse: ClickHouse, sql: str) -> tuple[int, int]:
    """Granules read, and all there are."""
    text = "\n".join(row["explain"] for row in warehouse.rows(Query(f"EXPLAIN indexes = 1 {sql}")))
    found = [(int(left), int(all_)) for left, all_ in re.findall(r"Granules: (\d+)/(\d+)", text)]
    assert found, text
    return found[-1][0], found[0][1]


@pytest.mark.stack
def test_what_grafana_writes_uses_the_key_through_the_views(warehouse: ClickHouse, insert: Insert) -> None:
    starts = [datetime(2026, month, 1, tzinfo=UTC) + n * QUARTER for month in (2, 3) for n in range(96 * 6)]
    table = "agg_cell_all"
    names = ", ".join(("generation", "type", "size_s", "cell_id", "window_start", "src_to", "records"))
    for month in (2, 3):
        warehouse.command(
            f"INSERT INTO {table} ({names}) SELECT 1, type, size, concat('c', toString(c)), "
            f"toDateTime64('2026-0{month}-01 00:00:00', 3, 'UTC') + INTERVAL 15 * n MINUTE, 1, 1 FROM "
            "(SELECT arrayJoin(['cdr', 'network']) AS type, arrayJoin([60, 900]) AS size, arrayJoin(range(60)) AS c, "
            f"arrayJoin(range({len(starts) // 2})) AS n)"
        )
    for view, of_cell in ASKED.items():
        for name, predicate in PREDICATES.items():
            what = "sum(call_attempts_num)" if view == "kpi_cell" else "sum(records)"
            one, every = granules(warehouse, f"SELECT {what} FROM {view} WHERE {predicate} AND {of_cell}")
            assert every >= 30
            # two types, one granule each, and one more where a range begins within a granule
            assert one <= 4, (view, name, one, every)
            all_cells = f"SELECT cell_id, count() FROM {view} WHERE {predicate} GROUP BY cell_id"
            some, every = granules(warehouse, all_cells)
            assert some < every, (view, name)
    query = window_kpis("cell", starts[-1] - timedelta(hours=1), starts[-1], groups=["c7"], generation=1)
    text = query.sql
    for key, value in query.http_params().items():
        text = re.sub(rf"\{{{key.removeprefix('param_')}:[^}}]*\}}", _literal(value), text)
    one, every = granules(warehouse, text)
    assert one <= 4 < every


def _literal(value: str) -> str:
    return value if value.startswith("[") else f"'{value}'"
