"""The open segments' state from the log: the upserts of their flushes, then the judged records behind these.

A window's last upsert holds all of its records up to its ``src_to``; so re-reading from the last marker, a record is
added to a window exactly if it lies behind that window's ``src_to``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Protocol

import numpy as np
import polars as pl

from faust_batch import Batch, Source
from window_aggregator.codec import Codec
from window_aggregator.domain.families import Family
from window_aggregator.domain.levels import Levels
from window_aggregator.domain.measures import Partial, measured, merged, narrow, packed, partials
from window_aggregator.domain.sketches import entries, restored_entries
from window_aggregator.domain.upserts import key_ends, marker_key, restored
from window_aggregator.errors import LogCut, NotRecoverable, PositionGone
from window_aggregator.snapshot import Snapshot
from window_aggregator.state import FamilyState, State

MARKER_WAIT_S = 30.0
"""A commit becomes visible in each partition by itself: the offset may be known before the upserts are readable."""
MARKER_RETRY_S = 0.2

DECODE_ROWS = 50_000
"""Upserts are decoded in portions: unpacked, a segment's subscriber-days would take hundreds of MB."""


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

    def ids(self, source: Source, families: Sequence[str]) -> str | None:
        """A text that differs once the source's topic or one of these agg topics is made anew under its name; None if
        the broker cannot tell."""
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
        portions = _from_upserts(source, record_type, state, family, open_, codec, log)
        levels = Levels()
        for part in portions:
            levels = levels.add(part.rows, family, record_type, part.entries)
        if portions:
            included[name] = _included([part.rows.select(*family.windows(), "touched") for part in portions], family)
        found[name] = replace(open_, levels=levels)
    start = min((open_.position for open_ in found.values()), default=state.position)
    if start < state.position:
        for batch in log.enriched(source, start, state.position):
            rows = narrow(codec.enriched(batch.values, record_type, str(source)), record_type, batch.timestamps_ms)
            added = measured(rows, record_type, [families[name] for name in found])
            for name, open_ in found.items():
                found[name] = _with_missing(open_, added[name], families[name], record_type, included.get(name))
    return found


def families_since(
    snapshot: Snapshot,
    source: Source,
    record_type: str,
    state: State,
    families: Mapping[str, Family],
    codec: Codec,
    log: Log,
) -> dict[str, FamilyState] | None:
    """As ``restored_families``, from a snapshot and the judged records behind it alone.

    None if these do not follow the snapshot record by record: then it is of another log.
    """
    found = {
        name: replace(open_, levels=snapshot.levels(name) if snapshot.holds(name, open_) else Levels())
        for name, open_ in state.families.items()
    }
    next_src = snapshot.next_src
    behind_to_names: dict[int, list[str]] = {}
    for name, open_ in found.items():
        behind_to_names.setdefault(max(open_.first_src(families[name]), next_src), []).append(name)
    batches = log.enriched(source, snapshot.position, state.position) if snapshot.position < state.position else ()
    for batch in batches:
        rows = narrow(codec.enriched(batch.values, record_type, str(source)), record_type, batch.timestamps_ms)
        if not np.array_equal(rows["src_offset"].to_numpy(), np.arange(next_src, next_src + len(batch))):
            return None
        next_src += len(batch)
        for behind, names in behind_to_names.items():
            own = rows.filter(pl.col("src_offset") >= behind)
            for name, partial in partials(own, record_type, [families[name] for name in names]).items():
                levels = found[name].levels.add(partial.rows, families[name], record_type, partial.entries)
                found[name] = replace(found[name], levels=levels)
    return found if next_src == state.next_src else None


def _from_upserts(
    source: Source,
    record_type: str,
    state: State,
    family: Family,
    open_: FamilyState,
    codec: Codec,
    log: Log,
) -> list[Partial]:
    """The family's rows as of its last upserts, in portions; a window's rows are all in one."""
    if open_.log_from is None:
        return []
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
    portions = []
    ahead = -1
    for begin in range(0, len(latest), DECODE_ROWS):
        found = codec.upserts(latest[begin : begin + DECODE_ROWS], where)
        ahead = max(ahead, int(found["src_to"].max()))  # type: ignore[arg-type]
        rows = packed(restored(found, family, record_type), family, record_type)
        portions.append(Partial(rows, restored_entries(found, family, record_type)))
    if portions and (
        state.next_src is None or ahead >= state.next_src or (marked is not None and marked > state.position)
    ):
        raise NotRecoverable(
            f"agg.{where}: upserts up to source offset {ahead} lie behind the committed position {state.next_src} of "
            f"{source}: its commit is not finished, or two workers share an instance number; start again"
        )
    return portions


def _latest(
    record_type: str, family: Family, open_: FamilyState, partition: int, codec: Codec, log: Log
) -> tuple[list[bytes], int | None]:
    """The last upsert of each key of the open segment, and the position that the last marker names.

    The others, several times as many, are never decoded.
    """
    head, tail = key_ends(record_type, family.window_s, open_.segment)
    marker = marker_key(record_type, family.window_s, partition).encode()
    latest: dict[bytes | None, bytes] = {}
    for batch in log.upserts(family.topic, partition, open_.log_from or 0):
        own = [
            value is not None and key is not None and key.startswith(head) and (key.endswith(tail) or key == marker)
            for key, value in zip(batch.keys, batch.values, strict=True)
        ]
        latest.update(zip(compress(batch.keys, own), compress(batch.values, own), strict=True))  # type: ignore[arg-type]
    last_marker = latest.pop(marker, None)
    marked = None if last_marker is None else codec.upserts([last_marker], family.topic)["marker_offset"][0]
    return list(latest.values()), marked


def _included(portions: Sequence[pl.DataFrame], family: Family) -> pl.DataFrame:
    """Per window, the last source offset that its upsert holds."""
    return pl.concat(portions).group_by(family.windows()).agg(pl.col("touched").max().alias("included_to"))


def _with_missing(
    open_: FamilyState, added: pl.DataFrame, family: Family, record_type: str, included: pl.DataFrame | None
) -> FamilyState:
    """With what records of the open segment ``added`` that no upsert holds."""
    behind = max(open_.first_src(family), open_.cursor.all_to + 1)
    missing = added.filter(pl.col("touched") >= behind)
    if missing.is_empty():
        return open_
    if included is not None:
        missing = missing.join(included, on=family.windows(), how="left").filter(
            pl.col("included_to").is_null() | (pl.col("touched") > pl.col("included_to"))
        )
    partial = merged([missing], family, record_type)
    found = entries(missing, family, record_type)
    return replace(open_, levels=open_.levels.add(partial, family, record_type, found))
