"""Upserts that an older version wrote are gone on from."""

from __future__ import annotations

NEW = ("late_records", "reversals", "ended_answered", "ended_dropped", "pdd_ms", "pdd_ms_count", "sessions")
NEW += ("data_duration_ms", "data_bytes", "sms_segments", "rrc_setup_known", "rrc_setup_successes")
NEW += ("handover_known", "handover_successes", "attach_known", "attach_successes")


def _without_what_is_new(windows):
    return {
        key: (
            {name: value for name, value in window["sums"].items() if name not in NEW or key[0] == "quality"},
            window["charges"],
            window["freshest"],
        )
        for key, window in windows.items()
    }


def test_after_an_upgrade_old_sums_go_on_and_new_ones_begin_at_zero(world, some, cdr, now_ms):
    w = world(bits=9, day_bits=11)
    for seed, kind in enumerate(("cdr", "network")):
        w.write(kind, 0, some(kind, 300, seed))
    for source in list(w.records):
        w.take(source, 200)
    w.tick(now_ms)
    w.tick(now_ms + 200_000)
    w.commit()
    assert len(w.latest()) > 500
    w.as_of_the_first_release()
    w.start()
    # half of what follows meets a state of both versions at the next restart
    for source in list(w.records):
        w.take(source, 50)
    w.tick(now_ms + 201_000)
    w.tick(now_ms + 400_000)
    w.commit()
    w.start()
    w.take_all(now_ms + 500_000)
    found, expected = w.windows(), w.expected()
    assert _without_what_is_new(found) == _without_what_is_new(expected)
    assert sum(found[key] == window for key, window in expected.items()) > 200


def test_new_measures_of_a_window_of_both_versions_are_those_since_the_upgrade(world, cdr, now_ms):
    w = world(bits=9, day_bits=11)
    sms = {"record_type": "SMS", "segments": 3}
    source = w.write("cdr", 0, [cdr(n, **sms, subscriber_id=f"k1.{n}") for n in range(3)])
    w.take(source, 2)
    w.tick(now_ms)
    w.tick(now_ms + 200_000)
    w.commit()
    w.as_of_the_first_release()
    w.start()
    w.take_all(now_ms + 300_000)
    (found,) = [value for (family, _), value in w.latest().items() if family == "plan" and value["size_s"] == 900]
    assert (found["sms"], found["sms_segments"], len(found["subscriber_registers"])) == (3, 3, 1)
