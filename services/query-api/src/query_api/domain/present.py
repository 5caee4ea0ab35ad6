"""Aggregates as people read them: fields by their names, KPIs as value, numerator and denominator, money as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fractions import Fraction

import polars as pl

from query_api.domain.measures import FAMILY_TYPES, MEASURES, USAGE_MEASURES
from telestream_domain.kpis import KPIS, PRESENT, Basis, Kpi, Term, kpis_of

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


def listed_charges(column: str) -> pl.Expr:
    """ClickHouse's map by currency as a list of (currency, charge_micros), by currency, as column ``charges``."""
    entries = pl.List(pl.Struct({"key": pl.String, "value": pl.Int64}))
    key, value = pl.element().struct.field("key"), pl.element().struct.field("value")
    return (
        pl.col(column)
        .cast(entries)
        .list.eval(
            pl.struct(key.alias("currency"), value.alias("charge_micros")).sort_by(key).filter(key.sort_by(key) != "")
        )
        .alias("charges")
    )


def kpi(row: Kpi) -> pl.Expr:
    """One KPI of rows of sums as ``value``, ``num``, ``den``: as ``telestream_domain.kpis.shown``, by columns."""
    den = _total(row.denominator) if row.denominator else pl.lit(1, pl.Int64)
    if row.gated:
        there = pl.all_horizontal(pl.col(PRESENT[kind]).fill_null(0) != 0 for kind in sorted(row.needs))
        den = pl.when(there).then(den).otherwise(pl.lit(0, pl.Int64))
    return ratio(row.name, _total(row.numerator), den)


def ratio(name: str, num: pl.Expr, den: pl.Expr) -> pl.Expr:
    """``value``, ``num`` and ``den`` as column ``name``; what is null in either counts as 0."""
    num, den = num.fill_null(0), den.fill_null(0)
    value = pl.when(den != 0).then(num / den)
    return pl.struct(value.alias("value"), num.alias("num"), den.alias("den")).alias(name)


def measured(family: str) -> list[pl.Expr]:
    """The counts and sums of a family as they are; of means and ratios the KPIs show both sides."""
    shown = [pl.col(name) for name in MEASURES["cdr"].all if not name.endswith("_count")]
    shown.append(charges(pl.col("charges")).alias("charges"))
    if "network" in FAMILY_TYPES[family]:
        shown += [pl.col(name) for name in MEASURES["network"].counts if not name.endswith("_count")]
    return shown


def window_kpis_of(family: str) -> tuple[Kpi, ...]:
    """The KPIs that any windows of a family give."""
    return kpis_of(family, Basis.WINDOWS)


def kpis(family: str) -> list[pl.Expr]:
    """One row of a family: its counts and sums, then its KPIs. Wants the column ``window_ms`` beside the measures."""
    return [*measured(family), *(kpi(row) for row in window_kpis_of(family))]


def usage_kpis() -> list[pl.Expr]:
    """The same of subscriber-days, which have fewer measures and no KPI of the network."""
    shown = [pl.col(name) for name in USAGE_MEASURES.all if not name.endswith("_count")]
    shown.append(charges(pl.col("charges")).alias("charges"))
    return [*shown, *(kpi(row) for row in USAGE_KPIS)]


def _given(rows: Iterable[Kpi], columns: Collection[str]) -> tuple[Kpi, ...]:
    needed = ((row, {name for name, _ in (*row.numerator, *row.denominator)}) for row in rows)
    return tuple(row for row, names in needed if names <= set(columns))


USAGE_KPIS = _given((row for row in KPIS if row.basis is Basis.WINDOWS), USAGE_MEASURES.all)
"""The KPIs that a subscriber's days give."""


def _total(terms: Iterable[Term]) -> pl.Expr:
    parts = []
    for name, factor in terms:
        column = pl.col(name).fill_null(0)
        exact = Fraction(factor)
        if exact.numerator != 1:
            column = column * exact.numerator
        parts.append(column / exact.denominator if exact.denominator != 1 else column)
    return sum(parts[1:], parts[0])
