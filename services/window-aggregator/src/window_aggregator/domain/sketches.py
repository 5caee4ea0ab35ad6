"""Sparse HyperLogLog sketches of the subscribers of a family's windows (ADR 10).

An *entry* is one register in use, in 64 bits: the window (quarter hours since 1970), the group (as its label's number),
the register and its rank, from the highest bits to the lowest. So sorted entries have those of a window side by side,
ascending by register, and of one register the greatest rank last. There is at most one entry per record.

A label's number holds within a process as long as some row holds a label; the sums of the same windows do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh
import pyarrow as pa

from telestream_domain.sketch import MAX_RANK, RANK_BITS
from window_aggregator.domain.families import QUARTER_S, Family

Array = npt.NDArray[np.uint64]

_RANK_BITS = 6
_MARK_BITS = 16  # rank and register
_GROUP_BITS = 26
_WINDOW_BITS = 22  # quarter hours up to the year 2089; there is no sketch before 1970 and after
_QUARTER_MS = QUARTER_S * 1_000
_MAX_RUNS = 16
_NOWHERE = (1 << 64) - (1 << _MARK_BITS)  # the last group of the last window
_NONE: Array = np.empty(0, np.uint64)


def marks(counts: pl.Expr) -> pl.Expr:
    """Register and rank of ``subscriber_id`` in 16 bits, null where ``counts`` is false."""
    hashes = plh.col("subscriber_id").nchash.xxh3_64(seed=0)
    register = hashes // (1 << RANK_BITS)
    rest = hashes % (1 << RANK_BITS)
    rank = pl.lit(MAX_RANK, pl.UInt32) - (pl.lit(64, pl.UInt32) - rest.bitwise_leading_zeros())
    return pl.when(counts).then(register.cast(pl.UInt32) * (1 << _RANK_BITS) + rank).cast(pl.UInt32)


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of one or more partitions, in no order."""

    values: Array
    partitions: npt.NDArray[np.int32]

    def of_partition(self, partition: int) -> Entries:
        own = self.partitions == partition
        return Entries(self.values[own], self.partitions[own])


def entries(own: pl.DataFrame, family: Family, record_type: str) -> Entries | None:
    """Of rows with ``partition``, ``window``, the group and ``mark``. None if the family has no sketches."""
    if not family.sketched(record_type):
        return None
    (group,) = family.groups
    quarter = pl.col("window") // _QUARTER_MS
    known = pl.col("mark").is_not_null() & quarter.is_between(0, (1 << _WINDOW_BITS) - 1)
    value = pl.when(known).then(_packed(quarter, pl.col(group).to_physical(), pl.col("mark")))
    packed = own.select("partition", value=value)
    if packed["value"].null_count():
        packed = packed.drop_nulls("value")
    return Entries(packed["value"].to_numpy(), packed["partition"].to_numpy())


def restored_entries(found: pl.DataFrame, family: Family, record_type: str) -> Entries | None:
    """Of upserts, whose groups are text."""
    if not family.sketched(record_type):
        return None
    (group,) = family.groups
    marked = (
        found.lazy()
        .filter(pl.col("subscriber_registers").list.len() > 0)
        .select(
            pl.col("partition").cast(pl.Int32),
            pl.col("window_start").cast(pl.Int64).alias("window"),
            pl.col(group).cast(pl.Categorical()),
            "subscriber_registers",
            "subscriber_ranks",
        )
        .explode("subscriber_registers", "subscriber_ranks")
        .with_columns(mark=pl.col("subscriber_registers") * (1 << _RANK_BITS) + pl.col("subscriber_ranks"))
        .collect()
    )
    return entries(marked, family, record_type)


def _packed(quarter: pl.Expr, group: pl.Expr, mark: pl.Expr) -> pl.Expr:
    by_group = quarter.cast(pl.UInt64) * (1 << _GROUP_BITS) + group.cast(pl.UInt64)
    return by_group * (1 << _MARK_BITS) + mark.cast(pl.UInt64)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The entries of one partition and open segment, sorted in runs, without repeats in each."""

    runs: tuple[Array, ...] = ()

    def add(self, found: Entries) -> Sketch:
        """With more entries. Adding them again changes nothing."""
        if not len(found.values):
            return self
        runs = (*self.runs, _greatest(np.sort(found.values)))
        if len(runs) > _MAX_RUNS:
            first, size = len(runs) - 1, len(runs[-1])
            while first and len(runs[first - 1]) <= 2 * size:
                first -= 1
                size += len(runs[first])
            if first < len(runs) - 1:
                runs = (*runs[:first], _merged(runs[first:]))
        return Sketch(runs)

    def rows(self, labels: pl.Series) -> pl.DataFrame:
        """The entries as columns that do not depend on this process; ``labels`` are all groups, each once."""
        values = self.values()
        groups = ((values >> np.uint64(_MARK_BITS)) & np.uint64((1 << _GROUP_BITS) - 1)).astype(np.uint32)
        numbers = labels.to_physical().to_numpy()
        order = np.argsort(numbers)
        return pl.DataFrame(
            {
                "quarter": values >> np.uint64(_MARK_BITS + _GROUP_BITS),
                "group": labels[order][np.searchsorted(numbers[order], groups)],
                "mark": (values & np.uint64((1 << _MARK_BITS) - 1)).astype(np.uint16),
            }
        )

    @classmethod
    def of_rows(cls, frames: Sequence[pl.DataFrame]) -> Sketch:
        """From what ``rows`` gave."""
        found = cls()
        for frame in frames:
            value = _packed(pl.col("quarter"), pl.col("group").to_physical(), pl.col("mark"))
            values = frame.select(value).to_series().to_numpy()
            found = found.add(Entries(values, np.empty(0, np.int32)))
        return found

    def settled(self) -> Sketch:
        """The same in one run."""
        return self if len(self.runs) < 2 else Sketch((_merged(self.runs),))

    def values(self) -> Array:
        """All entries, sorted."""
        found = self.settled().runs
        return found[0] if found else _NONE


def of_windows(rows: pl.DataFrame, family: Family, sketches: Mapping[int, Sketch]) -> tuple[pl.Series, pl.Series]:
    """Registers and ranks of each row's window, as lists of Int64; ``sketches`` by partition."""
    (group,) = family.groups
    partitions = rows["partition"].to_numpy()
    quarter = pl.col("window") // _QUARTER_MS
    held_at_all = quarter.is_between(0, (1 << _WINDOW_BITS) - 1)
    # what has no sketch asks for a window that has none either
    first = pl.when(held_at_all).then(_packed(quarter, pl.col(group).to_physical(), pl.lit(0))).otherwise(_NOWHERE)
    wanted = rows.select(first).to_series().to_numpy() >> np.uint64(_MARK_BITS)
    starts, lengths = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    held: list[Array] = []
    before = 0
    for partition, sketch in sketches.items():
        values = sketch.values()
        if not len(values):
            continue
        windows = values >> np.uint64(_MARK_BITS)
        heads = np.flatnonzero(np.append(True, windows[1:] != windows[:-1]))
        sizes = np.diff(heads, append=len(values))
        own = np.flatnonzero(partitions == partition)
        at = np.minimum(np.searchsorted(windows[heads], wanted[own]), len(heads) - 1)
        found_at_all = windows[heads[at]] == wanted[own]
        starts[own], lengths[own] = heads[at] + before, np.where(found_at_all, sizes[at], 0)
        held.append(values)
        before += len(values)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    at = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    found = np.concatenate(held)[at] if held else _NONE
    mark = (found & np.uint64((1 << _MARK_BITS) - 1)).astype(np.int64)
    return (
        _lists("subscriber_registers", offsets, mark >> _RANK_BITS),
        _lists("subscriber_ranks", offsets, mark & ((1 << _RANK_BITS) - 1)),
    )


def _lists(name: str, offsets: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> pl.Series:
    found = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)))
    assert isinstance(found, pl.Series)
    return found.alias(name)


def _merged(runs: Sequence[Array]) -> Array:
    # of sorted runs a stable sort is a merge
    return _greatest(np.sort(np.concatenate(runs), kind="stable"))


def _greatest(ordered: Array) -> Array:
    """One entry per register, of the greatest rank."""
    registers = ordered >> np.uint64(_RANK_BITS)
    last = np.append(registers[1:] != registers[:-1], True)
    return ordered if last.all() else ordered[last]
