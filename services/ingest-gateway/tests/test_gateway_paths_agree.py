"""Columns, rows and JSON are three ways in; they must let in the same records, byte for byte, and refuse the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest_gateway.domain.direct import Direct
from ingest_gateway.domain.fields import INPUT_FIELDS, Kind
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import Profile, parse_profile
from ingest_gateway.domain.resolve import PartyRules, Resolver
from ingest_gateway.encode import Encoder
from ingest_gateway.requests import RequestJudge

from .conftest import HEAD, Loaded, as_csv

COMMON = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x00"), max_size=12)
TIMES = st.one_of(
    st.datetimes(min_value=__import__("datetime").datetime(1950, 1, 1)).map(lambda t: t.isoformat() + "Z"),
    st.sampled_from(
        [
            "2026-11-23T08:00:00Z",
            "2026-11-23T08:00:00.5Z",
            "2026-11-23T08:00:00.123456+01:00",
            "2026-11-23T08:00:00.123999-05:30",
            "2026-11-23 08:00:00Z",
            "2026-11-23T08:00:00+01",
            "2026-11-23T08:00:00+0130",
            "2026-11-23T24:00:00Z",
            "2026-11-23T08:00:60Z",
            "2026-02-30T08:00:00Z",
            "2026-9-1T08:00:00Z",
            "2026-11-23T08:00:00+15:00",
            "2026-11-23T08:00:00",
            "1969-12-31T23:59:59.9995Z",
            "1790000000000",
            "1790000000",
            "0790000000000",
            "9999999999999",
            "10000000000000",
            "0000-01-01T00:00:00Z",
            "٢٠٢٦-11-23T08:00:00Z",
        ]
    ),
)
LONGS = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.integers(-10, 100_000).map(str),
    st.sampled_from(["-0", "+7", "007", "1.0", " 1", "1e3", "٣", "9223372036854775807", "-9223372036854775808"]),
)
DOUBLES = st.one_of(
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["1", "-0.0", "1e400", "1.", ".5", "+1", "inf", "0.1", "123456789012345678", "1E5", "٣"]),
)
NUMBERS = st.sampled_from(
    [
        "+491701234567",
        "491701234567",
        "+12125550123",
        "+1212555012",
        "0170123456",
        "+",
        "112",
        "22422",
        "MyBank",
        "sip:a@b",
        "*100#",
        "anonymous",
        "+999123456789",
        "４９１７０１２３４５６７",
        "4" * 40,
    ]
)
CELLS = st.sampled_from(
    [
        "262-01-1",
        "262-01-00012",
        "262-001-65535-268435455",
        "262-01-65536-1",
        "26201-1",
        "262-01-68719476736",
        "٢62-01-1",
    ]
)
IDS = st.sampled_from(
    ["262011234567890", "26201123456789", "310150123456789", "2620112345678", "abc", "3512345678901234"]
)


def _strategy(kind: Kind, values: tuple[str, ...]) -> st.SearchStrategy[str]:
    usual: dict[Kind, st.SearchStrategy[str]] = {
        Kind.INSTANT: TIMES,
        Kind.LONG: LONGS,
        Kind.DOUBLE: DOUBLES,
        Kind.MSISDN: NUMBERS,
        Kind.PEER: NUMBERS,
        Kind.CELL: CELLS,
        Kind.IMSI: IDS,
        Kind.IMEI: IDS,
        Kind.BOOL: st.sampled_from(["true", "false", "1", "0", "TRUE", "yes"]),
        Kind.PLMN: st.sampled_from(["208-01", "310-150", "20801", "208-1"]),
        Kind.CURRENCY: st.sampled_from(["EUR", "eur", "EURO", "ÉUR"]),
    }
    if kind is Kind.ENUM:
        return st.sampled_from([*values, values[0].lower(), "OTHER_THING"])
    return usual.get(kind, st.one_of(WORDS, st.just("x" * 129), st.just("call 491701234567 now")))


GOOD: dict[str, dict[str, str]] = {
    "cdr": {
        "started_at": "2026-11-23T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": "+491701234567",
    },
    "network": {
        "event_id": "n",
        "occurred_at": "2026-11-23T08:00:00Z",
        "event_type": "SAMPLE",
        "cell_id": "262-01-1",
    },
}


def _rows(record_type: str) -> st.SearchStrategy[list[dict[str, str]]]:
    """Good rows with a few fields drawn anew, so that most stay good."""
    fields = [field for field in INPUT_FIELDS[record_type] if field.kind is not Kind.EXT]
    change = st.sampled_from(fields).flatmap(
        lambda field: st.tuples(st.just(field.name), st.one_of(st.just(""), _strategy(field.kind, field.values)))
    )
    ext = st.tuples(st.sampled_from(["ext.a", "ext.b"]), st.one_of(WORDS, st.just("é" * 129)))
    row = st.lists(st.one_of(change, ext), max_size=9).map(lambda changes: GOOD[record_type] | dict(changes))
    return st.lists(row, min_size=1, max_size=30)


def _names(record_type: str) -> list[str]:
    return [field.name for field in INPUT_FIELDS[record_type] if field.kind is not Kind.EXT] + ["ext.b", "ext.a"]


def _assert_same(fast: Loaded, plain: Loaded) -> None:
    assert fast.refusals == plain.refusals
    assert fast.lines == plain.lines
    assert fast.values == plain.values
    assert fast.keys == plain.keys
    assert fast.shards == plain.shards
    assert fast.rows == plain.rows


@pytest.mark.parametrize("record_type", ["cdr", "network"])
def test_columns_let_in_what_rows_let_in(
    record_type: str,
    load: Callable[..., Loaded],
    one_by_one: Callable[..., Loaded],
    shipped_profile: Callable[[str], Profile],
) -> None:
    profile = shipped_profile("generic")

    @COMMON
    @given(_rows(record_type), st.sampled_from([8 << 20, 300]))
    def check(rows: list[dict[str, str]], block_bytes: int) -> None:
        data = as_csv(rows, _names(record_type))
        _assert_same(load(data, profile, record_type, block_bytes), one_by_one(data, profile, record_type))

    check()


LOCAL = """
header: false
columns: [who, imsi, when, type, result, seconds, id1, id2, cell, note, kilobytes, other]
delimiter: ";"
time: {format: "%d.%m.%Y %H:%M:%S", zone: Europe/Berlin, ambiguous_time: AMBIGUOUS}
numbers: {country: DE, extension_digits: [2, 4], names: SIP}
fields:
  subscriber: {column: who}
  imsi: {column: imsi}
  started_at: {column: when}
  record_type: {column: type, values: {V: VOICE, S: SMS}}
  status: {column: result, extract: "^([A-Z]+)", values: {OK: COMPLETED}}
  duration_ms: {column: seconds, unit: s}
  event_id: {columns: [id1, id2]}
  cell_id: {column: cell}
  bytes_up: {column: kilobytes, unit: kB}
  domain: {constant: CS}
  peer: {column: other}
keep: [note]
identical_rows: keep
"""


@pytest.mark.parametrize("ambiguous", ["first", "second", "reject"])
def test_columns_and_rows_agree_on_a_profile_with_local_times_units_and_value_maps(
    ambiguous: str, load: Callable[..., Loaded], one_by_one: Callable[..., Loaded]
) -> None:
    profile = parse_profile(LOCAL.replace("AMBIGUOUS", ambiguous), "local")
    party = st.sampled_from(["0170 1234567", "+49170/1234567", "0049301234567", "12", "12345", "alice", "", "0301"])
    row = st.tuples(
        party,
        st.sampled_from(["", "262011234567890"]),
        st.sampled_from(
            [
                "23.11.2026 08:00:00",
                "25.10.2026 02:30:00",
                "29.03.2026 02:30:00",
                "3.11.2026 08:00:00",
                "31.02.2026 08:00:00",
                "23.11.2026 08:00:60",
                "",
            ]
        ),
        st.sampled_from(["V", "S", "DATA", "X"]),
        st.sampled_from(["OK-1", "BUSY", "okay", ""]),
        st.sampled_from(["60", "60.5", "1e3", "-1", "9999999999", "", "12345678901234567890"]),
        st.sampled_from(["a", ""]),
        st.sampled_from(["b", "", "c" * 100]),
        st.sampled_from(["262-01-7", ""]),
        st.sampled_from(["hello", "", 'say "no"', "a;b", "4917012345678"]),
        st.sampled_from(["1", "", "0.0015", "x"]),
        party,
    )

    @COMMON
    @given(st.lists(row, min_size=1, max_size=30))
    def check(rows: list[tuple[str, ...]]) -> None:
        names = [str(column) for column in range(len(profile.columns))]
        data = as_csv([dict(zip(names, entry, strict=True)) for entry in rows], names, ";")
        data = data.split(b"\n", 1)[1]
        _assert_same(load(data, profile), one_by_one(data, profile))

    check()


@pytest.mark.parametrize("record_type", ["cdr", "network"])
def test_json_and_csv_make_the_same_bytes(
    record_type: str,
    identity: Identity,
    load: Callable[..., Loaded],
    shipped_profile: Callable[[str], Profile],
) -> None:
    profile = shipped_profile("generic")
    kinds = {field.name: field.kind for field in INPUT_FIELDS[record_type]}
    judge = RequestJudge(
        Direct(record_type, Resolver(identity, PartyRules()), from_json=True), Encoder(record_type, 41), 4
    )

    def typed(row: dict[str, str]) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name, text in row.items():
            if name.startswith("ext."):
                record.setdefault("ext", {})[name.removeprefix("ext.")] = text
            elif kinds[name] is Kind.LONG:
                record[name] = int(text)
            elif kinds[name] is Kind.DOUBLE:
                record[name] = float(text)
            elif kinds[name] is Kind.BOOL:
                record[name] = text == "true"
            else:
                record[name] = text
        return record

    good = {
        "cdr": GOOD["cdr"]
        | {
            "event_id": "e-1",
            "imsi": "310150123456789",
            "cell_id": "310-150-0012-7",
            "last_cell_id": "310-150-0012-8",
            "duration_ms": "61000",
            "bytes_up": "-5",
            "charge_micros": "123456789012",
            "currency": "EUR",
            "direction": "MO",
            "peer": "+33612345678",
            "is_partial": "true",
            "answered_at": "2026-11-23T09:00:00.250+01:00",
            "session_id": "s-1",
            "imei": "351234567890123",
            "route_in": "trunk 491701234567",
            "ext.note": "call 491701234567",
            "ext.a": "1",
        },
        "network": GOOD["network"]
        | {"latency_ms": "12.5", "sinr_db": "-3", "success": "false", "sample_count": "3", "imsi": "262011234567890"},
    }[record_type]
    bare = {name: text for name, text in good.items() if name not in ("event_id", "msisdn")}
    rows = [good, GOOD[record_type], bare] * 12
    names = list(dict.fromkeys([*good, *GOOD[record_type]]))
    from_csv = load(as_csv(rows, names), profile, record_type)
    body = b"\n".join([b"", *(json.dumps(typed(row)).encode() for row in rows)])
    judged = judge.judge(body, "", "ndjson", HEAD)
    assert judged.refusals == []
    assert from_csv.refusals == []
    # a request counts records from 1, a file counts lines, of which the header is the first: shift by one empty record
    from_json = [message["value"] for message in judged.messages]
    strip = _without_line(record_type)
    assert [strip(value) for value in from_json] == [strip(value) for value in from_csv.values]
    assert [message["key"] for message in judged.messages] == from_csv.keys


def _without_line(record_type: str) -> Callable[[bytes], dict[str, Any]]:
    from telestream_contracts import decode_record, load_schema

    schema = load_schema(record_type)
    return lambda value: decode_record(value, schema) | {"line": 0}
