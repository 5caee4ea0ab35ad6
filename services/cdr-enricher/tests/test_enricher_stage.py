from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest

from cdr_enricher.domain.references import References
from cdr_enricher.errors import JudgementBroken, Unsupported
from telestream_contracts import (
    decode,
    decode_record,
    encode_record,
    enriched_head,
    enriched_schema,
    load_schema,
    prefix_schema,
)

ARRIVED_MS = 1_790_000_000_000
DAY = 86_400_000
CUSTOMER_BODY = ("customer_id", "plan_id", "segment", "region_id")
CELL_BODY = ("region_id", "technology", "vendor")

Make = Callable[..., Any]


def customer(name: str, plan: str = "P1") -> dict[str, str]:
    return {"customer_id": name, "plan_id": plan, "segment": "S", "region_id": "home"}


@pytest.fixture
def references(versions: Callable[..., pl.DataFrame]) -> References:
    known = References()
    known.add(
        "customer",
        versions(
            "identifier",
            ("k1.alice", 0, customer("C1")),
            ("k1.alice", ARRIVED_MS - 30_000, customer("C1", "P2")),
            ("k1.sim", 0, customer("C2")),
            ("k1.gone", 0, customer("C3")),
            ("k1.gone", 10, None),
            body=CUSTOMER_BODY,
        ),
        np.arange(5),
        partition=3,
    )
    cell = {"region_id": "north", "technology": "LTE", "vendor": "acme"}
    known.add("cell", versions("cell_id", ("208-01-7", 0, cell), body=CELL_BODY), np.arange(1))
    return known


def test_every_raw_record_gives_one_judged_record_in_order_with_its_key(bench: Make) -> None:
    judge = bench()
    values = [
        judge.value(event_uid="a"),
        b"\x00\x00",
        judge.value(event_uid="b", duration_ms=-1),
        judge.value(event_uid="a"),
        None,
        judge.value(event_uid="b"),
    ]
    messages = judge.outputs(*values)["enriched"]
    records = [decode_record(message["value"], enriched_schema("cdr")) for message in messages]

    assert [record["src_offset"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert {record["src_partition"] for record in records} == {3}
    assert [message["key"] for message in messages] == [f"key-{offset}".encode() for offset in range(6)]
    assert [(r["verdict"], r["rule"], r["first_offset"]) for r in records] == [
        ("STORED", None, None),
        ("REJECTED", "undecodable", None),
        ("REJECTED", "negative_value", None),
        ("DUPLICATE", None, 0),
        ("REJECTED", "undecodable", None),
        ("STORED", None, None),
    ]
    assert all(r["sign"] == 1 and r["rules_version"] == 1 for r in records)
    assert records[0]["appended_at"].timestamp() * 1000 == ARRIVED_MS


def test_enriched_bytes_are_frame_head_and_the_raw_payload_untouched(bench: Make, references: References) -> None:
    judge = bench(references=references, home_plmns=("208-01",))
    raw = judge.value(ext={"leg": "2"}, peer_id="k1.bob", imsi="k1.sim", home_plmn="208-01")
    (message,) = judge.outputs(raw)["enriched"]
    value = message["value"]

    assert value[:5] == b"\x00\x00\x00\x00\x0c"
    assert value.endswith(raw[5:])
    stream = io.BytesIO(value[5:])
    head = fastavro.schemaless_reader(stream, fastavro.parse_schema(enriched_head("cdr")), None)
    body = fastavro.schemaless_reader(stream, fastavro.parse_schema(load_schema("cdr")), None)
    assert stream.read() == b""
    assert body == decode_record(raw, load_schema("cdr"))
    assert {name: head[name] for name in ("region_id", "technology", "vendor", "roaming", "plan_id")} == {
        "region_id": "north",
        "technology": "LTE",
        "vendor": "acme",
        "roaming": "HOME",
        "plan_id": "P1",
    }
    prefix = decode([value], prefix_schema(enriched_schema("cdr"), "subscriber_id"))
    assert prefix.columns[-1] == "subscriber_id"
    assert prefix["event_uid"].to_list() == ["uid-0"]


def test_an_undecodable_record_carries_the_empty_record_and_a_dead_letter_its_bytes(bench: Make, letters: Make) -> None:
    judge = bench()
    good = judge.value(event_uid="good")
    torn = judge.value()[:20]
    other_schema = b"\x00\x00\x00\x00\x63rest"
    outputs = judge.outputs(good, torn, other_schema, b"plain text", None, judge.value(event_uid="good too"))
    records = [decode_record(message["value"], enriched_schema("cdr")) for message in outputs["enriched"]]

    assert [record["verdict"] for record in records] == ["STORED", *["REJECTED"] * 4, "STORED"]
    for record in records[1:5]:
        assert (record["event_uid"], record["content_hash"], record["warnings"]) == ("", 0, [])
        assert (record["local_date"], record["roaming"], record["customer_id"]) == (None, "UNKNOWN", None)
    found = letters(outputs["rejected"])
    assert [letter["original"] for letter in found] == [torn, other_schema, b"plain text", b""]
    assert [letter["src_offset"] for letter in found] == [1, 2, 3, 4]
    assert {letter["rule"] for letter in found} == {"undecodable"}
    assert {(letter["source"], letter["field"]) for letter in found} == {(None, None)}
    assert [message["key"] for message in outputs["rejected"]] == [b"key-1", b"key-2", b"key-3", b"key-4"]


def test_a_rejected_record_leaves_no_trace_and_its_mended_form_is_stored_once(bench: Make) -> None:
    judge = bench()
    broken, mended = judge.value(duration_ms=-5), judge.value(duration_ms=5)
    verdicts = [r["verdict"] for r in judge.judged(broken, broken)]
    verdicts += [r["verdict"] for r in judge.judged(mended, broken, mended)]
    assert verdicts == ["REJECTED", "REJECTED", "STORED", "REJECTED", "DUPLICATE"]


def test_a_resent_record_is_a_duplicate_and_one_with_other_content_a_conflict(bench: Make) -> None:
    judge = bench()
    judge.judged(judge.value())
    again, other = judge.judged(
        # how it came does not count: another file, line and day of arrival
        judge.value(batch_id=99, line=7, ingested_at=ARRIVED_MS + 5, source="elsewhere"),
        judge.value(charge_micros=1),
        arrived_ms=ARRIVED_MS + 40 * DAY,
    )
    assert (again["verdict"], again["rule"], again["first_offset"]) == ("DUPLICATE", None, 0)
    assert (other["verdict"], other["rule"], other["first_offset"]) == ("DUPLICATE", "conflict", 0)


def test_network_events_are_judged_by_cell(bench: Make, references: References) -> None:
    judge = bench("network", references=references)
    first, again, elsewhere = judge.judged(
        judge.value(latency_ms=20.0), judge.value(latency_ms=20.0), judge.value(latency_ms=20.0, cell_id="208-01-8")
    )
    assert (first["verdict"], first["region_id"], first["technology"]) == ("STORED", "north", "LTE")
    assert (again["verdict"], again["first_offset"]) == ("DUPLICATE", 0)
    assert (elsewhere["verdict"], elsewhere["region_id"]) == ("STORED", None)


def test_the_customer_is_the_one_of_the_events_time(bench: Make, references: References) -> None:
    judge = bench(references=references)
    before, after = judge.judged(
        judge.value(event_uid="a", started_at=ARRIVED_MS - 30_001),
        judge.value(event_uid="b", started_at=ARRIVED_MS - 30_000),
    )
    assert [(r["customer_id"], r["plan_id"], r["customer_region_id"]) for r in (before, after)] == [
        ("C1", "P1", "home"),
        ("C1", "P2", "home"),
    ]


def test_a_subscriber_is_known_by_the_number_its_record_goes_by_and_by_no_other(
    bench: Make, references: References
) -> None:
    judge = bench(references=references)
    records = judge.judged(
        # an IMSI's versions lie in the partition of the IMSI, which may be another worker's
        judge.value(event_uid="a", subscriber_id="k1.stranger", imsi="k1.sim"),
        judge.value(event_uid="b", subscriber_id="k1.sim", subscriber_kind="IMSI", imsi="k1.sim"),
        judge.value(event_uid="c", subscriber_id="k1.gone", imsi="k1.sim"),
        judge.value(event_uid="d", subscriber_id="k1.alice", imsi="k1.sim"),
    )
    assert [record["customer_id"] for record in records] == [None, "C2", None, "C1"]
    assert {record["verdict"] for record in records} == {"STORED"}


@pytest.mark.parametrize(
    ("zone", "started_at", "expected"),
    [
        ("UTC", 1_774_742_399_999, date(2026, 3, 28)),
        ("Europe/Paris", 1_774_742_399_999, date(2026, 3, 29)),
        ("America/New_York", 1_774_742_399_999, date(2026, 3, 28)),
        # the day of 23 hours
        ("Europe/Paris", 1_774_821_599_999, date(2026, 3, 29)),
        ("Europe/Paris", 1_774_821_600_000, date(2026, 3, 30)),
    ],
)
def test_the_local_date_is_that_of_the_business_time_zone(
    bench: Make, zone: str, started_at: int, expected: date
) -> None:
    judge = bench(business_timezone=zone)
    (record,) = judge.judged(judge.value(started_at=started_at), arrived_ms=started_at + 1000)
    assert record["local_date"] == expected


def test_a_time_beyond_the_calendar_is_rejected_beside_good_records(bench: Make) -> None:
    judge = bench(business_timezone="Europe/Paris")
    values = [judge.value(event_uid=str(at), started_at=at) for at in (2**62, -(2**62), ARRIVED_MS)]
    schema = prefix_schema(enriched_schema("cdr"), "roaming")
    records = [decode_record(message["value"], schema) for message in judge.outputs(*values)["enriched"]]
    assert [(r["rule"], r["local_date"] is None) for r in records] == [
        ("from_the_future", True),
        ("too_old", True),
        (None, False),
    ]


def test_a_hole_or_a_repeat_in_raw_stops_with_its_position(bench: Make) -> None:
    judge = bench()
    judge.judged(judge.value(event_uid="a"), judge.value(event_uid="b"))
    for first, wanted in ((3, r"t\.cdr\.raw\[3\]@2: the next record read is @3"), (1, r"\[3\]@2: .* is @1")):
        with pytest.raises(JudgementBroken, match=wanted):
            judge.judged(judge.value(event_uid="c"), first=first)
    holed = judge.batch([judge.value(event_uid="d"), judge.value(event_uid="e")])
    holed.offsets[1] += 1
    with pytest.raises(JudgementBroken, match=r"\[3\]@3: the next record read is @4"):
        judge.judge.on_batch(holed, judge.state, judge.references)


def test_a_generation_begins_where_the_log_begins(bench: Make) -> None:
    judge = bench()
    (record,) = judge.judged(judge.value(), first=1_000)
    assert record["src_offset"] == 1_000
    assert (judge.state.next_offset, judge.state.began_at) == (1_001, 1_000)


def test_a_record_of_an_older_raw_schema_carries_the_current_fields(bench: Make) -> None:
    older = {**load_schema("cdr"), "fields": [f for f in load_schema("cdr")["fields"] if f["name"] != "rating_group"]}
    judge = bench(schemas=lambda schema_id: older if schema_id == 10 else None)
    record = decode_record(judge.value(), load_schema("cdr"))
    del record["rating_group"]
    old, new = judge.judged(encode_record(record, older, 10), judge.value(event_uid="new"))
    assert (old["verdict"], old["rating_group"], old["subscriber_id"]) == ("STORED", None, "k1.alice")
    assert new["verdict"] == "STORED"
    (again,) = judge.judged(judge.value())
    assert (again["verdict"], again["rule"]) == ("DUPLICATE", None)


def test_a_raw_schema_newer_than_the_code_stops_the_worker(bench: Make) -> None:
    extra = {"name": "novelty", "type": ["null", "string"], "default": None}
    newer = {**load_schema("cdr"), "fields": [*load_schema("cdr")["fields"], extra]}
    judge = bench(schemas=lambda _: newer)
    with pytest.raises(Unsupported, match="novelty"):
        judge.judged(b"\x00\x00\x00\x00\x0a" + judge.value()[5:] + b"\x00")


def test_a_batch_of_nothing_but_bad_values_is_judged_too(bench: Make) -> None:
    judge = bench()
    assert [r["rule"] for r in judge.judged(None, b"", b"\x01")] == ["undecodable"] * 3
    assert judge.state.watermark.reached_ms is None


def test_large_random_batches_agree_with_judging_one_record_at_a_time(bench: Make, references: References) -> None:
    rng = np.random.default_rng(5)
    whole, single = bench(references=references), bench(references=references)
    values: list[bytes | None] = []
    for _ in range(300):
        changes = {
            "event_uid": f"u{rng.integers(60)}",
            "started_at": ARRIVED_MS - int(rng.integers(3)) * 30_000,
            "subscriber_id": str(rng.choice(["k1.alice", "k1.stranger", "k1.gone"])),
            "imsi": str(rng.choice(["k1.sim", "k1.other"])) if rng.random() < 0.5 else None,
            "bytes_up": int(rng.integers(-1, 2)) if rng.random() < 0.3 else None,
            "charge_micros": int(rng.integers(2)),
        }
        values.append(b"junk" if rng.random() < 0.05 else whole.value(**changes))
    at_once = [record for start in range(0, 300, 100) for record in whole.judged(*values[start : start + 100])]
    one_by_one = [record for value in values for record in single.judged(value)]
    assert at_once == one_by_one
    assert {record["verdict"] for record in at_once} == {"STORED", "DUPLICATE", "REJECTED"}
