from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from telestream_contracts import Schema, encode, encode_record, enriched_schema, load_schema
from telestream_domain import Topics
from warehouse_sink.buffer import Buffer, Pending
from warehouse_sink.decoding import decode_columns, decode_dead_letters
from warehouse_sink.domain.places import Source
from warehouse_sink.domain.routes import routes
from warehouse_sink.errors import Undecodable

TABLE = routes(Topics("t."))
CDRS = Source("t.cdr.enriched.g1", 0)
CELLS = Source("t.agg.cell.g1", 0)
LETTERS = Source("t.cdr.rejected.g1", 0)
MakeRecord = Callable[..., dict[str, Any]]


class Message:
    """What the buffer asks of a Kafka message."""

    def __init__(self, offset: int, value: bytes | None, key: bytes | None = None) -> None:
        self._offset, self._value, self._key = offset, value, key

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def __len__(self) -> int:
        return len(self._value or b"")


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Source, list[Message]], Pending]:
    # librdkafka's messages cannot be made by hand
    monkeypatch.setattr("warehouse_sink.buffer.Message", Message)

    def fill(source: Source, messages: list[Message]) -> Pending:
        buffer = Buffer(TABLE)
        buffer.add(source, messages, now=1.0)  # type: ignore[arg-type]
        return buffer.take()[source]

    return fill


def test_values_of_two_schema_versions_keep_their_order_and_get_defaults(
    pending: Callable[..., Pending], make_record: MakeRecord
) -> None:
    new = enriched_schema("cdr")
    old: Schema = copy.deepcopy(new)
    old["fields"] = [field for field in old["fields"] if field["name"] != "rating_group"]
    known = {1: old, 2: new}
    messages = []
    for offset in range(6):
        schema_id = 1 + offset % 2
        fields = make_record(known[schema_id], src_offset=offset) | ({"rating_group": offset} if schema_id == 2 else {})
        messages.append(Message(10 + offset, encode_record(fields, known[schema_id], schema_id)))
    rows = decode_columns(CDRS, pending(CDRS, messages), known.get)
    assert rows["src_offset"].to_pylist() == list(range(6))
    assert rows["rating_group"].to_pylist() == [None, 1, None, 3, None, 5]


def test_a_field_of_a_newer_writer_is_left_out(pending: Callable[..., Pending], make_record: MakeRecord) -> None:
    newer: Schema = copy.deepcopy(enriched_schema("cdr"))
    newer["fields"].append({"name": "later", "type": ["null", "long"], "default": None})
    value = encode_record(make_record(newer, src_offset=1, later=5), newer, 9)
    rows = decode_columns(CDRS, pending(CDRS, [Message(0, value)]), {9: newer}.get)
    assert rows.schema.names == [field["name"] for field in enriched_schema("cdr")["fields"]]


def test_a_value_that_cannot_be_read_is_named_by_its_offset(
    pending: Callable[..., Pending], make_record: MakeRecord
) -> None:
    schema = enriched_schema("cdr")
    good = encode_record(make_record(schema), schema, 1)
    for bad, reason in (
        (b"junk", "wire format"),
        (good[:20], "cdr_enriched"),
        (b"\0\0\0\0\x07" + good[5:], "schema id 7"),
    ):
        messages = [Message(40, good), Message(41, bad), Message(42, good)]
        with pytest.raises(Undecodable, match=rf"t\.cdr\.enriched\.g1\[0\]@41: .*{reason}"):
            decode_columns(CDRS, pending(CDRS, messages), {1: schema}.get)
    with pytest.raises(Undecodable, match="@41: a null value"):
        decode_columns(CDRS, pending(CDRS, [Message(40, good), Message(41, None)]), {1: schema}.get)


def test_of_an_upsert_topic_only_the_last_value_of_a_key_is_kept(
    pending: Callable[..., Pending], make_record: MakeRecord
) -> None:
    schema = load_schema("agg_cell")
    states = [("a", 1), ("b", 2), ("a", 3), ("c", 4)]
    messages = [
        Message(offset, encode_record(make_record(schema, cell_id=key, records=records), schema, 1), key.encode())
        for offset, (key, records) in enumerate(states)
    ]
    messages.append(Message(4, None, b"c"))
    taken = pending(CELLS, messages)
    assert (len(taken), taken.next_offset) == (3, 5)
    rows = decode_columns(CELLS, taken, {1: schema}.get)
    assert dict(zip(rows["cell_id"].to_pylist(), rows["records"].to_pylist(), strict=True)) == {"a": 3, "b": 2}


def test_dead_letters_keep_bytes_that_are_no_text(pending: Callable[..., Pending], make_record: MakeRecord) -> None:
    schema = load_schema("dead_letter")
    value = encode_record(make_record(schema, rule="undecodable", original=b"\xff\x00\xfe"), schema, 1)
    letters = decode_dead_letters(LETTERS, pending(LETTERS, [Message(0, value)]), {1: schema}.get)
    assert letters[0]["original"] == b"\xff\x00\xfe"
    with pytest.raises(Undecodable, match=r"rejected.*@5"):
        decode_dead_letters(LETTERS, pending(LETTERS, [Message(5, b"")]), {1: schema}.get)


def test_the_columnar_way_and_fastavro_give_the_same_rows(
    pending: Callable[..., Pending], make_judged: Callable[..., Any], make_record: MakeRecord
) -> None:
    schema = enriched_schema("network")
    source = Source("t.network.enriched.g1", 0)
    batch = make_judged("network", 0, 0, 30)
    fast = encode(batch, schema, 1)
    slow = [encode_record(row | {"ext": dict(row["ext"])}, schema, 1) for row in batch.to_pylist()]
    assert fast == slow
    rows = decode_columns(source, pending(source, [Message(i, value) for i, value in enumerate(slow)]), {1: schema}.get)
    assert rows.to_pylist() == batch.to_pylist()


def test_what_belongs_to_a_lost_partition_is_forgotten(
    pending: Callable[..., Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = Buffer(TABLE)
    other = Source(CDRS.topic, 1)
    for source in (CDRS, other):
        buffer.add(source, [Message(0, b"12345")], now=3.0)  # type: ignore[list-item]
    assert (buffer.rows, buffer.nbytes, buffer.age_s(4.5)) == (2, 10, 1.5)
    buffer.drop([CDRS])
    assert set(buffer.take()) == {other}
    assert (buffer.rows, buffer.age_s(9.0)) == (0, 0.0)
