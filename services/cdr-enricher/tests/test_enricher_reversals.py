"""Reversals, judged: copied, negated, once; and only of what stands."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from enricher_reversal_model import Model, brief

from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.references import References
from cdr_enricher.domain.reversals import Arrived, Identities, turns
from cdr_enricher.errors import JudgementBroken, Unsupported
from cdr_enricher.stage import State, Tally
from telestream_contracts import decode_record, encode_record, enriched_schema
from telestream_domain import Severity

ARRIVED_MS = 1_790_000_000_000
DAY_MS = 86_400_000
ENRICHED_ID = 12
CUSTOMER_BODY = ("customer_id", "plan_id", "segment", "region_id")
Record = dict[str, Any]
Make = Callable[..., Any]


class Partition:
    """A partition judged batch after batch; originals come from what was judged, as they would from the log."""

    def __init__(self, judge: Any, seen: Seen | None = None, first: int = 0) -> None:
        self.bench, self.first = judge, first
        self.schema = enriched_schema(judge.type_name)  # once: parsing it takes longer than judging
        self.values: list[bytes] = []
        self.asked: list[list[int]] = []
        self.tallies: list[Tally] = []
        judge.state = State(first, 0, Seen() if seen is None else seen)

    def read(self, src_offsets: Any) -> list[bytes]:
        self.asked.append(src_offsets.tolist())
        return [self.values[offset - self.first] for offset in src_offsets.tolist()]

    def judged(self, *values: bytes, arrived_ms: int = ARRIVED_MS) -> list[Record]:
        batch = self.bench.batch(values, arrived_ms=arrived_ms)
        outputs, self.bench.state = self.bench.judge.on_batch(batch, self.bench.state, self.bench.references, self)
        messages = next(output.messages for output in outputs if output.topic == "enriched")
        assert [message["key"] for message in messages] == batch.keys
        new = [message["value"] or b"" for message in messages]
        self.values += new
        return [decode_record(value, self.schema) for value in new]

    def call(self, event_uid: str, **changes: Any) -> bytes:
        value: bytes = self.bench.value(event_uid=event_uid, **changes)
        return value

    def reversal(self, uid: str, of: int, **changes: Any) -> bytes:
        return self.call(uid, reverses_offset=of, **changes)


@pytest.fixture
def partition(bench: Make) -> Callable[..., Partition]:
    def make(type_name: str = "cdr", seen: Seen | None = None, first: int = 0, **options: Any) -> Partition:
        tallies: list[Tally] = []
        made = Partition(bench(type_name, on_tally=lambda _, tally: tallies.append(tally), **options), seen, first)
        made.tallies = tallies
        return made

    return make


def effects(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    return [(r["verdict"], r["sign"], r["reverses_offset"], r["first_offset"]) for r in records]


def test_a_reversal_is_its_original_with_the_sign_turned_whatever_it_says_itself(
    partition: Callable[..., Partition],
) -> None:
    p = partition()
    original, _ = p.judged(
        p.call("a", ext={"leg": "2", "b": ""}, charge_micros=7, currency="EUR", imei="k1.x", duration_ms=90_000_000),
        p.call("b"),
    )
    assert original["warnings"] == ["duration_too_long"]
    (reversal,) = p.judged(
        p.reversal("a", 0, charge_micros=-99, subscriber_id="other", started_at=5, source="withdrawal", batch_id=77),
        arrived_ms=ARRIVED_MS + 3 * DAY_MS,
    )
    assert reversal == original | {"src_offset": 2, "sign": -1, "reverses_offset": 0}
    assert p.tallies[-1] == Tally({}, {}, {"STORED": 1})


def test_a_network_event_is_reversed_too(partition: Callable[..., Partition]) -> None:
    p = partition("network")
    original, reversal = p.judged(p.call("a", latency_ms=1.5), p.reversal("a", 0))
    assert reversal == original | {"src_offset": 1, "sign": -1, "reverses_offset": 0}


@pytest.mark.parametrize("together", [True, False])
def test_only_what_was_stored_there_under_this_uid_and_stands_is_reversed(
    partition: Callable[..., Partition], together: bool
) -> None:
    p = partition()
    values = [
        p.call("a"),
        p.call("a"),
        p.call("c", duration_ms=-1),
        p.reversal("a", 1),  # a duplicate's offset
        p.reversal("c", 2),  # a rejected one's
        p.reversal("b", 0),  # another uid's
        p.reversal("a", 999),  # nothing there yet
        p.reversal("a", 7),  # its own
        p.reversal("a", 9),  # ahead
        p.call("d"),
        p.reversal("a", -5),
        p.reversal("a", 0),
        p.reversal("a", 0),  # again
        p.reversal("a", 11),  # a reversal's
    ]
    judged = p.judged(*values) if together else [record for value in values for record in p.judged(value)]
    verdicts = [(r["verdict"], r["sign"]) for r in judged]
    without = ("DUPLICATE", -1)
    assert verdicts == [
        ("STORED", 1),
        ("DUPLICATE", 1),
        ("REJECTED", 1),
        *[without] * 6,
        ("STORED", 1),
        without,
        ("STORED", -1),
        without,
        without,
    ]
    assert all(r["warnings"] == [] and r["rule"] is None and r["first_offset"] is None for r in judged if r["sign"] < 0)
    assert judged[12]["reverses_offset"] == 0
    # a reversal that cannot be read is a rejected record like any other
    assert p.judged(b"junk")[0]["rule"] == "undecodable"


def test_a_withdrawn_record_can_be_sent_and_withdrawn_again_and_again(partition: Callable[..., Partition]) -> None:
    for size in (1, 3, 12):
        p = partition()
        values = [
            p.call("a"),
            p.call("a"),
            p.reversal("a", 0),
            p.call("a", charge_micros=1),
            p.reversal("a", 0),
            p.call("a", charge_micros=1),
            p.reversal("a", 3),
            p.call("b"),
            p.call("a"),
            p.call("a"),
            p.reversal("a", 8),
            p.call("a"),
        ]
        judged = [record for at in range(0, 12, size) for record in p.judged(*values[at : at + size])]
        assert effects(judged) == [
            ("STORED", 1, None, None),
            ("DUPLICATE", 1, None, 0),
            ("STORED", -1, 0, None),
            ("STORED", 1, None, None),
            ("DUPLICATE", -1, 0, None),
            ("DUPLICATE", 1, None, 3),
            ("STORED", -1, 3, None),
            ("STORED", 1, None, None),
            ("STORED", 1, None, None),
            ("DUPLICATE", 1, None, 8),
            ("STORED", -1, 8, None),
            ("STORED", 1, None, None),
        ]
        assert judged[6]["charge_micros"] == 1


def test_a_mended_record_of_the_same_uid_takes_the_place_of_a_withdrawn_one(
    partition: Callable[..., Partition],
) -> None:
    p = partition()
    # identity has the time in it: a record of the same uid and another time is no duplicate, before or after
    judged = p.judged(p.call("a", started_at=ARRIVED_MS - 9), p.reversal("a", 0), p.call("a", started_at=ARRIVED_MS))
    assert [r["verdict"] for r in judged] == ["STORED"] * 3


def test_rules_and_reference_of_today_have_no_say(bench: Make, versions: Make) -> None:
    def customer(name: str) -> dict[str, str]:
        return {"customer_id": name, "plan_id": "P", "segment": "S", "region_id": "north"}

    references = References()
    references.add(
        "customer", versions("identifier", ("k1.alice", 0, customer("C1")), body=CUSTOMER_BODY), np.arange(1), 3
    )
    before = Partition(bench(references=references, home_plmns=("208-01",)))
    original, _ = before.judged(before.call("a", duration_ms=90_000_000), before.call("b"))
    assert (original["verdict"], original["customer_id"]) == ("STORED", "C1")

    references.add(
        "customer", versions("identifier", ("k1.alice", 0, customer("C2")), body=CUSTOMER_BODY), np.arange(1, 2), 3
    )
    stricter = bench(
        references=references, severities={"duration_too_long": Severity.REJECTED}, business_timezone="Asia/Tokyo"
    )
    after = Partition(stricter, before.bench.state.seen)
    after.bench.state, after.values = before.bench.state, before.values
    reversal, fresh, again = after.judged(
        after.reversal("a", 0, duration_ms=90_000_000), after.call("a", duration_ms=90_000_000), after.call("c")
    )
    assert reversal == original | {"src_offset": 2, "sign": -1, "reverses_offset": 0}
    assert (fresh["verdict"], fresh["rule"]) == ("REJECTED", "duration_too_long")
    assert again["customer_id"] == "C2"


def test_long_after_the_horizon_a_record_is_reversed_and_a_later_copy_of_it_stands(
    partition: Callable[..., Partition],
) -> None:
    p = partition(seen=Seen(segment_bits=2))
    p.judged(*(p.call(f"u{n}") for n in range(4)))
    later = ARRIVED_MS + 400 * DAY_MS
    for start in range(0, 12, 4):
        p.judged(*(p.call(f"x{start + n}", started_at=later) for n in range(4)), arrived_ms=later)
    # forgotten: the same event is stored a second time
    (copy,) = p.judged(p.call("u1", max_age_days=500), arrived_ms=later)
    assert (copy["src_offset"], copy["verdict"]) == (16, "STORED")
    judged = p.judged(
        p.reversal("u1", 1),
        p.call("u1", max_age_days=500),
        p.reversal("u2", 2),
        p.call("u2", max_age_days=500),
        p.reversal("u1", 16),
        p.call("u1", max_age_days=500),
        arrived_ms=later,
    )
    assert effects(judged) == [
        ("STORED", -1, 1, None),
        ("DUPLICATE", 1, None, 16),  # what was withdrawn is the old one
        ("STORED", -1, 2, None),
        ("STORED", 1, None, None),
        ("STORED", -1, 16, None),
        ("STORED", 1, None, None),
    ]
    assert judged[0]["appended_at"].timestamp() * 1000 == ARRIVED_MS


def test_a_record_judged_under_an_older_schema_is_reversed_with_the_fields_of_today(bench: Make) -> None:
    current = enriched_schema("cdr")
    older = {**current, "fields": [f for f in current["fields"] if f["name"] not in ("vendor", "rating_group")]}
    p = Partition(bench(schemas=lambda schema_id: {77: older}.get(schema_id)))
    (original,) = p.judged(p.call("a"))
    p.values[0] = encode_record({k: v for k, v in original.items() if k not in ("vendor", "rating_group")}, older, 77)
    (reversal,) = p.judged(p.reversal("a", 0))
    assert reversal == original | {"src_offset": 1, "sign": -1, "reverses_offset": 0}


def test_what_is_not_the_original_stops_the_worker(bench: Make) -> None:
    newer = enriched_schema("cdr")
    newer = {**newer, "fields": [*newer["fields"], {"name": "novelty", "type": ["null", "string"], "default": None}]}
    for spoil, error, message in (
        (lambda v: [v[1], v[0]], JudgementBroken, r"enriched\[3\]: .* of raw offset 1 stands where that of 0 should"),
        (lambda v: [b"junk", v[1]], JudgementBroken, "of raw offset 0 cannot be read"),
        (lambda v: [v[0][:30], v[1]], JudgementBroken, "not judged records"),
        (lambda v: [b"\x00\x00\x00\x00\x4d" + v[0][5:] + b"\x00", v[1]], Unsupported, r"novelty\); upgrade"),
    ):
        p = Partition(bench(schemas=lambda schema_id: {77: newer}.get(schema_id)))
        p.judged(p.call("a"), p.call("b"))
        p.values = spoil(p.values)
        with pytest.raises(error, match=message):
            p.judged(p.reversal("a", 0))
    gone = bench()
    gone.judged(gone.value(event_uid="a"))
    with pytest.raises(JudgementBroken, match="raw offset 0"):
        gone.judged(gone.value(event_uid="a", reverses_offset=0))


def test_a_reversal_moves_no_watermark(partition: Callable[..., Partition]) -> None:
    p = partition()
    p.judged(p.call("a"))
    before = p.bench.state.watermark
    p.judged(p.reversal("a", 0, source="other", started_at=ARRIVED_MS), arrived_ms=ARRIVED_MS + DAY_MS)
    assert p.bench.state.watermark == before


def test_a_withdrawal_in_bulk_is_read_and_judged_as_one(partition: Callable[..., Partition]) -> None:
    p = partition()
    p.judged(*(p.call(f"u{n}") for n in range(500)))
    reversals = [p.reversal(f"u{n}", n) for n in range(500)]
    judged = p.judged(*reversals, *reversals, *(p.call(f"u{n}") for n in range(500)))
    assert [r["verdict"] for r in judged] == ["STORED"] * 500 + ["DUPLICATE"] * 500 + ["STORED"] * 500
    assert p.asked == [list(range(500))]


def test_a_turn_takes_as_much_as_the_order_within_each_uid_allows() -> None:
    def turned(events: str, first: int = 0, bits: int = 18) -> list[tuple[str, str]]:
        """Letters are records, capitals reversals of the uid, a dash is neither."""
        uid = np.array([ord(event.lower()) for event in events], np.uint64)
        reversal = np.array([event.isupper() for event in events])
        valid = np.array([event.islower() for event in events])
        offsets = np.arange(first, first + len(events))
        records = Identities(offsets, (uid, uid), (uid, uid), offsets)
        found = turns(Arrived(records, offsets, offsets, valid, reversal, offsets), bits)
        return [("".join(events[at] for at in new), "".join(events[at] for at in back)) for new, back in found]

    assert turned("a-bAcCBB") == [("abc", "ACBB")]
    assert turned("aAaBb") == [("a", "AB"), ("ab", "")]
    assert turned("AaBbAaaA") == [("", "AB"), ("ab", "A"), ("aa", "A")]
    assert turned("aAaAaA") == [("a", "A"), ("a", "A"), ("a", "A")]
    assert turned("aAbcdeA", first=6, bits=2) == [("a", "A"), ("bcde", ""), ("", "A")]
    assert turned("--") == []


@pytest.mark.parametrize("seed", range(4))
def test_random_batches_agree_with_judging_one_record_after_the_other(
    partition: Callable[..., Partition], seed: int
) -> None:
    rng = random.Random(seed)
    p, model, found = partition(seen=Seen(segment_bits=rng.choice((3, 5, 8)))), Model(), list[tuple[Any, ...]]()
    count = 600
    values: list[bytes] = []
    for _ in range(count):
        values.append(p.call(**model.take_something(rng)))
    at = 0
    while at < count:
        size = rng.choice((1, 2, 7, 40, 200))
        found += [brief(r) for r in p.judged(*values[at : at + size])]
        at += size
    assert found == model.judged
    assert len({(verdict, sign) for verdict, sign, *_ in found}) == 5
