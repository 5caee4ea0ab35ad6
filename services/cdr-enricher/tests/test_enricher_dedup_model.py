"""Dedup by segment against a plain dict, restarted at any moment, its files deleted or damaged."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdr_enricher.dedup_log import DedupLog, Message, Position
from cdr_enricher.dedup_store import DedupStore
from cdr_enricher.domain.dedupe import NO_OFFSET, Seen
from cdr_enricher.domain.hashing import Ints, TextKey, mix64
from cdr_enricher.errors import JudgedCut
from faust_batch import Batch, Source

BITS = 4
HORIZON = timedelta(days=35)
DAY_MS = 86_400_000
BEGIN_MS = 1_790_000_000_000
RAW, STATE = Source("raw", 3), Source("state.dedup.g1", 3)
FREED = None


def keys(uids: Ints) -> TextKey:
    return mix64(uids.astype(np.uint64)) | np.uint64(1), mix64(uids.astype(np.uint64) + np.uint64(1 << 40))


def event_ms(uids: Ints) -> Ints:
    return BEGIN_MS + uids * 7 * 60_000


@dataclass(frozen=True)
class Op:
    """A record of ``uid``, or a reversal of the offset ``reverses`` (taken modulo what was judged before)."""

    uid: int
    content: int = 1
    valid: bool = True
    reverses: int | None = None
    days_later: float = 0.0


@dataclass
class Plain:
    """What dedup is, in forty lines."""

    uids: list[int] = field(default_factory=list)
    entries: dict[int, list[tuple[int, int | None]]] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    withdrawn: set[int] = field(default_factory=set)
    last_ms: dict[int, int] = field(default_factory=dict)
    newest_ms: int = 0
    dropped: set[int] = field(default_factory=set)

    def newest(self, uid: int) -> tuple[int, int | None] | None:
        held = [entry for entry in self.entries.get(uid, []) if entry[0] >> BITS not in self.dropped]
        return held[-1] if held else None

    def record(self, op: Op, arrived_ms: int) -> tuple[int, bool] | None:
        offset, answer = len(self.uids), None
        self.uids.append(op.uid)
        if op.valid:
            held = self.newest(op.uid)
            if held is None or held[1] is FREED:
                self.entries.setdefault(op.uid, []).append((offset, op.content))
                self.stored.add(offset)
                self.newest_ms = max(self.newest_ms, arrived_ms)
                answer = (NO_OFFSET, False)
            else:
                answer = (held[0], held[1] != op.content)
        self._close()
        return answer

    def standing(self, offset: int) -> bool:
        return offset in self.stored and offset not in self.withdrawn

    def reversal(self, original: int) -> None:
        offset, uid = len(self.uids), self.uids[original]
        self.uids.append(uid)
        self.withdrawn.add(original)
        held = self.newest(uid)
        if held is not None and held[0] == original:
            self.entries[uid].append((offset, FREED))
        self._close()

    def _close(self) -> None:
        if len(self.uids) % (1 << BITS) == 0:
            self.last_ms[(len(self.uids) >> BITS) - 1] = self.newest_ms
            oldest_ms = self.newest_ms - HORIZON // timedelta(milliseconds=1)
            self.dropped = {segment for segment, ms in self.last_ms.items() if ms < oldest_ms}


@dataclass
class Worker:
    """Dedup as the enricher uses it: its log, its files, and what enriched would say of the open segment."""

    folder: Path
    log: list[Message] = field(default_factory=list)
    judged: list[tuple[int, int, int, int, int | None]] = field(default_factory=list)
    position: Position = field(default_factory=Position)
    next_offset: int = 0

    def __post_init__(self) -> None:
        self.store = DedupStore(
            STATE.topic, DedupLog(9, lambda _: None), self.folder, segment_bits=BITS, horizon=HORIZON
        )
        self.seen = self.store.empty()
        self.reads = 0

    def judge(self, ops: list[Op], arrived: list[int], first: int) -> list[tuple[int, bool] | None]:
        self.seen.advance(first)
        answers: list[tuple[int, bool] | None] = [None] * len(ops)
        valid = np.array([at for at, op in enumerate(ops) if op.valid], np.int64)
        uids = np.array([ops[at].uid for at in valid], np.int64)
        content = np.array([ops[at].content for at in valid], np.int64)
        appended = np.array([arrived[at] for at in valid], np.int64)
        found = self.seen.judge(keys(uids), event_ms(uids), first + valid, content, appended)
        for place, at in enumerate(valid.tolist()):
            answers[at] = int(found.first_offset[place]), bool(found.conflict[place])
            if answers[at] == (NO_OFFSET, False):
                self.judged.append((first + at, int(uids[place]), int(content[place]), int(appended[place]), None))
        self._after(first + len(ops))
        return answers

    def reverse(self, originals: list[int], uids: list[int], first: int) -> None:
        self.seen.advance(first)
        at = first + np.arange(len(originals))
        who = np.array(uids, np.int64)
        self.seen.withdraw(keys(who), event_ms(who), np.array(originals, np.int64), at)
        self.judged += [(int(a), uid, 0, 0, original) for a, uid, original in zip(at, uids, originals, strict=True)]
        self._after(first + len(originals))

    def _after(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.seen.advance(next_offset)
        left, self.position = self.store.close("cdr", 3, self.seen, self.position, lambda: next_offset)
        for output in left:
            self.log += output.messages

    def restart(self) -> None:
        """A new process: what was committed, the files as they are, the log, and enriched from the open segment on."""
        committed = Position(self.position.enriched_from, self.position.chain)

        def read() -> list[Batch]:
            self.reads += 1
            count = len(self.log)
            ints = np.arange(count)
            held = [message["key"] for message in self.log], [message["value"] for message in self.log]
            return [Batch(STATE, ints, ints, *held, count, count, 1, 0)] if count else []

        withdrawn = self.position.withdrawn_hash
        self.seen, restored = self.store.restore(RAW, "cdr", committed, withdrawn, 0, self.next_offset, read)
        assert restored == self.position
        start = self.next_offset >> BITS << BITS
        for reversals in (False, True):
            rows = [row for row in self.judged if row[0] >= start and (row[4] is not None) == reversals]
            if not rows:
                continue
            offsets, uids, content, appended, originals = (np.array(column) for column in zip(*rows, strict=True))
            if reversals:
                self.seen.withdraw(keys(uids), event_ms(uids), originals.astype(np.int64), offsets)
            else:
                self.seen.remember(keys(uids), event_ms(uids), offsets, content, appended)


op = st.one_of(
    st.builds(Op, st.integers(0, 25), st.integers(1, 2), st.sampled_from([True] * 5 + [False])),
    st.builds(Op, st.integers(0, 25), days_later=st.sampled_from([0.5, 3.0, 20.0, 36.0])),
    st.builds(Op, st.just(0), reverses=st.integers(0, 200)),
)
damage = st.sampled_from(["none", "none", "delete one", "truncate", "flip", "delete all", "no restart"])
step = st.tuples(st.lists(op, min_size=1, max_size=40), damage, st.integers(0, 1_000))


def harm(folder: Path, how: str, which: int) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files or how in ("none", "no restart"):
        return
    chosen = files if how == "delete all" else [files[which % len(files)]]
    for path in chosen:
        data = path.read_bytes()
        # anew, as another inode: a mapped file that is cut short ends its reader
        path.unlink()
        if how == "truncate":
            path.write_bytes(data[: which % max(len(data), 1)])
        elif how == "flip" and data:
            at = which % len(data)
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])


@settings(max_examples=100, deadline=None)
@given(st.lists(step, min_size=1, max_size=6))
def test_dedup_gives_what_a_plain_dict_gives_whatever_is_restarted_or_damaged_when(
    steps: list[tuple[list[Op], str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(Worker(Path(folder)), Plain(), steps)


def run(worker: Worker, plain: Plain, steps: list[tuple[list[Op], str, int]]) -> None:
    now_ms = BEGIN_MS
    for ops, how, which in steps:
        held: list[tuple[Op, int]] = []
        first = len(plain.uids)

        def flush() -> None:
            nonlocal held, first
            if held:
                expected = [plain.record(op, arrived) for op, arrived in held]
                assert worker.judge([op for op, _ in held], [arrived for _, arrived in held], first) == expected
            held, first = [], len(plain.uids)

        for each in ops:
            now_ms += int(each.days_later * DAY_MS) + 1
            if each.reverses is None:
                held.append((each, now_ms))
                continue
            flush()
            if plain.uids:
                original = each.reverses % len(plain.uids)
                offsets = np.array([original], np.int64)
                assert worker.seen.standing(offsets).tolist() == [plain.standing(original)]
                if plain.standing(original):
                    worker.reverse([original], [plain.uids[original]], first)
                    plain.reversal(original)
                    first = len(plain.uids)
        flush()
        if how != "no restart":
            harm(worker.folder, how, which)
            worker.restart()
        everything = np.arange(len(plain.uids) + 3)
        assert worker.seen.standing(everything).tolist() == [plain.standing(at) for at in everything.tolist()]


def test_with_its_files_whole_a_restart_does_not_read_the_log(tmp_path: Path) -> None:
    worker, plain = Worker(tmp_path), Plain()
    run(worker, plain, [([Op(n) for n in range(70)], "none", 0), ([Op(0, reverses=5)], "none", 0)])
    run(worker, plain, [([Op(n) for n in range(40, 110)], "none", 0)])
    assert worker.reads == 0
    harm(tmp_path, "delete one", 3)
    worker.restart()
    assert worker.reads == 1
    worker.restart()
    assert worker.reads == 1


def test_a_file_with_a_single_other_bit_is_not_believed(tmp_path: Path) -> None:
    worker = filled(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 3 + 3 + 1
    for reads, path in enumerate(files, 1):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        worker.restart()
        assert worker.reads == reads
        assert path.read_bytes() == data


def filled(folder: Path) -> Worker:
    worker = Worker(folder)
    run(worker, Plain(), [([Op(n) for n in range(40)], "none", 0), ([Op(0, reverses=5), Op(99)], "none", 0)])
    run_on = [Op(n) for n in range(100, 120)]
    worker.judge(run_on, [BEGIN_MS] * len(run_on), worker.next_offset)
    return worker


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("HEAD", r"state\.dedup\.g1\[3\]: what closed segments of raw\[3\] left behind lacks segment 1 of cdr"),
        ("IDS", r"lacks identities of segment 1 of cdr; .* derive a new generation"),
        ("WITHDRAWN", r"its withdrawn records are not those the group committed"),
    ],
)
def test_what_is_neither_in_the_files_nor_in_the_log_stops_the_worker(part: str, message: str, tmp_path: Path) -> None:
    worker = filled(tmp_path)
    worker.restart()
    segment = 0 if part == "WITHDRAWN" else 1
    worker.log = [m for m in worker.log if m["key"] != f"cdr/3/{segment}/{part}/0".encode()]
    worker.restart()
    harm(tmp_path, "delete all", 0)
    with pytest.raises(JudgedCut, match=message):
        worker.restart()


def test_segments_of_another_life_of_the_generation_are_not_taken_for_its_own(tmp_path: Path) -> None:
    before = filled(tmp_path / "before")
    worker = Worker(tmp_path / "now")
    worker.log = list(before.log)
    plain = Plain()
    run(worker, plain, [([Op(n) for n in range(200, 250)], "delete all", 0)])
    run(worker, plain, [([Op(n) for n in range(220, 230)], "none", 0)])
    # and files of the other life in this one's place
    shutil.rmtree(tmp_path / "now")
    shutil.copytree(tmp_path / "before", tmp_path / "now")
    reads = worker.reads
    run(worker, plain, [([Op(n) for n in (201, 5)], "none", 0), ([Op(n) for n in (5, 202)], "none", 0)])
    assert worker.reads == reads + 1


@pytest.mark.parametrize("sizes", [(16, 16, 16), (32, 16), (15, 1, 17, 15), (40, 8)])
def test_segments_close_at_the_edge_of_a_batch_and_in_its_middle(sizes: tuple[int, ...], tmp_path: Path) -> None:
    worker, plain = Worker(tmp_path), Plain()
    steps = [([Op(n % 20) for n in range(size)], "delete all", 0) for size in sizes]
    run(worker, plain, steps)
    closed = [m["key"] for m in worker.log if b"HEAD" in (m["key"] or b"")]
    assert closed == [f"cdr/3/{n}/HEAD/0".encode() for n in range(3)]
    assert worker.judge([Op(7), Op(77)], [BEGIN_MS] * 2, 48) == [(7, False), (NO_OFFSET, False)]


def test_without_a_place_for_files_identities_stay_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker, plain = Worker(tmp_path / "file" / "below"), Plain()
    run(worker, plain, [([Op(n) for n in range(40)], "none", 0), ([Op(n) for n in range(20, 60)], "none", 0)])


def test_large_segments_are_written_in_messages_that_a_broker_takes() -> None:
    seen = Seen()
    who, ones = np.arange(100_000), np.ones(100_000, np.int64)
    seen.judge(keys(who), event_ms(who), who, ones, ones)
    seen.advance(1 << 18)
    log, (closing,) = DedupLog(9, lambda _: None), seen.take_closings()
    messages = list(log.messages("cdr", 3, closing, log.head("cdr", 3, closing, Position(), 18)))
    assert len(messages) == 1 + 4
    assert max(len(message["value"] or b"") for message in messages) < 1_000_000


def judged(seen: Seen, first: int, uids: list[int], day: float) -> list[int]:
    who = np.array(uids, np.int64)
    ones = np.ones(len(uids), np.int64)
    at = first + np.arange(len(uids))
    found = seen.judge(keys(who), event_ms(who), at, ones, ones * int(BEGIN_MS + day * DAY_MS))
    seen.advance(first + len(uids))
    return found.first_offset.tolist()


def test_a_duplicate_34_days_later_is_found_and_one_past_the_horizon_is_not() -> None:
    seen = Seen(BITS, HORIZON)
    judged(seen, 0, list(range(16)), 0.0)
    judged(seen, 16, list(range(100, 116)), 34.0)
    assert judged(seen, 32, [3], 34.0) == [3]
    judged(seen, 33, list(range(200, 215)), 35.0)  # to the day: its last record arrived at the horizon, not before it
    assert judged(seen, 48, [4], 35.0) == [4]
    judged(seen, 49, list(range(300, 315)), 36.0)
    assert judged(seen, 64, [5, 5, 100], 36.0) == [NO_OFFSET, 64, 16]
    assert seen.standing(np.array([0, 3, 64])).tolist() == [True, True, True]


def test_an_event_of_any_age_finds_its_repeat() -> None:
    seen = Seen(BITS, HORIZON)
    ages = np.array([0, -1, -86_400_000, 1 << 33, BEGIN_MS * 40, -(1 << 50)], np.int64)
    who, ones = np.arange(6), np.ones(6, np.int64)
    seen.judge(keys(who), ages, np.arange(6), ones, ones)
    seen.advance(40)
    found = seen.judge(keys(who), ages, np.arange(40, 46), ones, ones)
    assert found.first_offset.tolist() == list(range(6))


def test_a_segment_of_events_of_very_many_hours_is_looked_into_too() -> None:
    seen = Seen(13, HORIZON)
    who = np.arange(6_000)
    ones = np.ones(6_000, np.int64)
    times = who * 3_600_000
    seen.judge(keys(who), times, who, ones, ones)
    seen.advance(1 << 13)
    half = who[1_000:3_000]
    found = seen.judge(keys(half), times[half], (1 << 13) + np.arange(2_000), ones[:2_000], ones[:2_000])
    assert found.first_offset.tolist() == half.tolist()


def test_a_withdrawn_record_may_come_again_also_long_past_the_horizon() -> None:
    seen = Seen(BITS, HORIZON)
    judged(seen, 0, list(range(16)), 0.0)
    judged(seen, 16, list(range(100, 116)), 40.0)
    assert judged(seen, 32, [3, 7], 40.0) == [NO_OFFSET, NO_OFFSET]
    seen.withdraw(keys(np.array([3, 4])), event_ms(np.array([3, 4])), np.array([3, 4]), np.array([34, 35]))
    # 3 was stored again meanwhile, and that one stands
    assert judged(seen, 36, [3, 4, 4], 40.0) == [32, NO_OFFSET, 37]
    assert seen.standing(np.array([3, 4, 5, 32, 34, 37])).tolist() == [False, False, True, True, False, True]
    seen.withdraw(keys(np.array([3])), event_ms(np.array([3])), np.array([32]), np.array([39]))
    judged(seen, 40, list(range(300, 308)), 40.0)
    assert judged(seen, 48, [3, 4, 3], 40.0) == [NO_OFFSET, 37, 48]
    # three entries of one identity in closed segments: the newest counts
    judged(seen, 51, list(range(400, 413)), 40.0)
    assert judged(seen, 64, [3], 40.0) == [48]
