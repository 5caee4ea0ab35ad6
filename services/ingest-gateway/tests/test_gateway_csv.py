"""Files: a bad row never costs a good one, and a file that is wrong as a whole says what to change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingest_gateway.domain.fields import RECORD_BYTES
from ingest_gateway.domain.profile import Profile, ProfileInvalid, parse_profile
from ingest_gateway.domain.refusal import BodyRefused
from telestream_contracts import decode_record, load_schema

from .conftest import Loaded

HEADER = b"event_id,started_at,record_type,status,msisdn,node_id\n"
CDR = load_schema("cdr")


def row(name: str, node: str = "") -> bytes:
    return f"{name},2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,{node}\n".encode()


@pytest.fixture(scope="session")
def generic(shipped_profile: Callable[[str], Profile]) -> Profile:
    return shipped_profile("generic")


BAD_LINES = {
    "too many fields": (b"b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,x,y,z\n", "not_json"),
    "too few fields": (b"b,2026-11-23T08:00:00Z,VOICE\n", "not_json"),
    "an unclosed quote": (b'b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,"x\n', "not_json"),
    "quotes inside a field": (b'b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,"x"y\n', "not_json"),
    "a Latin-1 byte": (b"b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,\xe9\n", "not_json"),
    "a control character": (b"b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,\x00\n", "wrong_type"),
    "a carriage return inside": (b"b,2026-11-23T08:00:00Z,VOICE,COMPLETED,+491701234567,a\rb\n", "not_json"),
    "a very long line": (b"b,2026-11-23T08:00:00Z,VOICE,COMPLETED,," + b"x" * RECORD_BYTES + b"\n", "too_large"),
}


@pytest.mark.parametrize("block_bytes", [1 << 20, 100])
@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_the_good_ones_around_it_go_through(
    name: str, block_bytes: int, load: Callable[..., Loaded], generic: Profile
) -> None:
    bad, code = BAD_LINES[name]
    data = HEADER + row("a") + bad + row("c", '"in, quotes ""here"""') + bad + row("d")
    loaded = load(data, generic, block_bytes=block_bytes)
    assert [(line, found) for line, found, _ in loaded.refusals] == [(3, code), (5, code)]
    assert loaded.lines == [2, 4, 6]
    assert loaded.rows == 5
    assert decode_record(loaded.values[1], CDR)["node_id"] == 'in, quotes "here"'


def test_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(
    load: Callable[..., Loaded], generic: Profile
) -> None:
    plain = load(HEADER + row("a") + row("b"), generic)
    odd = load(
        (b"\xef\xbb\xbf" + HEADER + b"\n" + row("a") + b"\n\n" + row("b").rstrip()).replace(b"\n", b"\r\n"), generic
    )
    assert odd.lines == [3, 6]
    assert odd.rows == 2
    ids = [decode_record(value, CDR)["event_uid"] for value in plain.values]
    assert ids == [decode_record(value, CDR)["event_uid"] for value in odd.values]


def test_good_rows_go_by_columns(load: Callable[..., Loaded], generic: Profile) -> None:
    loaded = load(HEADER + b"".join(row(f"r{index}", '"q"') for index in range(1000)), generic)
    assert (loaded.rows, loaded.by_columns, len(loaded.values)) == (1000, 1000, 1000)


def test_a_header_only_is_a_file_without_rows(load: Callable[..., Loaded], generic: Profile) -> None:
    assert load(HEADER, generic).rows == 0
    assert load(HEADER.rstrip(), generic).rows == 0


@pytest.mark.parametrize(
    ("data", "code", "field", "says"),
    [
        (b"", "missing_field", None, "empty"),
        (b"\n\n", "missing_field", None, "empty"),
        (HEADER.replace(b",", b";") + row("a").replace(b",", b";"), "missing_field", None, "delimiter ';'"),
        (HEADER.replace(b",", b"\t"), "missing_field", None, r"delimiter '\t'"),
        (HEADER.replace(b"started_at,", b""), "missing_field", "started_at", "started_at"),
        (HEADER.replace(b"msisdn,", b""), "missing_field", "msisdn", "imsi"),
        (HEADER.replace(b"node_id", b"colour"), "unknown_field", "colour", "ext.colour"),
        (HEADER.replace(b"node_id", b"event_id"), "unknown_field", "event_id", "twice"),
        (HEADER.replace(b"node_id", b"reverses_offset"), "unknown_field", "reverses_offset", "reverses_offset"),
        (b'"event_id,started_at\n', "not_json", None, "first row"),
        (row("a"), "unknown_field", "a", "ext.a"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_says_what_to_change(
    data: bytes, code: str, field: str | None, says: str, load: Callable[..., Loaded], generic: Profile
) -> None:
    with pytest.raises(BodyRefused) as refused:
        load(data, generic)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert says in str(refused.value)


def test_refused_rows_are_shown_with_their_numbers_masked(load: Callable[..., Loaded], generic: Profile) -> None:
    loaded = load(HEADER + b"a,never,VOICE,COMPLETED,+4917055512345,\n", generic)
    assert loaded.shown == ["a,never,VOICE,COMPLETED,+49***********,"]


def test_reference_data_comes_as_csv_too(load: Callable[..., Loaded], generic: Profile) -> None:
    data = (
        b"msisdn,imsi,valid_from,customer_id,bill_cycle_day\n+491701234567,262011234567890,2026-01-01T00:00:00Z,c,32\n"
    )
    assert load(data, generic, "customer").refusals == [(2, "wrong_type", "bill_cycle_day")]
    loaded = load(data.replace(b"32\n", b"31\n"), generic, "customer")
    assert loaded.lines == [2, 2]


LATIN = """
encoding: latin-1
delimiter: ";"
fields:
  started_at: {column: when}
  record_type: {constant: VOICE}
  status: {constant: COMPLETED}
  line: {column: who}
  node_id: {column: node}
identical_rows: MODE
"""


def test_a_file_in_latin_1_is_read_by_a_profile_that_says_so(load: Callable[..., Loaded]) -> None:
    profile = parse_profile(LATIN.replace("MODE", "merge"), "latin")
    loaded = load("when;who;node;unused\n2026-11-23T08:00:00Z;1001;Zürich;x\n".encode("latin-1"), profile)
    assert decode_record(loaded.values[0], CDR)["node_id"] == "Zürich"


@pytest.mark.parametrize(("mode", "different"), [("merge", 1), ("keep", 3)])
def test_equal_rows_are_one_record_unless_the_profile_keeps_them(
    mode: str, different: int, load: Callable[..., Loaded]
) -> None:
    profile = parse_profile(LATIN.replace("MODE", mode), "latin")
    data = b"when;who;node\n" + b"2026-11-23T08:00:00Z;1001;x\n" * 3
    for block_bytes in (1 << 20, 30):
        loaded = load(data, profile, block_bytes=block_bytes)
        assert len({decode_record(value, CDR)["event_uid"] for value in loaded.values}) == different


ASTERISK = b'''"","1001","+491701234567","from-internal","""A"" <1001>","PJSIP/1001-0000001a","PJSIP/trunk-0000001b","Dial","PJSIP/x","2026-11-23 08:00:00","2026-11-23 08:00:05","2026-11-23 08:01:05",65,60,"ANSWERED","DOCUMENTATION","1790000000.10",""
"acc","","1001","from-trunk","","PJSIP/trunk-0000001c","","Dial","","2026-11-23 08:00:00","","2026-11-23 08:01:05",65,0,"NO ANSWER","DOCUMENTATION","1790000000.11",""
"","1002","112","from-internal","","SIP/1002-0a","SIP/trunk-0b","Dial","","2026-11-23 08:00:00","","2026-11-23 08:00:01",1,0,"CONFUSED","DOCUMENTATION","1790000000.12",""
'''  # noqa: E501


def test_asterisks_master_csv_is_read(load: Callable[..., Loaded], shipped_profile: Callable[[str], Profile]) -> None:
    loaded = load(ASTERISK, shipped_profile("asterisk"))
    assert loaded.refusals == [(3, "not_in_enum", "status")]
    first, second = (decode_record(value, CDR) for value in loaded.values)
    assert (first["status"], first["duration_ms"], first["holding_ms"]) == ("COMPLETED", 60_000, 65_000)
    assert (first["subscriber_kind"], first["peer_kind"], first["peer_country"]) == ("LINE", "E164", "DE")
    assert (first["route_in"], first["route_out"]) == ("PJSIP/1001", "PJSIP/trunk")
    assert (second["status"], second["duration_ms"], second["answered_at"]) == ("NO_ANSWER", 0, None)
    assert (second["subscriber_kind"], second["peer_kind"], second["route_in"]) == ("NONE", "EXTENSION", "PJSIP/trunk")
    assert second["ext"] == {
        "accountcode": "acc",
        "amaflags": "DOCUMENTATION",
        "dcontext": "from-trunk",
        "lastapp": "Dial",
    }


def test_asterisks_file_without_its_optional_columns_is_read(
    load: Callable[..., Loaded], shipped_profile: Callable[[str], Profile]
) -> None:
    short = b"\n".join(line.rsplit(b",", 2)[0] for line in ASTERISK.splitlines()) + b"\n"
    loaded = load(short, shipped_profile("asterisk"))
    assert len(loaded.values) == 2
    with pytest.raises(BodyRefused, match="16 to 18"):
        load(b"a,b,c\n", shipped_profile("asterisk"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a", "mapping"),
        ("a: [", "not YAML"),
        ("colour: red", "colour"),
        ("delimiter: ab", "delimiter"),
        ("encoding: utf-16", "single-byte"),
        ("header: false", "columns must be listed"),
        ("fields: {colour: {column: a}}", "fields.colour"),
        ("fields: {status: {column: a, constant: b}}", "exactly one"),
        ("fields: {duration_ms: {column: a, unit: kB}}", "must be one of s, min, ms"),
        ("fields: {status: {column: a, extract: '('}}", "extract"),
        ("time: {zone: Mars/Base}", "IANA"),
        ("time: {format: '%Q'}", "%Q"),
        ("numbers: {country: Germany}", "ISO 3166"),
        ("header: false\ncolumns: [a]\nkeep: [b]", "not listed: b"),
    ],
)
def test_a_profile_that_cannot_work_says_why(text: str, says: str) -> None:
    with pytest.raises(ProfileInvalid) as invalid:
        parse_profile(text, "mine")
    assert says in str(invalid.value)
    assert "profile mine" in str(invalid.value)
