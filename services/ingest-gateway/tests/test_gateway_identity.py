"""Every keyed value is fixed by a golden file: a change of one would split every subscriber, or every file, in two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_gateway.domain.direct import Direct
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.resolve import PartyRules, Resolver

from .conftest import IDENTITY_KEY, PERMANENT_KEY

GOLDEN = Path(__file__).parent / "golden" / "identity.json"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cdr by its id": (
        "cdr",
        {
            "event_id": "e-1",
            "started_at": "2026-11-23T08:00:00.250+01:00",
            "record_type": "VOICE",
            "status": "COMPLETED",
            "msisdn": "491701234567",
            "imsi": "310150123456789",
            "imei": "351234567890123",
            "peer": "+12125550123",
            "session_id": "call-7",
            "cell_id": "310-150-0012-0007",
        },
    ),
    "cdr by its fields": (
        "cdr",
        {
            "started_at": 1795420800250,
            "record_type": "DATA",
            "status": "COMPLETED",
            "imsi": "262011234567890",
            "peer": "+33612345678",
            "duration_ms": 61000,
            "session_id": "call-7",
            "record_seq": 2,
            "node_id": "pgw-1",
            "node_seq": 9,
            "cell_id": "262-01-7",
            "bytes_up": 1,
            "bytes_down": 2,
        },
    ),
    "cdr of nobody": (
        "cdr",
        {
            "started_at": "2026-11-23T08:00:00Z",
            "record_type": "VOICE",
            "status": "BUSY",
            "route_in": "TRK-1",
            "peer": "112",
        },
    ),
    "cdr of a line": (
        "cdr",
        {"started_at": "2026-11-23T08:00:00Z", "record_type": "VOICE", "status": "BUSY", "line": "1001", "peer": "a@b"},
    ),
    "network event by its id": (
        "network",
        {"event_id": "n-1", "occurred_at": "2026-11-23T08:00:00Z", "event_type": "SAMPLE", "cell_id": "262-01-7"},
    ),
    "network event by its fields": (
        "network",
        {
            "occurred_at": "2026-11-23T08:00:00Z",
            "event_type": "SAMPLE",
            "cell_id": "262-01-7",
            "success": True,
            "latency_ms": 12,
            "sinr_db": -0.5,
            "session_id": "s",
        },
    ),
    "customer": (
        "customer",
        {"msisdn": "+491701234567", "imsi": "262011234567890", "valid_from": "2026-01-01T00:00:00Z", "plan_id": "p"},
    ),
    "region": ("region", {"region_id": "north", "valid_from": "2026-01-01T00:00:00Z", "name": "North"}),
}


def _made(identity: Identity) -> dict[str, list[list[Any]]]:
    resolver = Resolver(identity, PartyRules())
    made = {}
    for name, (record_type, record) in CASES.items():
        judged = Direct(record_type, resolver, from_json=True).judge(record, "switch-1")
        assert isinstance(judged, list), (name, judged)
        made[name] = [[*entry.row, entry.shard, entry.key.decode()] for entry in judged]
    return made


@pytest.mark.parametrize("mode", ["pseudonym", "clear"])
def test_keyed_values_are_those_of_the_golden_file(mode: str) -> None:
    identity = Identity(IDENTITY_KEY, PERMANENT_KEY, clear=mode == "clear")
    assert json.loads(json.dumps(_made(identity))) == json.loads(GOLDEN.read_text())[mode]


def test_a_customer_lies_on_the_partition_of_its_records(identity: Identity) -> None:
    made = _made(identity)
    shards = {row[0]: row[-2] for row in made["customer"]}
    by_msisdn, by_imsi = made["cdr by its id"][0], made["cdr by its fields"][0]
    assert shards[by_msisdn[4]] == by_msisdn[-2]
    assert shards[by_imsi[4]] == by_imsi[-2]


def test_partitions_and_uids_do_not_hang_on_the_identity_key(identity: Identity) -> None:
    other = _made(Identity(b"another key of thirty-two bytes..", PERMANENT_KEY))
    for name, rows in _made(identity).items():
        for row, changed in zip(rows, other[name], strict=True):
            assert row[-2] == changed[-2], name
            if name != "customer":
                assert row[0] == changed[0], name


def test_a_pseudonym_says_nothing_without_the_key(identity: Identity) -> None:
    other = Identity(b"x" * 32, PERMANENT_KEY)
    assert identity.pseudonym("e164", "+491701234567") != other.pseudonym("e164", "+491701234567")
    assert identity.pseudonym("e164", "1") != identity.pseudonym("imsi", "1")
    assert len(identity.pseudonym("e164", "+491701234567")) == 3 + 22


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40).filter(lambda text: text.isprintable()), max_size=50))
def test_many_hashes_at_once_are_those_one_by_one(texts: list[str]) -> None:
    identity = Identity(IDENTITY_KEY, PERMANENT_KEY)
    assert identity.uids_by_id("s", texts).to_pylist() == [identity.uid_by_id("s", text) for text in texts]
    assert identity.uids_by_fields(texts).to_pylist() == [identity.uid_by_fields(text) for text in texts]
    assert identity.sessions(texts).to_pylist() == [identity.session(text) for text in texts]
