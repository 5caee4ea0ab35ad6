"""Realtime, usage, network performance and dead letters on real Kafka, ClickHouse and PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from query_api.domain.measures import CDR_MEASURES, NETWORK_MEASURES, USAGE_MEASURES
from telestream_warehouse import activate

pytestmark = pytest.mark.stack
DAY = datetime(2026, 8, 31, 22, tzinfo=UTC)  # midnight in Paris
SUBSCRIBER = "k1.AAAAAAAAAAAAAAAAAAAAAA"
GROUPS = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
OTHER_FIELDS = {"late_records": 0, "reversals": 0, "late_at": None, "subscriber_registers": [], "subscriber_ranks": []}


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return found


def upsert(family: str, group: str, window_start: datetime, **more: Any) -> dict[str, Any]:
    return {
        "type": "cdr",
        "size_s": 60,
        "window_start": window_start,
        GROUPS[family]: group,
        "partition": 0,
        "segment": 0,
        "src_to": 99,
        "marker_offset": None,
        "freshest_event_end_at": window_start + timedelta(seconds=20),
        **dict.fromkeys(CDR_MEASURES.all, 0),
        **(dict.fromkeys(NETWORK_MEASURES.all, 0) if family != "plan" else {}),
        **OTHER_FIELDS,
        "charge_currencies": [],
        "charge_micros": [],
        **more,
    }


def this_minute() -> datetime:
    now = datetime.now(UTC)
    if now.second > 50:
        time.sleep(60 - now.second)
        now = datetime.now(UTC)
    return now.replace(second=0, microsecond=0)


def test_the_tail_shows_the_latest_state_summed_over_partitions_and_segments(world: Any) -> None:
    minute = this_minute()
    states = [
        upsert("region", "R1", minute, attempts=10, completed=5, src_to=10),
        upsert("region", "R1", minute, attempts=12, completed=6, dropped=1, src_to=12),
        upsert(
            "region", "R1", minute, attempts=3, completed=3, partition=1, charge_currencies=["EUR"], charge_micros=[7]
        ),
        upsert("region", "R1", minute, attempts=1, completed=1, segment=1),
        upsert("region", "R2", minute - timedelta(minutes=1), attempts=4),
        upsert("region", "R2", minute, type="network", latency_us=12_500, latency_us_count=2, events=2, partition=2),
        upsert("region", "R9", minute - timedelta(days=3), attempts=1_000),
    ]
    keys = [f"{s['type']}/{s['window_start']}/{s['region_id']}/{s['partition']}/{s['segment']}" for s in states]
    world.publish(world.topics.agg("region"), "agg_region", states, keys)
    path = "/v1/metrics/realtime"
    until(lambda: world.data(path)["rows"][0]["attempts"] == 20)
    body = world.get(path, group_by="region", minutes=5).json()
    rows = {row["region_id"]: row for row in body["data"]["rows"]}
    assert set(rows) == {"R1", "R2"}
    assert rows["R1"]["attempts"] == 12 + 3 + 1
    assert rows["R1"]["answer_seizure_ratio"] == {"value": 11 / 16, "num": 6 + 1 + 3 + 1, "den": 16}
    assert rows["R1"]["charges"] == [{"currency": "EUR", "amount": "0.000007"}]
    assert rows["R2"]["latency_ms"] == {"value": 6.25, "num": 12.5, "den": 2}
    assert rows["R1"]["latency_ms"]["value"] is None
    assert body["as_of"] == (minute + timedelta(seconds=20)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert body["complete_to"] is None
    assert body["generation"] == 1
    by_minute = world.data(path, group_by="region", step="1m", region_id="R2", minutes=5)["rows"]
    assert [(row["attempts"], row["events"]) for row in by_minute] == [(4, 0), (0, 2)]
    assert [row["window_start"][14:16] for row in by_minute] == [
        f"{(minute.minute - 1) % 60:02d}",
        f"{minute.minute:02d}",
    ]
    assert all(0 < row["traffic_erlang"]["den"] <= 60_000 for row in by_minute if row["traffic_erlang"]["den"])
    one = world.data(path, minutes=1)["rows"][0]
    assert one["attempts"] == 16


def test_completeness_follows_progress_as_far_as_the_tail_includes_it(world: Any) -> None:
    minute = this_minute()
    now = datetime.now(UTC)
    marks = [
        {
            "type": kind,
            "partition": partition,
            "next_offset": 0,
            "raw_end": 0,
            "watermark": None,
            "sources": [],
            "source_event_end_at": [],
            "source_arrived_at": [],
            "rules_version": 1,
            "reference_positions": {},
            "at": now,
        }
        for kind in ("cdr", "network")
        for partition in range(4)
    ]
    watermark = now - timedelta(minutes=5)
    marks[0] |= {"next_offset": 50, "raw_end": 50, "watermark": watermark}
    world.publish(world.topics.progress, "progress", marks, [f"{m['type']}/{m['partition']}" for m in marks])
    plan = upsert("plan", "P1", minute, records=1, src_to=49)
    world.publish(world.topics.agg("plan"), "agg_plan", [plan], ["p"])
    expected = watermark.strftime("%Y-%m-%dT%H:%M:%S.") + f"{watermark.microsecond // 1000:03d}Z"
    until(lambda: world.get("/v1/metrics/realtime", group_by="plan").json()["complete_to"] == expected)
    ahead = {**marks[0], "next_offset": 60, "raw_end": 60, "watermark": now}
    world.publish(world.topics.progress, "progress", [ahead], ["cdr/0"])
    time.sleep(0.5)
    assert world.get("/v1/metrics/realtime", group_by="plan").json()["complete_to"] == expected


@pytest.fixture(scope="module")
def history(world: Any) -> None:
    """Two quarter hours of two cells, three days of one customer, five dead letters."""
    quarter = dict.fromkeys((*CDR_MEASURES.all, *NETWORK_MEASURES.all), 0)
    windows = []
    for cell, start, attempts, partition in (
        ("208-01-1", DAY, 10, 0),
        ("208-01-1", DAY, 5, 1),
        ("208-01-1", DAY + timedelta(minutes=45), 1, 0),
        ("208-01-1", DAY + timedelta(hours=23, minutes=45), 2, 0),
        ("208-01-1", DAY + timedelta(hours=24), 4, 0),
        ("208-01-2", DAY, 7, 0),
    ):
        windows.append(
            {
                **quarter,
                "generation": 1,
                "type": "cdr",
                "size_s": 900,
                "window_start": start,
                "cell_id": cell,
                "partition": partition,
                "segment": 0,
                "src_to": 9,
                "freshest_event_end_at": start + timedelta(minutes=10),
                "attempts": attempts,
                "completed": 1,
                "charge_currencies": ["EUR"],
                "charge_micros": [1_500_000],
            }
        )
    windows.append(
        {
            **windows[0],
            "type": "network",
            "attempts": 0,
            "completed": 0,
            "success_known": 4,
            "successes": 3,
            "latency_us": 90_000,
            "latency_us_count": 3,
            "charge_currencies": [],
            "charge_micros": [],
        }
    )
    world.insert("agg_cell_all", windows)
    usage = dict.fromkeys(USAGE_MEASURES.all, 0)
    days = []
    for number, currency, micros in ((0, "EUR", 1_250_000), (0, "USD", 2), (1, "EUR", 5), (2, "", 0)):
        start = DAY + timedelta(days=number)
        days.append(
            {
                **usage,
                "generation": 1,
                "type": "cdr",
                "size_s": 86_400,
                "window_start": start,
                "local_date": date(2026, 9, 1) + timedelta(days=number),
                "subscriber_id": SUBSCRIBER,
                "plan_id": "P1",
                "roaming": "HOME",
                "direction": "MO",
                "currency": currency,
                "partition": 0,
                "segment": 0,
                "src_to": 9,
                "records": 3,
                "duration_ms": 60_000,
                "charge_micros": micros,
            }
        )
    world.insert("agg_subscriber_day_all", days)
    world.insert(
        "reference_customer",
        [
            {
                "src_partition": 0,
                "src_offset": 0,
                "identifier": SUBSCRIBER,
                "identifier_kind": "MSISDN",
                "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
                "deleted": False,
                "customer_id": "C 1/ü",
                "source": "crm",
                "batch_id": 1,
                "line": 1,
                "ingested_at": datetime(2026, 1, 1, tzinfo=UTC),
            }
        ],
    )
    world.insert(
        "dead_letter_all",
        [
            {
                "generation": generation,
                "type": kind,
                "src_topic": world.topics.raw(kind),
                "src_partition": number % 2,
                "src_offset": number,
                "appended_at": DAY + timedelta(hours=number),
                "rule": "too_old" if number else "negative_value",
                "reason": "duration_ms is below 0",
                "field": "duration_ms",
                "source": "msc-1",
                "batch_id": 7,
                "line": number,
                "event_uid": "u",
                "rules_version": 1,
                "original": b"secret 33612345678".decode(),
            }
            for generation, kind, number in (
                *((1, "cdr", number) for number in range(5)),
                (1, "network", 2),
                (2, "cdr", 9),
            )
        ],
    )


def test_quarters_hours_and_local_days_are_sums_of_the_same_windows(world: Any, history: None) -> None:
    path, day = "/v1/network/performance", {"from_": "2026-09-01", "to": "2026-09-02", "tz": "Europe/Paris"}
    quarters = world.data(path, step="15m", cell_id="208-01-1", **day)["rows"]
    assert [(row["step_start"], row["attempts"]) for row in quarters] == [
        ("2026-08-31T22:00:00.000Z", 15),
        ("2026-08-31T22:45:00.000Z", 1),
        ("2026-09-01T21:45:00.000Z", 2),
    ]
    hours = world.data(path, step="1h", cell_id="208-01-1", **day)["rows"]
    assert [row["attempts"] for row in hours] == [16, 2]
    body = world.get(path, step="1d", **{**day, "from": day["from_"]}).json()
    days = {row["cell_id"]: row for row in body["data"]["rows"]}
    assert days["208-01-1"]["attempts"] == 18
    assert days["208-01-2"]["attempts"] == 7
    assert days["208-01-1"]["charges"] == [{"currency": "EUR", "amount": "6.000000"}]
    assert days["208-01-1"]["answer_seizure_ratio"] == {"value": 4 / 18, "num": 4, "den": 18}
    assert days["208-01-1"]["latency_ms"] == {"value": 30.0, "num": 90.0, "den": 3}
    assert body["as_of"] == "2026-09-01T21:55:00.000Z"
    both = world.data(path, step="1d", from_="2026-09-01", to="2026-09-03", tz="Europe/Paris", cell_id="208-01-1")
    assert [row["attempts"] for row in both["rows"]] == [18, 4]
    utc = world.data(path, step="1d", from_="2026-08-31", to="2026-09-02", tz="UTC", cell_id="208-01-1")["rows"]
    assert [row["attempts"] for row in utc] == [16, 6]
    kolkata = world.data(path, step="1h", cell_id="208-01-1", **(day | {"tz": "Asia/Kolkata", "from_": "2026-08-31"}))
    assert [(row["step_start"], row["attempts"]) for row in kolkata["rows"]] == [
        ("2026-08-31T21:30:00.000Z", 15),
        ("2026-08-31T22:30:00.000Z", 1),
    ]


def test_usage_is_by_local_day_with_money_by_currency_as_text(world: Any, history: None) -> None:
    params = {"from_": "2026-09-01", "to": "2026-09-03"}
    days = world.data(f"/v1/customers/{SUBSCRIBER}/usage", **params)["rows"]
    assert [day["local_date"] for day in days] == ["2026-09-01", "2026-09-02"]
    assert days[0]["charges"] == [{"currency": "EUR", "amount": "1.250000"}, {"currency": "USD", "amount": "0.000002"}]
    assert (days[0]["records"], days[0]["duration_ms"]) == (6, 120_000)
    grouped = world.data(f"/v1/customers/{SUBSCRIBER}/usage", group_by=["roaming", "plan_id"], **params)["rows"]
    assert [(day["roaming"], day["plan_id"], day["records"]) for day in grouped] == [
        ("HOME", "P1", 6),
        ("HOME", "P1", 3),
    ]
    third = world.data(f"/v1/customers/{SUBSCRIBER}/usage", from_="2026-09-03", to="2026-09-04")["rows"]
    assert third[0]["charges"] == []


def test_an_unknown_customer_is_404_and_a_known_one_without_usage_is_empty(world: Any, history: None) -> None:
    for unknown in ("nobody", "k1.ZZZZZZZZZZZZZZZZZZZZZZ"):
        found = world.get(f"/v1/customers/{unknown}/usage", from_="2026-09-01", to="2026-09-03")
        assert (found.status_code, found.json()["code"], found.json()["field"]) == (404, "not_found", "id")
    empty = world.data(f"/v1/customers/{SUBSCRIBER}/usage", from_="2025-09-01", to="2025-09-03")
    assert empty["rows"] == []


def test_a_number_is_looked_up_by_the_gateway_and_stands_in_no_answer(world: Any, history: None) -> None:
    for body in ({"msisdn": "+33612345678"}, {"imsi": "208011234567890"}):
        found = world.client.post("/v1/customers/lookup", json=body)
        assert found.status_code == 200, found.text
        assert found.json()["data"] == {"customer_ref": SUBSCRIBER, "customer_id": "C 1/ü"}
        assert not any(number in found.text for number in body.values())
    for body in (
        {"msisdn": "99987654321000"},
        {"msisdn": "hello 99987654321"},
        {"msisdn": 33612345678},
        {"line": "99987654321"},
    ):
        found = world.client.post("/v1/customers/lookup", json=body)
        assert found.status_code == 422
        assert found.headers["content-type"] == "application/problem+json"
        assert "99987654321" not in found.text
        assert "33612345678" not in found.text
    assert (
        world.client.post(
            "/v1/customers/lookup", content=b"{", headers={"Content-Type": "application/json"}
        ).status_code
        == 400
    )
    big = world.client.post("/v1/customers/lookup", json={"msisdn": "1" * 5_000})
    assert big.status_code == 413


def test_dead_letters_come_newest_first_page_by_page_without_identity(world: Any, history: None) -> None:
    seen, cursor = [], None
    while True:
        params = {"type": "cdr", "limit": 2} | ({"cursor": cursor} if cursor else {})
        found = world.client.get("/v1/dead-letters", params=params)
        assert found.status_code == 200, found.text
        assert "33612345678" not in found.text
        assert "original" not in found.text
        body = found.json()
        assert body["generation"] == 1
        seen += [row["position"]["offset"] for row in body["data"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == [4, 3, 2, 1, 0]
    rows = world.data("/v1/dead-letters", rule="negative_value")
    assert [(row["rule"], row["field"], row["line"]) for row in rows] == [("negative_value", "duration_ms", 0)]
    assert rows[0]["position"] == {"topic": world.topics.raw("cdr"), "partition": 0, "offset": 0}
    assert {row["type"] for row in world.data("/v1/dead-letters")} == {"cdr", "network"}
    hour = world.data("/v1/dead-letters", type="cdr", from_="2026-08-31T23:00:00Z", to="2026-09-01T00:00:00Z")
    assert [row["position"]["offset"] for row in hour] == [1]
    assert world.data("/v1/dead-letters", batch=8) == []


def test_a_cursor_stays_with_its_generation_when_another_becomes_active(world: Any, history: None) -> None:
    world.sunk_to("cdr", [12])
    first = world.client.get("/v1/dead-letters", params={"type": "cdr", "limit": 2}).json()
    world.clickhouse.command(activate({"cdr": 2}, "test"))
    try:
        fresh = world.client.get("/v1/dead-letters", params={"type": "cdr"}).json()
        assert (fresh["generation"], [row["position"]["offset"] for row in fresh["data"]]) == (2, [9])
        second = world.client.get(
            "/v1/dead-letters", params={"type": "cdr", "limit": 2, "cursor": first["next_cursor"]}
        ).json()
        assert (second["generation"], [row["position"]["offset"] for row in second["data"]]) == (1, [2, 1])
        both = world.client.get("/v1/dead-letters").json()
        assert both["generation"] == {"cdr": 2, "network": 1}
        assert {(row["type"], row["position"]["offset"]) for row in both["data"]} == {("cdr", 9), ("network", 2)}
    finally:
        world.clickhouse.command(activate({"cdr": 1}, "test"))


INJECTIONS = [
    "' OR 1=1 --",
    "x'; DROP TABLE fact_cdr_all; --",
    "{a:String}",
    "\\' OR 1=1 --",
    "') UNION ALL SELECT * FROM system.users --",
    "%27%20OR%201=1",
    "\t\n\\N",
    "url('http://127.0.0.1')",
]


@pytest.mark.parametrize("attack", INJECTIONS)
def test_parameters_are_bound_never_pasted(world: Any, history: None, attack: str) -> None:
    for name in ("source", "rule"):
        found = world.client.get("/v1/dead-letters", params={name: attack})
        assert (found.status_code, found.json()["data"]) == (200, [])
    assert world.client.get("/v1/reconciliation", params={"source": attack}).json()["data"]["stored"] == 0
    rows = world.client.get("/v1/network/performance", params={"cell_id": attack}).json()["data"]["rows"]
    assert rows == []
    for name in ("type", "from", "to", "tz", "batch", "by"):
        assert world.client.get("/v1/reconciliation", params={name: attack}).status_code == 422
    usage = world.client.get(f"/v1/customers/{quote(attack, safe='')}/usage")
    assert usage.status_code == 404
    assert world.count("SELECT count() FROM dead_letter_all") == 7
