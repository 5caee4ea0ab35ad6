"""Summing the latest upserts: columns against a plain dict of the last value of each key."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from query_api.domain.measures import CDR_MEASURES, NETWORK_MEASURES
from query_api.domain.tail import KEEP_MS, MINUTE_MS, Question, Tail, merged, pruned, totals

NOW_MS = 1_788_257_700_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
GROUPS = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}


def upsert(
    family: str = "region",
    group: str = "R1",
    minute: int = 0,
    kind: str = "cdr",
    partition: int = 0,
    segment: int = 0,
    src_to: int = 99,
    charges: dict[str, int] | None = None,
    **measures: Any,
) -> dict[str, Any]:
    """A row of ``agg_<family>``; ``minute`` counts back from now."""
    start = NOW - timedelta(minutes=minute, seconds=NOW.second)
    charges = dict(sorted((charges or {}).items()))
    return {
        "type": kind,
        "size_s": 60,
        "window_start": start,
        GROUPS[family]: group,
        "partition": partition,
        "segment": segment,
        "src_to": src_to,
        "marker_offset": None,
        "freshest_event_end_at": start + timedelta(seconds=30),
        **dict.fromkeys(CDR_MEASURES.all, 0),
        **(dict.fromkeys(NETWORK_MEASURES.all, 0) if family != "plan" else {}),
        "charge_currencies": list(charges),
        "charge_micros": list(charges.values()),
        **measures,
    }


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        list(rows),
        schema_overrides={
            "window_start": pl.Datetime("ms", "UTC"),
            "freshest_event_end_at": pl.Datetime("ms", "UTC"),
            "marker_offset": pl.Int64,
            "charge_currencies": pl.List(pl.String),
            "charge_micros": pl.List(pl.Int64),
        },
    )


def last_hour(family: str = "region", **more: Any) -> Question:
    end = NOW_MS // MINUTE_MS * MINUTE_MS + MINUTE_MS
    return Question(family, end - 60 * MINUTE_MS, end, **more)


def test_the_last_upsert_of_a_key_counts_and_keys_add_up() -> None:
    tail = merged(Tail(), "region", frame(upsert(records=5), upsert(records=7), upsert(records=2, partition=1)), NOW_MS)
    tail = merged(tail, "region", frame(upsert(records=8), upsert(records=1, segment=1)), NOW_MS)
    found = totals(tail, last_hour(by_minute=False))
    assert found.select("group", "records").rows() == [("R1", 8 + 2 + 1)]


def test_any_order_of_batches_gives_what_a_plain_dict_gives() -> None:
    chance = random.Random(7)
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    tail = Tail()
    for _ in range(30):
        rows = []
        for _ in range(chance.randint(1, 40)):
            row = upsert(
                "cell",
                group=f"208-01-{chance.randint(1, 9)}",
                minute=chance.randint(0, 12),
                kind=chance.choice(["cdr", "network"]),
                partition=chance.randint(0, 3),
                segment=chance.randint(0, 1),
                src_to=chance.randint(0, 10**6),
                charges={
                    c: chance.randint(-5, 10**7) for c in chance.sample(["EUR", "USD", "XAF"], chance.randint(0, 3))
                },
                records=chance.randint(0, 9),
                bytes_up=chance.randint(0, 10**14),
                events=chance.randint(0, 9),
                latency_us=chance.randint(0, 10**9),
            )
            if row["type"] == "network":
                row |= {"records": 0, "bytes_up": 0, "charge_currencies": [], "charge_micros": []}
            else:
                row |= {"events": 0, "latency_us": 0}
            rows.append(row)
            latest[row["type"], row["window_start"], row["cell_id"], row["partition"], row["segment"]] = row
        tail = merged(tail, "cell", frame(*rows), NOW_MS)
    for by_minute in (True, False):
        for grouped in (True, False):
            expected: dict[Any, Any] = defaultdict(lambda: [0, 0, 0, 0, {}])
            for row in latest.values():
                key = (row["window_start"] if by_minute else None, row["cell_id"] if grouped else None)
                sums = expected[key]
                for index, name in enumerate(("records", "bytes_up", "events", "latency_us")):
                    sums[index] += row[name]
                for currency, micros in zip(row["charge_currencies"], row["charge_micros"], strict=True):
                    sums[4][currency] = sums[4].get(currency, 0) + micros
            found = totals(tail, last_hour("cell", by_minute=by_minute, grouped=grouped))
            assert found.height == len(expected)
            for row in found.iter_rows(named=True):
                at = datetime.fromtimestamp(row["window_ms"] / 1000, UTC) if by_minute else None
                sums = expected[at, row["group"] if grouped else None]
                assert [row[name] for name in ("records", "bytes_up", "events", "latency_us")] == sums[:4]
                assert {entry["currency"]: entry["charge_micros"] for entry in row["charges"]} == sums[4]


def test_an_upsert_without_charges_takes_the_old_ones_away() -> None:
    tail = merged(Tail(), "plan", frame(upsert("plan", "P1", charges={"EUR": 5})), NOW_MS)
    tail = merged(tail, "plan", frame(upsert("plan", "P1", charges={})), NOW_MS)
    assert totals(tail, last_hour("plan", by_minute=False))["charges"].to_list() == [[]]


def test_other_sizes_markers_and_far_windows_are_left_out() -> None:
    rows = [
        upsert(records=1, size_s=900),
        upsert(records=1, marker_offset=17, src_to=500),
        upsert(records=1, minute=80),
        upsert(records=1, minute=-12),
    ]
    tail = merged(Tail(), "region", frame(*rows), NOW_MS)
    assert tail.keys == 0
    assert tail.included[("region", "cdr", 0)] == 501


def test_only_the_groups_asked_for_are_summed() -> None:
    tail = merged(Tail(), "region", frame(upsert(group="R1", records=1), upsert(group="R2", records=2)), NOW_MS)
    assert totals(tail, last_hour(ids=["R2"], grouped=False, by_minute=False))["records"].to_list() == [2]
    assert totals(tail, last_hour(ids=["unknown"])).height == 0


@pytest.mark.parametrize("by_minute", [True, False])
def test_an_empty_tail_gives_no_groups_and_zeros_in_all(by_minute: bool) -> None:
    assert totals(Tail(), last_hour(by_minute=by_minute)).height == 0
    if not by_minute:
        found = totals(Tail(), last_hour(grouped=False, by_minute=False))
        assert found.select("records", "events").rows() == [(0, 0)]
        assert found["freshest_at"].to_list() == [None]
        assert found["charges"].to_list() == [[]]


def test_old_minutes_go_and_when_there_are_too_many_rows_the_oldest_go_first() -> None:
    tail = merged(Tail(), "region", frame(*(upsert(minute=minute, records=1) for minute in range(70))), NOW_MS)
    assert tail.keys == 70
    later = pruned(tail, NOW_MS + 30 * MINUTE_MS, 1_000)
    assert min(start for _, _, start in later.windows) >= NOW_MS + 30 * MINUTE_MS - KEEP_MS
    few = pruned(tail, NOW_MS, 10)
    assert few.keys == 10
    assert few.since_ms == min(start for _, _, start in few.windows)


def test_a_reader_keeps_its_moment_while_the_tail_moves_on() -> None:
    before = merged(Tail(), "region", frame(upsert(records=1)), NOW_MS)
    after = merged(before, "region", frame(upsert(records=9)), NOW_MS)
    assert totals(before, last_hour(by_minute=False))["records"].to_list() == [1]
    assert totals(after, last_hour(by_minute=False))["records"].to_list() == [9]
