"""Reference data from real Kafka: there before it is needed, and gone with its partition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from enricher_corner import PARTITIONS, EnricherCorner

from cdr_enricher.domain.hashing import text_key
from cdr_enricher.domain.references import References, cells_at, customers_at
from cdr_enricher.errors import JudgementBroken
from cdr_enricher.pin import Pin
from cdr_enricher.reference_reader import ReferenceReader

pytestmark = pytest.mark.stack


@pytest.fixture
def corner(parts: Any, topic_prefix: str, tmp_path: Path) -> EnricherCorner:
    return EnricherCorner(parts, topic_prefix, tmp_path)


@pytest.fixture
def reader(corner: EnricherCorner) -> Iterator[ReferenceReader]:
    made = ReferenceReader(corner.parts.kafka, corner.topics, corner.registry)
    yield made
    made.close()


def known(reader: ReferenceReader, partition: int, *asked: tuple[str, int]) -> list[str | None]:
    key = text_key(pl.Series([name for name, _ in asked]))
    found, _ = customers_at(reader.references.customers(partition), key, np.array([time for _, time in asked]))
    ids: list[str | None] = found["customer_id"].to_list()
    return ids


def test_customers_are_held_of_the_partitions_asked_for_and_cells_whole(
    corner: EnricherCorner, reader: ReferenceReader
) -> None:
    for partition in range(PARTITIONS):
        corner.refer("customer", partition, identifier=f"c{partition}", customer_id=f"C{partition}", valid_from=10)
    corner.refer("cell", 0, cell_id="208-01-7", region_id="north")
    reader.catch_up()
    body, _ = cells_at(reader.references.cells, text_key(pl.Series(["208-01-7"])), np.array([5]))
    assert body["region_id"].to_list() == ["north"]
    assert (reader.references.count("customer"), reader.references.count("cell")) == (0, 1)

    reader.hold_customers(1)
    assert known(reader, 1, ("c1", 10), ("c1", 9), ("c0", 10)) == ["C1", None, None]
    reader.hold_customers(0)
    # a deletion, and what was true before it, written in the wrong order, in two rounds
    corner.refer("customer", 0, identifier="c0", deleted=True, valid_from=30)
    reader.catch_up()
    corner.refer("customer", 0, identifier="c0", customer_id="late", valid_from=20)
    reader.catch_up()
    assert known(reader, 0, ("c0", 10), ("c0", 20), ("c0", 30), ("c1", 10)) == ["C0", "late", None, None]

    reader.drop_customers(0)
    corner.refer("customer", 0, identifier="c0", customer_id="again", valid_from=40)
    reader.catch_up()
    assert reader.references.count("customer") == 1
    followed = {f"{corner.topics.ref('cell')}/0", f"{corner.topics.ref('customer')}/1"}
    assert set(reader.positions(pinned=False)) == followed
    reader.hold_customers(0)  # from the beginning
    assert known(reader, 0, ("c0", 20), ("c0", 40)) == ["late", "again"]


def test_a_pinned_partition_knows_what_was_there_then_until_it_is_unpinned(corner: EnricherCorner) -> None:
    customers, cells = corner.topics.ref("customer"), corner.topics.ref("cell")
    for name in ("then", "other"):
        corner.refer("customer", 0, identifier=name, customer_id=name, valid_from=10)
    corner.refer("cell", 0, cell_id="c", region_id="north")
    pin = Pin({"cdr": {0: 100}}, {customers: {0: 2, 1: 0}, cells: {0: 1}})
    corner.refer("customer", 0, identifier="since", customer_id="since", valid_from=10)
    corner.refer("cell", 0, cell_id="c", region_id="south")
    reader = ReferenceReader(corner.parts.kafka, corner.topics, corner.registry, pin)
    asked = (("then", 20), ("since", 20), ("other", 20))

    def region(references: References) -> list[str]:
        regions: list[str] = cells_at(references.cells, text_key(pl.Series(["c"])), np.array([5]))[0]["region_id"]
        return list(regions)

    try:
        reader.catch_up()
        reader.hold_customers(0, pinned=True)
        corner.refer("customer", 0, identifier="then", customer_id="moved", valid_from=15)
        reader.catch_up()
        assert known(reader, 0, *asked) == ["then", None, "other"]
        assert (region(reader.pinned()), region(reader.references)) == (["north"], ["south"])
        assert reader.pinned().customers(0) is reader.references.customers(0)
        assert reader.positions(pinned=True) == {f"{customers}/0": 2, f"{cells}/0": 1}
        reader.unpin_customers(0)
        assert known(reader, 0, *asked) == ["moved", "since", "other"]
        assert reader.positions(pinned=False) == {f"{customers}/0": 4, f"{cells}/0": 2}
        corner.refer("customer", 0, identifier="other", customer_id="gone on", valid_from=15)
        reader.catch_up()
        assert known(reader, 0, *asked) == ["moved", "since", "gone on"]
        # whoever takes the partition again before its end holds what is pinned again
        reader.drop_customers(0)
        reader.hold_customers(0, pinned=True)
        assert known(reader, 0, *asked) == ["then", None, "other"]
    finally:
        reader.close()


def test_a_version_that_cannot_be_read_stops_with_its_position(corner: EnricherCorner, reader: ReferenceReader) -> None:
    corner.refer("cell", 0, cell_id="a", region_id="north")
    reader.catch_up()
    good = corner.value("cell", cell_id="b", region_id="south")
    for bad, at in ((good[:9], 2), (None, 4), (b"text", 5)):
        corner._produce(corner.topics.ref("cell"), 0, *([good] if at < 5 else []), bad)
        with pytest.raises(JudgementBroken, match=rf"ref\.cell\[0\]@{at}: reference data that cannot be read"):
            reader.catch_up()


def test_a_customer_accepted_before_a_call_is_there_for_it_also_where_a_partition_was_just_assigned(
    corner: EnricherCorner,
) -> None:
    asked = 0

    def call(name: str, partition: int) -> None:
        """A customer and, right after it, a call."""
        nonlocal asked
        corner.refer("customer", partition, identifier=name, customer_id=f"id of {name}")
        corner.call(partition, corner.value("cdr", event_uid=name, subscriber_id=name))
        asked += 1

    def judged() -> list[dict[str, Any]]:
        return [record for partition in range(PARTITIONS) for record in corner.judged(partition)]

    versions = 'telestream_enricher_reference_versions{entity="customer"}'
    for partition in range(PARTITIONS):
        call(f"before {partition}", partition)
    with corner.running(0, runner="plain") as first:
        first.wait_until(lambda: len(judged()) == asked)
        assert first.metric(versions) == 2
        with corner.running(1, runner="plain") as second:
            second.wait_until(lambda: second.get("/readyz")[0] == 200)
            for partition in range(PARTITIONS):
                call(f"with two {partition}", partition)
            # wherever a partition lies, its customers are held once
            second.wait_until(lambda: (first.metric(versions) or 0) + (second.metric(versions) or 0) == asked)
            second.wait_until(lambda: len(judged()) == asked)
            first.process.kill()
            for partition in range(PARTITIONS):
                call(f"while nobody has it {partition}", partition)
            second.wait_until(lambda: len(judged()) == asked)
            assert second.metric(versions) == asked
            second.stop()
    assert [record["customer_id"] for record in judged()] == [f"id of {r['subscriber_id']}" for r in judged()]
