"""Every structural fault is refused with its code and place, and no text ever gives a number back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from ingest_gateway.domain.body import MAX_BODY_BYTES, unpack
from ingest_gateway.domain.direct import Direct
from ingest_gateway.domain.fields import INPUT_FIELDS, RECORD_BYTES
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import Profile
from ingest_gateway.domain.refusal import BodyRefused
from ingest_gateway.domain.resolve import PartyRules, Resolver
from ingest_gateway.encode import Encoder
from ingest_gateway.requests import Judged, RequestJudge
from telestream_contracts import decode_record, load_schema
from telestream_domain import REFUSED

from .conftest import HEAD, Loaded, as_csv

CANARY = "4917055512345"
GOOD: dict[str, Any] = {
    "event_id": "e-1",
    "started_at": "2026-11-23T08:00:00Z",
    "record_type": "VOICE",
    "status": "COMPLETED",
    "msisdn": "+491701234567",
}
FAULTS: list[tuple[str, str, Any]] = [
    ("unknown_field", "colour", "red"),
    ("unknown_field", "reverses_offset", 1),
    ("unknown_field", "max_age_days", 1),
    ("unknown_field", "origin_offset", 1),
    ("unknown_field", "subscriber_id", "k1.x"),
    ("missing_field", "started_at", None),
    ("missing_field", "record_type", ""),
    ("missing_field", "msisdn", None),
    ("wrong_type", "duration_ms", "sixty"),
    ("wrong_type", "duration_ms", 5.0),
    ("wrong_type", "duration_ms", True),
    ("wrong_type", "duration_ms", 2**63),
    ("wrong_type", "is_partial", "yes"),
    ("wrong_type", "started_at", ["2026"]),
    ("wrong_type", "currency", "euro"),
    ("wrong_type", "imei", "123"),
    ("wrong_type", "serving_plmn", "20801"),
    ("wrong_type", "node_id", "a\tb"),
    ("wrong_type", "ext", {"a": 1}),
    ("wrong_type", "ext", "a"),
    ("not_in_enum", "status", "completed"),
    ("not_in_enum", "rat", "6G"),
    ("bad_time", "started_at", "2026-11-23T08:00:00"),
    ("bad_time", "started_at", 1790000000),
    ("bad_time", "answered_at", "2026-02-30T08:00:00Z"),
    ("bad_msisdn", "msisdn", "0170"),
    ("bad_msisdn", "msisdn", CANARY + "999"),
    ("bad_msisdn", "imsi", CANARY + "99999"),
    ("bad_cell_id", "cell_id", "26201-7"),
    ("bad_cell_id", "last_cell_id", "262-01-99999-1"),
    ("too_long", "event_id", "x" * 129),
    ("too_long", "msisdn", "4" * 33),
    ("too_long", "ext", {str(key): "" for key in range(33)}),
    ("too_long", "ext", {"a": "é" * 129}),
]


@pytest.fixture(scope="module")
def judge(identity: Identity) -> Callable[..., Judged]:
    resolver = Resolver(identity, PartyRules())

    def run(records: Any, record_type: str = "cdr", body: bytes | None = None, body_format: str = "json") -> Judged:
        request = RequestJudge(Direct(record_type, resolver, from_json=True), Encoder(record_type, 41), 4)
        return request.judge(
            body if body is not None else json.dumps(records).encode(),
            "",
            body_format,
            HEAD,  # type: ignore[arg-type]
        )

    return run


def _faulty(field: str, value: Any) -> dict[str, Any]:
    record = GOOD | {field: value}
    return {name: entry for name, entry in record.items() if entry is not None}


@pytest.mark.parametrize(("code", "field", "value"), FAULTS)
def test_a_fault_is_refused_by_code_and_field_and_its_neighbours_are_accepted(
    judge: Callable[..., Judged], code: str, field: str, value: Any
) -> None:
    judged = judge([GOOD, _faulty(field, value), GOOD])
    assert judged.accepted == 2
    assert [(refusal.position, refusal.code, refusal.field) for refusal in judged.refusals] == [(1, code, field)]
    assert len(judged.messages) == 2


def test_every_refusal_of_the_table_is_met_by_these_tests() -> None:
    elsewhere = {"not_json", "too_large", "source_not_allowed"}
    assert {code for code, _, _ in FAULTS} | elsewhere == {rule.code for rule in REFUSED}


def test_of_several_faults_the_first_in_the_table_counts(judge: Callable[..., Judged]) -> None:
    record = GOOD | {"cell_id": "x", "status": "x", "duration_ms": "x"}
    assert judge([record]).refusals[0].code == "wrong_type"
    assert judge([record | {"colour": "x"}]).refusals[0].code == "unknown_field"


def test_no_message_gives_back_what_was_sent(judge: Callable[..., Judged]) -> None:
    for field in INPUT_FIELDS["cdr"]:
        for value in (CANARY, int(CANARY), [CANARY], {CANARY: CANARY}, CANARY * 20):
            for refusal in judge([GOOD | {field.name: value}]).refusals:
                assert "5551234" not in refusal.message + str(refusal.field)
    for refusal in judge([GOOD | {CANARY: 1}, {"event_id": 1, CANARY: {}}]).refusals:
        assert "5551234" not in refusal.message + str(refusal.field)


def test_lines_that_are_no_json_are_refused_where_they_stand(judge: Callable[..., Judged]) -> None:
    good = json.dumps(GOOD).encode()
    lines = [
        good,
        b"{",
        b"[]",
        b"",
        b'"a"',
        b"[" * 10_000,
        b'{"a":NaN}',
        b"\xff",
        good,
        b"{" + b" " * RECORD_BYTES + b"}",
    ]
    judged = judge(None, body=b"\n".join(lines), body_format="ndjson")
    assert judged.accepted == 2
    assert [refusal.position for refusal in judged.refusals] == [1, 2, 3, 4, 5, 6, 8]
    assert {refusal.code for refusal in judged.refusals} == {"not_json", "too_large"}


def test_a_body_that_is_no_json_is_refused_as_a_whole(judge: Callable[..., Judged]) -> None:
    for body in (b"", b"{", b"[" * 10_000, b'{"a":1e999}', b"\xff\xfe"):
        with pytest.raises(BodyRefused) as refused:
            judge(None, body=body)
        assert (refused.value.code, refused.value.status) == ("not_json", 400)


def test_an_empty_array_is_nothing_to_refuse(judge: Callable[..., Judged]) -> None:
    judged = judge([])
    assert (judged.accepted, judged.refusals, judged.messages) == (0, [], [])


def test_a_small_packed_body_cannot_become_a_large_one() -> None:
    bomb = b" " * (MAX_BODY_BYTES + 1)
    gzip = zlib.compressobj(wbits=31)
    for body, encoding in (
        (gzip.compress(bomb) + gzip.flush(), "gzip"),
        (zstandard.compress(bomb), "zstd"),
    ):
        assert len(body) < 100_000
        with pytest.raises(BodyRefused) as refused:
            unpack(body, encoding)
        assert (refused.value.code, refused.value.status) == ("too_large", 413)
    for encoding in ("gzip", "zstd"):
        with pytest.raises(BodyRefused):
            unpack(b"not packed", encoding)


IN_CSV = [
    fault
    for fault in FAULTS
    if fault[1] in {entry.name for entry in INPUT_FIELDS["cdr"]} - {"ext"} and isinstance(fault[2], str | None)
]
"""Faults that have a form in CSV and are not the header's."""


@pytest.mark.parametrize(("code", "field", "value"), IN_CSV)
def test_a_faulty_row_of_a_file_is_refused_alike(
    load: Callable[..., Loaded], shipped_profile: Callable[[str], Profile], code: str, field: str, value: str | None
) -> None:
    names = [*dict.fromkeys([*GOOD, field, "duration_ms"])]
    data = as_csv([GOOD, GOOD | {field: value or ""}, GOOD], names)
    loaded = load(data, shipped_profile("generic"))
    assert loaded.refusals == [(3, code, field)]
    assert loaded.lines == [2, 4]


def test_numbers_in_free_text_are_starred_out(judge: Callable[..., Judged]) -> None:
    record = GOOD | {
        "route_in": f"SIP/{CANARY}",
        "apn": "internet",
        "ext": {"note": f"call +{CANARY} back", "n": "12345"},
    }
    stored = decode_record(judge([record]).messages[0]["value"], load_schema("cdr"))
    assert stored["route_in"] == "SIP/49***********"
    assert stored["ext"] == {"n": "12345", "note": "call +49*********** back"}
    assert stored["apn"] == "internet"


def test_what_topics_hold_is_no_number(judge: Callable[..., Judged]) -> None:
    record = {
        "event_id": f"id-{CANARY}",
        "started_at": "2026-11-23T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": CANARY,
        "imsi": "262" + CANARY[1:],
        "imei": CANARY + "1",
        "peer": CANARY,
        "line": CANARY,
        "session_id": CANARY,
    }
    judged = judge([record])
    assert judged.accepted == 1
    for message in judged.messages:
        assert b"5551234" not in message["value"] + message["key"]


def test_a_customer_with_two_identifiers_is_two_records(judge: Callable[..., Judged]) -> None:
    customer = {
        "msisdn": "+491701234567",
        "imsi": "262011234567890",
        "valid_from": "2026-01-01T00:00:00Z",
        "customer_id": "c-1",
    }
    judged = judge([customer], "customer")
    stored = [decode_record(message["value"], load_schema("customer")) for message in judged.messages]
    assert judged.accepted == 1
    assert [(entry["identifier_kind"], entry["customer_id"]) for entry in stored] == [
        ("MSISDN", "c-1"),
        ("IMSI", "c-1"),
    ]


@pytest.mark.parametrize(
    ("record", "deleted"),
    [
        ({"name": "North"}, False),
        ({}, True),
        ({"name": "North", "deleted": True}, True),
        ({"deleted": False, "name": "North"}, False),
    ],
)
def test_an_empty_body_or_a_mark_is_a_deletion(
    judge: Callable[..., Judged], record: dict[str, Any], deleted: bool
) -> None:
    judged = judge([{"region_id": "n", "valid_from": "2026-01-01T00:00:00Z"} | record], "region")
    stored = decode_record(judged.messages[0]["value"], load_schema("region"))
    assert stored["deleted"] is deleted
    assert (stored["name"] is None) is deleted
