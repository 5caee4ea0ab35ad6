"""Every KPI again: Polars over the facts, from the definitions in words, sharing no code with what is tested.

A frame of KPIs has one row per group and step, and of each KPI the columns ``<name>_num`` and ``<name>_den``: their
quotient is the value (none where the denominator is 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl

CALL = pl.col("record_type").is_in(["VOICE", "VIDEO"])
DATA = pl.col("record_type") == "DATA"
ANSWERED = CALL & pl.col("status").is_in(["COMPLETED", "DROPPED"])
DELIVERED = CALL & pl.col("status").is_in(["COMPLETED", "DROPPED", "NO_ANSWER", "BUSY"])
BYTES = pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0)
HELD = pl.coalesce("holding_ms", "duration_ms", pl.lit(0, pl.Int64))
HOUR_MS, QUARTER_MS, MINUTE_MS = 3_600_000, 900_000, 60_000

OF_CALLS = (
    "call_attempts",
    "answer_seizure_ratio",
    "network_effectiveness_ratio",
    "call_completion_ratio",
    "drop_ratio",
    "mean_holding_time_ms",
    "mean_duration_ms",
    "traffic_erlang",
    "post_dial_delay_ms",
    "data_sessions",
    "data_volume_bytes",
    "mean_session_throughput_kbps",
)
OF_EVENTS = (
    "latency_ms",
    "throughput_dl_mbps",
    "throughput_ul_mbps",
    "packet_loss_ratio",
    "rrc_setup_success_ratio",
    "attach_success_ratio",
    "handover_success_ratio",
)
APART = ("busy_hour_erlang", "distinct_subscribers", "cell_availability")
MEANS = {
    "latency_ms": ("latency_ms", 1_000),
    "throughput_dl_mbps": ("throughput_dl_mbps", 1_000),
    "throughput_ul_mbps": ("throughput_ul_mbps", 1_000),
    "packet_loss_ratio": ("packet_loss_ratio", 1_000_000),
}
OUTCOMES = {"rrc_setup": "RRC_SETUP", "attach": "ATTACH", "handover": "HANDOVER"}


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps from one local date up to another: minutes, ``1h`` or ``1d`` by the clock of ``zone``."""

    since: date
    until: date
    step: str
    zone: str = "UTC"

    @property
    def bounds_ms(self) -> list[int]:
        """Where steps begin, and the end of the last. Hours of zones whose clock is changed by whole hours."""
        if self.step == "1d":
            days = (self.until - self.since).days
            return [self._midnight(self.since + timedelta(days=n)) for n in range(days + 1)]
        size = {"1h": HOUR_MS, "15m": QUARTER_MS, "5m": 5 * MINUTE_MS, "1m": MINUTE_MS}[self.step]
        return list(range(self._midnight(self.since), self._midnight(self.until) + 1, size))

    def _midnight(self, day: date) -> int:
        return round(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone)).timestamp() * 1_000)

    def of(self, rows: pl.DataFrame, at: str) -> pl.DataFrame:
        """The rows within the range, with the step they lie in and its length."""
        bounds = self.bounds_ms
        table = pl.DataFrame({"step": bounds[:-1], "end": bounds[1:]}).set_sorted("step")
        ms = rows.with_columns(pl.col(at).dt.epoch("ms").alias("ms")).sort("ms")
        found = ms.filter(pl.col("ms").is_between(bounds[0], bounds[-1], closed="left"))
        return found.join_asof(table, left_on="ms", right_on="step").with_columns(
            (pl.col("end") - pl.col("step")).alias("step_ms")
        )


def kpis(cdrs: pl.DataFrame, events: pl.DataFrame, group: str, steps: Steps) -> pl.DataFrame:
    """What sums of windows give. An end of a call is booked where it ended, if by cell."""
    keys = [group, "step"]
    calls = steps.of(cdrs, "started_at").drop_nulls(group)
    found = calls.group_by(keys).agg(
        *_side("call_attempts", CALL.sum(), pl.lit(1)),
        *_side("answer_seizure_ratio", ANSWERED.sum(), CALL.sum()),
        *_side("network_effectiveness_ratio", DELIVERED.sum(), CALL.sum()),
        *_side("call_completion_ratio", (CALL & (pl.col("status") == "COMPLETED")).sum(), CALL.sum()),
        *_side("mean_holding_time_ms", HELD.filter(CALL).sum(), CALL.sum()),
        *_side("mean_duration_ms", pl.col("duration_ms").filter(CALL).sum(), ANSWERED.sum()),
        *_side("traffic_erlang", HELD.filter(CALL).sum(), pl.col("step_ms").first()),
        *_side("post_dial_delay_ms", pl.col("pdd_ms").filter(CALL).sum(), pl.col("pdd_ms").filter(CALL).count()),
        *_side("data_sessions", (DATA & ~pl.col("is_partial").cast(pl.Boolean)).sum(), pl.lit(1)),
        *_side("data_volume_bytes", BYTES.sum(), pl.lit(1)),
        *_side(
            "mean_session_throughput_kbps",
            8 * BYTES.filter(DATA & (pl.col("duration_ms") > 0)).sum(),
            pl.col("duration_ms").filter(DATA).sum(),
        ),
        pl.col("subscriber_id").filter(pl.col("subscriber_kind") != "NONE").n_unique().alias("subscribers"),
    )
    at = pl.coalesce("last_cell_id", "cell_id") if group == "cell_id" else pl.col(group)
    ended = steps.of(cdrs, "started_at").filter(ANSWERED).with_columns(at.alias(group)).drop_nulls(group)
    drops = ended.group_by(keys).agg(*_side("drop_ratio", (pl.col("status") == "DROPPED").sum(), pl.len()))
    samples = _samples(events, group, steps)
    whole = found.join(drops, on=keys, how="full", coalesce=True).join(samples, on=keys, how="full", coalesce=True)
    return whole.with_columns(pl.exclude(keys).fill_null(0)).sort(keys)


def _samples(events: pl.DataFrame, group: str, steps: Steps) -> pl.DataFrame:
    means = []
    for name, (field, scale) in MEANS.items():
        exact = (pl.col(field).cast(pl.Float64) * scale).round(0, mode="half_away_from_zero")
        means += _side(name, exact.sum() / scale, pl.col(field).count())
    ratios = []
    for name, code in OUTCOMES.items():
        told = pl.col("success").cast(pl.Boolean).filter(pl.col("event_type") == code)
        ratios += _side(f"{name}_success_ratio", told.sum(), told.count())
    return steps.of(events, "occurred_at").drop_nulls(group).group_by(group, "step").agg(*means, *ratios)


def _side(name: str, num: pl.Expr, den: pl.Expr) -> list[pl.Expr]:
    return [num.cast(pl.Float64).alias(f"{name}_num"), den.cast(pl.Float64).alias(f"{name}_den")]


def busy_hours(cdrs: pl.DataFrame, group: str, days: Steps) -> dict[tuple[str, int], dict[int, int]]:
    """(group, day) → start of each hour that lies within the day and begins on a quarter → what calls held in it."""
    bounds = days.bounds_ms
    quarter = pl.col("ms") // QUARTER_MS * QUARTER_MS
    held = days.of(cdrs, "started_at").drop_nulls(group).group_by(group, "step", quarter.alias("at"))
    found: dict[tuple[str, int], dict[int, int]] = {}
    for name, step, at, ms in held.agg(HELD.filter(CALL).sum()).iter_rows():
        hours = found.setdefault((name, step), {})
        last = bounds[bounds.index(step) + 1] - HOUR_MS
        for start in range(at - 3 * QUARTER_MS, at + 1, QUARTER_MS):
            if step <= start <= last:
                hours[start] = hours.get(start, 0) + ms
    return found


def availability(events: pl.DataFrame, steps: Steps) -> dict[tuple[str, int], tuple[float, float]]:
    """(cell, step) → seconds up and seconds, of each cell with an event in the range; before all, cells were up."""
    bounds = steps.bounds_ms
    found: dict[tuple[str, int], tuple[float, float]] = {}
    ordered = events.with_columns(pl.col("occurred_at").dt.epoch("ms").alias("ms")).sort(
        "cell_id", "ms", "appended_at", "src_partition", "src_offset"
    )
    for (cell,), rows in ordered.group_by("cell_id", maintain_order=True):
        if not rows["ms"].is_between(bounds[0], bounds[-1], closed="left").any():
            continue
        down = list(_outages(rows, bounds[-1]))
        for start, end in pairwise(bounds):
            lost = sum(max(0, min(b, end) - max(a, start)) for a, b in down)
            found[str(cell), start] = ((end - start - lost) / 1_000, (end - start) / 1_000)
    return found


def _outages(rows: pl.DataFrame, end: int) -> Iterator[tuple[int, int]]:
    down: set[str] = set()
    since = 0
    names = ("ms", "event_type", "alarm_id", "alarm_state", "severity")
    for ms, kind, alarm, state, severity in rows.select(names).iter_rows():
        before = bool(down)
        if kind == "CELL_DOWN":
            down.add("cell")
        elif kind == "CELL_UP":
            down.discard("cell")
        elif kind == "ALARM" and alarm is not None and state is not None:
            if state == "RAISED" and severity == "CRITICAL":
                down.add(f"alarm {alarm}")
            else:
                down.discard(f"alarm {alarm}")
        if down and not before:
            since = ms
        if before and not down:
            yield since, ms
    if down:
        yield since, end


def day_of_clock_change(before: datetime, zone: str) -> date:
    """The last date before the one of ``before`` that had 23 or 25 hours there."""
    day = before.astimezone(UTC).date() - timedelta(days=4)
    while _length(day, zone) == 24 * HOUR_MS:
        day -= timedelta(days=1)
    return day


def _length(day: date, zone: str) -> int:
    start, end = Steps(day, day + timedelta(days=1), "1d", zone).bounds_ms
    return end - start


USAGE = ("records", "sms", "mms", "data_records", "ussd", "others", "attempts", "completed", "dropped", "no_answer")
USAGE_SUMS = ("duration_ms", "holding_ms", "bytes_up", "bytes_down", "sessions", "sms_segments")


def usage(cdrs: pl.DataFrame, whose: str, groups: Sequence[str]) -> pl.DataFrame:
    """Per customer or subscriber, day (UTC) and ``groups``: counts, sums, and charges as ``EUR=1.500000 …``."""
    keys = [whose, "date", *groups]
    types = {"sms": "SMS", "mms": "MMS", "data_records": "DATA", "ussd": "USSD", "others": "OTHER"}
    statuses = {"completed": "COMPLETED", "dropped": "DROPPED", "no_answer": "NO_ANSWER"}
    rows = (
        cdrs.drop_nulls(whose)
        .filter(pl.col("subscriber_kind") != "NONE")
        .with_columns(
            pl.col("started_at").dt.date().cast(pl.String).alias("date"),
            *(pl.col(name).fill_null("") for name in groups),
        )
    )
    sums = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("records"),
        *((pl.col("record_type") == code).sum().cast(pl.Int64).alias(name) for name, code in types.items()),
        CALL.sum().cast(pl.Int64).alias("attempts"),
        *((CALL & (pl.col("status") == code)).sum().cast(pl.Int64).alias(name) for name, code in statuses.items()),
        pl.col("duration_ms").filter(CALL).sum().alias("duration_ms"),
        HELD.filter(CALL).sum().alias("holding_ms"),
        pl.col("bytes_up").sum(),
        pl.col("bytes_down").sum(),
        (DATA & ~pl.col("is_partial").cast(pl.Boolean)).sum().cast(pl.Int64).alias("sessions"),
        pl.col("segments").fill_null(1).filter(pl.col("record_type") == "SMS").sum().alias("sms_segments"),
    )
    charged = rows.filter(pl.col("charge_micros").is_not_null(), pl.col("currency").is_not_null())
    by_currency = charged.group_by([*keys, "currency"]).agg(pl.col("charge_micros").sum()).sort("currency")
    listed = by_currency.filter(pl.col("charge_micros") != 0).group_by(keys, maintain_order=True)
    text = listed.agg(pl.format("{}={}", "currency", "charge_micros").str.join(" ").alias("charges"))
    return (
        sums.join(text, on=keys, how="left")
        .with_columns(pl.col("charges").fill_null(""))
        .select(*keys, *USAGE, *USAGE_SUMS, "charges")
        .sort(keys)
    )
