from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telestream_contracts import load_schema
from telestream_domain import FAMILIES, REFERENCES, Topics
from warehouse_sink.domain.places import Place, Source, check_dense, place_of
from warehouse_sink.domain.policy import Backoff, FlushPolicy
from warehouse_sink.domain.routes import routes
from warehouse_sink.domain.rows import (
    DUPLICATE,
    JUDGEMENT,
    aggregate_rows,
    dead_letter_rows,
    judged_rows,
    merged,
    reference_rows,
)
from warehouse_sink.errors import GapFound, PositionLost
from warehouse_sink.settings import SinkSettings

CDRS = Source("cdr.enriched.g1", 1)


def test_a_batch_is_due_by_rows_bytes_or_age_and_never_when_empty() -> None:
    policy = FlushPolicy(max_rows=10, max_bytes=100, max_age_s=1.0)
    assert not policy.due(9, 99, 0.9)
    assert policy.due(10, 0, 0)
    assert policy.due(1, 100, 0)
    assert policy.due(1, 0, 1.0)
    assert not policy.due(0, 0, 99)


def test_the_wait_doubles_up_to_its_limit() -> None:
    backoff = Backoff(0.2, 15.0)
    assert [backoff.delay_s(failures) for failures in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert backoff.delay_s(10_000) == 15.0


def test_every_judged_rejected_aggregate_and_reference_topic_is_read() -> None:
    found = routes(Topics("x."))
    assert len(found) == 2 + 2 + len(FAMILIES) + len(REFERENCES)
    assert found["x.cdr.enriched.g1"].kind == "enriched"
    assert found["x.ref.customer"].subject == "customer"


def test_without_a_saved_place_reading_begins_where_the_log_does() -> None:
    assert place_of(CDRS, None, "id", 40, 90) == Place("id", 40, None)
    # a generation that begins later must begin just there
    assert place_of(CDRS, None, "id", 0, 90, 700) == Place("id", 0, 700)
    assert place_of(CDRS, Place("id", 50, 790), "id", 0, 90, 700).src_next == 790


def test_a_saved_place_is_taken_if_the_log_still_reaches_there() -> None:
    saved = Place("id", 50, 500)
    assert place_of(CDRS, saved, "id", 50, 50) is saved


@pytest.mark.parametrize(
    ("topic_id", "low", "high", "reason"),
    [("other", 0, 90, "made anew"), ("id", 0, 49, "cut short"), ("id", 51, 90, "retention has removed 1")],
)
def test_a_log_that_does_not_reach_stops_the_sink(topic_id: str, low: int, high: int, reason: str) -> None:
    with pytest.raises(PositionLost, match=reason):
        place_of(CDRS, Place("id", 50, 500), topic_id, low, high)


def test_a_hole_in_the_source_offsets_is_found_at_the_border_and_inside() -> None:
    for offsets in ([6, 7], [5, 6, 8]):
        with pytest.raises(GapFound, match=r"cdr\.enriched\.g1\[1\]: source offset (5|7) should come next"):
            check_dense(CDRS, np.array(offsets), 5)


@given(
    first=st.integers(0, 1000),
    steps=st.lists(st.integers(-3, 1), max_size=30),
)
def test_repeats_are_counted_and_only_gaps_refused(first: int, steps: list[int]) -> None:
    offsets = [first]
    for step in steps:
        offsets.append(max(0, offsets[-1] + step))
    seen, repeats, gap = first, 0, False
    for offset in offsets:
        if offset > seen:
            gap = True
        elif offset == seen:
            seen += 1
        else:
            repeats += 1
    if gap:
        with pytest.raises(GapFound):
            check_dense(CDRS, np.array(offsets), first)
    else:
        density = check_dense(CDRS, np.array(offsets), first)
        assert (density.src_next, density.repeats) == (seen, repeats)


def test_every_judged_record_is_in_the_books_and_in_at_most_one_other_table(
    make_judged: Callable[[str, int, int, int], pa.RecordBatch],
) -> None:
    for record_type, fact in (("cdr", "fact_cdr_all"), ("network", "fact_network_event_all")):
        rows = judged_rows(record_type, 3, make_judged(record_type, 1, 0, 100))
        assert rows[JUDGEMENT].num_rows == 100
        assert rows[fact].num_rows == 85
        assert rows[DUPLICATE].num_rows == 10
        assert set(rows[fact]["generation"].to_pylist()) == {3}
        assert rows[fact]["booked_offset"].equals(rows[fact]["src_offset"])
        assert set(rows[fact]["withdrawn"].to_pylist()) == {0}
        assert "verdict" not in rows[fact].schema.names
        assert "content_hash" not in rows[DUPLICATE].schema.names


def test_a_reversal_is_booked_at_the_record_it_undoes(
    make_judged: Callable[[str, int, int, int], pa.RecordBatch],
) -> None:
    judged = make_judged("cdr", 0, 40, 1)
    index = judged.schema.get_field_index
    judged = judged.set_column(index("reverses_offset"), "reverses_offset", pa.array([12], pa.int64()))
    judged = judged.set_column(index("sign"), "sign", pa.array([-1], pa.int64()))
    rows = judged_rows("cdr", 1, judged)
    fact = rows["fact_cdr_all"].to_pylist()[0]
    assert (fact["booked_offset"], fact["src_offset"], fact["withdrawn"]) == (12, 40, 1)
    assert rows[JUDGEMENT]["booked_offset"].to_pylist() == [12]


def test_the_books_hold_the_sums_of_a_record_with_nulls_as_zero(
    make_judged: Callable[[str, int, int, int], pa.RecordBatch],
) -> None:
    judged = make_judged("cdr", 0, 0, 50)
    books = judged_rows("cdr", 1, judged)[JUDGEMENT]
    assert pc.sum(books["duration_ms"]).as_py() == sum(range(50))
    assert books["bytes"].to_pylist() == [offset % 7 for offset in range(50)]
    nullable = {"node_id", "node_seq"}  # a record without a number is no record number 0
    assert {name for name in books.schema.names if books[name].null_count} <= nullable


def test_markers_of_the_aggregator_are_not_stored(make_record: Callable[..., dict[str, Any]]) -> None:
    schema = load_schema("agg_cell")
    rows = [make_record(schema, cell_id="c", records=4), make_record(schema, marker_offset=9)]
    batch = pa.RecordBatch.from_pylist(rows)
    assert batch["marker_offset"].to_pylist() == [None, 9]
    stored = aggregate_rows("cell", 1, batch)["agg_cell_all"]
    assert (stored.num_rows, stored["records"].to_pylist()) == (1, [4])
    assert "marker_offset" not in stored.schema.names
    assert aggregate_rows("cell", 1, batch.slice(1)) == {}


def test_a_version_keeps_its_offset_and_a_dead_letter_its_bytes() -> None:
    versions = pa.RecordBatch.from_pydict({"cell_id": ["a", "b"]})
    rows = reference_rows("cell", 3, np.array([7, 9]), versions)["reference_cell"]
    assert rows["src_offset"].to_pylist() == [7, 9]
    letters = [{"original": b"\xff\x00", "field": None}]
    letter = dead_letter_rows(2, letters, ["original", "field"])["dead_letter_all"].to_pylist()
    assert letter == [{"original": b"\xff\x00", "field": None, "generation": 2}]


def test_blocks_of_partitions_are_joined_by_table() -> None:
    one = {"a": pa.RecordBatch.from_pydict({"x": [1]}), "b": pa.RecordBatch.from_pydict({"y": [1]})}
    joined = merged([one, {"a": pa.RecordBatch.from_pydict({"x": [2, 3]})}])
    assert {table: rows.num_rows for table, rows in joined.items()} == {"a": 3, "b": 1}


def test_all_wrong_settings_are_reported_together() -> None:
    wrong = {"TELESTREAM_SINK_MAX_ROWS": "0", "TELESTREAM_SINK_MAX_AGE_MS": "soon"}
    with pytest.raises(Exception, match=r"(?s)SINK_MAX_ROWS.*SINK_MAX_AGE_MS"):
        SinkSettings.from_env(wrong)
