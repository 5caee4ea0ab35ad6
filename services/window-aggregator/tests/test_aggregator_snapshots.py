"""A snapshot makes a restore cheaper and changes nothing; one that is not of this log is not used."""

from __future__ import annotations

import random
import time
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import pytest
from confluent_kafka.admin import AdminClient
from polars.testing import assert_frame_equal

from faust_batch import Source
from telestream_contracts import apply_topics
from telestream_domain import Topics
from telestream_runtime import TelestreamError
from window_aggregator.domain.families import families
from window_aggregator.domain.held import PRESSED_FROM_ROWS, Held
from window_aggregator.domain.levels import Levels
from window_aggregator.domain.rhythm import Cursor
from window_aggregator.kafka import KafkaLog
from window_aggregator.snapshot import Snapshot, from_bytes, to_parts
from window_aggregator.snapshot_cache import SnapshotFiles


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "windows")


@pytest.fixture
def kept(world, some, now_ms, files):
    """A world in the middle of its segments: a snapshot lies there, and records that are committed behind it."""
    w = world(snapshots=files, day_bits=10)
    source = w.write("cdr", 0, some("cdr", 300))
    for number in range(3):
        w.take(source, 80)
        w.tick(now_ms + 200_000 * number)
        w.commit()
    w.take(source, 20)
    w.commit()
    assert files.read(source).next_src == 240
    return w, source


def everything(w, source, state):
    """Every window of the open segments, in the bytes that would be emitted."""
    opened = {
        name: replace(open_, cursor=Cursor(open_.first_src(families(w.bits, w.day_bits)[name]) - 1, -1))
        for name, open_ in state.families.items()
    }
    states, now_ms = {source: replace(state, families=opened, idle_src=-1)}, 1
    found = {}
    for _ in range(100):
        outputs, changed = w.stage.due(states, now_ms)
        states |= changed
        for output in outputs:
            found |= {message["key"]: message["value"] for message in output.messages}
        if not outputs and now_ms > 1:
            return found
        now_ms = 1 + w.idle_ms
    raise AssertionError("it never ends")


def assert_same(w, source, state):
    """The state is that of the worker that goes on."""
    assert everything(w, source, state) == everything(w, source, w.states[source])


def assert_as_from_the_log(w, source):
    """A worker that has just begun has what a restore from the log alone gives."""
    found, (w.snapshots, files) = w.states[source], (None, w.snapshots)
    w.start()
    assert everything(w, source, found) == everything(w, source, w.states[source])
    w.snapshots = files


def reads(w):
    """The agg topics that are read from now on."""
    asked = []
    real = w.log.upserts

    def counted(family, partition, start):
        asked.append(family)
        return real(family, partition, start)

    w.log.upserts = counted
    return asked


@pytest.mark.parametrize("seed", range(2))
def test_restored_at_any_commit_the_sums_are_those_of_the_worker_that_never_stopped(world, some, now_ms, files, seed):
    rng = random.Random(seed)
    w = world(snapshots=files, fold_rows=rng.choice((1, 40, 10_000)), snapshot_every=rng.choice((1, 60)))
    for partition in (0, 1):
        w.write("cdr", partition, some("cdr", 260, seed, first=17, partition=partition), rng.choice((0, 5)))
    w.write("network", 0, some("network", 120, seed), rng.choice((0, 5)))
    from_files = 0
    while any(w.left(source) for source in w.records):
        now_ms += rng.choice((300, 11_000, 61_000))
        for source in w.records:
            if w.left(source) and rng.random() < 0.8:
                w.take(source, rng.randrange(1, 60))
        if rng.random() < 0.7:
            w.tick(now_ms)
        w.commit()
        if rng.random() < 0.3:
            for source in w.records:
                asked = reads(w)
                again = w.stage.restore(source, w.committed[source])
                from_files += files.read(source) is not None and not asked
                assert_same(w, source, again)
    assert from_files > 1
    w.take_all(now_ms)
    assert w.windows() == w.expected()


def test_with_a_snapshot_no_upsert_is_read(kept):
    w, source = kept
    asked = reads(w)
    w.start()
    assert asked == []
    assert w.states[source].next_src == 260


def test_what_was_not_emitted_before_the_kill_is_emitted_after_it(kept, now_ms):
    w, _ = kept
    w.start()
    w.take_all(now_ms + 10_000_000)
    assert w.windows() == w.expected()


def test_a_deleted_file_is_no_loss(kept, files):
    w, source = kept
    files.drop(source)
    w.start()
    assert_as_from_the_log(w, source)


def test_a_torn_file_is_deleted_and_not_used(kept, files):
    w, source = kept
    (path,) = files.folder.iterdir()
    whole = path.read_bytes()
    for cut in (0, 3, 11, 40, 1_000, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert files.read(source) is None
    path.write_bytes(whole[:-1])
    refuses(w, source, files)


def test_a_file_with_one_bit_turned_is_not_used(kept, files):
    _, source = kept
    (path,) = files.folder.iterdir()
    whole = path.read_bytes()
    for at in random.Random(1).sample(range(len(whole)), 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert files.read(source) is None


def test_a_file_of_another_format_is_not_used(kept, files, monkeypatch):
    _, source = kept
    snapshot = files.read(source)
    monkeypatch.setattr("window_aggregator.snapshot.FORMAT", 99)
    files.keep(source, snapshot)
    monkeypatch.undo()
    assert files.read(source) is None


def refuses(w, source, files):
    asked = reads(w)
    w.start()
    assert asked
    assert files.read(source) is None
    assert_as_from_the_log(w, source)


def changed(files, source, **changes):
    files.keep(source, replace(files.read(source), **changes))


def test_a_snapshot_of_a_topic_of_the_same_name_that_was_made_anew_is_refused(kept, files):
    w, source = kept
    w.log.topic_ids = "as made again"
    refuses(w, source, files)


def test_where_the_broker_has_no_topic_ids_nothing_is_kept_and_nothing_used(kept, files):
    w, source = kept
    w.log.topic_ids = None
    refuses(w, source, files)
    w.take(source, 40)
    w.tick(0)
    w.commit()
    w.commit()
    assert files.read(source) is None


def test_another_partition_s_snapshot_is_refused(kept, files):
    w, source = kept
    snapshot = files.read(source)
    files.keep(source, replace(snapshot, identity=snapshot.identity.replace("[0]", "[1]")))
    refuses(w, source, files)


def test_a_snapshot_whose_sums_have_other_columns_is_refused(kept, files):
    w, source = kept
    changed(files, source, identity=files.read(source).identity.replace("ussd", "uusd"))
    refuses(w, source, files)


def test_a_snapshot_of_a_position_that_was_never_committed_is_refused(kept, files):
    """Its round may have been aborted: what it holds too much cannot be taken out."""
    w, source = kept
    changed(files, source, next_src=261, position=261)
    refuses(w, source, files)


def test_a_snapshot_that_the_log_does_not_follow_record_by_record_is_refused(kept, files):
    w, source = kept
    changed(files, source, next_src=241)
    refuses(w, source, files)


def test_an_old_snapshot_of_segments_long_closed_still_serves(world, some, now_ms, files):
    w = world(snapshots=files)
    source = w.write("cdr", 0, some("cdr", 420))
    for _ in range(2):
        w.take(source, 50)
        w.tick(now_ms)
        w.commit()
    old = files.read(source)
    assert old.next_src == 50
    while w.left(source):
        w.take(source, 60)
        w.commit()
    files.keep(source, old)
    asked = reads(w)
    w.start()
    assert asked == []
    assert_as_from_the_log(w, source)


def test_a_snapshot_before_the_beginning_of_the_log_is_refused(world, some, now_ms, files):
    w = world(snapshots=files)
    source = w.write("cdr", 0, some("cdr", 420))
    for _ in range(2):
        w.take(source, 50)
        w.tick(now_ms)
        w.commit()
    old = files.read(source)
    while w.left(source):
        w.take(source, 60)
        w.commit()
    files.keep(source, old)
    w.log.enriched_starts[source] = 60
    w.start()
    assert files.read(source) is None
    assert_as_from_the_log(w, source)


def test_where_upserts_were_cut_off_behind_the_snapshot_the_worker_stops_as_without_it(kept, files, monkeypatch):
    w, _ = kept
    monkeypatch.setattr("window_aggregator.recovery.MARKER_WAIT_S", 0.0)
    for at in w.log.agg:
        w.log.agg[at] = w.log.agg[at][:1]
    with pytest.raises(TelestreamError, match="the topic was cut or made anew"):
        w.start()


def test_a_folder_that_cannot_be_written_stops_nothing(world, some, now_ms, tmp_path):
    (tmp_path / "file").write_text("in the way")
    w = world(snapshots=SnapshotFiles(tmp_path / "file" / "windows"))
    w.write("cdr", 0, some("cdr", 300))
    w.take_all(now_ms)
    w.start()
    w.take_all(now_ms + 10_000)
    assert w.windows() == w.expected()


def test_a_partition_given_up_is_kept_as_last_committed(world, some, now_ms, files):
    w = world(snapshots=files, snapshot_every=100)
    source = w.write("cdr", 0, some("cdr", 120))
    w.take_all(now_ms)
    files.drop(source)
    w.stage.revoked(source)
    found = files.read(source)
    assert found is None or found.next_src == 120


def test_a_snapshot_comes_back_from_its_bytes_with_lists_and_instants():
    frame = pl.DataFrame(
        {
            "window": pl.Series([60, 120], dtype=pl.Int64),
            "touched": pl.Series([5, 6], dtype=pl.Int64),
            "cell_id": pl.Series(["a", "b"], dtype=pl.Categorical),
            "registers": pl.Series([[1, 2], []], dtype=pl.List(pl.Int64)),
            "late_at": pl.Series([None, 7], dtype=pl.Datetime("ms", "UTC")),
            "records": pl.Series([1, -1], dtype=pl.Int8),
        }
    )
    many = pl.concat([frame] * (PRESSED_FROM_ROWS // 2))
    frames = tuple(Held.of(rows) for rows in (frame, frame[:1], many))
    sketch = pl.DataFrame({"quarter": [1], "group": pl.Series(["a"], dtype=pl.Categorical), "mark": [7]})
    snapshot = Snapshot(
        "of this",
        12,
        7,
        {"cell": 3, "plan": 3},
        {"cell": frames, "plan": ()},
        {"cell": (sketch,), "plan": ()},
        {"cell": 4},
    )
    found = from_bytes(b"".join(to_parts(snapshot)))
    assert found is not None
    for one, other, rows in zip(frames, found.frames["cell"], (frame, frame[:1], many), strict=True):
        assert_frame_equal(one.frame(), rows)
        assert_frame_equal(other.frame(), rows)
        assert (other.windows, other.touched, other.height) == (one.windows, one.touched, one.height)
    assert_frame_equal(found.sketches["cell"][0], sketch)
    assert replace(found, frames=snapshot.frames, sketches=snapshot.sketches) == snapshot
    assert found.levels("cell").touched == 6
    assert found.levels("plan") == Levels()


def test_a_snapshot_holds_all_that_levels_hold():
    """Who adds a field to Levels must keep it here, too."""
    assert {field.name for field in fields(Levels)} == {"frames", "touched", "gathered", "sketch"}


@pytest.mark.stack
def test_a_topic_made_anew_has_other_ids(parts, topic_prefix):
    topics = Topics(topic_prefix)
    source, families_read = Source(topics.enriched("cdr"), 0), ["cell", "subscriber_day"]
    apply_topics(parts.kafka, topics, 1)
    before = KafkaLog(parts.kafka, topics).ids(source, families_read)
    assert before == KafkaLog(parts.kafka, topics).ids(source, families_read)
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    admin.delete_topics([topics.agg("cell")])[topics.agg("cell")].result(20)
    deadline = time.monotonic() + 20
    while topics.agg("cell") in admin.list_topics(timeout=10).topics and time.monotonic() < deadline:
        time.sleep(0.1)
    apply_topics(parts.kafka, topics, 1)
    after = KafkaLog(parts.kafka, topics).ids(source, families_read)
    assert before is not None
    assert after is not None
    assert [one == other for one, other in zip(before.split(), after.split(), strict=True)] == [True, False, True]
