"""Aggregates as people read them: fields by their names, every ratio as numerator and denominator, money as text."""

from __future__ import annotations

import polars as pl

from query_api.domain.measures import FAMILY_TYPES, MEASURES

MICROS_DIGITS = 6


def money(micros: pl.Expr) -> pl.Expr:
    """Millionths as exact decimal text, e.g. ``-0.350000``."""
    whole, part = micros.abs() // 10**MICROS_DIGITS, micros.abs() % 10**MICROS_DIGITS
    sign = pl.when(micros < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    return pl.concat_str(sign, whole.cast(pl.String), pl.lit("."), part.cast(pl.String).str.zfill(MICROS_DIGITS))


def instants(epoch_ms: pl.Expr) -> pl.Expr:
    """Epoch milliseconds as ISO 8601 text in UTC."""
    return pl.from_epoch(epoch_ms, time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")


def charges(listed: pl.Expr) -> pl.Expr:
    """A list of (currency, charge_micros) as a list of (currency, amount)."""
    micros = pl.element().struct.field("charge_micros")
    return listed.list.eval(pl.struct(pl.element().struct.field("currency"), money(micros).alias("amount")))


def kpis(family: str) -> list[pl.Expr]:
    """One row of KPIs of a family: counts and sums as they are, means and ratios as ``num`` and ``den``."""
    types = FAMILY_TYPES[family]
    shown = [pl.col(name) for name in MEASURES["cdr"].all]
    shown.append(charges(pl.col("charges")).alias("charges"))
    answered = pl.col("completed") + pl.col("dropped")
    shown += [
        _ratio(answered, pl.col("attempts")).alias("answer_seizure_ratio"),
        _ratio(pl.col("dropped"), answered).alias("drop_ratio"),
        _ratio(pl.col("duration_ms"), answered).alias("mean_duration_ms"),
    ]
    if "network" in types:
        shown += [pl.col(name) for name in MEASURES["network"].counts if not name.endswith("_count")]
        shown.append(_ratio(pl.col("successes"), pl.col("success_known")).alias("setup_success_ratio"))
        shown += [
            _ratio(_scaled(name, divisor), pl.col(f"{name}_count")).alias(alias)
            for name, divisor, alias in (
                ("latency_us", 1_000, "latency_ms"),
                ("throughput_dl_kbps", 1_000, "throughput_dl_mbps"),
                ("throughput_ul_kbps", 1_000, "throughput_ul_mbps"),
                ("packet_loss_ppm", 1_000_000, "packet_loss_ratio"),
            )
        ]
    return shown


def _ratio(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    return pl.struct(numerator.alias("num"), denominator.alias("den"))


def _scaled(name: str, divisor: int) -> pl.Expr:
    return pl.col(name) / divisor
