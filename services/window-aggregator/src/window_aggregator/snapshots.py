"""When a partition's sums are kept as a snapshot, and whether a kept one is of the log as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from time import monotonic

import numpy as np
import polars as pl

from faust_batch import BatchError, Source
from telestream_contracts import arrow_schema, enriched_schema
from telestream_runtime import get_logger
from window_aggregator.codec import Codec
from window_aggregator.domain.families import Family
from window_aggregator.domain.measures import narrow, partials
from window_aggregator.recovery import Log, families_since
from window_aggregator.snapshot import Snapshot
from window_aggregator.snapshot_cache import SnapshotCache
from window_aggregator.state import FamilyState, State

_log = get_logger("window-snapshots")


@dataclass(frozen=True, slots=True)
class SnapshotRhythm:
    """How often a partition's sums are written: after so many records, which are read again in a fifth of a second of
    CPU; and so seldom that writing takes no more than a share of the time, however many windows there are."""

    every_records: int = 50_000
    share_of_time: float = 1 / 150


class Snapshots:
    """``rules``: what all sums depend on, besides the records."""

    def __init__(
        self,
        files: SnapshotCache,
        log: Log,
        families: Mapping[str, Family],
        rules: str,
        rhythm: SnapshotRhythm,
    ) -> None:
        self._files = files
        self._log = log
        self._families = families
        self._rules = rules
        self._rhythm = rhythm
        self._kept_to: dict[Source, int] = {}
        self._not_before_s: dict[Source, float] = {}
        self._last: dict[Source, State] = {}

    def restored(
        self, source: Source, record_type: str, state: State, log_start: int, codec: Codec
    ) -> dict[str, FamilyState] | None:
        """As ``recovery.restored_families``, from what was kept. None if nothing was, or it is not of this log, these
        rules and sums, and a position up to ``state``'s: then it is deleted."""
        found = self._files.read(source)
        if found is None:
            return None
        if found.identity == self._identity(source, record_type) and self._fits(source, found, state, log_start):
            families = families_since(found, source, record_type, state, self._families, codec, self._log)
            if families is not None:
                self._kept_to[source] = found.next_src
                return families
        self._files.drop(source)
        return None

    def saw(self, source: Source, record_type: str, state: State) -> None:
        """The partition's state is about to be committed; the one that was seen before has been."""
        committed = self._last.get(source)
        self._last[source] = state
        if committed is not None and monotonic() >= self._not_before_s.get(source, 0.0):
            self._keep(source, record_type, committed)

    def gone(self, source: Source, record_type: str) -> None:
        """The partition was given up, its last state committed: it often comes back."""
        committed = self._last.pop(source, None)
        if committed is not None:
            self._keep(source, record_type, committed)
        self._kept_to.pop(source, None)
        self._not_before_s.pop(source, None)

    def _keep(self, source: Source, record_type: str, state: State) -> None:
        if state.pending or state.next_src is None:
            return
        if state.next_src - self._kept_to.get(source, 0) < self._rhythm.every_records:
            return
        begun_s = monotonic()
        try:
            identity = self._identity(source, record_type)
            topics = {self._families[name].topic for name in state.families}
            ends = {topic: self._log.agg_end(topic, source.partition) for topic in topics}
        except BatchError as err:
            _log.warning("snapshot_not_written", source=str(source), reason=str(err))
            return
        if identity is not None:
            self._files.keep(source, Snapshot.of(state, identity, ends))
        self._kept_to[source] = state.next_src
        ended_s = monotonic()
        self._not_before_s[source] = ended_s + (ended_s - begun_s) / self._rhythm.share_of_time

    def _identity(self, source: Source, record_type: str) -> str | None:
        topics = sorted({family.topic for family in self._families.values() if record_type in family.types})
        ids = self._log.ids(source, topics)
        shape = _shape(record_type, tuple(self._families.values()))
        return None if ids is None else f"{source}; {ids}; {self._rules}; {shape}"

    def _fits(self, source: Source, found: Snapshot, state: State, log_start: int) -> bool:
        return (
            state.next_src is not None
            and log_start <= found.position <= state.position
            and found.next_src <= state.next_src
            and found.segments.keys() == state.families.keys()
            and all(found.segments[name] <= open_.segment for name, open_ in state.families.items())
            # the upserts that were committed before it must still be there: nobody would send them again
            and all(self._log.agg_end(topic, source.partition) >= end for topic, end in found.agg_ends.items())
        )


@cache
def _shape(record_type: str, families: tuple[Family, ...]) -> str:
    """The columns of the sums with their types, as text."""
    empty = pl.from_arrow(arrow_schema(enriched_schema(record_type)).empty_table())
    assert isinstance(empty, pl.DataFrame)
    found = partials(narrow(empty, record_type, np.zeros(0, np.int64)), record_type, families)
    return "; ".join(f"{name}: {partial.rows.schema}" for name, partial in found.items())
