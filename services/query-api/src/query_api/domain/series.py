"""KPIs by step and group, from the frames of several bases put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import polars as pl

from query_api.domain.measures import GROUP_FIELDS, LATE_MEASURES, measures_of
from query_api.domain.present import instants, kpi, listed_charges, measured, ratio
from query_api.domain.problems import bad_parameter
from query_api.domain.ranges import Range, from_ms, to_ms
from query_api.domain.steps import STEPS_S, Step
from telestream_domain.kpis import KPI, Basis, Kpi, kpis_of

DAY = timedelta(days=1)
LONGEST: dict[str, timedelta] = {"1m": DAY, "5m": 7 * DAY, "15m": 400 * DAY, "1h": 400 * DAY, "1d": 800 * DAY}
"""What may be asked for at once, by step."""

MINUTES_KEPT = 13 * DAY
"""One-minute windows are deleted a fortnight after they began."""

_LOWEST_S = {Basis.BUSY_HOUR: 86_400, Basis.SKETCH: 900}

_BESIDE: Mapping[Basis, Mapping[str, str]] = {
    Basis.BUSY_HOUR: {"holding_ms": "busy_holding_ms", "hour_ms": "hour_ms", "busy_hour_start": "busy_hour_start"},
    Basis.SKETCH: {"distinct_estimate": "distinct_estimate", "records": "sketched", "reversals": "sketch_reversals"},
    Basis.AVAILABILITY: {"available_ms": "available_ms", "range_ms": "range_ms"},
}
"""Columns of a basis → names beside the windows' measures."""


@dataclass(frozen=True, slots=True)
class Series:
    """A question for KPIs: no ``ids``: all groups; ``grouped``: one row per group, else one in all."""

    family: str
    kpis: tuple[Kpi, ...]
    asked: Range
    step: str
    zone: ZoneInfo
    ids: Sequence[str] = ()
    grouped: bool = True
    with_measures: bool = False

    @property
    def group(self) -> str | None:
        return GROUP_FIELDS[self.family] if self.grouped else None

    @property
    def keys(self) -> list[str]:
        return ["step_ms", *([self.group] if self.group else [])]

    def wants(self, basis: Basis) -> bool:
        return any(row.basis is basis for row in self.kpis)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows as JSON text, the freshest event end in them, and the label of the newest step that has any."""

    rows: bytes
    as_of_ms: int | None
    last_ms: int | None


def chosen(names: Sequence[str] | None, family: str, step: str, default: Basis | None) -> tuple[Kpi, ...]:
    """The KPIs of these names, in the table's order; without names those of the ``default`` basis (None: all) that the
    step can give. Raises Problem naming ``kpi``."""
    possible = {row.name: row for row in kpis_of(family) if (STEPS_S[step] or 86_400) >= _LOWEST_S.get(row.basis, 0)}
    if not names:
        return tuple(row for row in possible.values() if default in (None, row.basis))
    for name in names:
        if name not in KPI:
            raise bad_parameter("kpi", f"there is no such KPI; known are: {', '.join(KPI)}")
        if family not in KPI[name].families:
            raise bad_parameter("kpi", f"{name} is not known by {family}, only by {' and '.join(KPI[name].families)}")
        if name not in possible:
            raise bad_parameter("kpi", f"{name} is not known by {step}: ask for a longer step")
    return tuple(row for name, row in possible.items() if name in names)


def checked(asked: Range, step: str, now_ms: int) -> Range:
    """The range, if windows for such steps are kept. Raises Problem naming ``from``."""
    if asked.end - asked.start > LONGEST[step]:
        raise bad_parameter("from", f"more than {LONGEST[step].days} days before to is too long with step={step}")
    if STEPS_S[step] in (60, 300) and asked.start < from_ms(now_ms) - MINUTES_KEPT:
        raise bad_parameter("from", f"minutes are kept for {MINUTES_KEPT.days} days: ask for step=15m or longer")
    return asked


def table(question: Series, steps: Sequence[Step], frames: Mapping[Basis, pl.DataFrame], now_ms: int) -> Table:
    """One row per step and group that has anything, ordered by them. ``frames`` are the answers by basis, with the
    windows' always; a row that a frame lacks counts as without its source."""
    windows = _keyed(frames[Basis.WINDOWS], question.group)
    as_of_ms = windows["freshest_event_end_at"].dt.epoch("ms").max() if windows.height else None
    sums = [*measures_of(question.family), *LATE_MEASURES]
    whole = windows.select(
        *question.keys, *(pl.col(name).cast(pl.Int64) for name in sums), listed_charges("charge_micros")
    )
    for basis, names in _BESIDE.items():
        if basis in frames:
            frame = frames[basis]
            frame = _by_label(frame, steps, question) if basis is Basis.AVAILABILITY else _keyed(frame, question.group)
            beside = frame.select(*question.keys, *(pl.col(name).alias(own) for name, own in names.items()))
            whole = whole.join(beside, on=question.keys, how="full", coalesce=True)
    whole = (
        whole.join(_lengths(steps, now_ms), on="step_ms", how="left")
        .with_columns(
            *(pl.col(name).fill_null(0) for name in sums),
            pl.col("charges").fill_null(pl.lit([], whole.schema["charges"])),
        )
        .sort(question.keys)
    )
    head = [instants(pl.col("step_ms")).alias("step_start"), *([pl.col(question.group)] if question.group else [])]
    shown = measured(question.family) if question.with_measures else []
    columns = [column for row in question.kpis for column in _shown(row, whole.columns)]
    rows = whole.select(*head, *shown, *(pl.col(name) for name in LATE_MEASURES), *columns)
    last_ms = int(whole["step_ms"][-1]) if whole.height else None
    return Table(rows.write_json().encode() if rows.height else b"[]", _int(as_of_ms), last_ms)


def _shown(row: Kpi, have: Sequence[str]) -> list[pl.Expr]:
    nothing = pl.lit(0, pl.Int64)
    if row.basis is Basis.WINDOWS:
        return [kpi(row)]
    if not set(_BESIDE[row.basis].values()) <= set(have):
        return [ratio(row.name, nothing, nothing)]
    if row.basis is Basis.BUSY_HOUR:
        at = instants(pl.col("busy_hour_start").dt.epoch("ms")).alias("busy_hour_start")
        return [ratio(row.name, pl.col("busy_holding_ms").cast(pl.Int64), pl.col("hour_ms").cast(pl.Int64)), at]
    if row.basis is Basis.SKETCH:
        seen = (pl.col("sketched").fill_null(0) != 0).cast(pl.Int64)
        bound = (pl.col("sketch_reversals").fill_null(0) > 0).alias("distinct_is_upper_bound")
        return [ratio(row.name, pl.col("distinct_estimate").round().cast(pl.Int64), seen), bound]
    return [ratio(row.name, pl.col("available_ms") / 1_000, pl.col("range_ms") / 1_000)]


def _keyed(frame: pl.DataFrame, group: str | None) -> pl.DataFrame:
    keys = [pl.col("step_start").dt.epoch("ms").alias("step_ms"), *([pl.col(group).cast(pl.String)] if group else [])]
    return frame.select(*keys, pl.exclude("step_start", *([group] if group else [])))


def _by_label(frame: pl.DataFrame, steps: Sequence[Step], question: Series) -> pl.DataFrame:
    """Outages by the labels of the steps they were asked for; summed over cells where they are not shown one by one."""
    labels = pl.DataFrame(
        {"start_ms": [to_ms(step.start) for step in steps], "step_ms": [to_ms(step.label) for step in steps]},
        schema={"start_ms": pl.Int64, "step_ms": pl.Int64},
    )
    found = frame.with_columns(
        pl.col("step_start").dt.epoch("ms").alias("start_ms"), pl.col("cell_id").cast(pl.String)
    ).join(labels, on="start_ms")
    return found.group_by(question.keys).agg(pl.col("available_ms", "range_ms").cast(pl.Int64).sum())


def _lengths(steps: Sequence[Step], now_ms: int) -> pl.DataFrame:
    """How long each step is, as far as it is over."""
    return pl.DataFrame(
        {
            "step_ms": [to_ms(step.label) for step in steps],
            "window_ms": [max(0, min(to_ms(step.end), now_ms) - to_ms(step.start)) for step in steps],
        },
        schema={"step_ms": pl.Int64, "window_ms": pl.Int64},
    )


def _int(number: object) -> int | None:
    return number if isinstance(number, int) else None
