"""Every measure of the aggregates again: Polars over the facts, from the definitions, sharing no code with them.

``recomputed(facts, family)`` and ``compared`` of what ``published_sql(family)`` gives are the same frame where the
aggregates are right: one row per group and step, all measures, charge by currency, the arrival of the last late record.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

LATENESS = pl.duration(minutes=5)
RECENT = pl.duration(hours=2)
CALLS = ("VOICE", "VIDEO")
STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
TYPES = {"sms": "SMS", "mms": "MMS", "data_records": "DATA", "ussd": "USSD", "others": "OTHER"}
ENDED = ("ended_answered", "ended_dropped")
EVENTS = {
    "samples": "SAMPLE",
    "attaches": "ATTACH",
    "handovers": "HANDOVER",
    "rrc_setups": "RRC_SETUP",
    "radio_link_failures": "RADIO_LINK_FAILURE",
    "alarms": "ALARM",
    "cell_downs": "CELL_DOWN",
    "cell_ups": "CELL_UP",
}
OUTCOMES = {"rrc_setup": "RRC_SETUP", "handover": "HANDOVER", "attach": "ATTACH"}
SCALED = {
    "latency_us": ("latency_ms", 1_000),
    "throughput_dl_kbps": ("throughput_dl_mbps", 1_000),
    "throughput_ul_kbps": ("throughput_ul_mbps", 1_000),
    "packet_loss_ppm": ("packet_loss_ratio", 1_000_000),
}


@dataclass(frozen=True, slots=True)
class Family:
    """A family in one window size, and the step in which its windows are compared."""

    view: str
    type: str
    size_s: int
    groups: tuple[str, ...]
    step: str

    @property
    def day(self) -> bool:
        return self.view == "agg_subscriber_day"

    @property
    def time(self) -> str:
        return "local_date" if self.day else "step"


SUBSCRIBER_DAY = ("subscriber_id", "plan_id", "roaming", "direction", "currency")
FAMILIES = (
    Family("agg_cell", "cdr", 900, ("cell_id",), "1h"),
    Family("agg_cell", "cdr", 60, ("cell_id",), "1h"),
    Family("agg_cell", "network", 900, ("cell_id",), "1h"),
    Family("agg_region", "cdr", 900, ("region_id",), "1d"),
    Family("agg_region", "network", 900, ("region_id",), "1d"),
    Family("agg_plan", "cdr", 900, ("plan_id",), "1d"),
    Family("agg_subscriber_day", "cdr", 86_400, SUBSCRIBER_DAY, "1d"),
)


def recomputed(facts: pl.DataFrame, family: Family) -> pl.DataFrame:
    """From ``fact_cdr`` or ``fact_network_event``, all columns. Windows are of UTC, as is the business time zone."""
    time = "started_at" if family.type == "cdr" else "occurred_at"
    rows = facts.with_columns(pl.col(name).fill_null("") for name in family.groups)
    if family.size_s == 60:
        rows = rows.filter(pl.col("appended_at") - pl.col(time) <= RECENT)
    if family.day:
        rows = rows.filter(pl.col("subscriber_kind") != "NONE")
    size = pl.duration(seconds=family.size_s)
    end = pl.col(time).dt.truncate("1d" if family.day else f"{family.size_s}s") + size
    late = pl.col("appended_at") > end + LATENESS
    added = _cdr() if family.type == "cdr" else _network()
    time_key = "local_date" if family.day else pl.col(time).dt.truncate(family.step).alias("step")
    by_last_cell = (family.view, family.type) == ("agg_cell", "cdr")
    rows = rows.select(
        *family.groups,
        time_key,
        *added,
        pl.when(late).then("appended_at").alias("late_at"),
        late.cast(pl.Int64).alias("late_records"),
        *_charge(family),
        (pl.coalesce("last_cell_id", "cell_id") if by_last_cell else pl.lit("")).fill_null("").alias("ended_on"),
    )
    return compared(_summed(_ended_where_it_ended(rows) if by_last_cell else rows, family), family)


def _cdr() -> list[pl.Expr]:
    kind, status = pl.col("record_type"), pl.col("status")
    call, data, sms = kind.is_in(CALLS), kind == "DATA", kind == "SMS"
    zero = pl.lit(0, pl.Int64)
    up_and_down = pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0)
    measures: dict[str, pl.Expr] = {
        "records": pl.lit(1),
        **{name: kind == code for name, code in TYPES.items()},
        "attempts": call,
        **{code.lower(): call & (status == code) for code in STATUSES},
        "duration_ms": pl.when(call).then(pl.col("duration_ms").fill_null(0)).otherwise(zero),
        "holding_ms": pl.when(call).then(pl.coalesce("holding_ms", "duration_ms", zero)).otherwise(zero),
        "bytes_up": pl.col("bytes_up").fill_null(0),
        "bytes_down": pl.col("bytes_down").fill_null(0),
        "ended_answered": call & status.is_in(["COMPLETED", "DROPPED"]),
        "ended_dropped": call & (status == "DROPPED"),
        "pdd_ms": pl.when(call).then(pl.col("pdd_ms").fill_null(0)).otherwise(zero),
        "pdd_ms_count": call & pl.col("pdd_ms").is_not_null(),
        "sessions": data & ~pl.col("is_partial").cast(pl.Boolean),
        "data_duration_ms": pl.when(data).then(pl.col("duration_ms").fill_null(0)).otherwise(zero),
        "data_bytes": pl.when(data & (pl.col("duration_ms").fill_null(0) > 0)).then(up_and_down).otherwise(zero),
        "sms_segments": pl.when(sms).then(pl.col("segments").fill_null(1)).otherwise(zero),
    }
    return [expression.cast(pl.Int64).alias(name) for name, expression in measures.items()]


def _network() -> list[pl.Expr]:
    kind, success = pl.col("event_type"), pl.col("success").cast(pl.Boolean)
    scaled = {
        name: (pl.col(field).cast(pl.Float64) * factor).round(0, mode="half_away_from_zero").cast(pl.Int64)
        for name, (field, factor) in SCALED.items()
    }
    measures: dict[str, pl.Expr] = {
        "events": pl.lit(1),
        **{name: kind == code for name, code in EVENTS.items()},
        "success_known": success.is_not_null(),
        "successes": success.fill_null(False),
        **{f"{name}_known": (kind == code) & success.is_not_null() for name, code in OUTCOMES.items()},
        **{f"{name}_successes": (kind == code) & success.fill_null(False) for name, code in OUTCOMES.items()},
        **{name: value.fill_null(0) for name, value in scaled.items()},
        **{f"{name}_count": value.is_not_null() for name, value in scaled.items()},
    }
    return [expression.cast(pl.Int64).alias(name) for name, expression in measures.items()]


def _charge(family: Family) -> list[pl.Expr]:
    if family.type == "network":
        return [pl.lit(None, pl.String).alias("in_currency"), pl.lit(0, pl.Int64).alias("charge")]
    charged = pl.col("charge_micros").is_not_null()
    return [
        pl.when(charged).then(pl.col("currency").fill_null("")).alias("in_currency"),
        pl.col("charge_micros").fill_null(0).alias("charge"),
    ]


def _ended_where_it_ended(rows: pl.DataFrame) -> pl.DataFrame:
    """A call that moved adds its end to the cell it ended on, and all else to the one it began on."""
    moved = (pl.col("ended_answered") != 0) & (pl.col("ended_on") != pl.col("cell_id"))
    kept = ("cell_id", "step", "ended_on", "late_at", "in_currency", *ENDED)
    ends = rows.filter(moved).with_columns(
        *(pl.lit(0, rows.schema[name]).alias(name) for name in rows.columns if name not in kept),
        cell_id="ended_on",
        in_currency=pl.lit(None, pl.String),
    )
    return pl.concat([rows.with_columns(pl.when(~moved).then(name).otherwise(0) for name in ENDED), ends])


def _summed(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    keys = [*family.groups, family.time]
    named = {*keys, "late_at", "in_currency", "charge", "ended_on"}
    measures = [name for name in rows.columns if name not in named]
    sums = rows.group_by(keys).agg(pl.col("late_at").max(), *(pl.col(name).sum() for name in measures))
    by_currency = rows.drop_nulls("in_currency").group_by([*keys, "in_currency"]).agg(pl.col("charge").sum())
    charges = by_currency.filter(pl.col("charge") != 0).sort("in_currency").group_by(keys, maintain_order=True)
    text = charges.agg(pl.format("{}={}", "in_currency", "charge").str.join(" ").alias("charges"))
    return sums.join(text, on=keys, how="left")


def published_sql(family: Family) -> str:
    """The same from the published view: sums over the windows of a step."""
    day = family.day
    time = "v.local_date" if day else f"toDateTime64(toStartOf{_UNIT[family.step]}(v.window_start), 3, 'UTC')"
    names = measures_of(family)
    sums = ", ".join(f"sum(v.{name}) AS {name}" for name in names)
    charge = "map(toString(v.currency), v.charge_micros)" if day else "v.charge_micros"
    return (
        f"SELECT {', '.join(f'v.{name} AS {name}' for name in family.groups)}, {time} AS {family.time}, {sums}, "
        "max(v.late_at) AS late_at, arrayStringConcat(arrayMap(pair -> concat(pair.1, '=', toString(pair.2)), "
        f"arraySort(arrayFilter(pair -> pair.2 != 0, CAST(sumMap({charge}), 'Array(Tuple(String, Int64))')))), ' ') "
        "AS charges "
        f"FROM {family.view} AS v WHERE v.type = '{family.type}' AND v.size_s = {family.size_s} GROUP BY ALL"
    )


_UNIT = {"1h": "Hour", "1d": "Day"}


def measures_of(family: Family) -> list[str]:
    """What is compared, in order."""
    expressions = _cdr() if family.type == "cdr" else _network()
    names = [expression.meta.output_name() for expression in expressions]
    if family.day:
        lacks = {*ENDED, "pdd_ms", "pdd_ms_count", "data_duration_ms", "data_bytes"}
        names = [name for name in names if name not in lacks]
    return [*names, "late_records"]


def compared(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Columns, types and order alike; windows of which nothing is left are left out."""
    time = pl.col(family.time).cast(pl.Date) if family.day else pl.col("step").cast(pl.Int64)
    names = measures_of(family)
    return (
        frame.select(
            *(pl.col(name).cast(pl.String) for name in family.groups),
            time,
            *(pl.col(name).cast(pl.Int64) for name in names),
            pl.col("late_at").cast(pl.Int64),
            pl.col("charges").fill_null("").cast(pl.String),
        )
        .filter(pl.any_horizontal(pl.col(name) != 0 for name in names))
        .sort(*family.groups, family.time)
    )
