"""KPIs and usage, as the API and the published views give them, against an independent recomputation from the facts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from telestream_domain.kpis import KPIS
from telestream_simulator import Scenario, write_files
from telestream_warehouse import Query

from .kpis_again import (
    APART,
    OF_CALLS,
    OF_EVENTS,
    USAGE,
    USAGE_SUMS,
    Steps,
    availability,
    busy_hours,
    day_of_clock_change,
    kpis,
    usage,
)
from .test_recomputed_aggregates import World, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

OF_WINDOWS = (*OF_CALLS, *OF_EVENTS)
DAYS = 3
CUSTOMERS = 12


@dataclass(frozen=True, slots=True)
class Traffic:
    """Stored and aggregated, of days from ``since`` up to ``until``, among them one of 23 or 25 hours in Paris."""

    world: World
    since: date
    until: date
    cdrs: pl.DataFrame
    events: pl.DataFrame

    def ids(self, group: str) -> list[str]:
        return sorted({*self.cdrs[group].drop_nulls(), *self.events[group].drop_nulls()})

    def get(self, path: str, **params: Any) -> list[dict[str, Any]]:
        answer = self.world.http.get(f"{self.world.url['query-api']}{path}", params=params)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]["rows"]
        return rows

    def performance(self, group: str, steps: Steps, names: tuple[str, ...], path: str = "") -> list[dict[str, Any]]:
        asked = {"from": steps.since.isoformat(), "to": steps.until.isoformat(), "step": steps.step, "tz": steps.zone}
        if path:
            return self.get(path, kpi=names, **asked)
        ids = {f"{group}_id": self.ids(f"{group}_id")}
        return self.get("/v1/network/performance", group_by=group, kpi=names, **asked, **ids)


@pytest.fixture(scope="module")
def traffic(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """Days around the last change of the clock in Europe, and weeks before: all of it late, the younger file first."""
    world = World(stack)
    changed = day_of_clock_change(datetime.now(UTC), "Europe/Paris")
    scenario = Scenario(
        start=changed,
        days=DAYS,
        records=14_000,
        network_records=6_000,
        customers=2_000,
        cells=12,
        files=2,
        late=0.1,
        block=int(time.time()),
        seed=7,
        source=world.name,
    )
    written = write_files(scenario, tmp_path_factory.mktemp("traffic"))
    for kind, path in written.reference.items():
        world.put(path, kind)
    for path in written.network:
        world.put(path, "network")
    for path in reversed(written.cdr):
        world.put(path, "cdr")
    until(world.settled, "facts and books")
    cdrs, events = world.facts("cdr"), world.facts("network")
    since = min(cdrs["started_at"].min(), events["occurred_at"].min()).date()
    assert changed - since > timedelta(days=7)
    found = Traffic(world, since, changed + timedelta(days=DAYS + 1), cdrs, events)
    in_windows = _counted(found)
    until(lambda: in_windows() == (cdrs.drop_nulls("cell_id").height, events.height), "quarter hours", 90)
    return found


def _counted(traffic: Traffic) -> Callable[[], Any]:
    params = {"cells": traffic.ids("cell_id")}
    sql = "SELECT sum(records), sum(events) FROM agg_cell WHERE size_s = 900 AND cell_id IN {cells:Array(String)}"
    return lambda: traffic.world.clickhouse.frame(Query(sql, params)).row(0)


def sides(rows: list[dict[str, Any]], group: str, names: tuple[str, ...]) -> pl.DataFrame:
    """An answer's rows as a frame of KPIs. Every value is the quotient of its sides, or null."""
    flat = []
    for row in rows:
        at = round(datetime.fromisoformat(row["step_start"]).timestamp() * 1_000)
        entry: dict[str, Any] = {group: row[group], "step": at}
        for name in names:
            kpi = row[name]
            assert kpi["value"] == (pytest.approx(kpi["num"] / kpi["den"]) if kpi["den"] else None), (name, row)
            entry |= {f"{name}_num": float(kpi["num"]), f"{name}_den": float(kpi["den"])}
        flat.append(entry)
    return pl.DataFrame(flat, infer_schema_length=None).sort(group, "step")


def same(found: pl.DataFrame, wanted: pl.DataFrame, names: tuple[str, ...] = OF_WINDOWS) -> None:
    """All rows and both sides of every KPI."""
    columns = [f"{name}_{side}" for name in names for side in ("num", "den")]
    keys = wanted.columns[:2]
    assert wanted.height >= 9, wanted
    assert_frame_equal(
        found.select(*keys, *columns),
        wanted.select(*keys, *columns),
        check_dtypes=False,
        check_exact=False,
        rel_tol=1e-9,
        abs_tol=1e-9,
    )


def test_the_recomputation_has_every_kpi_and_the_traffic_what_tells_them_apart(traffic: Traffic) -> None:
    assert {kpi.name for kpi in KPIS} == {*OF_WINDOWS, *APART}
    for what in (
        pl.col("last_cell_id") != pl.col("cell_id"),
        pl.col("is_partial").cast(pl.Boolean),
        pl.col("segments") > 1,
        pl.col("record_type").is_in(["VOICE", "VIDEO"]) & pl.col("pdd_ms").is_null(),
        pl.col("holding_ms") > pl.col("duration_ms"),
        (pl.col("appended_at") - pl.col("started_at")).dt.total_days() > 7,
    ):
        assert traffic.cdrs.filter(what).height > 10, what
    assert traffic.events["success"].null_count() > 10
    assert {"CELL_DOWN", "ALARM"} <= set(traffic.events["event_type"])


@pytest.mark.parametrize(
    ("group", "step", "zone"),
    [
        ("cell", "1h", "UTC"),
        ("cell", "1h", "Asia/Kathmandu"),
        ("region", "1d", "UTC"),
        ("region", "1d", "Asia/Kathmandu"),
        ("region", "1d", "Europe/Paris"),
    ],
)
def test_kpis_per_group_and_step_equal_the_facts_summed_again(
    traffic: Traffic, group: str, step: str, zone: str
) -> None:
    steps, key = Steps(traffic.since, traffic.until, step, zone), f"{group}_id"
    wanted = kpis(traffic.cdrs, traffic.events, key, steps)
    names = (*OF_WINDOWS, "distinct_subscribers")
    rows = traffic.performance(group, steps, names)
    found = sides(rows, key, names)
    same(found, wanted)
    if step == "1h":
        # of some hours something is not known: null, as its denominator is 0
        assert all(any((wanted[f"{name}_den"] == 0).any() for name in kinds) for kinds in (OF_CALLS, OF_EVENTS))
    distinct = wanted.select("subscribers").with_columns(found["distinct_subscribers_num"].alias("estimate"))
    off = distinct.filter((pl.col("estimate") - pl.col("subscribers")).abs() > 4 * 0.0325 * pl.col("subscribers") + 2)
    assert off.is_empty(), off


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_the_busy_hour_of_each_region_and_day_is_the_greatest_of_all_hours(traffic: Traffic, zone: str) -> None:
    days = Steps(traffic.since, traffic.until, "1d", zone)
    hours = busy_hours(traffic.cdrs, "region_id", days)
    found = traffic.performance("region", days, ("busy_hour_erlang",))
    seen = set()
    for row in found:
        at = round(datetime.fromisoformat(row["step_start"]).timestamp() * 1_000)
        of_day = hours.get((row["region_id"], at))
        kpi = row["busy_hour_erlang"]
        if of_day is None:
            assert kpi["value"] is None, row
            continue
        seen.add((row["region_id"], at))
        assert (kpi["num"], kpi["den"]) == (max(of_day.values()), 3_600_000), row
        assert kpi["value"] == pytest.approx(kpi["num"] / 3_600_000), row
        if kpi["num"]:
            begins = round(datetime.fromisoformat(row["busy_hour_start"]).timestamp() * 1_000)
            assert of_day[begins] == kpi["num"], row
    assert seen == hours.keys()


@pytest.mark.parametrize(("step", "zone"), [("1h", "UTC"), ("1d", "Europe/Paris"), ("1d", "Asia/Kathmandu")])
def test_availability_of_each_cell_equals_a_plain_walk_over_its_events(traffic: Traffic, step: str, zone: str) -> None:
    steps = Steps(traffic.since, traffic.until, step, zone)
    wanted = availability(traffic.events, steps)
    found = {
        (row["cell_id"], round(datetime.fromisoformat(row["step_start"]).timestamp() * 1_000)): (
            row["cell_availability"]["num"],
            row["cell_availability"]["den"],
        )
        for row in traffic.performance("cell", steps, ("cell_availability",))
    }
    assert min(up for up, _ in wanted.values()) < max(up for up, _ in wanted.values())
    assert found.keys() == wanted.keys()
    assert not {key: (found[key], wanted[key]) for key in wanted if found[key] != pytest.approx(wanted[key])}


def test_kpis_of_one_cell_and_of_a_series_of_plans_are_the_same_sums(traffic: Traffic) -> None:
    days = Steps(traffic.since, traffic.until, "1h", "Asia/Kathmandu")
    cell = traffic.cdrs["cell_id"].drop_nulls().mode()[0]
    wanted = kpis(traffic.cdrs, traffic.events, "cell_id", days).filter(pl.col("cell_id") == cell)
    rows = traffic.performance("cell", days, OF_WINDOWS, f"/v1/cells/{cell}/kpis")
    found = sides([row | {"cell_id": cell} for row in rows], "cell_id", OF_WINDOWS)
    same(found, wanted)
    plans = sorted(set(traffic.cdrs["plan_id"].drop_nulls()))
    asked = {"from": traffic.since.isoformat(), "to": traffic.until.isoformat(), "step": "1h", "tz": "Asia/Kathmandu"}
    rows = traffic.get("/v1/metrics/timeseries", family="plan", kpi=OF_CALLS, plan_id=plans, **asked)
    calls_only = kpis(traffic.cdrs, traffic.events.clear().with_columns(plan_id=pl.lit("")), "plan_id", days)
    same(sides(rows, "plan_id", OF_CALLS), calls_only, OF_CALLS)


@pytest.mark.parametrize(
    ("view", "group"), [("kpi_cell", "cell_id"), ("fact_cell_kpi", "cell_id"), ("kpi_region", "region_id")]
)
def test_published_views_have_the_same_quarter_hours(traffic: Traffic, view: str, group: str) -> None:
    quarters = Steps(traffic.since, traffic.until, "15m")
    sql = f"SELECT * FROM {view} WHERE {group} IN {{ids:Array(String)}}"
    rows = traffic.world.clickhouse.frame(Query(sql, {"ids": traffic.ids(group)}))
    found = rows.with_columns(pl.col(group).cast(pl.String), pl.col("window_start").dt.epoch("ms").alias("step"))
    found = found.sort(group, "step")
    same(found, kpis(traffic.cdrs, traffic.events, group, quarters))
    for name in OF_WINDOWS:
        den = found[f"{name}_den"]
        quotient = found.select(
            pl.when(den != 0).then(pl.col(f"{name}_num") / pl.col(f"{name}_den")).cast(pl.Float64).alias(name)
        )
        assert_frame_equal(found.select(pl.col(name).cast(pl.Float64)), quotient)


def charges_of(row: dict[str, Any]) -> str:
    amounts = {entry["currency"]: int(Decimal(entry["amount"]) * 10**6) for entry in row["charges"]}
    return " ".join(f"{currency}={micros}" for currency, micros in amounts.items() if micros)


def changed_hands(traffic: Traffic) -> tuple[list[str], pl.DataFrame]:
    """Customers of numbers that were passed on, and first days of numbers, which wholly belong to the first holder."""
    sql = (
        "SELECT identifier, toDate(min(valid_from)) AS date, argMin(customer_id, valid_from) AS first, "
        "argMax(customer_id, valid_from) AS last FROM reference_customer FINAL "
        "WHERE identifier IN (SELECT subscriber_id FROM fact_cdr WHERE source = {source:String} "
        "AND customer_id IS NOT NULL) GROUP BY identifier ORDER BY identifier"
    )
    holders = traffic.world.clickhouse.frame(Query(sql, {"source": traffic.world.name}))
    passed_on = holders.filter(pl.col("first") != pl.col("last"))
    first_days = holders.select(pl.col("first").alias("customer_id"), pl.col("date").cast(pl.Date).cast(pl.String))
    return [*passed_on["first"], *passed_on["last"]], first_days


@pytest.mark.parametrize(("whose", "groups"), [("customer_id", ["roaming", "direction"]), ("subscriber_id", [])])
def test_usage_per_customer_or_number_and_day_equals_the_facts_summed_again(
    traffic: Traffic, whose: str, groups: list[str]
) -> None:
    wanted = usage(traffic.cdrs, whose, groups)
    heaviest = wanted.group_by(whose).agg(pl.col("records").sum()).sort("records", whose, descending=True)
    chosen = {*heaviest[whose][: CUSTOMERS // 2], *heaviest[whose][-CUSTOMERS // 2 :]}
    first_days = pl.DataFrame(schema={whose: pl.String, "date": pl.String})
    if whose == "customer_id":
        passed_on, first_days = changed_hands(traffic)
        assert passed_on
        chosen |= set(passed_on[:CUSTOMERS])
    wanted = wanted.filter(pl.col(whose).is_in(list(chosen))).join(first_days, on=[whose, "date"], how="anti")

    def found() -> pl.DataFrame:
        span = {"from": traffic.since.isoformat(), "to": traffic.until.isoformat(), "group_by": groups}
        rows = [
            {whose: holder, "date": row["local_date"]}
            | {name: row[name] for name in (*groups, *USAGE, *USAGE_SUMS)}
            | {"charges": charges_of(row)}
            for holder in chosen
            for row in traffic.get(f"/v1/customers/{holder}/usage", **span)
        ]
        shown = pl.DataFrame(rows, schema=wanted.schema).join(first_days, on=[whose, "date"], how="anti")
        return shown.sort(whose, "date", *groups)

    def right() -> bool:
        return found().equals(wanted.sort(whose, "date", *groups))

    try:
        until(right, "usage", 60)
    except AssertionError:
        assert_frame_equal(found(), wanted.sort(whose, "date", *groups))
        raise
