"""The columnar codec against fastavro, its slow and trusted twin."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telestream_contracts import (
    DecodeError,
    EncodeError,
    arrow_schema,
    decode,
    decode_each,
    decode_payloads,
    decode_record,
    encode,
    encode_payloads,
    encode_record,
    enriched_head,
    enriched_schema,
    load_schema,
    prefix_schema,
    schema_id_of,
    topic_schemas,
)
from telestream_contracts.schemas import Schema
from telestream_domain import Topics

NETWORK = load_schema("network")
REGION = load_schema("region")
CDR = load_schema("cdr")


def _values(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    def of(kind: Any) -> st.SearchStrategy[Any]:
        if isinstance(kind, list):
            return st.none() | of(kind[1])
        if isinstance(kind, dict):
            if kind.get("logicalType") == "timestamp-millis":
                return st.integers(0, 4_000_000_000_000).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC))
            if kind["type"] == "map":
                return st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)
        return {
            "string": st.text(max_size=30),
            "long": st.integers(-(2**63), 2**63 - 1),
            "boolean": st.booleans(),
            "double": st.floats(allow_nan=False, allow_infinity=False),
        }[kind]

    return st.fixed_dictionaries({field["name"]: of(field["type"]) for field in schema["fields"]})


@given(st.lists(_values(NETWORK), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_columns_decode_to_what_fastavro_wrote_and_encode_to_its_bytes(records: list[dict[str, Any]]) -> None:
    values = [encode_record(record, NETWORK, 7) for record in records]
    frame = decode(values, NETWORK)
    assert frame.height == len(records)
    assert encode(frame, NETWORK, 7) == values


def test_every_schema_of_a_topic_but_the_dead_letter_has_an_arrow_form() -> None:
    for schema in topic_schemas(Topics()).values():
        if schema["name"] != "dead_letter":  # bytes: only fastavro can
            assert arrow_schema(schema).names == [field["name"] for field in schema["fields"]]


@pytest.mark.parametrize("record_type", ["cdr", "network"])
def test_an_enriched_record_is_its_head_then_the_raw_record_untouched(record_type: str) -> None:
    head = {field["name"] for field in enriched_head(record_type)["fields"]}
    raw = {field["name"] for field in load_schema(record_type)["fields"]}
    assert not head & raw
    names = [field["name"] for field in enriched_schema(record_type)["fields"]]
    assert names == [f["name"] for f in enriched_head(record_type)["fields"]] + [
        f["name"] for f in load_schema(record_type)["fields"]
    ]


def _region(n: int) -> dict[str, Any]:
    return {
        "region_id": f"r{n}",
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "deleted": False,
        "name": None if n % 2 else f"Région {n}",
        "country": "FR",
        "source": "s",
        "batch_id": 1,
        "line": n,
        "ingested_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def test_a_prefix_is_read_and_what_follows_is_ignored() -> None:
    values = [encode_record(_region(n), REGION, 1) for n in range(5)]
    frame = decode(values, prefix_schema(REGION, "deleted"))
    assert frame.columns == ["region_id", "valid_from", "deleted"]
    assert frame["region_id"].to_list() == ["r0", "r1", "r2", "r3", "r4"]


def test_a_head_and_raw_payload_put_together_is_one_enriched_record() -> None:
    raw = encode_payloads(decode([encode_record(_region(1), REGION, 1)], REGION), REGION)
    both = {"type": "record", "name": "both", "fields": [{"name": "n", "type": "long"}, *REGION["fields"]]}
    head = encode_payloads(pl.DataFrame({"n": [42]}), {"type": "record", "name": "h", "fields": both["fields"][:1]})
    record = decode_record(b"\0\0\0\0\1" + head[0] + raw[0], both)
    assert (record["n"], record["region_id"], record["line"]) == (42, "r1", 1)


def test_one_bad_value_is_found_and_the_good_ones_keep_their_order() -> None:
    values: list[bytes | None] = [encode_record(_region(n), REGION, 4) for n in range(100)]
    values[17] = values[17][:9]  # type: ignore[index]
    values[40] = None
    values[41] = b"{}"
    values[99] = b"\0\0\0\0\x09" + b"abc"
    decoded = decode_each(values, {4: REGION})
    assert [bad.index for bad in decoded.bad] == [17, 40, 41, 99]
    assert decoded.bad[3].reason == "schema id 9 is not registered"
    assert decoded.frame["line"].to_list() == [n for n in range(100) if n not in (17, 40, 41, 99)]
    assert decoded.good.tolist() == decoded.frame["line"].to_list()


def test_records_of_two_schema_versions_come_back_in_input_order() -> None:
    older = prefix_schema(REGION, "country")
    values = [encode_record(_region(n), REGION if n % 2 else older, 2 if n % 2 else 1) for n in range(6)]
    decoded = decode_each(values, {1: older, 2: REGION})
    assert decoded.frame["region_id"].to_list() == [f"r{n}" for n in range(6)]
    assert decoded.frame["line"].to_list() == [None, 1, None, 3, None, 5]


def test_a_null_where_none_may_be_is_refused_by_name_not_written_as_zero() -> None:
    frame = decode([encode_record(_region(1), REGION, 1)], REGION).with_columns(line=pl.lit(None, pl.Int64))
    with pytest.raises(EncodeError, match=r"region\.line: 1 nulls"):
        encode(frame, REGION, 1)


def test_a_missing_column_is_refused_by_name() -> None:
    with pytest.raises(EncodeError, match="columns missing: valid_from"):
        encode(pl.DataFrame({"region_id": ["a"]}), REGION, 1)


def test_no_rows_are_no_values_and_the_columns_stand_all_the_same() -> None:
    frame = decode([], CDR)
    assert frame.height == 0
    assert frame.columns == [field["name"] for field in CDR["fields"]]
    assert encode(frame, CDR, 1) == []


def test_what_is_not_framed_is_said_so() -> None:
    assert schema_id_of(b"abc") is None
    with pytest.raises(DecodeError):
        decode_record(b"abc", REGION)
    with pytest.raises(DecodeError):
        decode_payloads([b"\x02"], REGION)
