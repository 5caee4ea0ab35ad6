"""Two generations of twelve records, worked out by hand: what differs, by how much, and the one cause of each."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from query_api import examples, models, models_compare
from telestream_cli.replay_compare import show
from telestream_opstore import DerivationState, Plan, create_derivation_async, move_derivation_async

pytestmark = pytest.mark.stack
START = datetime(2026, 9, 1, 10, 0, tzinfo=UTC)
RULES = {"severities": {"duration_too_long": "rejected", "data_without_bytes": "warn"}}
Row = tuple[int, str, str, int, int]
"""Offset, verdict, rule, sign, booked offset."""

SEEN: list[Row] = [
    (0, "STORED", "", 1, 0),
    (1, "STORED", "", 1, 1),
    (2, "DUPLICATE", "", 1, 2),  # of 0, which the new generation does not derive
    (3, "STORED", "", 1, 3),  # without region: its cell was not known yet
    (4, "STORED", "", 1, 4),  # too long by the new rules
    (5, "DUPLICATE", "", 1, 5),  # of 4
    (6, "STORED", "", -1, 0),  # takes 0 back
    (7, "STORED", "", -1, 4),  # takes 4 back
    (8, "REJECTED", "too_old", 1, 8),
    (9, "STORED", "", 1, 9),  # rejected by the new one, by a rule that nobody changed
    (10, "STORED", "", 1, 10),  # warned of by the new rules
    (11, "STORED", "", 1, 11),  # the new one is not there yet
]
NEW: list[Row] = [
    (2, "STORED", "", 1, 2),
    (3, "STORED", "", 1, 3),
    (4, "REJECTED", "duration_too_long", 1, 4),
    (5, "STORED", "", 1, 5),
    (6, "DUPLICATE", "", -1, 0),
    (7, "DUPLICATE", "", -1, 4),
    (8, "REJECTED", "too_old", 1, 8),
    (9, "REJECTED", "negative_value", 1, 9),
    (10, "STORED", "", 1, 10),
]
ORIGINALS = {(1, 2): 0, (1, 5): 4}
REGIONS = {(1, 3): None, (2, 3): "R1"}


def sums_of(offset: int) -> dict[str, Any]:
    return {
        "duration_ms": 1000 * (offset + 1),
        "charge_micros": 250_000,
        "currency": "EUR",
        "source": f"msc-{offset % 2}",
    }


def judged(generation: int, row: Row) -> dict[str, Any]:
    offset, verdict, rule, sign, booked = row
    return {
        "generation": generation,
        "type": "cdr",
        "src_partition": 0,
        "src_offset": offset,
        "booked_offset": booked,
        "verdict": verdict,
        "sign": sign,
        "rule": rule,
        "warned": int((generation, offset) == (2, 10)),
        "batch_id": 7,
        "appended_at": START + timedelta(hours=3 * booked),
        "bytes": 10,
        **sums_of(booked),
    }


def fact(generation: int, row: Row) -> dict[str, Any]:
    offset, _, _, sign, booked = row
    return {
        "generation": generation,
        "booked_offset": booked,
        "withdrawn": int(sign < 0),
        "src_partition": 0,
        "src_offset": offset,
        "appended_at": START + timedelta(hours=3 * booked),
        "rules_version": 1,
        "warnings": ["data_without_bytes"] if (generation, offset) == (2, 10) else [],
        "region_id": REGIONS.get((generation, booked), "R2"),
        "event_uid": f"uid-{booked}",
        "started_at": START + timedelta(hours=3 * booked) - timedelta(minutes=5),
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": f"s{booked}",
        "subscriber_kind": "MSISDN",
        "bytes_up": 10,
        "batch_id": 7,
        **sums_of(booked),
    }


def duplicate(generation: int, row: Row) -> dict[str, Any]:
    same = judged(generation, row)
    kept = ("generation", "type", "src_partition", "src_offset", "appended_at", "sign")
    return {**{name: same[name] for name in kept}, "first_offset": ORIGINALS.get((generation, row[0]))}


def windows(generation: int, records: int, charge: int) -> dict[str, Any]:
    return {
        "generation": generation,
        "type": "cdr",
        "size_s": 900,
        "window_start": START,
        "region_id": "R2",
        "partition": 0,
        "segment": 0,
        "src_to": 11,
        "records": records,
        "bytes_up": 10 * records,
        "charge_currencies": ["EUR"],
        "charge_micros": [charge],
    }


@pytest.fixture(scope="module")
def both(world: Any) -> Any:
    """Generation 1 is seen, 2 has other rules and begins at offset 2; every row is written twice and never merged."""
    for generation, plan in ((2, Plan(rules=RULES)), (3, Plan()), (4, Plan())):
        made = asyncio.run(
            create_derivation_async(world.postgres, world.topics.prefix, ["cdr"], plan, reason="a test", actor="test")
        )
        assert made.generation == generation
        end = DerivationState.FINISHED if generation < 4 else DerivationState.DROPPED
        asyncio.run(
            move_derivation_async(
                world.postgres, world.topics.prefix, generation, end,
                since=[DerivationState.PREPARING], actor="test", action="test",
            )
        )  # fmt: skip
    for table in ("judgement_all", "fact_cdr_all", "duplicate_all"):
        world.clickhouse.command(f"SYSTEM STOP MERGES {world.clickhouse.database}.{table}")
    for generation, rows in ((1, SEEN), (2, NEW)):
        for _ in range(2):
            world.insert("judgement_all", [judged(generation, row) for row in rows])
            world.insert("fact_cdr_all", [fact(generation, row) for row in rows if row[1] == "STORED"])
            duplicates = [duplicate(generation, row) for row in rows if row[1] == "DUPLICATE" and row[3] > 0]
            if duplicates:
                world.insert("duplicate_all", duplicates)
    # another partition that only the one that is seen has
    world.insert("judgement_all", [{**judged(1, row), "src_partition": 1} for row in SEEN[:3]])
    world.insert("agg_region_all", [windows(1, 5, 5 * 250_000), windows(2, 4, 3 * 250_000)])
    world.sunk_to("cdr", [12, 3])
    world.sunk_to("cdr", [11, 0], generation=2)
    return world


def compared(world: Any, **params: Any) -> dict[str, Any]:
    data = world.data("/v1/generations/2/compare", type="cdr", **params)
    models_compare.Comparison.model_validate(data)
    [found] = data["types"]
    return found


def test_only_what_both_have_judged_and_stored_is_compared(both: Any) -> None:
    found = compared(both)
    assert found["spans"] == [{"partition": 0, "first": 2, "end": 11}]
    assert (found["records"], found["with"]) == (9, 1)
    assert found["before_start"] == {"this": 0, "other": 2}
    assert found["not_yet"] == {"this": 0, "other": 1 + 3}
    assert (found["this"]["records"], found["other"]["records"]) == (9, 9)


def test_every_record_that_differs_has_one_cause(both: Any) -> None:
    found = compared(both)
    causes = {(cause["cause"], cause["rule"]): cause for cause in found["causes"]}
    assert {key: cause["records"] for key, cause in causes.items()} == {
        ("rule_changed", "duration_too_long"): 1,
        ("rule_changed", "data_without_bytes"): 1,
        ("reference_arrived", None): 1,
        ("original_before_start", None): 2,
        ("follows_from", None): 2,
        ("unexplained", None): 1,
    }
    assert found["differing"] == 8
    rule = causes["rule_changed", "duration_too_long"]
    assert rule["share"] == pytest.approx(1 / 9)
    assert rule["by_source"] == [{"source": "msc-0", "records": 1}]
    assert rule["by_region"] == [{"region_id": "R2", "records": 1}]
    assert rule["sums"]["charges"] == [{"currency": "EUR", "amount": "0.250000"}]
    assert rule["samples"] == [
        {
            "partition": 0,
            "offset": 4,
            "source": "msc-0",
            "this": {"verdict": "REJECTED", "rule": "duration_too_long"},
            "other": {"verdict": "STORED", "rule": None},
            "columns": ["verdict", "rule"],
        }
    ]
    assert causes["reference_arrived", None]["columns"] == {"region_id": 1}
    assert [entry["offset"] for entry in causes["original_before_start", None]["samples"]] == [2, 6]
    assert [entry["offset"] for entry in causes["follows_from", None]["samples"]] == [5, 7]
    assert causes["unexplained", None]["samples"][0]["this"] == {"verdict": "REJECTED", "rule": "negative_value"}


def test_totals_and_groups_say_by_how_much(both: Any) -> None:
    found = compared(both, by="rule")
    this, other, difference = found["this"], found["other"], found["difference"]
    assert (this["stored"], this["withdrawn"], this["duplicates"], this["without_effect"]) == (4, 0, 0, 2)
    assert (other["stored"], other["withdrawn"], other["duplicates"], other["without_effect"]) == (4, 2, 2, 0)
    assert difference["rejected"] == {"duration_too_long": 1, "negative_value": 1}
    assert (this["sums"]["records"], other["sums"]["records"]) == (4, 2)
    assert this["sums"]["duration_ms"] == 1000 * (3 + 4 + 6 + 11)
    assert other["sums"]["duration_ms"] == 1000 * (4 + 5 + 10 + 11 - 1 - 5)
    assert difference["sums"]["charges"] == [{"currency": "EUR", "amount": "0.500000"}]
    assert {group["key"]: group["difference"]["records"] for group in found["groups"]} == {
        "": -2,
        "duration_too_long": 1,
        "negative_value": 1,
    }
    everything = compared(both, by="rule", all="true")
    assert "too_old" in {group["key"] for group in everything["groups"]}
    cut = compared(both, by="rule", limit=1)
    assert (len(cut["groups"]), cut["truncated"]) == (1, True)
    sources = {group["key"]: group["difference"]["stored"] for group in compared(both, by="source")["groups"]}
    assert sources == {"msc-0": 0, "msc-1": 0}
    days = compared(both, by="day")["groups"]
    assert [day["key"] for day in days] == ["2026-09-01", "2026-09-02"]
    assert sum(day["difference"]["sums"]["records"] for day in days) == 2


def test_regions_count_what_stands_in_them(both: Any) -> None:
    regions = {group["key"]: group for group in compared(both, by="region", all="true")["groups"]}
    standing = {key: (group["this"]["records"], group["other"]["records"]) for key, group in regions.items()}
    # the one seen took back 0 (R2, before the start) and 4 (R2); in the new one 3 has found its region
    assert standing == {"R2": (3, 4 - 3), "R1": (1, 0), "": (0, 1)}
    assert regions["R1"]["difference"]["duration_ms"] == 4000


def test_kpis_of_both_are_counted_up_to_the_same_record(both: Any) -> None:
    found = compared(both, by="kpi")
    days = {day["day"]: day["kpis"] for day in found["kpis"]}
    # 3 and 4 began on the first day, 5, 9 and 10 on the next
    first = days["2026-09-01"]["call_attempts"]
    assert (first["this"], first["difference"]) == ({"value": 2.0, "num": 2.0, "den": 1.0}, None)
    assert first["other"] == {"value": None, "num": 0.0, "den": 0.0}  # of 3, 4 and 0, less 4 and 0: nothing stands
    assert "call_attempts" not in days["2026-09-02"]  # two in both
    everything = {day["day"]: day["kpis"] for day in compared(both, by="kpi", all="true")["kpis"]}
    second = everything["2026-09-02"]["call_attempts"]
    assert (second["this"]["value"], second["other"]["value"]) == (2, 2)
    assert days["2026-09-02"]["mean_duration_ms"]["this"]["num"] == 6000 + 11000
    assert everything["2026-09-02"]["busy_hour_erlang"]["other"]["num"] == 11000
    assert "distinct_subscribers" in days["2026-09-01"]
    assert found["kpis_not_compared"] == []


def test_windows_are_held_against_their_own_books(both: Any) -> None:
    region = {entry["generation"]: entry for entry in compared(both)["windows"] if entry["family"] == "region"}
    assert region[1]["agree"] is True
    # the second lacks 0.25 of its charge; the sink wrote a moment ago, so its minute may be on the way
    assert region[2]["agree"] is None
    assert region[2]["difference"]["charges"] == [{"currency": "EUR", "amount": "-0.250000"}]


def test_a_range_of_arrival_compares_only_what_arrived_in_it(both: Any) -> None:
    found = compared(
        both, from_=(START + timedelta(hours=14)).isoformat(), to=(START + timedelta(hours=28)).isoformat()
    )
    assert found["spans"] == [{"partition": 0, "first": 5, "end": 10}]
    causes = {cause["cause"]: [entry["offset"] for entry in cause["samples"]] for cause in found["causes"]}
    # what 5 repeats lies before the range, and is looked up
    assert causes == {"follows_from": [5, 7], "original_before_start": [6], "unexplained": [9]}


def test_what_cannot_be_compared_says_so(both: Any) -> None:
    for path, params, status, code in (
        ("/v1/generations/99/compare", {}, 404, "unknown_generation"),
        ("/v1/generations/4/compare", {}, 409, "dropped"),
        ("/v1/generations/1/compare", {}, 422, "bad_parameter"),
        ("/v1/generations/2/compare", {"with": 99}, 404, "unknown_generation"),
        ("/v1/generations/2/compare", {"type": "network"}, 422, "bad_parameter"),
        ("/v1/generations/2/compare", {"by": "cell"}, 422, "bad_parameter"),
        ("/v1/generations/2/compare", {"from": "2026-09-02", "to": "2026-09-01"}, 422, "bad_parameter"),
    ):
        response = both.get(path, **params)
        assert (response.status_code, response.json()["code"]) == (status, code), response.text
    # one that has nothing yet is no error
    empty = both.data("/v1/generations/3/compare", type="cdr")
    assert (empty["equal"], empty["types"][0]["records"], empty["types"][0]["not_yet"]["other"]) == (True, 0, 15)


def test_no_identity_leaves_the_comparison(both: Any) -> None:
    for by in ("day", "region", "source", "rule", "kpi"):
        text = both.get("/v1/generations/2/compare", type="cdr", by=by, all="true").text
        assert "uid-" not in text
        assert '"s4"' not in text


def test_the_command_shows_causes_groups_and_kpis(both: Any) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    for by in ("rule", "region", "kpi"):
        show(both.data("/v1/generations/2/compare", type="cdr", by=by), console)
    text = console.export_text()
    assert "9 records of both; 8 differ; 2 of 1 before the start of 2; 4 of 1 not reached yet by 2" in text
    assert "rule changed duration_too_long: for example 0@4 (rule, verdict)" in text
    assert "windows by region of generation 2: the newest are not written yet (+0 records)" in text
    for word in ("reference data arrived", "11.111%", "not explained", "call_attempts", "R1"):
        assert word in text


def test_the_example_has_the_shape_of_the_answer() -> None:
    answer = examples.ANSWERS["GET", "/v1/generations/{n}/compare"]
    models.Answer[models_compare.Comparison].model_validate(answer)
