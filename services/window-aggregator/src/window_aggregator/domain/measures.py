"""From judged records to partial aggregates, by columns.

A *partial* has one row per partition, window and group (and currency): the family's keys, ``touched`` (last source
offset in it), ``event_end`` (ms, where the family has it) and the sums. ``window`` is the start in epoch milliseconds;
for subscriber-days it is the local date as days since 1970. Groups of which there are few are ``LABEL``s: four bytes
instead of a view into the decoded batch, which a single row would keep whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from telestream_domain import MINUTE_WINDOWS_MAX_AGE_MS
from window_aggregator.domain.families import (
    CALLS,
    CHARGE,
    COUNT_OF_EVENT_TYPE,
    COUNT_OF_RECORD_TYPE,
    COUNTS,
    HOUR_S,
    MINUTE_S,
    QUARTER_S,
    SCALED,
    STATUSES,
    Family,
)

LAST_FIELD = {"cdr": "holding_ms", "network": "packet_loss_ratio"}
"""The enriched value is decoded up to here. ``holding_ms`` is cold, but the seven fields before it cost 3 % of the
prefix."""

_HEAD = ("src_offset", "appended_at", "verdict", "sign", "rule", "region_id")
_FIELDS: dict[str, tuple[str, ...]] = {
    "cdr": (
        *_HEAD,
        "local_date",
        "plan_id",
        "roaming",
        "started_at",
        "record_type",
        "status",
        "subscriber_id",
        "subscriber_kind",
        "cell_id",
        "duration_ms",
        "bytes_up",
        "bytes_down",
        CHARGE,
        "currency",
        "direction",
        "source",
        "holding_ms",
    ),
    "network": (
        *_HEAD,
        "occurred_at",
        "event_type",
        "cell_id",
        "success",
        "source",
        *(field for field, _ in SCALED.values()),
    ),
}
_EVENT_TIME = {"cdr": "started_at", "network": "occurred_at"}
MINUTE_MS = MINUTE_S * 1_000
QUARTER_MS = QUARTER_S * 1_000
HOUR_MS = HOUR_S * 1_000

LABEL = pl.Categorical()
_LABELS = ("verdict", "rule", "region_id", "plan_id", "roaming", "cell_id", "currency", "direction", "source")
_PACKED_FROM_ROWS = 2_000

_sign = pl.col("sign")
_one = pl.col("sign").cast(pl.Int32)
_counts = (_sign > 0) | (pl.col("verdict") == "STORED")
"""A reversal without effect takes nothing back."""
_is_call = pl.col("record_type").is_in(CALLS)


def narrow(decoded: pl.DataFrame, record_type: str) -> pl.DataFrame:
    """Only the columns that are counted, instants as epoch milliseconds, in input order."""
    return decoded.select(
        *(_narrowed(field) for field in _FIELDS[record_type]),
        partition=pl.col("src_partition").cast(pl.Int32),
        warned=pl.col("warnings").list.len() > 0,
    )


def _narrowed(field: str) -> pl.Expr:
    if field.endswith("_at"):
        return pl.col(field).cast(pl.Int64)
    return pl.col(field).cast(LABEL) if field in _LABELS else pl.col(field)


def group_type(group: str) -> pl.DataType:
    """How a group is held: subscribers are too many to be labels, which stay as long as any row holds one."""
    return LABEL if group in _LABELS else pl.String()


def partials(rows: pl.DataFrame, record_type: str, families: Sequence[Family]) -> Mapping[str, pl.DataFrame]:
    """One partial per family of the type, over rows of one segment of each partition.

    Records that are not STORED count in quality alone.
    """
    stored = _stored(rows, record_type)
    return {
        family.name: merged([_of_family(stored, rows, record_type, family)], family, record_type)
        for family in families
        if record_type in family.types
    }


def measured(rows: pl.DataFrame, record_type: str, family: Family) -> pl.DataFrame:
    """One row per record that counts in the family: its keys, ``touched`` (its source offset) and what it adds."""
    return _of_family(_stored(rows, record_type), rows, record_type, family)


def _of_family(stored: pl.DataFrame, rows: pl.DataFrame, record_type: str, family: Family) -> pl.DataFrame:
    if family.topic == "quality":
        return _judged(rows, record_type)
    if family.recent_only:
        return stored.filter("recent")
    if family.topic == "subscriber_day":
        # an interconnect record has no subscriber: its subscriber_id is its own uid
        return stored.filter(pl.col("subscriber_kind") != "NONE").with_columns(
            window=pl.col("local_date").cast(pl.Int32).cast(pl.Int64), currency=pl.col("own_currency")
        )
    return stored.with_columns(window=pl.col("window") // QUARTER_MS * QUARTER_MS)


def merged(frames: Sequence[pl.DataFrame], family: Family, record_type: str) -> pl.DataFrame:
    """Rows with equal keys become one: sums added, the latest ``touched`` and ``event_end`` kept.

    Sums may come packed; they leave unpacked.
    """
    keys = family.keys()
    latest = ("touched", "event_end") if family.event_end else ("touched",)
    sums = family.sums(record_type)
    narrowed = [frame.select(*keys, *latest, *sums) for frame in frames]
    rows = pl.concat(narrowed, how="vertical_relaxed") if len(narrowed) > 1 else narrowed[0]
    return rows.group_by(keys).agg(*(pl.col(name).max() for name in latest), *(_unpacked(name).sum() for name in sums))


def _unpacked(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Int32 if name in COUNTS else pl.Int64)


def packed(frame: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """The same with each sum in the narrowest type that holds it: most are zero or one, and two thirds of the state.

    Short frames stay as they are: it would cost more than they take.
    """
    if not is_packed(frame):
        return frame
    return frame.with_columns(frame[name].shrink_dtype() for name in family.sums(record_type))


def is_packed(frame: pl.DataFrame) -> bool:
    """Whether ``packed`` packs it."""
    return frame.height >= _PACKED_FROM_ROWS


def _stored(rows: pl.DataFrame, record_type: str) -> pl.DataFrame:
    """Per STORED record, the keys of all families and what it adds, negated for a reversal."""
    return rows.filter(pl.col("verdict") == "STORED").select(*(_cdr() if record_type == "cdr" else _network()))


def _common(event_time: str) -> list[pl.Expr]:
    return [
        pl.col("partition"),
        (pl.col(event_time) // MINUTE_MS * MINUTE_MS).alias("window"),
        (pl.col("appended_at") - pl.col(event_time) <= MINUTE_WINDOWS_MAX_AGE_MS).alias("recent"),
        pl.col("cell_id").fill_null(""),
        pl.col("region_id").fill_null(""),
        pl.col("src_offset").alias("touched"),
    ]


def _cdr() -> list[pl.Expr]:
    end = pl.col("started_at") + pl.coalesce("holding_ms", "duration_ms", pl.lit(0))
    return [
        *_common("started_at"),
        pl.col("plan_id").fill_null(""),
        *(pl.col(name) for name in ("subscriber_id", "subscriber_kind", "local_date", "roaming")),
        pl.col("direction").fill_null(""),
        _charged_currency(),
        pl.col("currency").fill_null("").alias("own_currency"),
        pl.min_horizontal(end, "appended_at").alias("event_end"),
        _one.alias("records"),
        *((_one * (pl.col("record_type") == code)).alias(name) for code, name in COUNT_OF_RECORD_TYPE.items()),
        (_one * _is_call).alias("attempts"),
        *((_one * (_is_call & (pl.col("status") == status))).alias(status.lower()) for status in STATUSES),
        (_sign * _is_call * pl.col("duration_ms").fill_null(0)).alias("duration_ms"),
        (_sign * _is_call * pl.coalesce("holding_ms", "duration_ms", pl.lit(0))).alias("holding_ms"),
        *((_sign * pl.col(name).fill_null(0)).alias(name) for name in ("bytes_up", "bytes_down", CHARGE)),
    ]


def _charged_currency() -> pl.Expr:
    """Null without a charge, so that a currency is listed in a window exactly if something was charged in it."""
    return pl.when(pl.col(CHARGE).is_not_null()).then(pl.col("currency").fill_null("")).alias("currency")


def _network() -> list[pl.Expr]:
    scaled = {
        # what is no number, or none that fits, is not known
        measure: (pl.col(field) * factor).round(0, mode="half_away_from_zero").cast(pl.Int64, strict=False)
        for measure, (field, factor) in SCALED.items()
    }
    return [
        *_common("occurred_at"),
        pl.lit(None, LABEL).alias("currency"),
        pl.min_horizontal("occurred_at", "appended_at").alias("event_end"),
        _one.alias("events"),
        *((_one * (pl.col("event_type") == code)).alias(name) for code, name in COUNT_OF_EVENT_TYPE.items()),
        (_one * pl.col("success").is_not_null()).alias("success_known"),
        (_one * pl.col("success").fill_null(False)).alias("successes"),
        *((_sign * value.fill_null(0)).alias(measure) for measure, value in scaled.items()),
        *((_one * value.is_not_null()).alias(f"{measure}_count") for measure, value in scaled.items()),
    ]


def _judged(rows: pl.DataFrame, record_type: str) -> pl.DataFrame:
    """Per record of any verdict, the keys of quality and what it adds."""
    event_time = pl.col(_EVENT_TIME[record_type])
    effect = pl.when(_counts).then(_sign).otherwise(0)
    # an undecodable record carries an empty one, whose time means nothing
    waited = (
        pl.when(pl.col("rule").fill_null("") != "undecodable")
        .then((pl.col("appended_at") - event_time).clip(lower_bound=0))
        .otherwise(0)
    )
    if record_type == "cdr":
        business = [
            pl.when(_counts).then(_charged_currency()).alias("currency"),
            (effect * pl.col("duration_ms").fill_null(0)).alias("duration_ms"),
            (effect * (pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0))).alias("bytes"),
            (effect * pl.col(CHARGE).fill_null(0)).alias(CHARGE),
        ]
    else:
        business = [
            pl.lit(None, LABEL).alias("currency"),
            *(pl.lit(0, pl.Int64).alias(name) for name in ("duration_ms", "bytes", CHARGE)),
        ]
    return rows.select(
        "partition",
        (pl.col("appended_at") // HOUR_MS * HOUR_MS).alias("window"),
        "source",
        "verdict",
        pl.col("rule").fill_null(""),
        pl.col("src_offset").alias("touched"),
        (_sign > 0).cast(pl.Int32).alias("records"),
        (_sign < 0).cast(pl.Int32).alias("reversals"),
        (effect.cast(pl.Int32) * pl.col("warned")).alias("warned"),
        (effect * waited).alias("latency_ms"),
        *business,
    )
