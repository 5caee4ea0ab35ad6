"""The open segments' state from the log: the upserts of their flushes, then the judged records behind these.

A window's last upsert holds all of its records up to its ``src_to``; so re-reading from the last marker, a record is
added to a window exactly if it lies behind that window's ``src_to``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import polars as pl

from faust_batch import Batch, Source
from window_aggregator.codec import Codec
from window_aggregator.domain.families import Family
from window_aggregator.domain.levels import Levels
from window_aggregator.domain.measures import measured, merged, narrow
from window_aggregator.domain.upserts import is_of, marker_key, restored
from window_aggregator.errors import LogCut, NotRecoverable, PositionGone
from window_aggregator.state import FamilyState, State

MARKER_WAIT_S = 30.0
"""A commit becomes visible in each partition by itself: the offset may be known before the upserts are readable."""
MARKER_RETRY_S = 0.2


class Log(Protocol):
    """The log beyond the batches that the runner brings; committed records only."""

    def enriched_start(self, source: Source) -> int:
        """Where the partition's log begins."""
        ...

    def enriched(self, source: Source, start: int, end: int) -> Iterator[Batch]:
        """The judged records in [start, end)."""
        ...

    def agg_end(self, family: str, partition: int) -> int:
        """The end of an agg partition: whatever is written from now on lies there or behind."""
        ...

    def upserts(self, family: str, partition: int, start: int) -> Iterator[Batch]:
        """What was committed in an agg partition from ``start`` to now."""
        ...


def require_nothing_written(source: Source, record_type: str, families: Mapping[str, Family], log: Log) -> None:
    """Raises PositionGone if there is an upsert of this type and partition, of which nothing was committed.

    Other types write to the same partitions: where only theirs are found, all of them are looked through, once.
    """
    own = f"{record_type}|".encode()
    for topic in sorted({family.topic for family in families.values() if record_type in family.types}):
        if log.agg_end(topic, source.partition) == 0:
            continue
        for batch in log.upserts(topic, source.partition, 0):
            if any(key is not None and key.startswith(own) for key in batch.keys):
                raise PositionGone(
                    f"{source}: nothing is committed, but agg.{topic}[{source.partition}] holds sums made from it: the "
                    "group was deleted, its offsets expired, or the topic was made anew; to begin again would count "
                    "twice; build a new generation"
                )


def restored_families(
    source: Source,
    record_type: str,
    state: State,
    log_start: int,
    families: Mapping[str, Family],
    codec: Codec,
    log: Log,
) -> dict[str, FamilyState]:
    """The families of ``state``, which knows their segments and positions, with their sums."""
    found: dict[str, FamilyState] = {}
    included: dict[str, pl.DataFrame] = {}
    for name, open_ in state.families.items():
        if open_.position < log_start:
            raise LogCut(
                f"{source}: {name}'s open segment {open_.segment} is to be re-read from {open_.position}, but the log "
                f"begins at {log_start}: it was cut; build a new generation"
            )
        family = families[name]
        rows = _from_upserts(source, record_type, state, family, open_, codec, log)
        levels = Levels()
        if rows is not None:
            levels = levels.add(rows, family, record_type)
            included[name] = rows.group_by(family.windows()).agg(pl.col("touched").max().alias("included_to"))
        found[name] = replace(open_, levels=levels)
    start = min((open_.position for open_ in found.values()), default=state.position)
    if start < state.position:
        for batch in log.enriched(source, start, state.position):
            rows = narrow(codec.enriched(batch.values, record_type, str(source)), record_type)
            for name, open_ in found.items():
                found[name] = _with_missing(open_, rows, families[name], record_type, included.get(name))
    return found


def _from_upserts(
    source: Source,
    record_type: str,
    state: State,
    family: Family,
    open_: FamilyState,
    codec: Codec,
    log: Log,
) -> pl.DataFrame | None:
    """The family's rows as of its last upserts, None if there is none."""
    if open_.log_from is None:
        return None
    where = f"{family.topic}[{source.partition}]"
    deadline = time.monotonic() + MARKER_WAIT_S
    while True:
        latest, marked = _latest(record_type, family, open_, source.partition, codec, log)
        if not open_.marked or (marked is not None and marked >= open_.position):
            break
        if time.monotonic() > deadline:
            raise LogCut(
                f"agg.{where}: the marker at {open_.position} that was committed with {source}@{state.position} is not "
                f"there (last: {marked}): the topic was cut or made anew; build a new generation"
            )
        time.sleep(MARKER_RETRY_S)
    if not latest:
        return None
    found = codec.upserts(list(latest.values()), where)
    ahead = int(found["src_to"].max())  # type: ignore[arg-type]
    if state.next_src is None or ahead >= state.next_src or (marked is not None and marked > state.position):
        raise NotRecoverable(
            f"agg.{where}: upserts up to source offset {ahead} lie behind the committed position {state.next_src} of "
            f"{source}: its commit is not finished, or two workers share an instance number; start again"
        )
    return restored(found, family, record_type)


def _latest(
    record_type: str, family: Family, open_: FamilyState, partition: int, codec: Codec, log: Log
) -> tuple[dict[str, bytes], int | None]:
    """The last upsert of each key of the open segment, and the position that the last marker names."""
    own_marker = marker_key(record_type, family.window_s, partition)
    latest: dict[str, bytes] = {}
    last_marker: bytes | None = None
    for batch in log.upserts(family.topic, partition, open_.log_from or 0):
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key is None or value is None:
                continue
            name = key.decode()
            if name == own_marker:
                last_marker = value
            elif is_of(name, record_type, family.window_s, open_.segment):
                latest[name] = value
    if last_marker is None:
        return latest, None
    return latest, codec.upserts([last_marker], family.topic)["marker_offset"][0]


def _with_missing(
    open_: FamilyState, rows: pl.DataFrame, family: Family, record_type: str, included: pl.DataFrame | None
) -> FamilyState:
    """With the records of the open segment that no upsert holds."""
    behind = max(open_.first_src(family), open_.cursor.all_to + 1)
    rows = rows.filter(pl.col("src_offset") >= behind)
    if rows.is_empty():
        return open_
    missing = measured(rows, record_type, family)
    if included is not None:
        missing = missing.join(included, on=family.windows(), how="left").filter(
            pl.col("included_to").is_null() | (pl.col("touched") > pl.col("included_to"))
        )
    partial = merged([missing], family, record_type)
    return replace(open_, levels=open_.levels.add(partial, family, record_type))
