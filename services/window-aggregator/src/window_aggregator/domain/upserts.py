"""Rows of state ⇄ upserts: the full state of one (type, size, window, group, partition, segment).

The key is text, ``cdr|60|1790000000000|208-01-17|3|12``; a marker's is ``cdr|60|marker|3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl

from window_aggregator.domain.days import EPOCH, day_start
from window_aggregator.domain.families import CHARGE, COUNTS, LATENCY_WITHIN, Family
from window_aggregator.domain.measures import group_type
from window_aggregator.domain.quality import LABEL
from window_aggregator.domain.sketches import Sketch, of_windows

_MARKER = "marker"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one partition's flush stands: its segment, the last source offset, and the position in the enriched topic.

    An upsert's own ``src_to`` is the last source offset *in its window*, not ``Place.src_to``: so a window's last
    upsert does not depend on when the clock struck, and a replay gives the same bytes.
    """

    segment: int
    src_to: int
    position: int


def upserts(
    rows: pl.DataFrame,
    family: Family,
    record_type: str,
    places: Mapping[int, Place],
    zone: ZoneInfo,
    sketches: Mapping[int, Sketch] | None = None,
) -> pl.DataFrame:
    """Rows of state as upserts: the schema's fields, and ``key`` beside them.

    ``places`` and ``sketches``, wanted where the family has them, by partition.
    """
    if family.charges:
        rows = _with_arrays(rows, family, record_type)
    own = set(family.sums(record_type))
    found = rows.select(
        pl.lit(record_type).alias("type"),
        pl.lit(family.window_s, pl.Int64).alias("size_s"),
        *_start(rows, family, zone),
        *(pl.col(name).cast(pl.String) for name in family.groups),
        pl.col("partition").cast(pl.Int64),
        _of_partition({partition: place.segment for partition, place in places.items()}).alias("segment"),
        pl.col("touched").alias("src_to"),
        pl.lit(None, pl.Int64).alias("marker_offset"),
        *([_instant(pl.col("event_end")).alias("freshest_event_end_at")] if family.event_end else []),
        *(
            pl.col(name).cast(pl.Int64) if name in own else pl.lit(0, pl.Int64).alias(name)
            for name in family.all_sums()
        ),
        *([pl.col("charge_currencies"), pl.col(CHARGE)] if family.charges else [pl.col(CHARGE)]),
        *([_instant(pl.col("late_at")).alias("late_at")] if family.late else []),
        *_extras(rows, family, record_type, sketches or {}),
    )
    return found.with_columns(key=_key(found, family))


def _extras(
    rows: pl.DataFrame, family: Family, record_type: str, sketches: Mapping[int, Sketch]
) -> Sequence[pl.Expr | pl.Series]:
    if family.topic == "quality":
        within = [pl.col(name).cast(pl.Int64) for name in LATENCY_WITHIN]
        buckets = pl.concat_list(within[0], *(more - less for less, more in pairwise(within)))
        return [buckets.alias("latency_buckets"), pl.col("warning_codes"), pl.col("warning_counts")]
    if family.sketched(record_type):
        return of_windows(rows, family, sketches)
    return _no_extras(family)


def _no_extras(family: Family) -> Sequence[pl.Expr]:
    names = ("subscriber_registers", "subscriber_ranks") if family.late and family.charges else ()
    if family.topic == "quality":
        return [
            pl.lit([], pl.List(pl.Int64)).alias("latency_buckets"),
            pl.lit([], pl.List(pl.String)).alias("warning_codes"),
            pl.lit([], pl.List(pl.Int64)).alias("warning_counts"),
        ]
    return [pl.lit([], pl.List(pl.Int64)).alias(name) for name in names]


def markers(family: Family, record_type: str, places: Mapping[int, Place]) -> pl.DataFrame:
    """One row per partition that says: up to this position in the enriched topic the family is complete."""
    zero = pl.lit(0, pl.Int64)
    at = pl.DataFrame(
        {
            "partition": list(places),
            "segment": [place.segment for place in places.values()],
            "src_to": [place.src_to for place in places.values()],
            "marker_offset": [place.position for place in places.values()],
            "key": [marker_key(record_type, family.window_s, partition) for partition in places],
        },
        schema_overrides=dict.fromkeys(("partition", "segment", "src_to", "marker_offset"), pl.Int64),
    )
    return at.select(
        pl.lit(record_type).alias("type"),
        pl.lit(family.window_s, pl.Int64).alias("size_s"),
        _instant(zero).alias("window_start"),
        *([pl.lit(EPOCH).alias("local_date")] if family.topic == "subscriber_day" else []),
        *(pl.lit("").alias(name) for name in family.groups),
        "partition",
        "segment",
        "src_to",
        "marker_offset",
        *([pl.lit(None, pl.Datetime("ms", "UTC")).alias("freshest_event_end_at")] if family.event_end else []),
        *(zero.alias(name) for name in family.all_sums()),
        *(_no_charges() if family.charges else [zero.alias(CHARGE)]),
        *([pl.lit(None, pl.Datetime("ms", "UTC")).alias("late_at")] if family.late else []),
        *_no_extras(family),
        "key",
    )


def marker_key(record_type: str, size_s: int, partition: int) -> str:
    """Where a partition's last marker stands."""
    return f"{record_type}|{size_s}|{_MARKER}|{partition}"


def key_ends(record_type: str, size_s: int, segment: int) -> tuple[bytes, bytes]:
    """What the keys of this type, size and segment begin and end with. A marker's may, too."""
    return f"{record_type}|{size_s}|".encode(), f"|{segment}".encode()


def restored(found: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """Upserts of a family as rows of state again; ``touched`` is their ``src_to``."""
    day = family.topic == "subscriber_day"
    window = pl.col("local_date").cast(pl.Int32).cast(pl.Int64) if day else pl.col("window_start").cast(pl.Int64)
    groups = [pl.col(name).cast(group_type(name)) for name in family.groups]
    keys = [pl.col("partition").cast(pl.Int32), window.alias("window"), *groups]
    latest = [pl.col("src_to").alias("touched")]
    if family.event_end:
        latest.append(pl.col("freshest_event_end_at").cast(pl.Int64).alias("event_end"))
    if family.late:
        latest.append(pl.col("late_at").cast(pl.Int64))
    labels = family.keys()[len(family.windows()) :]
    sums = family.sums(record_type)

    def part(rows: pl.DataFrame, own: Mapping[str, pl.Expr]) -> pl.DataFrame:
        return rows.select(
            *keys,
            *(own[name].cast(LABEL) if name in own else pl.lit(None, LABEL).alias(name) for name in labels),
            *latest,
            *((own[name] if name in own else pl.lit(0)).cast(_int(name)).alias(name) for name in sums),
        )

    lists = _lists(family, record_type)
    in_lists = [of for _, of in lists.values()]
    plain = {name: pl.col(name) for name in sums if name not in in_lists}
    if family.topic == "quality":
        plain |= {
            name: pl.col("latency_buckets").list.head(number + 1).list.sum()
            for number, name in enumerate(LATENCY_WITHIN)
        }
    parts = [part(found, plain)]
    for label, (names, of) in lists.items():
        exploded = found.filter(pl.col(names).list.len() > 0).explode(names, of)
        parts.append(part(exploded, {label: pl.col(names).alias(label), of: pl.col(of)}))
    return pl.concat(parts, how="vertical") if len(parts) > 1 else parts[0]


def _int(name: str) -> type[pl.DataType]:
    return pl.Int32 if name in COUNTS else pl.Int64


def _lists(family: Family, record_type: str) -> Mapping[str, tuple[str, str]]:
    """Label → the two arrays of an upsert, of labels and of their sums, that its rows become."""
    if not family.charges or CHARGE not in family.sums(record_type):
        return {}
    lists = {"currency": ("charge_currencies", CHARGE)}
    if family.topic == "quality":
        lists["warning"] = ("warning_codes", "warning_counts")
    return lists


def _with_arrays(rows: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """One row per window, with an array of each kind of label, sorted, and one of their sums."""
    lists = _lists(family, record_type)
    if not lists:  # nothing is ever charged: a window is one row already
        return rows.with_columns(*_no_charges())
    windows, in_lists = family.windows(), [of for _, of in lists.values()]
    found = rows.group_by(windows).agg(
        *(pl.col(name).max() for name in family.latest()),
        *(pl.col(name).sum() for name in family.sums(record_type) if name not in in_lists),
    )
    for label, (names, of) in lists.items():
        own = rows.filter(pl.col(label).is_not_null()).select(
            *windows, pl.col(label).cast(pl.String).alias(names), pl.col(of).cast(pl.Int64)
        )
        arrays = own.sort(names).group_by(windows, maintain_order=True).agg(names, of)
        nothing = (pl.lit([], arrays.schema[name]).alias(name) for name in (names, of))
        found = found.join(arrays, on=windows, how="left").with_columns(
            pl.col(empty.meta.output_name()).fill_null(empty) for empty in nothing
        )
    return found


def _no_charges() -> tuple[pl.Expr, pl.Expr]:
    return (
        pl.lit([], pl.List(pl.String)).alias("charge_currencies"),
        pl.lit([], pl.List(pl.Int64)).alias(CHARGE),
    )


def _of_partition(values: Mapping[int, int]) -> pl.Expr:
    if len(set(values.values())) == 1:
        return pl.lit(next(iter(values.values())), pl.Int64)
    return pl.col("partition").replace_strict(dict(values), return_dtype=pl.Int64)


def _start(rows: pl.DataFrame, family: Family, zone: ZoneInfo) -> Sequence[pl.Expr]:
    if family.topic != "subscriber_day":
        return [_instant(pl.col("window")).alias("window_start")]
    days = rows["window"].unique().to_list()
    starts = {day: day_start(day, zone) for day in days}
    return [
        _instant(pl.col("window").replace_strict(starts, return_dtype=pl.Int64)).alias("window_start"),
        pl.col("window").cast(pl.Int32).cast(pl.Date).alias("local_date"),
    ]


def _instant(milliseconds: pl.Expr) -> pl.Expr:
    return milliseconds.cast(pl.Datetime("ms", "UTC"))


def _key(found: pl.DataFrame, family: Family) -> pl.Series:
    parts = ("type", "size_s", "window_start", *family.groups, "partition", "segment")
    # the separator inside a group would let two windows share a key
    free = [name for name in family.groups if found[name].str.contains("[|%]").any()]
    escaped = [
        pl.col(name).str.replace_all("%", "%25", literal=True).str.replace_all("|", "%7C", literal=True)
        for name in free
    ]
    return (
        found.select(parts)
        .with_columns(pl.col("window_start").cast(pl.Int64), *escaped)
        .select(pl.concat_str(parts, separator="|"))
        .to_series()
    )
