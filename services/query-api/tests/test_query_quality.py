"""Quality, completeness, the mirror of a source, and amended windows, on real parts."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from query_api import examples, models, models_quality
from query_api.domain.quality import step_start_ms, tallied
from query_api.domain.ranges import zone_of
from query_api.domain.samples import MASK, masked
from telestream_contracts import encode_records, load_schema
from telestream_opstore import FileLedger, NewFile, Progress, create_key, open_pool

HOUR = datetime(2026, 9, 3, 10, tzinfo=UTC)
DAY = {"from_": "2026-09-03", "to": "2026-09-04"}
SUBSCRIBER = "k1.BBBBBBBBBBBBBBBBBBBBBB"


def test_an_hour_counts_in_the_local_day_it_begins_in() -> None:
    kolkata, paris = zone_of("Asia/Kolkata"), zone_of("Europe/Paris")
    at = datetime(2026, 9, 3, 18, 45, tzinfo=UTC)  # 00:15 on the 4th in Kolkata, its hour began on the 3rd
    assert step_start_ms(at, "day", kolkata) == int(datetime(2026, 9, 2, 18, 30, tzinfo=UTC).timestamp() * 1000)
    assert step_start_ms(at, "hour", kolkata) == int(at.replace(minute=0).timestamp() * 1000)
    autumn = datetime(2026, 10, 25, 20, tzinfo=UTC)
    assert step_start_ms(autumn, "day", paris) == int(datetime(2026, 10, 24, 22, tzinfo=UTC).timestamp() * 1000)


def test_withdrawn_records_leave_what_is_stored_and_all_that_hangs_on_it() -> None:
    row = {"step_start": None, "source": "s", "type": "", "rule": "", "latency_ms": 0}
    stored = {"records": 5, "reversals": 2, "warned": 1, "latency_buckets": [3] + [0] * 10, "warning_counts": {"a": 1}}
    nothing = {"reversals": 0, "warned": 0, "latency_buckets": [0] * 11, "warning_counts": {}}
    rows = [
        {**row, "verdict": "STORED", **stored},
        {**row, "verdict": "DUPLICATE", **nothing, "records": 4, "reversals": 1},
        {**row, "verdict": "DUPLICATE", **nothing, "rule": "conflict", "records": 1},
    ]
    [tally] = tallied(rows).values()
    counts = tally.counts()
    assert (counts.stored, counts.withdrawn, counts.duplicates, tally.conflicts) == (5, 2, 5, 1)
    assert sum(counts.latency) == 3


def test_a_sample_shows_what_happened_and_nobody() -> None:
    found = masked(
        {
            "event_uid": "u",
            "started_at": HOUR,
            "subscriber_id": "33612345678",
            "peer_id": None,
            "duration_ms": -5,
            "node_id": "gw 33612345678",
            "ext": {"note": "33612345678"},
            "made_up_later": "33612345678",
        }
    )
    assert found == {
        "started_at": "2026-09-03T10:00:00.000Z",
        "subscriber_id": MASK,
        "duration_ms": -5,
        "node_id": f"gw {MASK}",
        "ext": MASK,
        "made_up_later": MASK,
    }


def test_examples_of_quality_have_the_shape_that_the_document_promises() -> None:
    for path, model in (
        ("/v1/quality", models_quality.Quality),
        ("/v1/completeness", models_quality.Completeness),
        ("/v1/sources", list[models_quality.SourceListed]),
        ("/v1/sources/{source}", models_quality.SourceMirror),
        ("/v1/amendments", list[models_quality.Amendment]),
    ):
        models.Answer[model].model_validate(examples.ANSWERS["GET", path])


def judged(source: str, verdict: str, records: int, hour: datetime = HOUR, **more: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "size_s": 3600,
        "window_start": hour,
        "source": source,
        "verdict": verdict,
        "rule": "",
        "partition": 0,
        "segment": 0,
        "src_to": 1,
        "records": records,
        "reversals": 0,
        "warned": 0,
        "latency_ms": 0,
        "latency_buckets": [0] * 11,
        "warning_codes": ["-"],
        "warning_counts": [0],
        **more,
    }


def cdr(number: int) -> dict[str, Any]:
    return {
        "event_uid": f"uid-{number}",
        "started_at": HOUR,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": SUBSCRIBER,
        "subscriber_kind": "MSISDN",
        "duration_ms": -number,
        "is_partial": False,
        "source": "sw-1",
        "batch_id": 7,
        "line": number,
        "ingested_at": HOUR,
        "peer_id": "k1.CCCCCCCCCCCCCCCCCCCCCC",
        "ext": {},
    }


@pytest.fixture(scope="module")
def sent(world: Any) -> None:
    """Two sources on one day: numbers with a hole, a second hour, files, seven dead letters of one rule."""
    seconds = {"latency_buckets": [10, 70, 0, 0, 0, 0, 20, 0, 0, 0, 0]}
    warned = {"warned": 4, "warning_codes": ["voice_with_bytes"], "warning_counts": [4]}
    world.insert(
        "agg_quality_all",
        [
            judged("sw-1", "STORED", 110, reversals=10, **seconds, **warned),
            judged("sw-1", "DUPLICATE", 12),
            judged("sw-1", "DUPLICATE", 3, rule="conflict"),
            judged("sw-1", "REJECTED", 7, rule="negative_value"),
            judged("sw-1", "STORED", 5, hour=HOUR + timedelta(hours=1)),
            judged("sw-2", "STORED", 50),
            judged("sw-2", "STORED", 30, type="network"),
        ],
    )
    numbers = [number for number in range(1, 101) if number not in (41, 42, 60)]
    world.insert("judgement_all", [_numbered(offset, number) for offset, number in enumerate(numbers)])
    topic = world.topics.raw("cdr")
    values = encode_records([cdr(n) for n in range(1, 8)], load_schema("cdr"), world.registry.id_for(topic))
    world.insert("dead_letter_all", [_letter(n, value) for n, value in enumerate([*values, b"\x00broken"], start=1)])
    world.insert("fact_cdr_all", [_fact()])
    asyncio.run(_files(world.postgres))


def _numbered(offset: int, number: int) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "src_partition": 1,
        "src_offset": 1_000_000 + offset,
        "booked_offset": 1_000_000 + offset,
        "verdict": ["STORED", "DUPLICATE", "REJECTED"][offset % 3],
        "sign": 1,
        "rule": "",
        "source": "sw-1",
        "batch_id": 7,
        "appended_at": HOUR + timedelta(seconds=offset),
        "node_id": "MSC1",
        "node_seq": number,
    }


def _letter(number: int, original: bytes) -> dict[str, Any]:
    return {
        "generation": 1,
        "type": "cdr",
        "src_topic": "raw",
        "src_partition": 1,
        "src_offset": 2_000_000 + number,
        "appended_at": HOUR + timedelta(seconds=number),
        "rule": "negative_value" if number < 8 else "undecodable",
        "reason": "duration_ms is below 0",
        "field": "duration_ms",
        "source": "sw-1",
        "batch_id": 7,
        "line": number,
        "rules_version": 1,
        "original": original,
    }


def _fact() -> dict[str, Any]:
    return {
        "generation": 1,
        "booked_offset": 1_000_000,
        "withdrawn": 0,
        "src_partition": 1,
        "src_offset": 1_000_000,
        "appended_at": HOUR + timedelta(hours=1, minutes=2),
        "event_uid": "u",
        "started_at": HOUR + timedelta(hours=1),
        "holding_ms": 30_000,
        "subscriber_id": SUBSCRIBER,
        "source": "sw-1",
        "batch_id": 7,
    }


async def _files(dsn: str) -> None:
    pool = await open_pool(dsn)
    try:
        ledger = FileLedger(dsn, pool)
        for sequence, rows in ((1, 100), (2, 90), (5, 100)):
            new = NewFile(
                "sw-1", f"f{sequence}.csv", "cdr", "generic", "p", "i", None, None, None, {"rows": 100}, sequence
            )
            entry = await ledger.begin_upload(new)
            await ledger.begin_load(entry.file_id, f"digest-{sequence}", 10, {})
            await ledger.advance(
                entry.file_id, Progress(10, rows, rows, rows - 2, {"bad_msisdn": 2}, {"duration_ms": 9}, {}), []
            )
            await ledger.finish(entry.file_id, "LOADED" if rows == 100 else "LOADED_MISMATCH")
        failed = await ledger.begin_upload(NewFile("sw-3", "f.csv", "cdr", "generic", "p", "i", sequence=9))
        await ledger.finish(failed.file_id, "FAILED", "broken")
    finally:
        await pool.close()


def only(rows: list[Mapping[str, Any]], **fields: Any) -> Mapping[str, Any]:
    [row] = [row for row in rows if all(row[name] == value for name, value in fields.items())]
    return row


@pytest.mark.stack
def test_the_score_of_a_source_and_hour_is_worked_from_its_parts(world: Any, sent: None) -> None:
    answer = world.get("/v1/quality", **DAY).json()
    models.Answer[models_quality.Quality].model_validate(answer)
    row = only(answer["data"]["rows"], source="sw-1", step_start="2026-09-03T10:00:00.000Z")
    assert {name: (part["num"], part["den"]) for name, part in row["parts"].items()} == {
        "completeness": (97, 100),
        "uniqueness": (117, 132),
        "validity": (2 * 100 - 4, 2 * 107),
        "timeliness": (80, 100),
    }
    by_hand = (3 * 97 / 100 + 2 * 117 / 132 + 3 * 196 / 214 + 2 * 80 / 100) / 10
    assert row["score"] == pytest.approx(by_hand)
    assert (row["accepted"], row["stored"], row["withdrawn"], row["duplicates"]) == (132, 100, 10, 15)
    assert (row["conflicts"], row["rejected"], row["warnings"]) == (3, {"negative_value": 7}, {"voice_with_bytes": 4})
    assert row["latency"]["p50_ms"] == pytest.approx(1_000 + 4_000 * 40 / 70)
    assert row["latency"]["p99_ms"] == pytest.approx(900_000 + 2_700_000 * 19 / 20)
    other = only(answer["data"]["rows"], source="sw-2")
    assert other["parts"]["completeness"] == {"value": None, "num": 0, "den": 0}
    assert other["parts"]["timeliness"]["value"] is None
    assert other["score"] == 1.0


@pytest.mark.stack
def test_quality_by_day_and_by_type_sums_the_same_hours(world: Any, sent: None) -> None:
    day = world.data("/v1/quality", **DAY, step="day", source="sw-1")["rows"]
    assert [(row["source"], row["accepted"]) for row in day] == [("sw-1", 137)]
    assert day[0]["parts"]["completeness"]["num"] == 97
    types = world.data("/v1/quality", **DAY, group_by="type")["rows"]
    assert only(types, type="network")["accepted"] == 30
    assert sum(row["accepted"] for row in types if row["type"] == "cdr") == 137 + 50
    assert world.data("/v1/quality", **DAY, type="network")["rows"][0]["parts"]["completeness"]["value"] is None


@pytest.mark.stack
def test_completeness_names_the_missing_numbers_files_and_totals(world: Any, sent: None) -> None:
    answer = world.get("/v1/completeness", **DAY).json()
    models.Answer[models_quality.Completeness].model_validate(answer)
    node = only(answer["data"]["nodes"], node_id="MSC1")
    assert (node["first"], node["last"], node["expected"], node["present"], node["missing"]) == (1, 100, 100, 97, 3)
    ranges = [(row["first"], row["last"], row["numbers"]) for row in answer["data"]["missing"]]
    assert ranges == [(41, 42, 2), (60, 60, 1)]
    assert answer["data"]["truncated"] is False
    today = world.data("/v1/completeness")
    files = only(today["files"], source="sw-1")
    assert (files["expected"], files["missing"], files["ranges"]) == (5, 2, [{"first": 3, "last": 4}])
    declared = only(today["declared"], source="sw-1", total="rows")
    assert (declared["files"], declared["expected"], declared["loaded"], declared["difference"]) == (3, 300, 290, -10)
    assert [row["name"] for row in today["mismatches"]] == ["f2.csv"]
    assert not [row for row in today["files"] if row["source"] == "sw-3"]


@pytest.mark.stack
def test_a_producer_sees_itself_with_masked_samples(world: Any, sent: None) -> None:
    answer = world.get("/v1/sources/sw-1", **DAY).json()
    models.Answer[models_quality.SourceMirror].model_validate(answer)
    found = answer["data"]["types"]["cdr"]
    assert (found["accepted"], found["stored"], found["duplicates"], found["conflicts"]) == (137, 105, 15, 3)
    samples = found["rejected_samples"]["negative_value"]
    assert [sample["line"] for sample in samples] == [7, 6, 5, 4, 3]
    assert samples[0]["record"]["duration_ms"] == -7
    assert samples[0]["record"]["subscriber_id"] == samples[0]["record"]["peer_id"] == MASK
    assert found["rejected_samples"]["undecodable"][0]["record"] is None
    assert found["freshest_event"] == "2026-09-03T11:00:30.000Z"
    assert answer["data"]["types"]["cdr"]["last_arrival"] == answer["data"]["last_arrival"]
    for hidden in (SUBSCRIBER, "k1.C", "uid-"):
        assert hidden not in json.dumps(answer)
    files = world.data("/v1/sources/sw-1")["files"]
    assert {row["state"]: (row["files"], row["refused"]) for row in files} == {
        "LOADED": (2, 4),
        "LOADED_MISMATCH": (1, 2),
    }
    assert only(files, state="LOADED")["refused_by_code"] == {"bad_msisdn": 4}


@pytest.mark.stack
def test_a_source_that_nothing_comes_from_is_silent_since_its_last_arrival(world: Any, sent: None) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    fresh = {**_numbered(500, 1), "source": "sw-9", "appended_at": now, "node_id": None, "node_seq": None}
    hour = now.replace(minute=0, second=0)
    world.insert("judgement_all", [fresh])
    world.insert("agg_quality_all", [judged("sw-9", "STORED", 1, hour=hour)])
    assert world.data("/v1/sources/sw-9")["silent_since"] is None
    old = world.data("/v1/sources/sw-2")
    assert old["silent_since"] == old["last_arrival"]
    listed = world.data("/v1/sources")
    assert {"sw-1", "sw-2", "sw-3", "sw-9"} <= {row["source"] for row in listed}
    assert only(listed, source="sw-3")["types"] == {}
    assert world.get("/v1/sources/nobody").status_code == 404


@pytest.mark.stack
def test_a_key_of_some_sources_is_told_of_these_only(world: Any, sent: None) -> None:
    key = create_key(world.postgres, f"own-{uuid.uuid4().hex[:6]}", ["read"], ["sw-2"])[0]

    def ask(path: str, **params: str) -> httpx.Response:
        return httpx.get(world.url(path), params=params or None, headers={"X-API-Key": key}, timeout=30.0)

    day = {"from": "2026-09-03", "to": "2026-09-04"}
    assert [row["source"] for row in ask("/v1/sources").json()["data"]] == ["sw-2"]
    assert ask("/v1/sources/sw-2", **day).status_code == 200
    for path in ("/v1/sources/sw-1", "/v1/quality?source=sw-1", "/v1/completeness?source=sw-1"):
        assert (ask(path).status_code, ask(path).json()["code"]) == (403, "source_not_allowed")
    assert {row["source"] for row in ask("/v1/quality", **day).json()["data"]["rows"]} == {"sw-2"}
    assert sum(row["accepted"] for row in ask("/v1/quality", **day, group_by="type").json()["data"]["rows"]) == 80
    assert ask("/v1/completeness", **day).json()["data"]["nodes"] == []


@pytest.mark.stack
def test_amendments_are_read_page_by_page_and_followed(world: Any) -> None:
    late = datetime(2026, 9, 5, 8, tzinfo=UTC)
    windows = [
        {
            "generation": 1,
            "type": "cdr",
            "size_s": 900,
            "window_start": HOUR,
            "region_id": f"R{number}",
            "partition": 0,
            "segment": 0,
            "src_to": 1,
            "late_records": number % 2,
            "reversals": number // 3,
            "late_at": late + timedelta(seconds=number // 2),
        }
        for number in range(5)
    ]
    world.insert("agg_region_all", windows)
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = world.get("/v1/amendments", since="2026-09-05", family="region", limit=2, **more).json()
        models.Answer[list[models_quality.Amendment]].model_validate(answer)
        seen += answer["data"]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert {row["region_id"] for row in seen} == {f"R{number}" for number in range(5)}
    assert [row["late_at"] for row in seen] == sorted(row["late_at"] for row in seen)
    why = {row["region_id"]: row["why"] for row in seen}
    assert (why["R1"], why["R3"], why["R4"]) == (["late"], ["late", "reversal"], ["reversal"])
    after = world.data("/v1/amendments", since=seen[-1]["late_at"])
    assert {row["region_id"] for row in after} == {"R4"}
    assert world.data("/v1/amendments", since="2026-09-06", family="cell") == []


@pytest.mark.stack
@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("/v1/quality", {"step": "week"}, "step"),
        ("/v1/quality", {"from": "2026-01-01", "to": "2026-09-01"}, "from"),
        ("/v1/quality", {"from": "2026-09-01T10:10:00Z", "to": "2026-09-01T10:20:00Z"}, "to"),
        ("/v1/quality", {"tz": "'; DROP"}, "tz"),
        ("/v1/quality", {"type": "sms"}, "type"),
        ("/v1/completeness", {"from": "2026-01-01", "to": "2026-09-01"}, "from"),
        ("/v1/sources/sw-1", {"to": "never"}, "to"),
        ("/v1/amendments", {"family": "quality"}, "family"),
        ("/v1/amendments", {"cursor": "WzEsMl0"}, "cursor"),
    ],
)
def test_a_bad_question_about_quality_is_422_and_named(
    world: Any, path: str, params: dict[str, str], field: str
) -> None:
    found = world.client.get(path, params=params)
    assert (found.status_code, found.json().get("field")) == (422, field), found.text
