"""Judged records in, upserts out: the stage, between the log and the pure rules of ``domain``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import overload
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from faust_batch import Batch, Committed, Output, Source
from telestream_domain import MINUTE_WINDOWS_MAX_AGE_MS, TYPES, Topics, cuts, segment_start
from window_aggregator import metrics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import Family
from window_aggregator.domain.levels import Wanted, changed, changed_before
from window_aggregator.domain.measures import narrow, partials
from window_aggregator.domain.pace import Paces
from window_aggregator.domain.rhythm import REALTIME_WINDOW_MS, Flush, Rhythm
from window_aggregator.domain.sketches import Sketch
from window_aggregator.domain.upserts import Place, markers, upserts
from window_aggregator.errors import LogCut, NotDense, PositionForeign
from window_aggregator.recovery import Log, require_nothing_written, restored_families
from window_aggregator.snapshot_cache import NoSnapshots, SnapshotCache
from window_aggregator.snapshots import SnapshotRhythm, Snapshots
from window_aggregator.state import FamilyState, State, from_metadata, to_metadata

FOLD_ROWS = 20_000
"""Rows are grouped in portions of about this size: a group-by has a fixed cost, as much as hundreds of rows."""

ENCODE_ROWS = 10_000
"""Upserts are encoded, and sent, in portions: meanwhile they take several times their size in memory."""

MAX_DIRTY = 100_000
"""Changed windows of one family and partition that may gather before they are emitted whatever the rhythm says: they
bound what one transaction, which must end within seconds, and memory hold. Fewer would be emitted again and again: with
an eighth of it a bulk load wrote nearly two upserts per record, and the whole ran at three quarters of its pace.
Of subscriber-days, whose segments are four times as large, four times as many: of a million subscribers every flush of
fewer would be nearly an upsert per record."""


@dataclass(slots=True)
class _Budget:
    """Rows that one call may emit. Who asks first gets what it wants, the others what is left, all or nothing."""

    left: int
    untouched: bool = True

    def take(self, rows: int) -> bool:
        if rows > self.left and not self.untouched:
            return False
        self.left -= rows
        self.untouched = False
        return True


@dataclass(frozen=True, slots=True)
class _Emission:
    """One family of some partitions: the ``wanted`` windows, and then markers where it is complete."""

    family: Family
    record_type: str
    wanted: Sequence[Wanted]
    places: Mapping[int, Place]
    sketches: Mapping[int, Sketch]
    complete: Mapping[int, Place]

    def frames(self, zone: ZoneInfo) -> Iterator[pl.DataFrame]:
        """Its upserts and markers, made when they are asked for."""
        for rows in changed(self.wanted, self.family, self.record_type):
            yield upserts(rows, self.family, self.record_type, self.places, zone, self.sketches)
        if self.complete:
            yield markers(self.family, self.record_type, self.complete)


@dataclass(slots=True)
class _Outputs(Sequence[Output]):
    """What some emissions give, portion by portion, as a flush may be hundreds of thousands of upserts: each is there
    while it is sent. ``sent`` counts upserts by family, the first time."""

    emissions: Sequence[_Emission]
    encoded: Callable[[str, Sequence[pl.DataFrame]], Iterator[Output]]
    zone: ZoneInfo
    sent: dict[str, int] | None

    def __bool__(self) -> bool:
        return bool(self.emissions)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, index: int) -> Output: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Output]: ...
    def __getitem__(self, index: int | slice) -> Output | Sequence[Output]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Output]:
        """Emissions of a family are encoded together, whatever partition they go to; order in a partition is kept."""
        sent, self.sent = self.sent, None
        for family in dict.fromkeys(emission.family.topic for emission in self.emissions):
            waiting: list[pl.DataFrame] = []
            for frame in (
                frame
                for emission in self.emissions
                if emission.family.topic == family
                for frame in emission.frames(self.zone)
            ):
                waiting.append(frame)
                if sent is not None:
                    sent[family] = sent.get(family, 0) + frame["marker_offset"].null_count()
                if sum(part.height for part in waiting) >= ENCODE_ROWS:
                    yield from self.encoded(family, waiting)
                    waiting = []
            if waiting:
                yield from self.encoded(family, waiting)


class Aggregator:
    """See ``faust_batch.Stage``. Writes ``agg.*`` on the partition number it reads."""

    def __init__(
        self,
        topics: Topics,
        families: Mapping[str, Family],
        rhythm: Rhythm,
        zone: ZoneInfo,
        codec: Codec,
        log: Log,
        fold_rows: int = FOLD_ROWS,
        max_dirty: int = MAX_DIRTY,
        snapshots: SnapshotCache | None = None,
        snapshot_rhythm: SnapshotRhythm | None = None,
        types: Sequence[str] = tuple(TYPES),
    ) -> None:
        self._families = families
        self._set_rhythm = self._rhythm = rhythm
        self._paces = Paces()
        self._taken: dict[str, int] = {}
        # upserts that were sent since the clock's last look: because of it, and without it
        self._asked: dict[str, int] = {}
        self._unbidden: dict[str, int] = {}
        self._relieved = False
        self._zone = zone
        self._codec = codec
        self._log = log
        self._fold_rows = fold_rows
        self._max_dirty = max_dirty
        self._types = {topics.enriched(record_type): record_type for record_type in types}
        self._agg_topics = {family.topic: topics.agg(family.topic) for family in families.values()}
        self._of_type = {
            record_type: [family for family in families.values() if record_type in family.types]
            for record_type in types
        }
        self._bits = min(family.bits for family in families.values())
        widths = ", ".join(str(bits) for bits in sorted({family.bits for family in families.values()}))
        recent_h = MINUTE_WINDOWS_MAX_AGE_MS / 3_600_000
        self._rules = f"time zone {zone.key}, segments of {widths} bits, minutes for {recent_h:g} h"
        self._snapshots = Snapshots(
            snapshots or NoSnapshots(), log, families, self._rules, snapshot_rhythm or SnapshotRhythm()
        )

    @property
    def topics(self) -> Sequence[str]:
        return list(self._types)

    @property
    def paces(self) -> Paces:
        """How far the beats are stretched now."""
        return self._paces

    # -- recovery ---------------------------------------------------------------------------------------------------

    def restore(self, source: Source, committed: Committed | None) -> State:
        """As if there had been no interruption. Raises NotRecoverable if the log does not hold what that takes."""
        start = self._log.enriched_start(source)
        if committed is None or (not committed.metadata and committed.offset <= start):
            if start > 0:
                raise LogCut(
                    f"{source}: nothing was ever committed, but the log begins at {start}: what lay before it is "
                    "missing from the aggregates; build a new generation"
                )
            require_nothing_written(source, self._types[source.topic], self._families, self._log)
            return State(position=start)
        if not committed.metadata:
            raise PositionForeign(
                f"{source}@{committed.offset}: the committed offset has no metadata, so the open segment is unknown: "
                "something else committed for this group; build a new generation"
            )
        state = from_metadata(committed.metadata, committed.offset, self._rules, str(source))
        if state.next_src is None:
            return state
        record_type = self._types[source.topic]
        families = self._snapshots.restored(source, record_type, state, start, self._codec)
        metrics.RESTORES.labels(base="log" if families is None else "snapshot").inc()
        if families is None:
            families = restored_families(source, record_type, state, start, self._families, self._codec, self._log)
        return replace(state, families=families)

    def metadata(self, source: Source, state: State) -> str:
        self._snapshots.saw(source, self._types[source.topic], state)
        return to_metadata(state, self._rules)

    def revoked(self, source: Source) -> None:
        self._snapshots.gone(source, self._types[source.topic])

    # -- records ----------------------------------------------------------------------------------------------------

    def before_round(self, batches: Sequence[Batch]) -> None:
        """No reference data is needed."""

    def on_batch(self, batch: Batch, state: State) -> tuple[Sequence[Output], State]:
        record_type = self._types[batch.source.topic]
        decoded = self._codec.enriched(batch.values, record_type, _range(batch))
        src = decoded["src_offset"].to_numpy()
        check_dense(batch, decoded, state.next_src)
        rows = narrow(decoded, record_type, batch.timestamps_ms)
        first, last = int(src[0]), int(src[-1])
        emissions: list[_Emission] = []
        for _, begin, end in cuts(first, last, self._bits):
            # the position behind a record is the next record's, wherever control records lie
            behind = end + 1 - first
            position = int(batch.offsets[behind]) if behind < len(batch) else batch.next_offset
            if not state.families:
                state = replace(state, families=self._opened(record_type, begin, int(batch.offsets[begin - first])))
            state = replace(
                state,
                position=position,
                next_src=end + 1,
                pending=(*state.pending, rows.slice(begin - first, end + 1 - begin)),
            )
            if (end + 1) & ((1 << self._bits) - 1) == 0:
                closed, state = self._close(batch.source, record_type, state)
                emissions += closed
        if state.pending_rows >= self._fold_rows:
            state = self._fold(record_type, {batch.source: state})[batch.source]
        full, state = self._relieve(batch.source, record_type, state)
        emissions += full
        metrics.RECORDS.labels(type=record_type).inc(len(batch))
        self._taken[record_type] = self._taken.get(record_type, 0) + len(batch)
        return self._outputs(emissions, self._unbidden), state

    def _opened(self, record_type: str, src_offset: int, position: int) -> dict[str, FamilyState]:
        return {family.name: FamilyState.opened(family, src_offset, position) for family in self._of_type[record_type]}

    def _fold(self, record_type: str, states: Mapping[Source, State]) -> dict[Source, State]:
        """Add the pending rows to every family: of all partitions in one go."""
        pending = [rows for state in states.values() for rows in state.pending]
        if not pending:
            return dict(states)
        rows = pl.concat(pending, how="vertical") if len(pending) > 1 else pending[0]
        found = partials(rows, record_type, self._of_type[record_type])
        folded = {}
        for source, state in states.items():
            families = dict(state.families)
            for name, partial in found.items():
                own = partial if len(states) == 1 else partial.of_partition(source.partition)
                open_ = families[name]
                levels = open_.levels.add(own.rows, self._families[name], record_type, own.entries)
                families[name] = replace(open_, levels=levels)
            folded[source] = replace(state, families=families, pending=())
        return folded

    def _close(self, source: Source, record_type: str, state: State) -> tuple[list[_Emission], State]:
        """Emit what is not emitted yet, and drop the state, of every family whose segment ends before ``next_src``."""
        state = self._fold(record_type, {source: state})[source]
        next_src = _known(state.next_src)
        emissions: list[_Emission] = []
        for family in self._of_type[record_type]:
            if segment_start(state.families[family.name].segment + 1, family.bits) != next_src:
                continue
            found, after = self._flush(record_type, family, {source: state}, {source: Flush.ALL}, None)
            emissions += found
            state = after[source]
            opened = FamilyState.opened(family, next_src, state.position, before=state.families[family.name])
            state = replace(state, families={**state.families, family.name: opened})
        return emissions, state

    def _relieve(self, source: Source, record_type: str, state: State) -> tuple[list[_Emission], State]:
        """Emit early what has gathered more changed windows than one flush should hold.

        One partition at a time, between two looks at the clock: all of them in one round would be too much for one
        transaction. What is twice too full does not wait.
        """
        over = 2 if self._relieved else 1
        counted = {
            name: replace(
                open_,
                levels=open_.levels.counted(open_.cursor.all_to, self._full(name), self._families[name]),
            )
            for name, open_ in state.families.items()
            if self._is_full(name, open_, over)
        }
        if not counted:
            return [], state
        state = replace(state, families={**state.families, **counted})
        full = [name for name, open_ in counted.items() if self._is_full(name, open_, over)]
        if not full:
            return [], state
        self._relieved = True
        # a flush says up to where it is complete
        state = self._fold(record_type, {source: state})[source]
        emissions: list[_Emission] = []
        for name in full:
            found, flushed = self._flush(record_type, self._families[name], {source: state}, {source: Flush.ALL}, None)
            emissions += found
            state = flushed[source]
        return emissions, state

    def _is_full(self, name: str, open_: FamilyState, over: int) -> bool:
        return open_.levels.gathered > self._full(name) * over

    def _full(self, name: str) -> int:
        # as many for each record of a segment: of many subscribers nearly every record changes a day of its own
        return self._max_dirty << (self._families[name].bits - self._bits)

    # -- the clock --------------------------------------------------------------------------------------------------

    def due(self, states: Mapping[Source, State], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, State]]:
        started = perf_counter()
        emissions: list[_Emission] = []
        changed: dict[Source, State] = {}
        budget = _Budget(self._max_dirty * 2)
        for record_type in self._of_type:
            own = {s: state for s, state in states.items() if self._types[s.topic] == record_type}
            # a source without records has no windows
            begun = {s: state.seen(now_ms) for s, state in own.items() if state.next_src is not None}
            if not begun:
                continue
            found, after = self._flushed(record_type, begun, now_ms, budget)
            emissions += found
            changed |= {source: state for source, state in after.items() if state is not states[source]}
            metrics.OPEN_WINDOWS.labels(type=record_type).set(sum(state.windows() for state in after.values()))
        self._keep_pace(now_ms)
        self._relieved = False
        if emissions:
            metrics.FLUSH_SECONDS.observe(perf_counter() - started)
        return self._outputs(emissions, self._asked), changed

    def _keep_pace(self, now_ms: int) -> None:
        before = self._paces.stretch()
        self._paces = self._paces.counted(now_ms, self._taken, self._asked, self._unbidden)
        self._taken, self._asked, self._unbidden = {}, {}, {}
        if (by := self._paces.stretch()) != before:
            self._rhythm = self._set_rhythm.stretched(by)
            for family, stretch in by.items():
                metrics.STRETCH.labels(family=family).set(stretch)

    def _flushed(
        self, record_type: str, states: dict[Source, State], now_ms: int, budget: _Budget
    ) -> tuple[list[_Emission], dict[Source, State]]:
        ready = {s: state for s, state in states.items() if state.pending and self._any_due(record_type, state, now_ms)}
        states = states | self._fold(record_type, ready)
        emissions: list[_Emission] = []
        for family in self._of_type[record_type]:
            flushes = {}
            for source, state in states.items():
                open_ = state.families[family.name]
                flush = self._rhythm.due(
                    family.topic, family.window_s, open_.cursor, open_.levels.touched, state.idle_since_ms, now_ms
                )
                if state.pending or flush is Flush.NONE:
                    continue
                # what does not fit stays due
                if flush is Flush.RECENT or budget.take(open_.levels.dirty(open_.cursor.all_to)):
                    flushes[source] = flush
            if flushes:
                found, flushed = self._flush(record_type, family, states, flushes, now_ms)
                emissions += found
                states = states | flushed
        return emissions, states

    def _any_due(self, record_type: str, state: State, now_ms: int) -> bool:
        """Whether something would be emitted if every pending record counted in every family."""
        touched = _known(state.next_src) - 1
        return any(
            self._rhythm.due(
                family.topic,
                family.window_s,
                state.families[family.name].cursor,
                touched,
                state.idle_since_ms,
                now_ms,
            )
            is not Flush.NONE
            for family in self._of_type[record_type]
        )

    def _flush(
        self,
        record_type: str,
        family: Family,
        states: Mapping[Source, State],
        flushes: Mapping[Source, Flush],
        now_ms: int | None,
    ) -> tuple[list[_Emission], dict[Source, State]]:
        """Emit one family of some partitions. Everything up to a state's position is in its levels.

        ``now_ms`` None: not because of the clock, whose beat begins anew; then all flushes are ALL.
        """
        wanted: list[Wanted] = []
        places: dict[int, Place] = {}
        sketches: dict[int, Sketch] = {}
        complete: dict[int, Place] = {}
        after: dict[Source, State] = {}
        window_ms = family.window_s * 1_000
        recent_from = ((now_ms or 0) - REALTIME_WINDOW_MS) // window_ms * window_ms
        for source, flush in flushes.items():
            state = states[source]
            open_ = state.families[family.name]
            open_ = replace(open_, levels=open_.levels.settled())
            sketches[source.partition] = open_.levels.sketch
            cursor = open_.cursor
            place = Place(open_.segment, _known(state.next_src) - 1, state.position)
            if flush is Flush.RECENT:
                wanted.append(Wanted(open_.levels, max(cursor.all_to, cursor.recent_to), recent_from))
                if not changed_before(open_.levels, recent_from, cursor.all_to):
                    flush = Flush.ALL
            else:
                wanted.append(Wanted(open_.levels, cursor.all_to))
            if open_.log_from is None:
                open_ = replace(open_, log_from=self._log.agg_end(family.topic, source.partition))
            if flush is Flush.ALL:
                complete[source.partition] = place
                cursor = replace(cursor, all_to=place.src_to, recent_to=place.src_to)
                cursor = replace(cursor, all_at_ms=now_ms, recent_at_ms=now_ms)
                open_ = replace(open_, position=place.position, marked=True, levels=open_.levels.emitted())
            else:
                cursor = replace(cursor, recent_to=place.src_to, recent_at_ms=now_ms)
            places[source.partition] = place
            open_ = replace(open_, cursor=cursor)
            after[source] = replace(state, families={**state.families, family.name: open_})
        wanted = [part for part in wanted if part.levels.frames]
        return [_Emission(family, record_type, wanted, places, sketches, complete)] if wanted or complete else [], after

    def _outputs(self, emissions: Sequence[_Emission], sent: dict[str, int]) -> Sequence[Output]:
        return _Outputs(emissions, self._encoded, self._zone, sent) if emissions else ()

    def _encoded(self, family: str, frames: Sequence[pl.DataFrame]) -> Iterator[Output]:
        frame = pl.concat(frames, how="vertical") if len(frames) > 1 else frames[0]
        if frame["partition"].n_unique() > 1:
            frame = frame.sort("partition", maintain_order=True)
        for part in frame.iter_slices(ENCODE_ROWS):
            keys, values = part["key"].cast(pl.Binary).to_list(), self._codec.encode(part, family)
            messages: list[dict[str, bytes | None]] = [
                {"key": key, "value": value} for key, value in zip(keys, values, strict=True)
            ]
            metrics.UPSERTS.labels(family=family).inc(len(messages))
            begin = 0
            for count, partition in part["partition"].rle().struct.unnest().iter_rows():
                yield Output(self._agg_topics[family], partition, messages[begin : begin + count])
                begin += count


def check_dense(batch: Batch, decoded: pl.DataFrame, expected: int | None) -> None:
    """Every record follows the one before it, and lies on its own partition (I2). Raises NotDense."""
    src = decoded["src_offset"].to_numpy()
    first = int(src[0]) if expected is None else expected
    wrong = np.flatnonzero(src != np.arange(first, first + len(src)))
    if len(wrong):
        at = int(wrong[0])
        raise NotDense(
            f"{batch.source}@{int(batch.offsets[at])}: src_offset {int(src[at])} where {first + at} follows: a gap or "
            "a repeat in the judged records; stop, and find out what else writes this topic"
        )
    foreign = np.flatnonzero(decoded["src_partition"].to_numpy() != batch.source.partition)
    if len(foreign):
        at = int(foreign[0])
        raise NotDense(
            f"{batch.source}@{int(batch.offsets[at])}: the record stems from raw partition "
            f"{decoded['src_partition'][at]}: partition numbers are kept through all stages"
        )


def _known(next_src: int | None) -> int:
    if next_src is None:
        raise AssertionError("a state with records knows the next source offset")
    return next_src


def _range(batch: Batch) -> str:
    return f"{batch.source}@{batch.first_offset}–{batch.last_offset}"
