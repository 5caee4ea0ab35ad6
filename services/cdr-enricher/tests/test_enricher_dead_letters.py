"""What cannot be read or breaks a rule: exactly that, whole, and nothing else's order disturbed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdr_enricher.decode import RawDecoder
from cdr_enricher.domain.rejection_limit import RejectionLimit, Rejections
from cdr_enricher.errors import RejectionsAboveLimit
from cdr_enricher.exact_payloads import ExactPayloads
from telestream_contracts import decode_record, encode_record, enriched_schema, load_schema
from telestream_domain import RULES_VERSION

Make = Callable[..., Any]
Letters = Callable[[list[dict[str, bytes | None]]], list[dict[str, Any]]]
ARRIVED_MS = 1_790_000_000_000
RAW_ID = 11


def value(**changes: Any) -> bytes:
    names = [entry["name"] for entry in load_schema("cdr")["fields"]]
    record = dict.fromkeys(names) | {
        "event_uid": "uid-0",
        "started_at": ARRIVED_MS - 60_000,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.alice",
        "subscriber_kind": "MSISDN",
        "is_partial": False,
        "source": "switch",
        "batch_id": 4,
        "line": 1,
        "ingested_at": ARRIVED_MS,
        "ext": {"k": "v"},
    }
    return encode_record(record | changes, load_schema("cdr"), RAW_ID)


WHOLE = value()
POISON: dict[str, bytes | None] = {
    "null": None,
    "empty": b"",
    "torn": WHOLE[:20],
    "torn by one byte": WHOLE[:-1],
    "frame alone": WHOLE[:5],
    "torn frame": WHOLE[:3],
    "wrong magic byte": b"\x01" + WHOLE[1:],
    "unknown schema id": b"\x00\x00\x00\x00\x63" + WHOLE[5:],
    "a byte too many": WHOLE + b"\x00",
    "garbage behind it": WHOLE + b"garbage",
    "another record behind it": WHOLE + WHOLE[5:],
    "not UTF-8": WHOLE.replace(b"switch", b"sw\xfftch"),
    "an impossible branch of a union": WHOLE[:-8] + b"\x7f" + WHOLE[-7:],
    "a text longer than all": WHOLE[:5] + b"\xfe\xff\xff\xff\x0f" + WHOLE[6:],
    "a text of negative length": WHOLE[:5] + b"\x09" + WHOLE[6:],
    "plain text": b"2026-01-01;+33612345678;42",
    "JSON": b'{"event_id": 1}',
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_exactly_the_poisoned_record_is_a_dead_letter_with_its_bytes(
    bench: Make, letters: Letters, poison: bytes | None
) -> None:
    judge = bench()
    values: list[bytes | None] = [value(event_uid=f"u{n}") for n in range(40)]
    values[17] = poison
    outputs = judge.outputs(*values)
    records = [decode_record(message["value"] or b"", enriched_schema("cdr")) for message in outputs["enriched"]]
    assert [record["src_offset"] for record in records] == list(range(40))
    assert [r["event_uid"] for r in records] == ["" if n == 17 else f"u{n}" for n in range(40)]
    assert [n for n, record in enumerate(records) if record["verdict"] != "STORED"] == [17]
    (letter,) = letters(outputs["rejected"])
    assert (letter["original"], letter["src_offset"], letter["rule"]) == (poison or b"", 17, "undecodable")
    assert letter["reason"].startswith("undecodable: the value ") or "text in the value" in letter["reason"]
    assert outputs["rejected"][0]["key"] == b"key-17"


def test_a_rejected_records_envelope_says_all_there_is_to_know(bench: Make, letters: Letters) -> None:
    judge = bench()
    bad = value(event_uid="bad", duration_ms=-1, line=7)
    outputs = judge.outputs(value(event_uid="good"), bad, arrived_ms=ARRIVED_MS + 5)
    assert [message["key"] for message in outputs["rejected"]] == [b"key-1"]
    (letter,) = letters(outputs["rejected"])
    arrived = letter.pop("appended_at")
    assert int(arrived.timestamp() * 1000) == ARRIVED_MS + 5
    reason = letter.pop("reason")
    assert reason.startswith("duration_ms: ")
    assert letter == {
        "type": "cdr",
        "src_topic": "t.cdr.raw",
        "src_partition": 3,
        "src_offset": 1,
        "rule": "negative_value",
        "field": "duration_ms",
        "source": "switch",
        "batch_id": 4,
        "line": 7,
        "event_uid": "bad",
        "rules_version": RULES_VERSION,
        "original": bad,
    }


@pytest.mark.parametrize("where", [[0], [1_999], [1_200, 1_201, 1_202], range(2_000), range(1, 2_000, 2)], ids=str)
def test_one_in_thousands_several_in_a_row_or_all_of_them(where: Any) -> None:
    good, bad = value(), sorted(where)
    values: list[bytes | None] = [good] * 2_000
    rng = random.Random(1)
    kinds = [poison for name, poison in POISON.items() if name not in ("null", "unknown schema id")]
    for index in bad:
        values[index] = rng.choice(kinds)
    decoded = RawDecoder("cdr", RAW_ID, lambda _: None).decode(values)
    assert sorted(decoded.undecodable) == bad
    assert decoded.records.height == len(decoded.payloads) == 2_000
    assert [n for n, payload in enumerate(decoded.payloads) if payload != good[5:]] == bad


def test_a_record_torn_anywhere_or_too_long_by_anything_is_found() -> None:
    payload = value(peer_id="k1." + "p" * 22, ext={"a": "b" * 120})[5:]
    exact = ExactPayloads(load_schema("cdr"))
    torn = [payload[:length] for length in range(len(payload))]
    longer = [payload + bytes([byte]) * count for byte in (0, 2, 0xFF) for count in (1, 2, 8, 200)]
    found = exact.bad([payload, *torn, payload, *longer, payload])
    good = {0, len(torn) + 1, len(torn) + len(longer) + 2}
    assert set(range(len(torn) + len(longer) + 3)) - found.keys() == good
    assert exact.columns([payload, torn[-1]]) is None
    columns = exact.columns([payload, payload])
    assert columns is not None
    assert columns.num_rows == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just(WHOLE[5:]),
            st.binary(max_size=60),
            st.tuples(st.integers(0, len(WHOLE) - 6), st.binary(min_size=1, max_size=4)).map(
                lambda change: WHOLE[5 : 5 + change[0]] + change[1] + WHOLE[5 + change[0] + len(change[1]) :]
            ),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_record_is_readable_alone_or_in_company_and_what_is_readable_is_whole(payloads: list[bytes]) -> None:
    exact = ExactPayloads(load_schema("cdr"))
    bad = exact.bad(payloads)
    assert [index in bad for index in range(len(payloads))] == [bool(exact.bad([payload])) for payload in payloads]
    assert (exact.columns(payloads) is None) == bool(bad)
    for index, payload in enumerate(payloads):
        if index not in bad:
            # the twin reads it too, to its last byte
            stream = io.BytesIO(payload)
            fastavro.schemaless_reader(stream, load_schema("cdr"), None)
            assert stream.read() == b""


def limit_of(batches: list[list[bool]], limit: RejectionLimit, first: int = 0) -> tuple[Rejections, int | None]:
    """The count after all batches, and how many records had come when the limit was exceeded."""
    recent, offset = Rejections(), first
    for batch in batches:
        rejected = np.array(batch, np.bool_)
        recent, excess = limit.after(recent, np.arange(offset, offset + len(batch)), rejected)
        offset += len(batch)
        if excess is not None:
            return recent, offset - first
    return recent, None


def test_the_limit_is_of_the_last_records_not_of_a_batch() -> None:
    limit = RejectionLimit(0.5, 100)
    few = [[True] * 50, [False] * 30, [True] * 0 or [False] * 20, [True] * 50]
    assert limit_of(few, limit)[1] is None
    assert limit_of([*few, [True]], limit)[1] == 151
    # a file of fifty bad rows now and then is no disaster
    assert limit_of([[True] * 50, [False] * 100] * 20, limit)[1] is None
    assert limit_of([[True] * 51], limit)[1] == 51
    assert limit_of([[True]] * 400, RejectionLimit(1, 100))[1] is None


def test_what_is_excessive_does_not_depend_on_how_records_came_in_batches() -> None:
    rng = random.Random(3)
    limit = RejectionLimit(0.5, 100)
    for _ in range(60):
        share = rng.choice((0.3, 0.45, 0.5, 0.55, 0.9))
        first = rng.randrange(300)
        records = [rng.random() < share for _ in range(600)]
        alone, stopped_at = limit_of([[record] for record in records], limit, first)
        cuts = sorted(rng.sample(range(1, 600), 9))
        batches = [records[a:b] for a, b in zip([0, *cuts], [*cuts, 600], strict=True)]
        together, batch_end = limit_of(batches, limit, first)
        if stopped_at is None:
            assert (batch_end, together) == (None, alone)
        else:
            assert batch_end is not None
            assert batch_end == next(end for end in [*cuts, 600] if end >= stopped_at)


def test_the_count_survives_in_the_commit_and_another_setting_begins_anew() -> None:
    limit = RejectionLimit(0.5, 100)
    recent, _ = limit_of([[True] * 40], limit, 7)
    assert Rejections.from_json(recent.as_json()) == recent
    assert limit.after(recent, np.arange(47, 58), np.ones(11, np.bool_))[1] is not None
    wider = RejectionLimit(0.5, 200)
    assert wider.after(recent, np.arange(47, 120), np.ones(73, np.bool_))[1] is None


def test_above_the_limit_the_batch_is_refused_and_the_state_as_it_was(bench: Make) -> None:
    judge = bench(limit=RejectionLimit(0.5, 100))
    bad, good = value(duration_ms=-1), value()
    judge.judged(*[bad] * 50)
    before = judge.state
    with pytest.raises(RejectionsAboveLimit) as stopped:
        judge.judged(good, *[bad] * 9, None)
    assert str(stopped.value) == (
        "t.cdr.raw[3]@0..59: 59 records are rejected, most by negative_value; more than 0.5 of 100. Nothing from @50 "
        "on is judged: mend the cause, or let them pass with TELESTREAM_MAX_REJECTED_SHARE=1 "
        "(docs/runbook/rejections-above-the-limit.md)"
    )
    assert judge.state is before
    # nothing of the refused batch was remembered: its good record is no duplicate of itself
    (record,) = judge.judged(good)
    assert record["verdict"] == "STORED"
