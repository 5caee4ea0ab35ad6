"""Rows of state ⇄ upserts: the full state of one (type, size, window, group, partition, segment).

The key is text, ``cdr|60|1790000000000|208-01-17|3|12``; a marker's is ``cdr|60|marker|3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from window_aggregator.domain.families import CHARGE, COUNTS, Family
from window_aggregator.domain.measures import LABEL, group_type

_EPOCH = date(1970, 1, 1)
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
) -> pl.DataFrame:
    """Rows of state as upserts: the schema's fields, and ``key`` beside them.

    ``places`` by partition.
    """
    if family.charges:
        rows = _with_charge_arrays(rows, family, record_type)
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
    )
    return found.with_columns(key=_key(found, family))


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
        *([pl.lit(_EPOCH).alias("local_date")] if family.topic == "subscriber_day" else []),
        *(pl.lit("").alias(name) for name in family.groups),
        "partition",
        "segment",
        "src_to",
        "marker_offset",
        *([pl.lit(None, pl.Datetime("ms", "UTC")).alias("freshest_event_end_at")] if family.event_end else []),
        *(zero.alias(name) for name in family.all_sums()),
        *(_no_charges() if family.charges else [zero.alias(CHARGE)]),
        "key",
    )


def marker_key(record_type: str, size_s: int, partition: int) -> str:
    """Where a partition's last marker stands."""
    return f"{record_type}|{size_s}|{_MARKER}|{partition}"


def is_of(key: str, record_type: str, size_s: int, segment: int) -> bool:
    """Whether an upsert's key is of this type, size and segment (and no marker's)."""
    head = f"{record_type}|{size_s}|"
    return key.startswith(head) and key.endswith(f"|{segment}") and not key.startswith(head + _MARKER)


def restored(found: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """Upserts of a family as rows of state again; ``touched`` is their ``src_to``."""
    day = family.topic == "subscriber_day"
    window = pl.col("local_date").cast(pl.Int32).cast(pl.Int64) if day else pl.col("window_start").cast(pl.Int64)
    sums = [name for name in family.sums(record_type) if name != CHARGE]
    charged_at_all = CHARGE in family.sums(record_type)
    groups = [pl.col(name).cast(group_type(name)) for name in family.groups]
    keys = [pl.col("partition").cast(pl.Int32), window.alias("window"), *groups]
    latest = [pl.col("src_to").alias("touched")]
    if family.event_end:
        latest.append(pl.col("freshest_event_end_at").cast(pl.Int64).alias("event_end"))
    counted_sums = [pl.col(name).cast(pl.Int32) if name in COUNTS else pl.col(name) for name in sums]
    zero = pl.lit(0, pl.Int64)
    if not family.charges:
        return found.select(*keys, *latest, *counted_sums, CHARGE)
    counted = found.select(
        *keys,
        pl.lit(None, LABEL).alias("currency"),
        *latest,
        *counted_sums,
        *([zero.alias(CHARGE)] if charged_at_all else []),
    )
    if not charged_at_all:
        return counted
    charged = (
        found.filter(pl.col("charge_currencies").list.len() > 0)
        .explode("charge_currencies", CHARGE)
        .select(
            *keys,
            pl.col("charge_currencies").cast(LABEL).alias("currency"),
            *latest,
            *(_zero(name) for name in sums),
            CHARGE,
        )
    )
    return pl.concat([counted, charged], how="vertical")


def _zero(name: str) -> pl.Expr:
    return pl.lit(0, pl.Int32 if name in COUNTS else pl.Int64).alias(name)


def local_midnight(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local date in epoch ms, also where clocks jump over midnight or pass it twice."""
    return int(datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC).timestamp()) * 1_000


def _with_charge_arrays(rows: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """One row per window: currencies, sorted, and their sums as arrays."""
    sums = [name for name in family.sums(record_type) if name != CHARGE]
    if len(sums) == len(family.sums(record_type)):  # nothing is ever charged: a window is one row already
        return rows.with_columns(*_no_charges())
    latest = ("touched", "event_end") if family.event_end else ("touched",)
    charged = pl.col("currency").is_not_null()
    return (
        rows.with_columns(pl.col("currency").cast(pl.String))
        .sort("currency")
        .group_by(family.windows())
        .agg(
            *(pl.col(name).max() for name in latest),
            *(pl.col(name).sum() for name in sums),
            pl.col("currency").filter(charged).alias("charge_currencies"),
            pl.col(CHARGE).filter(charged),
        )
    )


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
    starts = {day: local_midnight(_EPOCH + timedelta(days=day), zone) for day in days}
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
