"""Aggregates after withdrawals are those of what stands."""

from __future__ import annotations

import random
from typing import Any

import pytest

HOUR_MS = 3_600_000


def _over_segments(windows: dict[Any, Any]) -> dict[Any, Any]:
    """(family, type, size, start, groups) → sums over partitions and segments, what is zero left out; but not how many
    records were late or reversals, which nothing takes back."""
    found: dict[Any, dict[str, int]] = {}
    for (family, record_type, size_s, start, groups, _, _), window in windows.items():
        if family == "quality":
            continue
        sums = found.setdefault((family, record_type, size_s, start, groups), {})
        charges = {f"charge {currency}": micros for currency, micros in window["charges"].items()}
        for name, value in (window["sums"] | charges).items():
            if name not in ("late_records", "reversals"):
                sums[name] = sums.get(name, 0) + value
    nonzero = {key: {name: value for name, value in sums.items() if value} for key, sums in found.items()}
    return {key: sums for key, sums in nonzero.items() if sums}


def _withdrawn_again(some: Any, record_type: str, seed: int) -> tuple[list[Any], list[Any]]:
    """Records of which many are withdrawn, soon or segments later, and those of them that stand."""
    rng = random.Random(seed)
    records = [r | {"sign": 1} for r in some(record_type, 500, seed, zone="Europe/Paris")]
    stored = [n for n, r in enumerate(records[:400]) if r["verdict"] == "STORED"]
    undone = {}
    for original in rng.sample(stored, 120):
        at = rng.choice([original + 1, rng.randrange(original + 1, 500)])
        if at not in undone and at not in undone.values() and original not in undone:
            undone[at] = original
    for at, original in undone.items():
        own = {"src_offset": at, "sign": -1, "reverses_offset": original}
        records[at] = records[original] | own
    gone = {*undone, *undone.values()}
    return records, [r for n, r in enumerate(records) if n not in gone]


@pytest.mark.parametrize("record_type", ["cdr", "network"])
@pytest.mark.parametrize("seed", range(2))
def test_all_sums_over_segments_are_those_of_the_records_that_stand(world, model, some, record_type, seed):
    w = world(zone="Europe/Paris", bits=5, day_bits=6)
    records, standing = _withdrawn_again(some, record_type, seed)
    assert len(records) - len(standing) > 150
    source = w.write(record_type, 0, records, 9)
    rng = random.Random(seed)
    while w.left(source):
        w.take(source, rng.choice((1, 30, 100)))
        if rng.random() < 0.3:
            w.commit()
            if rng.random() < 0.5:
                w.start()
    w.take_all()
    assert w.windows() == w.expected()
    left = model.expected(standing, record_type, 5, 6, "Europe/Paris")
    assert _over_segments(w.windows()) == _over_segments(left)


def test_a_reversal_leaves_minutes_alone_if_its_original_came_too_late_for_them(world, cdr, now_ms):
    w = world()
    late = cdr(0, started_at=now_ms - 3 * HOUR_MS, appended_at=now_ms)
    soon = cdr(1, started_at=now_ms - 3 * HOUR_MS, appended_at=now_ms - 2 * HOUR_MS)
    # long after: what counts is when the original came
    undone = [r | {"sign": -1, "src_offset": 2 + r["src_offset"]} for r in (late, soon)]
    w.write("cdr", 0, [late, soon, *undone])
    w.take_all()
    of_size = {
        size: [v["records"] for (f, _), v in w.latest().items() if f == "plan" and v["size_s"] == size]
        for size in (60, 900)
    }
    assert of_size == {60: [0], 900: [0]}
    assert w.windows() == w.expected()


def test_quality_books_a_reversal_in_the_hour_its_original_came_and_one_without_effect_nowhere_else(world, cdr, now_ms):
    w = world()
    money = {"charge_micros": 5, "currency": "EUR", "bytes_up": 7, "warnings": ["duration_too_long"]}
    original = cdr(0, appended_at=now_ms - 5 * HOUR_MS, started_at=now_ms - 5 * HOUR_MS - 9, **money)
    w.write(
        "cdr",
        0,
        [
            original,
            original | {"src_offset": 1, "sign": -1, "reverses_offset": 0},
            cdr(2, verdict="DUPLICATE", sign=-1, reverses_offset=0, **money),
        ],
    )
    w.take_all()
    quality = {v["verdict"]: v for (f, _), v in w.latest().items() if f == "quality"}
    hour = quality["STORED"]
    assert hour["window_start"].timestamp() * 1000 == (now_ms - 5 * HOUR_MS) // HOUR_MS * HOUR_MS
    for window, counted in ((hour, 1), (quality["DUPLICATE"], 0)):
        assert (window["records"], window["reversals"]) == (counted, 1)
        sums = ("warned", "duration_ms", "bytes", "latency_ms")
        assert [window[name] for name in sums] == [0, 0, 0, 0]
    assert quality["DUPLICATE"]["charge_currencies"] == []
    assert w.windows() == w.expected()
