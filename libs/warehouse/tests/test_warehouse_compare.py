"""Two generations of random records against a plain reference, row by row, merged or not, in several slices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from operator import xor
from typing import Any

import pyarrow as pa
import pytest

from telestream_warehouse import ClickHouse
from telestream_warehouse.compare import (
    compared_totals,
    judged_from,
    judged_otherwise,
    stored_by_segment,
    verdict_differences,
    windows_by_segment,
)
from telestream_warehouse.compare_facts import (
    compared_columns,
    compared_kpis,
    fact_differences,
    region_totals,
    rules_versions,
)
from telestream_warehouse.compare_spans import Pair, Span

pytestmark = pytest.mark.stack
RECORDS, PARTITIONS = 1_500, 2
PAIR = Pair("cdr", this=2, other=1)
ALL = [Span(partition, 0, RECORDS) for partition in range(PARTITIONS)]
CUTS = ([Span(0, 0, 700)], [Span(0, 700, RECORDS), Span(1, 0, 200)], [Span(1, 200, RECORDS)])
Place = tuple[int, int]
SUMS = ("duration_ms", "bytes", "charge_micros", "currency")


@pytest.fixture
def generations(
    warehouse: ClickHouse, judgement: Callable[..., dict[str, Any]], fact: Callable[..., dict[str, Any]]
) -> dict[int, dict[Place, dict[str, Any]]]:
    """Generation → place → its judgement, with ``region`` where it is stored. The second rejects 1 % more, knows more
    regions, and every row is written twice."""
    chance = random.Random(14)
    found: dict[int, dict[Place, dict[str, Any]]] = {1: {}, 2: {}}
    facts: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    duplicates = []
    for partition in range(PARTITIONS):
        for offset in range(RECORDS):
            kind = chance.random()
            long, late = chance.random() < 0.01, chance.random() < 0.05
            back = chance.randrange(offset) if offset > 10 and kind > 0.95 else None
            where = {"source": chance.choice(["a", "b"]), "currency": chance.choice(["EUR", "USD"])}
            for generation, rows in found.items():
                verdict = "DUPLICATE" if kind < 0.1 else "REJECTED" if long and generation == 2 else "STORED"
                rule = "duration_too_long" if verdict == "REJECTED" else ""
                row = judgement(offset, verdict, partition, generation, rule=rule, **where)
                undone = rows.get((partition, back)) if back is not None else None
                if back is not None and undone is not None and undone["sign"] == 1:
                    standing = undone["verdict"] == "STORED" and not undone.get("back")
                    same = {
                        name: undone[name] for name in ("duration_ms", "bytes", "charge_micros", "currency", "source")
                    }
                    row |= {"sign": -1, "booked_offset": back, "rule": "", **same}
                    row["verdict"] = "STORED" if standing else "DUPLICATE"
                    if standing:
                        undone["back"] = True
                        facts[generation].append(
                            {
                                **undone["fact"],
                                "withdrawn": 1,
                                "src_offset": offset,
                                "appended_at": undone["appended_at"],
                            }
                        )
                elif verdict == "STORED":
                    region = None if late and generation == 1 else f"R{offset % 3}"
                    row["fact"] = fact(
                        offset, partition, generation, region_id=region, subscriber_kind="MSISDN",
                        warnings=["voice_with_bytes"] if long and late else [], rules_version=generation, **where,
                    )  # fmt: skip
                    row["region"] = region or ""
                    facts[generation].append(row["fact"])
                elif verdict == "DUPLICATE":
                    kept = ("generation", "type", "src_partition", "src_offset", "appended_at", "sign")
                    duplicates.append({**{name: row[name] for name in kept}, "first_offset": offset // 2})
                rows[partition, offset] = row
    plain = [
        {name: value for name, value in row.items() if name not in ("fact", "region", "back")}
        for rows in found.values()
        for row in rows.values()
    ]
    for _ in range(2):
        put(warehouse, "judgement_all", plain)
        put(warehouse, "fact_cdr_all", [row for rows in facts.values() for row in rows])
        put(warehouse, "duplicate_all", duplicates)
    return found


def put(warehouse: ClickHouse, table: str, rows: Sequence[dict[str, Any]]) -> None:
    warehouse.insert(table, pa.RecordBatch.from_pylist(list(rows)))


@pytest.fixture(params=["unmerged", "merged"])
def state(request: Any, warehouse: ClickHouse, generations: Any) -> Any:
    """What is asked, whatever ClickHouse has merged by now."""
    if request.param == "merged":
        for table in ("judgement_all", "fact_cdr_all", "duplicate_all"):
            warehouse.command(f"SYSTEM START MERGES {warehouse.database}.{table}")
            warehouse.command(f"OPTIMIZE TABLE {table} FINAL")
    return generations


def test_two_generations_differ_as_the_plain_reference_says(warehouse: ClickHouse, state: Any) -> None:
    totals: Counter[Any] = Counter()
    prints: dict[int, list[int]] = {1: [], 2: []}
    differing: dict[Place, dict[str, Any]] = {}
    facts: dict[Place, dict[str, Any]] = {}
    regions: Counter[Any] = Counter()
    attempts: Counter[int] = Counter()
    for spans in CUTS:
        for row in warehouse.frame(compared_totals(PAIR, spans, "source")).iter_rows(named=True):
            prints[row["generation"]].append(row["fingerprint"])
            key = tuple(row[name] for name in ("generation", "group", "verdict", "sign", "rule", "currency"))
            totals[key, "records"] += row["records"]
            totals[key, "charge_micros"] += row["charge_micros"]
        for row in warehouse.frame(verdict_differences(PAIR, spans)).iter_rows(named=True):
            differing[row["partition"], row["offset"]] = row
        for row in warehouse.frame(fact_differences(PAIR, spans)).iter_rows(named=True):
            facts[row["partition"], row["offset"]] = row
        for row in warehouse.rows(region_totals(PAIR, spans)):
            regions[row["generation"], row["group"]] += row["records"]
        for row in warehouse.rows(compared_kpis(PAIR, spans)):
            attempts[row["generation"]] += row["attempts"]
    assert reduce(xor, prints[1]) != reduce(xor, prints[2])
    assert +totals == +_totals(state)
    judged = ("verdict", "sign", "rule", "booked_offset")
    other, this = state[1], state[2]
    wanted = {place for place in other if any(other[place][name] != this[place][name] for name in judged)}
    assert set(differing) == wanted
    for place, row in differing.items():
        assert (row["this_verdict"], row["this_rule"]) == (this[place]["verdict"], this[place]["rule"])
        assert (row["other_verdict"], row["other_rule"]) == (other[place]["verdict"], other[place]["rule"])
        assert (row["this_there"], row["other_there"], row["booked_alike"], row["values_alike"]) == (1, 1, 1, 1)
        for side, rows in (("this", this), ("other", other)):
            duplicate = rows[place]["verdict"] == "DUPLICATE" and rows[place]["sign"] > 0
            assert row[f"{side}_original"] == (place[1] // 2 if duplicate else None)
    region = 1 << compared_columns("cdr").index("region_id")
    assert {place: row["columns"] for place, row in facts.items()} == {
        place: region if all("region" in rows[place] for rows in (other, this)) else 0
        for place in other
        if other[place].get("region") != this[place].get("region")
        or ("region" in other[place]) != ("region" in this[place])
    }
    assert all((row["this_there"], row["other_there"]) != (0, 0) for row in facts.values())
    assert +regions == +_regions(state)
    standing = {generation: sum(_weight(row) for row in rows.values()) for generation, rows in state.items()}
    assert attempts == standing
    assert warehouse.rows(rules_versions(PAIR, ALL)) == [
        {"generation": 1, "versions": [1]},
        {"generation": 2, "versions": [2]},
    ]


def _weight(row: dict[str, Any]) -> int:
    return row["sign"] if row["verdict"] == "STORED" else 0


def _totals(state: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for generation, rows in state.items():
        for row in rows.values():
            key = (generation, row["source"], row["verdict"], row["sign"], row["rule"], row["currency"])
            found[key, "records"] += 1
            found[key, "charge_micros"] += row["charge_micros"]
    return found


def _regions(state: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for generation, rows in state.items():
        for (partition, _), row in rows.items():
            found[generation, rows[partition, row["booked_offset"]].get("region", "")] += _weight(row)
    return found


def test_two_generations_that_judged_alike_have_one_fingerprint(
    warehouse: ClickHouse, judgement: Callable[..., dict[str, Any]]
) -> None:
    rows = [judgement(offset, chosen, generation=g) for g in (1, 2) for offset, chosen in enumerate(["STORED"] * 50)]
    put(warehouse, "judgement_all", rows)
    put(warehouse, "judgement_all", rows[:30])
    spans = [Span(0, 0, 50)]
    found = warehouse.rows(compared_totals(PAIR, spans, "day", "Asia/Kolkata"))
    assert len({row["fingerprint"] for row in found}) == 1
    assert [row["records"] for row in found] == [50, 50]
    assert warehouse.rows(verdict_differences(PAIR, spans)) == []
    # one row is missing in one of them
    put(warehouse, "judgement_all", [judgement(50)])
    [lost] = warehouse.rows(verdict_differences(PAIR, [Span(0, 0, 51)]))
    assert (lost["offset"], lost["this_there"], lost["other_there"]) == (50, 0, 1)
    assert [row["offset"] for row in warehouse.rows(judged_otherwise(PAIR, 0, [3, 50]))] == [50]
    [first] = warehouse.rows(
        judged_from("cdr", 2, since=judgement(7)["appended_at"], until=judgement(60)["appended_at"])
    )
    assert (first["first"], first["since"], first["until"]) == (0, 7, None)


def test_windows_are_summed_by_the_segments_their_books_are_summed_by(
    warehouse: ClickHouse, judgement: Callable[..., dict[str, Any]]
) -> None:
    second = 1 << 18
    rows = [judgement(offset) for offset in (5, second, second + 1)]
    put(warehouse, "judgement_all", [*rows, judgement(second + 2, sign=-1, booked_offset=5, **_of(rows[0]))])
    common = {"generation": 1, "type": "cdr", "size_s": 900, "partition": 0, "charge_currencies": ["EUR"]}
    at = rows[0]["appended_at"]
    upserts = [
        {**common, "window_start": at, "region_id": "R1", "segment": 0, "src_to": 5, "records": 1, "bytes_down": 5},
        {**common, "window_start": at, "region_id": "R1", "segment": 1, "src_to": 9, "records": 7, "bytes_down": 7},
        {**common, "window_start": at, "region_id": "R1", "segment": 1, "src_to": 10, "records": 1, "bytes_down": 2},
    ]
    charges = [50, 1, sum(row["charge_micros"] for row in rows[1:]) - 50]
    put(warehouse, "agg_region_all", [{**row, "charge_micros": [c]} for row, c in zip(upserts, charges, strict=True)])
    spans = [Span(0, 0, second + 3)]
    books = {row["segment"]: row for row in warehouse.rows(stored_by_segment("cdr", 1, spans))}
    windows = {row["segment"]: row for row in warehouse.rows(windows_by_segment("cdr", "region", 1, spans))}
    assert {segment: row["records"] for segment, row in books.items()} == {0: 1, 1: 1}
    assert {segment: row["records"] for segment, row in windows.items()} == {0: 1, 1: 1}
    assert {segment: row["charge_micros"] for segment, row in books.items()} == {
        segment: row["charge_micros"] for segment, row in windows.items()
    }


def _of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SUMS}
