"""What the books of quality count: records of every verdict, by source and hour of arrival."""

from __future__ import annotations

import polars as pl

from telestream_domain import LATENCY_BOUNDS_MS, TYPES
from window_aggregator.domain.families import CHARGE, HOUR_S, LATENCY_WITHIN, QUALITY_SUMS

HOUR_MS = HOUR_S * 1_000
LABEL = pl.Categorical()
_sign = pl.col("sign")
_counts = (_sign > 0) | (pl.col("verdict") == "STORED")
"""A reversal without effect takes nothing back."""


def judged(rows: pl.DataFrame, record_type: str) -> pl.DataFrame:
    """Per record of any verdict, the keys of quality and what it adds; one more row per warning."""
    event_time = pl.col(TYPES[record_type].time_field)
    effect = pl.when(_counts).then(_sign).otherwise(0)
    # an undecodable record carries an empty one, whose time means nothing
    known = pl.col("rule").fill_null("") != "undecodable"
    if record_type == "cdr":
        business = [
            pl.when(_counts).then(charged_currency()).alias("currency"),
            (effect * pl.col("duration_ms").fill_null(0)).alias("duration_ms"),
            (effect * (pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0))).alias("bytes"),
            (effect * pl.col(CHARGE).fill_null(0)).alias(CHARGE),
        ]
    else:
        business = [
            pl.lit(None, LABEL).alias("currency"),
            *(pl.lit(0, pl.Int64).alias(name) for name in ("duration_ms", "bytes", CHARGE)),
        ]
    found = rows.select(
        "partition",
        (pl.col("appended_at") // HOUR_MS * HOUR_MS).alias("window"),
        "source",
        "verdict",
        pl.col("rule").fill_null(""),
        pl.lit(None, LABEL).alias("warning"),
        pl.col("src_offset").alias("touched"),
        (_sign > 0).cast(pl.Int32).alias("records"),
        (_sign < 0).cast(pl.Int32).alias("reversals"),
        (effect.cast(pl.Int32) * (pl.col("warnings").list.len() > 0)).alias("warned"),
        effect.alias("effect"),
        pl.when(known).then((pl.col("appended_at") - event_time).clip(lower_bound=0)).otherwise(0).alias("waited"),
        pl.when(known).then(effect.cast(pl.Int32)).otherwise(0).alias("timed"),
        *business,
        pl.lit(0, pl.Int32).alias("warning_counts"),
        "warnings",
    ).with_columns(
        (pl.col("effect") * pl.col("waited")).alias("latency_ms"),
        *(
            (pl.col("timed") * (pl.col("waited") <= bound)).alias(name)
            for name, bound in zip(LATENCY_WITHIN, LATENCY_BOUNDS_MS, strict=False)
        ),
        pl.col("timed").alias(LATENCY_WITHIN[-1]),
    )
    warned = found.filter(pl.col("warnings").list.len() > 0)
    if warned.is_empty():
        return found
    sums = (*QUALITY_SUMS, *LATENCY_WITHIN, CHARGE)
    by_code = warned.explode("warnings").with_columns(
        *(pl.lit(0, warned.schema[name]).alias(name) for name in sums),
        warning=pl.col("warnings").cast(LABEL),
        warning_counts=pl.col("effect").cast(pl.Int32),
        currency=pl.lit(None, LABEL),
        warnings=pl.lit([], pl.List(pl.String)),
    )
    return pl.concat([found, by_code.select(found.columns)])


def charged_currency() -> pl.Expr:
    """Null without a charge, so that a currency is listed in a window exactly if something was charged in it."""
    return pl.when(pl.col(CHARGE).is_not_null()).then(pl.col("currency").fill_null("")).alias("currency")
