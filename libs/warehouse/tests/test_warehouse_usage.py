"""Usage of customers: equal to a plain recomputation from the facts, whoever held the number, merged or not."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from telestream_warehouse import ClickHouse, Holder, Query, holdings, measures, usage, usage_per_day, usage_records

pytestmark = pytest.mark.stack

Row = Callable[..., dict[str, Any]]
Insert = Callable[..., None]
ZONE = ZoneInfo("Europe/Paris")
FIRST, LAST = date(2026, 3, 20), date(2026, 4, 10)  # the 29th of March has 23 hours
MEASURES = measures("subscriber_day")
COUNTED = [name for name in MEASURES if name not in ("late_records", "reversals")]
DAY = datetime(2026, 3, 1, tzinfo=UTC)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(UTC)


def customer(
    identifier: str, valid_from: datetime, offset: int, customer_id: str | None, **more: Any
) -> dict[str, Any]:
    return {
        "src_partition": 0,
        "src_offset": offset,
        "identifier": identifier,
        "identifier_kind": "MSISDN",
        "valid_from": valid_from,
        "deleted": customer_id is None,
        "customer_id": customer_id,
        "plan_id": "P1",
        **more,
    }


def adds(fact: dict[str, Any]) -> dict[str, int]:
    """What one record adds, in plain words of Python."""
    call, kind = fact["record_type"] in ("VOICE", "VIDEO"), fact["record_type"]
    found = dict.fromkeys(MEASURES, 0)
    found |= {"records": 1, "bytes_up": fact["bytes_up"] or 0, "bytes_down": fact["bytes_down"] or 0}
    names = {"SMS": "sms", "MMS": "mms", "DATA": "data_records", "USSD": "ussd", "OTHER": "others"}
    if call:
        found |= {"attempts": 1, fact["status"].lower(): 1, "duration_ms": fact["duration_ms"] or 0}
        found["holding_ms"] = fact["duration_ms"] or 0
    else:
        found[names[kind]] = 1
    if kind == "SMS":
        found["sms_segments"] = 1 if fact["segments"] is None else fact["segments"]
    if kind == "DATA" and not fact["is_partial"]:
        found["sessions"] = 1
    found["charge_micros"] = fact["charge_micros"] or 0
    return found


def some_facts(fact: Row, chance: random.Random, count: int = 400) -> list[dict[str, Any]]:
    facts = []
    span = midnight(LAST) - midnight(FIRST)
    for offset in range(count):
        started_at = midnight(FIRST) + timedelta(seconds=chance.randrange(int(span.total_seconds())))
        kind = chance.choice(["VOICE", "VOICE", "SMS", "DATA", "VIDEO", "MMS", "USSD", "OTHER"])
        facts.append(
            fact(
                offset,
                subscriber_id=chance.choice(["s1", "s2", "s3"]),
                subscriber_kind="MSISDN",
                started_at=started_at,
                local_date=started_at.astimezone(ZONE).date(),
                record_type=kind,
                status=chance.choice(["COMPLETED", "DROPPED", "BUSY", "UNKNOWN"]),
                duration_ms=chance.choice([None, 0, 61_500]),
                bytes_up=chance.choice([None, 7]),
                bytes_down=chance.choice([0, 10**12]),
                segments=chance.choice([None, 1, 3]),
                is_partial=chance.choice([True, False]),
                currency=chance.choice(["EUR", "USD"]),
                plan_id=chance.choice(["P1", "P2", None]),
                roaming=chance.choice(["HOME", "OUTBOUND"]),
                direction=chance.choice(["MO", "MT", None]),
                appended_at=started_at + timedelta(minutes=chance.choice([1, 3_000])),
            )
        )
    return facts


def upserts(facts: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Two states per day, group and segment: a first one, and the one that supersedes it."""
    blocks = []
    for share in (2, 1):
        sums: dict[Any, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*MEASURES, "charge_micros"), 0))
        for fact in facts:
            if fact["src_offset"] % share:
                continue
            key = (
                fact["local_date"],
                fact["subscriber_id"],
                fact["plan_id"] or "",
                fact["roaming"],
                fact["direction"] or "",
                fact["currency"],
                fact["src_offset"] // 200,
            )
            for name, value in adds(fact).items():
                sums[key][name] += value
        blocks.append(
            [
                {
                    "generation": 1,
                    "type": "cdr",
                    "size_s": 86_400,
                    "window_start": midnight(key[0]),
                    "local_date": key[0],
                    "subscriber_id": key[1],
                    "plan_id": key[2],
                    "roaming": key[3],
                    "direction": key[4],
                    "currency": key[5],
                    "partition": 0,
                    "segment": key[6],
                    "src_to": 1_000 // share,
                    **found,
                }
                for key, found in sums.items()
            ]
        )
    return blocks


HANDS = [
    ("s1", datetime(2026, 1, 1, tzinfo=UTC), "C1"),
    ("s1", datetime(2026, 3, 25, 11, 30, tzinfo=UTC), "C2"),
    ("s1", datetime(2026, 3, 29, 9, tzinfo=UTC), None),
    ("s1", datetime(2026, 3, 29, 20, 30, tzinfo=UTC), "C1"),
    ("s2", datetime(2026, 1, 1, tzinfo=UTC), "C1"),
    ("s2", midnight(date(2026, 4, 2)), "C3"),
    ("s3", datetime(2026, 1, 1, tzinfo=UTC), "C2"),
    ("s3", datetime(2026, 4, 1, 12, tzinfo=UTC), "C2"),
]


def held_by(subscriber: str, at: datetime) -> str | None:
    held = [holder for identifier, since, holder in HANDS if identifier == subscriber and since <= at]
    return held[-1] if held else None


def recomputed(facts: pl.DataFrame, customer_id: str, keys: list[str]) -> list[tuple[Any, ...]]:
    """From ``fact_cdr`` alone."""
    rows = []
    for fact in facts.to_dicts():
        if held_by(fact["subscriber_id"], fact["started_at"]) != customer_id:
            continue
        shown = {"local_date": fact["started_at"].astimezone(ZONE).date(), "subscriber_id": fact["subscriber_id"]}
        shown |= {"plan_id": fact["plan_id"] or "", "roaming": fact["roaming"], "direction": fact["direction"] or ""}
        rows.append({**shown, "currency": fact["currency"], **adds(fact)})
    frame = pl.DataFrame(rows)
    sums = frame.group_by(keys).agg(pl.col(*COUNTED).sum()).sort(keys)
    by_currency = frame.group_by([*keys, "currency"]).agg(pl.col("charge_micros").sum())
    charges: dict[Any, dict[str, int]] = defaultdict(dict)
    for *key, currency, micros in by_currency.select(*keys, "currency", "charge_micros").iter_rows():
        charges[tuple(key)][currency] = micros
    return [(*row, charges[row[: len(keys)]]) for row in sums.select(*keys, *COUNTED).iter_rows()]


def answered(warehouse: ClickHouse, query: Query, keys: list[str]) -> list[tuple[Any, ...]]:
    return [
        (
            date.fromisoformat(row["local_date"]),
            *(row[key] for key in keys[1:]),
            *(row[name] for name in COUNTED),
            row["charge_micros"],
        )
        for row in warehouse.rows(query)
    ]


def test_usage_equals_a_recomputation_from_the_facts_merged_or_not(
    warehouse: ClickHouse, insert: Insert, fact: Row
) -> None:
    facts = some_facts(fact, random.Random(13))
    stand = [row for row in facts if row["src_offset"] % 11]
    first, second = upserts(stand)
    insert("agg_subscriber_day_all", second)
    insert("agg_subscriber_day_all", first)
    insert("fact_cdr_all", facts)
    undone = [row for row in facts if row["src_offset"] % 11 == 0]
    insert("fact_cdr_all", [{**row, "src_offset": row["src_offset"] + 5_000, "withdrawn": 1} for row in undone])
    insert("reference_customer", [customer(*hand[:2], number, hand[2]) for number, hand in enumerate(HANDS)])
    for merged in (False, True):
        if merged:
            for table in ("agg_subscriber_day_all", "fact_cdr_all", "reference_customer"):
                warehouse.command(f"SYSTEM START MERGES {warehouse.database}.{table}")
                warehouse.command(f"OPTIMIZE TABLE {table} FINAL")
        stored = warehouse.frame(Query("SELECT * EXCEPT (ext, warnings) FROM fact_cdr"))
        assert stored.height == len(stand)
        for customer_id in ("C1", "C2", "C3"):
            for groups in ([], ["plan_id"], ["subscriber_id", "roaming", "direction"]):
                keys = ["local_date", *groups]
                expected = recomputed(stored, customer_id, keys)
                for generation in (None, 1):
                    query = usage_per_day(
                        customer_id, FIRST, LAST, time_zone="Europe/Paris", group_by=groups, generation=generation
                    )
                    assert answered(warehouse, query, keys) == expected
            view = Query(
                f"SELECT local_date, {', '.join(f'toInt64(sum(u.{name})) AS {name}' for name in COUNTED)}, "
                "sumMap(map(toString(u.currency), u.charge_micros)) AS charge_micros "
                "FROM fact_customer_usage_daily AS u WHERE customer_id = {customer:String} GROUP BY 1 ORDER BY 1",
                {"customer": customer_id},
            )
            assert answered(warehouse, view, ["local_date"]) == recomputed(stored, customer_id, ["local_date"])
        total = usage(Holder("C1"), FIRST, LAST, "Europe/Paris", starts=[FIRST])
        assert [row["records"] for row in warehouse.rows(total)] == [
            sum(row[1] for row in recomputed(stored, "C1", ["local_date"]))
        ]
        whoever = warehouse.rows(usage(Holder(subscriber_id="s1"), FIRST, LAST, "Europe/Paris", starts=[FIRST]))
        assert whoever[0]["records"] == sum(row["subscriber_id"] == "s1" for row in stand)


def day_of(subscriber: str, day: date, records: int, **more: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 86_400,
        "window_start": midnight(day),
        "local_date": day,
        "subscriber_id": subscriber,
        "plan_id": "P1",
        "roaming": "HOME",
        "direction": "MO",
        "currency": "EUR",
        "partition": 0,
        "segment": 0,
        "src_to": 1,
        "records": records,
        "charge_micros": 10 * records,
        **more,
    }


def test_days_of_23_and_25_hours_are_their_own_holder_s(warehouse: ClickHouse, insert: Insert) -> None:
    spring, autumn = date(2026, 3, 29), date(2026, 10, 25)
    days = [spring, spring + timedelta(days=1), autumn, autumn + timedelta(days=1)]
    insert("agg_subscriber_day_all", [day_of("s1", day, 1 + number) for number, day in enumerate(days)])
    insert("agg_subscriber_day_all", [day_of("s2", day, 10 + number) for number, day in enumerate(days)])
    insert(
        "reference_customer",
        [
            customer("s1", DAY - timedelta(days=90), 1, "C1"),
            customer("s1", midnight(days[1]), 2, "C2"),
            customer("s1", midnight(days[3]), 3, "C3"),
            # a number's first day is its first holder's, also when that comes in its 25th hour
            customer("s2", midnight(days[3]) - timedelta(minutes=30), 4, "C1"),
        ],
    )

    def of(customer_id: str) -> list[tuple[str, int]]:
        query = usage_per_day(customer_id, spring, date(2026, 11, 1), time_zone="Europe/Paris")
        return [(row["local_date"], row["records"]) for row in warehouse.rows(query)]

    assert of("C1") == [("2026-03-29", 1), ("2026-10-25", 12), ("2026-10-26", 13)]
    assert of("C2") == [("2026-03-30", 2), ("2026-10-25", 3)]
    assert of("C3") == [("2026-10-26", 4)]


def test_on_a_day_of_two_holders_late_records_are_counted_where_they_belong(
    warehouse: ClickHouse, insert: Insert, fact: Row
) -> None:
    day = date(2026, 3, 29)
    noon = midnight(day) + timedelta(hours=12)
    end = midnight(day + timedelta(days=1))

    def stored(offset: int, started_at: datetime, appended_at: datetime) -> dict[str, Any]:
        more = {"subscriber_id": "s1", "subscriber_kind": "MSISDN", "local_date": day, "roaming": "HOME"}
        return fact(offset, started_at=started_at, appended_at=appended_at, segments=None, **more)

    insert("agg_subscriber_day_all", [day_of("s1", day, 3, late_records=1)])
    insert("reference_customer", [customer("s1", DAY, 1, "C1"), customer("s1", noon, 2, "C2")])
    insert(
        "fact_cdr_all",
        [
            stored(1, noon - timedelta(milliseconds=1), end + timedelta(minutes=6)),
            stored(2, noon, end + timedelta(minutes=5)),
            stored(3, noon, end),
        ],
    )
    found = {
        name: warehouse.rows(usage_per_day(name, day, day + timedelta(days=1), time_zone="Europe/Paris"))[0]
        for name in ("C1", "C2")
    }
    assert [(row["records"], row["late_records"]) for row in found.values()] == [(1, 1), (2, 0)]
    listed = warehouse.rows(usage_records(Holder("C2"), day, day + timedelta(days=1), "Europe/Paris"))
    assert [(row["offset"], row["subscriber_id"], row["adds"]["records"]) for row in listed] == [
        (2, "masked", 1),
        (3, "masked", 1),
    ]


def test_versions_of_identifiers_say_which_came_in_one_event(warehouse: ClickHouse, insert: Insert) -> None:
    origin = {"source": "crm", "batch_id": 7}
    insert(
        "reference_customer",
        [
            customer("s1", DAY, 1, "C1", line=1, **origin),
            customer("i1", DAY, 2, "C1", line=1, **(origin | {"identifier_kind": "IMSI"})),
            customer("s2", DAY, 3, "C1", line=2, **origin),
            customer("s2", DAY + timedelta(days=1), 4, None, line=3, **origin),
            customer("s9", DAY, 5, "C9", line=4, **origin),
        ],
    )
    rows = warehouse.rows(holdings(Holder("C1")))
    assert [(row["identifier"], row["holder"], row["event"]) for row in rows] == [
        ("i1", "C1", "crm/7/1"),
        ("s1", "C1", "crm/7/1"),
        ("s2", "C1", "crm/7/2"),
        ("s2", None, "crm/7/3"),
    ]


def granules(warehouse: ClickHouse, query: Query, table: str) -> tuple[int, int]:
    """Granules left by primary key of the reads of a table, and granules before."""
    plan = warehouse.rows(Query(f"EXPLAIN indexes = 1 {query.sql}", query.params))
    text = "\n".join(row["explain"] for row in plan)
    reads = re.split(r"ReadFromMergeTree \(", text)[1:]
    found = [read for read in reads if read.split(")")[0].endswith(f".{table}")]
    assert found, text
    left = everything = 0
    for read in found:
        steps = re.findall(r"PrimaryKey\n(?:.*\n)*?.*Granules: (\d+)/(\d+)", read)
        assert steps, read
        left += int(steps[0][0])
        everything += int(steps[0][1])
    return left, everything


def test_usage_of_a_customer_in_a_range_of_days_uses_the_key(warehouse: ClickHouse, insert: Insert) -> None:
    days = [date(2026, 3, 1) + timedelta(days=number) for number in range(4)]
    insert("agg_subscriber_day_all", [day_of(f"s{n:05d}", day, 1) for n in range(15_000) for day in days])
    insert("reference_customer", [customer(f"s{n:05d}", DAY, n, f"C{n}") for n in range(15_000)])
    query = usage_per_day("C300", days[0], days[2], time_zone="Europe/Paris")
    left, everything = granules(warehouse, query, "agg_subscriber_day_all")
    assert left <= 2 < 7 <= everything
    left, everything = granules(warehouse, holdings(Holder("C300")), "reference_customer")
    assert left <= 2
    view = Query(
        "SELECT local_date, records FROM fact_customer_usage_daily WHERE subscriber_id IN "
        "(SELECT identifier FROM dim_customer WHERE customer_id = 'C300') AND customer_id = 'C300' "
        "AND day_start >= toDateTime64('2026-02-28 23:00:00', 3, 'UTC') "
        "AND day_start < toDateTime64('2026-03-02 23:00:00', 3, 'UTC') ORDER BY local_date"
    )
    assert [row["records"] for row in warehouse.rows(view)] == [1, 1]
    left, everything = granules(warehouse, view, "agg_subscriber_day_all")
    assert left <= 2 < 7 <= everything
