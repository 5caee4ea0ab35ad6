from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cdr_enricher.dedup_log import Position
from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.kinds import KINDS
from cdr_enricher.domain.watermark import Freshness, Watermark
from cdr_enricher.errors import JudgementBroken
from cdr_enricher.restore import Restorer, Saved, metadata_of
from cdr_enricher.stage import State
from faust_batch import Batch, Committed, Source
from telestream_contracts import enriched_schema

ARRIVED_MS = 1_790_000_000_000
RAW, ENRICHED = Source("t.cdr.raw", 3), Source("t.cdr.enriched.g1", 3)

Make = Callable[..., Any]


def as_batch(messages: list[dict[str, bytes | None]], first: int = 0) -> Batch:
    count = len(messages)
    values = [message["value"] for message in messages]
    # markers of transactions leave holes
    offsets = first + np.arange(count) * 2
    return Batch(ENRICHED, offsets, np.zeros(count, np.int64), [None] * count, values, first + 2 * count, 0, 1, 0)


@pytest.fixture
def restorer() -> Restorer:
    return Restorer(
        KINDS["cdr"], "t.cdr-enricher.g1", lambda schema_id: enriched_schema("cdr") if schema_id == 12 else None
    )


def restored(restorer: Restorer, judged: list[Batch], committed: Committed | None, seen: Seen | None = None) -> State:
    saved = None if committed is None else Saved.read(RAW, committed)
    return restorer.state(
        RAW,
        committed,
        saved,
        ENRICHED,
        judged,
        raw_end=50,
        seen=Seen() if seen is None else seen,
        position=Position(700),
    )


def test_a_restored_state_finds_the_same_duplicates(bench: Make, restorer: Restorer) -> None:
    judge = bench()
    values = [judge.value(event_uid=f"u{n}", charge_micros=n) for n in range(20)]
    broken = judge.value(event_uid="broken", duration_ms=-1)
    batches = [
        as_batch(judge.outputs(*values[:9], broken, values[3])["enriched"]),
        as_batch(judge.outputs(*values[9:], b"junk")["enriched"], 100),
    ]
    committed = Committed(judge.state.next_offset, metadata_of(judge.state))
    state = restored(restorer, batches, committed)

    assert (state.next_offset, state.began_at, state.raw_end) == (judge.state.next_offset, 0, 50)
    assert state.watermark == judge.state.watermark
    assert len(state.seen) == len(judge.state.seen) == 20
    after = [*values, judge.value(event_uid="u5"), judge.value(event_uid="broken")]
    live = judge.judged(*after)
    judge.state = state
    assert judge.judged(*after) == live
    assert [record["verdict"] for record in live] == [*["DUPLICATE"] * 21, "STORED"]
    assert [record["rule"] for record in live][-2:] == ["conflict", None]


def test_what_was_withdrawn_in_the_open_segment_is_free_again_after_a_restart(bench: Make, restorer: Restorer) -> None:
    judge = bench()

    def reversal(uid: int, offset: int) -> bytes:
        return judge.value(event_uid=f"u{uid}", reverses_offset=offset)

    first = [*(judge.value(event_uid=f"u{n}") for n in range(5)), reversal(1, 1), reversal(2, 2), reversal(2, 2)]
    second = [judge.value(event_uid="u2", charge_micros=7)]
    batches = [as_batch(judge.outputs(*first)["enriched"]), as_batch(judge.outputs(*second)["enriched"], 100)]
    state = restored(restorer, batches, Committed(judge.state.next_offset, metadata_of(judge.state)))
    everything = np.arange(12)
    standing = [True, False, False, True, True, False, False, False, True, False, False, False]
    assert judge.state.seen.standing(everything).tolist() == standing
    assert state.seen.standing(everything).tolist() == standing
    after = [judge.value(event_uid=f"u{n}") for n in (0, 1, 2)]
    live = judge.judged(*after)
    judge.state = state
    assert judge.judged(*after) == live
    assert [(record["verdict"], record["first_offset"]) for record in live] == [
        ("DUPLICATE", 0),
        ("STORED", None),
        ("DUPLICATE", 8),
    ]


def test_nothing_committed_and_nothing_judged_is_a_beginning(restorer: Restorer) -> None:
    state = restored(restorer, [], None)
    assert (state.next_offset, state.began_at, len(state.seen)) == (None, None, 0)
    committed = Committed(0, metadata_of(state))
    assert restored(restorer, [], committed).next_offset == 0


def test_positions_that_do_not_fit_together_stop_the_worker(bench: Make, restorer: Restorer) -> None:
    judge = bench()
    batch = as_batch(judge.outputs(*(judge.value(event_uid=f"u{n}") for n in range(4)))["enriched"])
    metadata = metadata_of(judge.state)
    for judged, committed, message in (
        ([batch], None, "from raw offset 0 on, but .* has committed nothing"),
        (
            [batch],
            Committed(5, metadata),
            r"ends with raw offset 3, group t\.cdr-enricher\.g1 committed t\.cdr\.raw\[3\]@5",
        ),
        ([batch], Committed(3, metadata), "ends with raw offset 3"),
        ([], Committed(4, metadata), "holds nothing from 700 on"),
        ([batch], Committed(4, ""), "without the enricher's metadata"),
        ([batch, batch], Committed(8, metadata), r"t\.cdr\.enriched\.g1\[3\]@0: raw offset 0 where 4 should be"),
    ):
        with pytest.raises(JudgementBroken, match=message):
            restored(restorer, judged, committed)


def test_a_hole_in_the_judged_records_stops_the_worker_with_its_position(bench: Make, restorer: Restorer) -> None:
    judge = bench()
    messages = judge.outputs(*(judge.value(event_uid=f"u{n}") for n in range(5)))["enriched"]
    del messages[2]
    with pytest.raises(JudgementBroken, match=r"g1\[3\]@4: raw offset 3 where 2 should be"):
        restored(restorer, [as_batch(messages)], Committed(5, metadata_of(judge.state)))


def test_a_foreign_value_among_the_judged_records_stops_the_worker(restorer: Restorer) -> None:
    metadata = metadata_of(State(1, 1, Seen(), began_at=0))
    for value in (None, b"text", b"\x00\x00\x00\x00\x63abc"):
        with pytest.raises(JudgementBroken, match=r"g1\[3\]@0: not a judged record"):
            restored(restorer, [as_batch([{"key": None, "value": value}])], Committed(1, metadata))


def test_an_open_segment_whose_beginning_was_deleted_stops_the_worker(bench: Make, restorer: Restorer) -> None:
    judge = bench()
    messages = judge.outputs(*(judge.value(event_uid=f"u{n}") for n in range(20)))["enriched"]
    committed = Committed(20, metadata_of(judge.state))
    small = Seen(segment_bits=3, open_segment=2)
    assert len(restored(restorer, [as_batch(messages[10:])], committed, small).seen) == 4
    small = Seen(segment_bits=3, open_segment=2)
    with pytest.raises(JudgementBroken, match=r"begins with raw offset 17, but the open segment of .* with 16"):
        restored(restorer, [as_batch(messages[17:])], committed, small)


def test_another_horizon_or_segment_size_than_was_judged_with_stops_the_worker() -> None:
    saved = Saved.read(RAW, Committed(1, metadata_of(State(1, 1, Seen(), began_at=0))))
    saved.check_same(RAW, 18, 35)
    with pytest.raises(JudgementBroken, match=r"TELESTREAM_DEDUP_HORIZON_DAYS is 30, but t.cdr.raw\[3\] .* with 35"):
        saved.check_same(RAW, 18, 30)
    with pytest.raises(JudgementBroken, match="TELESTREAM_DEDUP_SEGMENT_BITS is 17"):
        saved.check_same(RAW, 17, 35)


def test_metadata_fits_into_what_kafka_allows_however_many_sources_there_are() -> None:
    sources = {f"a producer with a long name {n:05d}" * 3: Freshness(ARRIVED_MS, ARRIVED_MS + n) for n in range(500)}
    text = metadata_of(State(5, 5, Seen(), Watermark(ARRIVED_MS, sources), began_at=2))
    assert len(text) < 4_096
    assert str(ARRIVED_MS + 499) in text
