"""A crash changes nothing: killed at any moment, a worker goes on to the same upserts."""

from __future__ import annotations

import json
import random

import pytest

from telestream_runtime import TelestreamError
from window_aggregator.snapshot_cache import SnapshotFiles


def _live(w, rng, now_ms, steps, crash=0.2):
    """Batches, ticks of the clock, commits and crashes, in random order."""
    for _ in range(steps):
        now_ms += rng.choice((50, 300, 700, 11_000, 61_000))
        for source in w.records:
            if w.left(source) and rng.random() < 0.8:
                w.take(source, rng.randrange(1, 60))
        if rng.random() < 0.7:
            w.tick(now_ms)
        if rng.random() < 0.6:
            w.commit()
        if rng.random() < crash:
            w.start()
    return now_ms


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random_points_the_final_upserts_equal_the_model(world, some, now_ms, tmp_path, seed):
    rng = random.Random(seed)
    w = world(
        fold_rows=rng.choice((1, 40, 10_000)),
        max_dirty=rng.choice((10, 25_000)),
        snapshots=SnapshotFiles(tmp_path) if seed % 3 else None,
        snapshot_every=rng.choice((1, 50)),
    )
    for partition in (0, 1):
        w.write("cdr", partition, some("cdr", 400, seed, first=17, partition=partition), rng.choice((0, 5)))
        w.write("network", partition, some("network", 200, seed, partition=partition), rng.choice((0, 5)))
    end_ms = _live(w, rng, now_ms, steps=20)
    w.take_all(end_ms)
    assert w.windows() == w.expected()


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_with_other_batches_and_another_clock_gives_the_same_bytes(world, some, now_ms, seed):
    records = {t: some(t, 400, seed) for t in ("cdr", "network")}
    latest = []
    for number in range(2):
        rng = random.Random(1_000 * seed + number)
        w = world(max_dirty=(25_000, 10)[number])
        for record_type, found in records.items():
            w.write(record_type, 0, found)
        w.take_all(_live(w, rng, now_ms, steps=8, crash=0.3 * number))
        latest.append(w.latest())
    assert latest[0] == latest[1]


def test_a_restart_without_new_records_emits_nothing_new_that_differs(world, some, now_ms):
    w = world()
    w.write("cdr", 0, some("cdr", 300))
    w.take_all(now_ms)
    before = w.windows()
    w.start()
    w.take_all(now_ms + 10_000)
    assert w.windows() == before


def test_the_metadata_fits_kafka_s_limit_with_room(world, some, now_ms):
    w = world()
    source = w.write("cdr", 0, some("cdr", 300))
    w.take_all(now_ms)
    assert len(w.committed[source].metadata) < 1_000


def test_a_committed_offset_without_metadata_stops_the_worker(world, some, now_ms):
    from faust_batch import Committed

    w = world()
    source = w.write("cdr", 0, some("cdr", 50))
    w.committed[source] = Committed(20, "")
    with pytest.raises(TelestreamError, match=r"cdr\.enriched\.g1\[0\]@20: the committed offset has no metadata"):
        w.start()


def test_a_log_that_was_cut_behind_the_open_segment_s_start_stops_the_worker(world, some, now_ms):
    w = world()
    source = w.write("cdr", 0, some("cdr", 100))
    w.take(source, 90)
    w.commit()
    w.log.enriched_starts[source] = 70
    with pytest.raises(TelestreamError, match=r"re-read from 64, but the log begins at 70|re-read from 0"):
        w.start()


def test_a_log_that_begins_late_and_nothing_committed_stops_the_worker(world, some):
    w = world()
    source = w.write("cdr", 0, some("cdr", 10))
    w.log.enriched_starts[source] = 5
    with pytest.raises(TelestreamError, match="nothing was ever committed, but the log begins at 5"):
        w.start()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"v":99}', '{"v":1,"rules":"time zone UTC, segments of 6, 8 bits, minutes for 2 h"}']
)
def test_metadata_that_is_not_ours_stops_the_worker(world, some, text):
    from faust_batch import Committed

    w = world()
    source = w.write("cdr", 0, some("cdr", 50))
    w.committed[source] = Committed(20, text)
    with pytest.raises(TelestreamError, match="metadata cannot be read"):
        w.start()


def test_another_time_zone_than_the_generation_s_stops_the_worker(world, some, now_ms):
    w = world()
    source = w.write("cdr", 0, some("cdr", 50))
    w.take(source, 50)
    w.commit()
    w.zone = "Europe/Paris"
    with pytest.raises(TelestreamError, match=r"time zone UTC.*set\s+to time zone Europe/Paris"):
        w.start()


def test_another_age_limit_of_minutes_than_the_generation_s_stops_the_worker(world, some, monkeypatch):
    w = world()
    source = w.write("cdr", 0, some("cdr", 50))
    w.take(source, 50)
    w.commit()
    monkeypatch.setattr("window_aggregator.stage.MINUTE_WINDOWS_MAX_AGE_MS", 9_000_000)
    with pytest.raises(TelestreamError, match=r"minutes for 2 h, this worker is set\s+to .*minutes for 2\.5 h"):
        w.start()


def test_upserts_ahead_of_the_committed_offset_stop_the_worker(world, some, now_ms):
    """An offset whose commit is not finished yet is never taken together with upserts that are."""
    w = world()
    source = w.write("cdr", 0, some("cdr", 100))
    w.take(source, 10)
    w.tick(now_ms)
    w.tick(now_ms + 60_000)
    w.commit()
    old = w.committed[source]
    w.take(source, 20)
    w.tick(now_ms + 200_000)
    w.commit()
    w.committed[source] = old
    with pytest.raises(TelestreamError, match="lie behind the committed position 10"):
        w.start()


def test_a_marker_that_is_readable_only_later_is_waited_for(world, some, now_ms, monkeypatch):
    w = world()
    source = w.write("cdr", 0, some("cdr", 40))
    w.take(source, 30)
    w.tick(now_ms)
    w.tick(now_ms + 200_000)
    w.commit()
    hidden = {at: entries[:] for at, entries in w.log.agg.items()}
    for at in w.log.agg:
        w.log.agg[at] = []
    asked = []
    real = w.log.upserts

    def late(family, partition, start):
        asked.append(family)
        if len(asked) == 3:
            w.log.agg.update(hidden)
        return real(family, partition, start)

    w.log.upserts = late
    w.start()
    w.log.upserts = real
    w.take_all(now_ms + 300_000)
    assert len(asked) > len(json.loads(w.committed[source].metadata)["f"])
    assert w.windows() == w.expected()
