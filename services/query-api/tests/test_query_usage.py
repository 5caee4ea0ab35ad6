"""``GET /v1/customers/{id}/usage`` on real ClickHouse: steps, allowances, proof; and the page that describes it."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from query_api.domain.measures import USAGE_MEASURES
from query_api.domain.usage_allowances import SERVICES
from query_api.domain.usage_measures import explained
from telestream_warehouse import Query

pytestmark = pytest.mark.stack
PARIS = ZoneInfo("Europe/Paris")
NUMBER, IMSI, OTHER = (f"k1.{letter * 22}" for letter in "NIO")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "usage.md"
SUMS = dict.fromkeys((*USAGE_MEASURES.all, "late_records", "reversals"), 0)


def paris(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=PARIS).astimezone(UTC)


def day_of(subscriber: str, month: int, day: int, **more: Any) -> dict[str, Any]:
    return {
        **SUMS,
        "generation": 1,
        "type": "cdr",
        "size_s": 86_400,
        "window_start": paris(month, day),
        "local_date": date(2026, month, day),
        "subscriber_id": subscriber,
        "plan_id": "START",
        "roaming": "HOME",
        "direction": "MO",
        "currency": "EUR",
        "partition": 0,
        "segment": 0,
        "src_to": 9,
        "charge_micros": 0,
        **more,
    }


def customer(offset: int, identifier: str, since: datetime, customer_id: str | None, **more: Any) -> dict[str, Any]:
    return {
        "src_partition": 0,
        "src_offset": offset,
        "identifier": identifier,
        "identifier_kind": "MSISDN",
        "valid_from": since,
        "deleted": customer_id is None,
        "customer_id": customer_id,
        "plan_id": "START",
        "bill_cycle_day": 31,
        "source": "crm",
        "batch_id": 1,
        "line": offset,
        "ingested_at": since,
        **more,
    }


@pytest.fixture(scope="module")
def used(world: Any) -> None:
    """The customer of the page: one number with its IMSI, START until the 10th of March, MAX after it."""
    world.insert(
        "agg_subscriber_day_all",
        [
            day_of(NUMBER, 2, 27, records=1, sms=1, sms_segments=1),
            day_of(NUMBER, 2, 28, records=2, attempts=2, completed=2, duration_ms=400_500, charge_micros=250_000),
            day_of(NUMBER, 3, 9, records=1, sms=1, sms_segments=3, currency="USD", charge_micros=10),
            day_of(NUMBER, 3, 9, records=1, attempts=1, completed=1, duration_ms=60_000, roaming="OUTBOUND"),
            day_of(IMSI, 3, 10, records=1, data_records=1, sessions=1, bytes_down=4_000_000, plan_id="MAX"),
            # the day of 23 hours
            day_of(NUMBER, 3, 29, records=1, attempts=1, completed=1, duration_ms=1_000, plan_id="MAX", late_records=1),
            # a first state, and the one that superseded it: a record was taken back
            day_of(NUMBER, 3, 30, records=2, sms=2, sms_segments=2, plan_id="MAX", src_to=5),
            day_of(NUMBER, 3, 30, records=1, sms=1, sms_segments=1, plan_id="MAX", reversals=1, late_records=1),
            day_of(NUMBER, 3, 31, records=1, sms=1, sms_segments=1, plan_id="MAX"),
        ],
    )
    imsi = {"identifier_kind": "IMSI", "line": 1}
    changed = {"plan_id": "MAX", "line": 3}
    world.insert(
        "reference_customer",
        [
            customer(1, NUMBER, paris(1, 1), "C-PAGE"),
            customer(2, IMSI, paris(1, 1), "C-PAGE", **imsi),
            customer(3, NUMBER, paris(3, 10), "C-PAGE", **changed),
            customer(4, IMSI, paris(3, 10), "C-PAGE", **(changed | {"identifier_kind": "IMSI"})),
            customer(5, OTHER, paris(1, 1), "C-FIRST"),
            customer(6, OTHER, paris(3, 9, 12), "C-SECOND"),
        ],
    )
    plan = {"src_partition": 0, "deleted": False, "source": "crm", "batch_id": 1, "ingested_at": paris(1, 1)}
    world.insert(
        "reference_plan",
        [
            {
                **plan,
                "src_offset": number,
                "line": number,
                "plan_id": name,
                "valid_from": paris(1, 1),
                "name": name.title(),
                "voice_allowance_s": voice,
                "sms_allowance": sms,
                "data_allowance_bytes": data,
            }
            for number, (name, voice, sms, data) in enumerate(
                [("START", 3_100, 31, 1_000_000), ("MAX", None, 310, 31_000_000)]
            )
        ],
    )
    fact = {
        "generation": 1,
        "withdrawn": 0,
        "src_partition": 0,
        "subscriber_kind": "MSISDN",
        "record_type": "SMS",
        "status": "COMPLETED",
        "roaming": "HOME",
        "direction": "MO",
        "plan_id": "START",
        "source": "smsc-1",
        "batch_id": 7,
        "currency": "EUR",
        "charge_micros": 50_000,
    }
    world.insert(
        "fact_cdr_all",
        [
            {
                **fact,
                "subscriber_id": subscriber,
                "booked_offset": offset,
                "src_offset": offset,
                "line": offset,
                "event_uid": f"u{offset}",
                "started_at": at,
                "appended_at": at + timedelta(seconds=5),
                "local_date": at.astimezone(PARIS).date(),
                "segments": 1 + offset % 2,
            }
            for subscriber, offset, at in [
                *((NUMBER, number, paris(3, 31) + timedelta(seconds=number)) for number in range(12)),
                (OTHER, 20, paris(3, 9, 11)),
                (OTHER, 21, paris(3, 9, 13)),
                (OTHER, 22, paris(3, 9, 14)),
            ]
        ],
    )
    world.insert("agg_subscriber_day_all", [day_of(OTHER, 3, 9, records=3, sms=3, sms_segments=4)])


def path(customer_id: str = "C-PAGE") -> str:
    return f"/v1/customers/{customer_id}/usage"


def test_months_cycles_and_a_total_are_sums_of_the_same_days(world: Any, used: None) -> None:
    span = {"from_": "2026-02-27", "to": "2026-04-01"}
    days = world.data(path(), **span)
    assert (days["step"], days["tz"]) == ("day", "Europe/Paris")
    assert [row["local_date"] for row in days["rows"]] == [
        "2026-02-27",
        "2026-02-28",
        "2026-03-09",
        "2026-03-10",
        "2026-03-29",
        "2026-03-30",
        "2026-03-31",
    ]
    assert [(row["records"], row["late_records"], row["reversals"]) for row in days["rows"]][-3:] == [
        (1, 1, 0),
        (1, 1, 1),
        (1, 0, 0),
    ]
    months = world.data(path(), step="month", **span)["rows"]
    assert [(row["local_date"], row["records"]) for row in months] == [("2026-02-27", 3), ("2026-03-01", 6)]
    (total,) = world.data(path(), step="total", **span)["rows"]
    assert (total["local_date"], total["records"], total["duration_ms"]) == ("2026-02-27", 9, 461_500)
    assert total["charges"] == [{"currency": "EUR", "amount": "0.250000"}, {"currency": "USD", "amount": "0.000010"}]
    grouped = world.data(path(), step="total", group_by=["subscriber_id", "roaming"], **span)["rows"]
    assert [(row["subscriber_id"], row["roaming"], row["records"]) for row in grouped] == [
        (IMSI, "HOME", 1),
        (NUMBER, "HOME", 7),
        (NUMBER, "OUTBOUND", 1),
    ]


def test_a_bill_cycle_is_shown_whole_with_what_each_plan_still_includes(world: Any, used: None) -> None:
    found = world.data(path(), step="bill_cycle", from_="2026-03-15", to="2026-03-16")
    # day 31 in February is its last, and the cycle of 31 days holds the day of 23 hours
    assert (found["from"], found["to"]) == ("2026-02-28", "2026-03-31")
    assert [(row["local_date"], row["records"]) for row in found["rows"]] == [("2026-02-28", 7)]
    (cycle,) = found["cycles"]
    assert (cycle["from"], cycle["to"], cycle["bill_cycle_day"]) == ("2026-02-28", "2026-03-31", 31)
    most, start = cycle["allowances"]
    assert (start["plan_id"], start["plan_name"], start["days_held"]) == ("START", "Start", 10)
    assert start["subscriber_id"] == most["subscriber_id"] == NUMBER
    # abroad counts nothing
    assert start["voice"] == {"used": 400.5, "allowance": 1_000, "left": 599.5, "over": 0, "unlimited": False}
    assert start["sms"] == {"used": 3, "allowance": 10, "left": 7, "over": 0, "unlimited": False}
    assert most["voice"] == {"used": 1, "allowance": None, "left": None, "over": None, "unlimited": True}
    assert (most["sms"]["used"], most["sms"]["left"], most["days_held"]) == (1, 209, 21)
    assert most["data"]["left"] == 17_000_000
    two = world.data(path(), step="bill_cycle", from_="2026-03-15", to="2026-04-01")["cycles"]
    assert [(one["from"], one["allowances"][0]["days_in_cycle"]) for one in two] == [
        ("2026-02-28", 31),
        ("2026-03-31", 30),
    ]


def test_without_a_range_it_is_the_running_cycle(world: Any, used: None) -> None:
    found = world.data(path(), step="bill_cycle")
    (cycle,) = found["cycles"]
    today = datetime.now(PARIS).date().isoformat()
    assert cycle["from"] <= today < cycle["to"]
    assert not cycle["is_over"]
    assert [row["plan_id"] for row in cycle["allowances"]] == ["MAX"]


def test_each_holder_of_a_day_gets_what_was_used_while_it_held_the_number(world: Any, used: None) -> None:
    span = {"from_": "2026-03-09", "to": "2026-03-10"}
    shown = {name: world.data(path(name), **span)["rows"] for name in ("C-FIRST", "C-SECOND", OTHER)}
    assert {name: [row["records"] for row in rows] for name, rows in shown.items()} == {
        "C-FIRST": [1],
        "C-SECOND": [2],
        OTHER: [3],
    }


def test_explain_gives_formulas_and_ten_records_under_pseudonyms(world: Any, used: None) -> None:
    found = world.data(path(), step="total", from_="2026-03-30", to="2026-04-01", explain=1)["explain"]
    assert found["measures"] == explained()
    assert set(found["allowances"]) == {service.name for service in SERVICES}
    assert len(found["records"]) == 10
    first = found["records"][0]
    assert (first["started_at"], first["subscriber_id"], first["offset"]) == ("2026-03-30T22:00:00.000Z", NUMBER, 0)
    assert first["adds"] == {"records": 1, "sms": 1, "sms_segments": 1}
    assert [row["adds"]["sms_segments"] for row in found["records"]][:2] == [1, 2]


def test_random_days_of_two_holders_equal_a_recomputation_from_the_facts(world: Any, used: None) -> None:
    chance = random.Random(29)
    number, handed_over = f"k1.{'R' * 22}", paris(5, 20, 15)
    start, end = paris(5, 18), paris(5, 23)
    rows = []
    for offset in range(300):
        at = start + timedelta(milliseconds=chance.randrange(int((end - start).total_seconds() * 1_000)))
        holder = "C-RANDOM-1" if at < handed_over else "C-RANDOM-2"
        rows.append(
            {
                "generation": 1,
                "withdrawn": 0,
                "booked_offset": 10_000 + offset,
                "src_offset": 10_000 + offset,
                "src_partition": 1,
                "event_uid": f"r{offset}",
                "subscriber_id": number,
                "subscriber_kind": "MSISDN",
                "started_at": at,
                "appended_at": at,
                "local_date": at.astimezone(PARIS).date(),
                "customer_id": holder,
                "record_type": chance.choice(["VOICE", "SMS", "DATA"]),
                "status": "COMPLETED",
                "duration_ms": chance.randrange(10**6),
                "bytes_up": chance.randrange(10**9),
                "currency": chance.choice(["EUR", "USD", None]),
                "charge_micros": chance.randrange(10**7),
            }
        )
    world.insert("fact_cdr_all", rows)
    world.insert(
        "reference_customer",
        [
            customer(20, number, paris(1, 1), "C-RANDOM-1"),
            customer(21, number, handed_over, "C-RANDOM-2"),
        ],
    )
    daily = (
        pl.DataFrame(rows)
        .group_by("local_date", pl.col("currency").fill_null(""))
        .agg(
            pl.len().alias("records"),
            (pl.col("record_type") == "VOICE").sum().alias("attempts"),
            pl.col("duration_ms").filter(pl.col("record_type") == "VOICE").sum(),
            pl.col("bytes_up", "charge_micros").sum(),
        )
    )
    world.insert(
        "agg_subscriber_day_all",
        [day_of(number, 5, row["local_date"].day, **row) for row in daily.iter_rows(named=True)],
    )
    stored = world.clickhouse.frame(
        Query(f"SELECT * EXCEPT (ext, warnings) FROM fact_cdr WHERE subscriber_id = '{number}'")
    )
    days = 0
    for holder in ("C-RANDOM-1", "C-RANDOM-2"):
        shown = world.data(path(holder), from_="2026-05-18", to="2026-05-23")["rows"]
        mine = stored.filter(pl.col("customer_id") == holder).with_columns(
            day=pl.col("started_at").dt.convert_time_zone("Europe/Paris").dt.date().cast(pl.String)
        )
        assert [row["local_date"] for row in shown] == sorted(set(mine["day"]))
        for row in shown:
            facts = mine.filter(pl.col("day") == row["local_date"])
            voice = facts.filter(pl.col("record_type").cast(pl.String) == "VOICE")
            assert (row["records"], row["attempts"]) == (facts.height, voice.height)
            assert (row["duration_ms"], row["bytes_up"]) == (voice["duration_ms"].sum(), facts["bytes_up"].sum())
            charges = {charge["currency"]: Decimal(charge["amount"]) for charge in row["charges"]}
            for currency in ("EUR", "USD"):
                micros = facts.filter(pl.col("currency").cast(pl.String) == currency)["charge_micros"].sum()
                assert charges.get(currency, 0) == Decimal(micros) / 1_000_000
            days += 1
    assert days == 6


def test_what_the_page_says_is_what_is_answered(world: Any, used: None) -> None:
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"```\nGET (\S+)\n```\n+```json\n(.*?)```", text, re.DOTALL)
    assert examples
    for url, expected in examples:
        answered = world.client.get(url)
        assert answered.status_code == 200, answered.text
        assert _part_of(json.loads(expected), answered.json()["data"]), (url, answered.text)
    (sql,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    rows = world.clickhouse.rows(Query(sql))
    assert [(row["local_date"], row["voice_s"], row["sms_segments"]) for row in rows][:2] == [
        ("2026-03-09", 60, 3),
        ("2026-03-10", 0, 0),
    ]
    for name, words in explained().items():
        assert f"| `{name}` | {words['unit']} | {words['formula']} |" in text
    for service in SERVICES:
        assert service.reason in text


def _part_of(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _part_of(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(_part_of(one, other) for one, other in zip(part, whole, strict=True))
    return bool(part == whole)
