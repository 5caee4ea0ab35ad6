"""What is emitted when. Time is an argument."""

from __future__ import annotations

from dataclasses import replace

import pytest

from telestream_runtime import SettingsError
from window_aggregator.domain.families import families
from window_aggregator.domain.rhythm import Beat, Cursor, Flush, Rhythm, default_beats
from window_aggregator.settings import AggregatorSettings

FAST = Rhythm({("region", 60): Beat(500, 60_000), ("cell", 900): Beat(60_000, 60_000)}, idle_ms=2_000)
BUSY = {"idle_since_ms": 100_000}


def test_nothing_is_due_without_change_or_before_the_clock_was_seen():
    seen = Cursor(all_to=9, recent_to=9, all_at_ms=0, recent_at_ms=0)
    assert FAST.due("region", 60, seen, touched=9, now_ms=100_000, **BUSY) is Flush.NONE
    assert FAST.due("region", 60, Cursor(-1, -1), touched=9, now_ms=100_000, **BUSY) is Flush.NONE


@pytest.mark.parametrize(
    ("family", "size_s", "since_ms", "due"),
    [
        ("region", 60, 499, Flush.NONE),
        ("region", 60, 500, Flush.RECENT),
        ("region", 60, 60_000, Flush.ALL),
        ("cell", 900, 59_999, Flush.NONE),
        ("cell", 900, 60_000, Flush.ALL),
    ],
)
def test_changed_windows_are_due_after_their_interval(family, size_s, since_ms, due):
    cursor = Cursor(all_to=3, recent_to=3, all_at_ms=100_000, recent_at_ms=100_000)
    assert FAST.due(family, size_s, cursor, 9, idle_since_ms=100_000 + since_ms, now_ms=100_000 + since_ms) is due


def test_what_was_emitted_as_recent_is_not_due_as_recent_again():
    cursor = Cursor(all_to=3, recent_to=9, all_at_ms=100_000, recent_at_ms=100_000)
    assert FAST.due("region", 60, cursor, 9, idle_since_ms=101_000, now_ms=101_000) is Flush.NONE
    assert FAST.due("region", 60, replace(cursor, recent_to=8), 9, 101_000, 101_000) is Flush.RECENT


def test_everything_changed_is_due_once_nothing_has_come_for_a_while():
    cursor = Cursor(all_to=3, recent_to=9, all_at_ms=100_000, recent_at_ms=100_000)
    assert FAST.due("cell", 900, cursor, 9, idle_since_ms=100_000, now_ms=101_999) is Flush.NONE
    assert FAST.due("cell", 900, cursor, 9, idle_since_ms=100_000, now_ms=102_000) is Flush.ALL


def test_the_default_rhythm_knows_every_family_and_size():
    assert set(default_beats()) == {(f.topic, f.window_s) for f in families().values()}


def _emitted(w, outputs):
    """(family, size) of what a tick gave, markers aside."""
    return {
        (w.family_of[output.topic], int(message["key"].split(b"|")[1]))
        for output in outputs
        for message in output.messages
        if b"|marker|" not in message["key"]
    }


def test_live_traffic_is_emitted_in_the_design_s_rhythm_and_all_of_it_when_idle(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, idle_ms=5_000)
    source = w.write("cdr", 0, [cdr(n) for n in range(300)])
    seen: dict[tuple[str, int], list[int]] = {}
    for at in range(0, 125_000, 500):  # the first look at the clock begins the intervals
        w.take(source, 1)
        for what in _emitted(w, w.tick(now_ms + at)):
            seen.setdefault(what, []).append(at)
    assert len(seen["region", 60]) == pytest.approx(249, abs=3)
    assert len(seen["plan", 60]) == pytest.approx(249, abs=3)
    assert len(seen["quality", 3_600]) == pytest.approx(124, abs=3)
    assert len(seen["cell", 60]) == pytest.approx(12, abs=1)
    assert [len(seen[family, 900]) for family in ("cell", "region", "plan")] == [2, 2, 2]
    assert len(seen["subscriber_day", 86_400]) == 1
    idle_at = now_ms + 125_000 + 5_000
    assert {"cell", "region", "plan", "subscriber_day"} <= {f for f, _ in _emitted(w, w.tick(idle_at))}
    assert not w.tick(idle_at + 60_000)


def test_old_windows_wait_for_the_slow_beat_and_recent_ones_do_not(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, idle_ms=600_000)
    records = [cdr(n, started_at=now_ms - (100 * 60_000 if n % 2 else 1_000)) for n in range(10)]
    source = w.write("cdr", 0, records)
    w.take(source, 10)
    w.tick(now_ms)
    starts = {
        int(message["key"].split(b"|")[2])
        for output in w.tick(now_ms + 500)
        for message in output.messages
        if b"|60|" in message["key"] and b"marker" not in message["key"]
    }
    assert starts == {(now_ms - 1_000) // 60_000 * 60_000}
    w.tick(now_ms + 60_000)
    w.commit()
    assert w.windows().keys() >= {k for k in w.expected() if k[0] in ("cell", "region", "plan")}


def test_more_changed_windows_than_a_flush_should_hold_are_emitted_at_once(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, fold_rows=10, max_dirty=20)
    source = w.write("cdr", 0, [cdr(n, started_at=now_ms - n * 3_600_000) for n in range(200)])
    for _ in range(20):
        w.take(source, 10)
    gathered = len(w.open_outputs)
    w.commit()
    assert gathered > 0
    assert len([key for key in w.windows() if key[0] == "cell" and key[2] == 900]) >= 180


def test_one_call_emits_a_bounded_number_and_the_rest_stays_due(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, fold_rows=10_000, max_dirty=50)
    for partition in range(4):
        records = [cdr(n, partition, started_at=now_ms - n * 3_600_000) for n in range(90)]
        w.take(w.write("cdr", partition, records), 90)
    w.tick(now_ms)
    sizes = []
    while outputs := w.tick(now_ms + 2_000):
        sizes.append(sum(len(output.messages) for output in outputs))
    assert len(sizes) > 5
    assert max(sizes) < 300
    w.commit()
    assert w.windows() == w.expected()


def test_what_the_clock_had_folded_is_emitted_at_the_next_batch_once_too_much_has_gathered(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, fold_rows=10_000, max_dirty=20)
    source = w.write("cdr", 0, [cdr(n, started_at=now_ms - n * 3_600_000) for n in range(200)])
    for n in range(20):
        w.take(source, 10)
        w.tick(now_ms + n * 1_000)
        assert max(open_.levels.gathered for open_ in w.states[source].families.values()) <= 20 + 10
    w.take_all(now_ms + 60_000)
    assert w.windows() == w.expected()


def test_windows_touched_again_and_again_are_counted_once_before_they_are_emitted_early(world, cdr, now_ms):
    w = world(bits=18, day_bits=20, idle_ms=600_000, fold_rows=10, max_dirty=20)
    source = w.write("cdr", 0, [cdr(n) for n in range(400)])
    for _ in range(40):
        w.take(source, 10)
    assert w.open_outputs == []


def test_the_settings_are_the_rhythm():
    settings = AggregatorSettings.from_env({"TELESTREAM_MINUTE_FLUSH_S": "0.25", "TELESTREAM_IDLE_FLUSH_S": "1"})
    assert settings.rhythm.beats["region", 60] == Beat(250, 60_000)
    assert settings.rhythm.idle_ms == 1_000
    assert AggregatorSettings.from_env({}).rhythm == Rhythm(default_beats(), 2_000)
    with pytest.raises(SettingsError, match="TELESTREAM_QUARTER_FLUSH_S"):
        AggregatorSettings.from_env({"TELESTREAM_QUARTER_FLUSH_S": "0"})
