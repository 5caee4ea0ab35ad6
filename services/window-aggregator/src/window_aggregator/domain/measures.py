"""From judged records to partial aggregates, by columns.

A *partial* has one row per partition, window and group (and currency): the family's keys, ``touched`` (last source
offset in it), ``event_end`` (ms, where the family has it) and the sums. ``window`` is the start in epoch milliseconds;
for subscriber-days it is the local date as days since 1970. Groups of which there are few are ``LABEL``s: four bytes
instead of a view into the decoded batch, which a single row would keep whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from telestream_domain import LATENESS_MS, MINUTE_WINDOWS_MAX_AGE_MS
from window_aggregator.domain.days import day_start
from window_aggregator.domain.families import (
    CALLS,
    CHARGE,
    COUNT_OF_EVENT_TYPE,
    COUNT_OF_RECORD_TYPE,
    COUNTS,
    ENDED,
    MINUTE_S,
    QUARTER_S,
    SCALED,
    STATUSES,
    SUCCESS_OF,
    Family,
)
from window_aggregator.domain.quality import LABEL, charged_currency, judged
from window_aggregator.domain.sketches import Entries, entries, marks

LAST_FIELD = {"cdr": "segments", "network": "packet_loss_ratio"}
"""The enriched value is decoded up to here. ``segments`` is nearly the last: fields that are null cost little."""

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
        "is_partial",
        "source",
        "holding_ms",
        "pdd_ms",
        "last_cell_id",
        "segments",
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
MINUTE_MS = MINUTE_S * 1_000
QUARTER_MS = QUARTER_S * 1_000

_LABELS = frozenset(
    ("verdict", "rule", "region_id", "plan_id", "roaming", "cell_id", "last_cell_id", "currency", "direction", "source")
)
PACKED_FROM_ROWS = 2_000

_sign = pl.col("sign")
_one = pl.col("sign").cast(pl.Int32)
_is_call = pl.col("is_call")
_is_data = pl.col("is_data")
_bytes = pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0)


def narrow(decoded: pl.DataFrame, record_type: str, judged_ms: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Only the columns that are counted, instants as epoch milliseconds, in input order.

    ``judged_ms``: when each record was appended to the judged ones. ``came_at`` is when it came: a reversal bears the
    arrival of what it takes back, so the time of its judgement must do (a processing time: a replay has another).
    """
    return decoded.select(
        *(_narrowed(field) for field in _FIELDS[record_type]),
        "warnings",
        partition=pl.col("src_partition").cast(pl.Int32),
        came_at=pl.when(_sign < 0)
        .then(pl.max_horizontal(pl.col("appended_at").cast(pl.Int64), pl.Series(judged_ms)))
        .otherwise(pl.col("appended_at").cast(pl.Int64)),
    )


def _narrowed(field: str) -> pl.Expr:
    if field.endswith("_at"):
        return pl.col(field).cast(pl.Int64)
    return pl.col(field).cast(LABEL) if field in _LABELS else pl.col(field)


def group_type(group: str) -> pl.DataType:
    """How a group is held: subscribers are too many to be labels, which stay as long as any row holds one."""
    return LABEL if group in _LABELS else pl.String()


@dataclass(frozen=True, slots=True)
class Partial:
    """``entries``: of the family's sketches, None where it has none."""

    rows: pl.DataFrame
    entries: Entries | None

    def of_partition(self, partition: int) -> Partial:
        """What one partition has of it."""
        own = None if self.entries is None else self.entries.of_partition(partition)
        return Partial(self.rows.filter(pl.col("partition") == partition), own)


def partials(rows: pl.DataFrame, record_type: str, families: Sequence[Family]) -> Mapping[str, Partial]:
    """One partial per family of the type, over rows of one segment of each partition.

    Records that are not STORED count in quality alone.
    """
    found = measured(rows, record_type, families)
    return {
        family.name: Partial(merged([own], family, record_type), entries(own, family, record_type))
        for family in families
        if (own := found.get(family.name)) is not None
    }


def measured(rows: pl.DataFrame, record_type: str, families: Sequence[Family]) -> Mapping[str, pl.DataFrame]:
    """What each record adds to each family of the type in which it counts: the family's keys, ``touched`` (its source
    offset), the sums, and ``mark`` for its sketches. A record that counts in two windows has two rows."""
    stored = _stored(rows, record_type)
    found, shared = {}, {}
    for family in families:
        if record_type in family.types:
            kind = (family.window_s, family.recent_only)
            if kind not in shared:
                shared[kind] = _in_windows(stored, rows, record_type, family)
            found[family.name] = _of_family(shared[kind], record_type, family)
    return found


def _in_windows(stored: pl.DataFrame, rows: pl.DataFrame, record_type: str, family: Family) -> pl.DataFrame:
    """What is the same for all families with these windows."""
    if family.topic == "quality":
        return judged(rows, record_type)
    if family.topic == "subscriber_day":
        # an interconnect record has no subscriber: its subscriber_id is its own uid
        own = stored.filter(pl.col("subscriber_kind") != "NONE").with_columns(
            window=pl.col("local_date").cast(pl.Int32).cast(pl.Int64), currency=pl.col("own_currency")
        )
    elif family.recent_only:
        own = stored.filter("recent")
    else:
        own = stored.with_columns(window=pl.col("window") // QUARTER_MS * QUARTER_MS)
    late = pl.col("appended_at") > _end(own, family) + LATENESS_MS
    return own.with_columns(
        late_records=late.cast(pl.Int32),
        late_at=pl.when(late | (pl.col("reversals") > 0)).then("came_at"),
    )


def _of_family(own: pl.DataFrame, record_type: str, family: Family) -> pl.DataFrame:
    return _ended_on_last_cell(own, family) if family.topic == "cell" and record_type == "cdr" else own


def _end(own: pl.DataFrame, family: Family) -> pl.Expr:
    """Where each row's window ends, in epoch ms."""
    if family.zone is None:
        return pl.col("window") + family.window_s * 1_000
    ends = {day: day_start(day + 1, family.zone) for day in own["window"].unique().to_list()}
    return pl.col("window").replace_strict(ends, return_dtype=pl.Int64)


def _ended_on_last_cell(own: pl.DataFrame, family: Family) -> pl.DataFrame:
    """The same with the end of a call that moved in the window of the cell where it ended, and all else where it was.

    That window changes when the record comes, so it keeps its ``late_at``; the record itself is counted once.
    """
    moved = ((pl.col("ended_answered") != 0) & (pl.col("last_cell_id") != pl.col("cell_id"))).fill_null(False)
    ends = own.filter(moved)
    if ends.is_empty():
        return own
    zeros = [pl.lit(0, own.schema[name]).alias(name) for name in family.sums("cdr") if name not in ENDED]
    ends = ends.with_columns(
        *zeros,
        cell_id=pl.col("last_cell_id"),
        currency=pl.lit(None, LABEL),
        mark=pl.lit(None, own.schema["mark"]),
    )
    return pl.concat([own.with_columns(pl.when(~moved).then(name).otherwise(0) for name in ENDED), ends])


def merged(frames: Sequence[pl.DataFrame], family: Family, record_type: str) -> pl.DataFrame:
    """Rows with equal keys become one: sums added, of ``touched``, ``event_end`` and ``late_at`` the latest kept.

    Sums may come packed; they leave unpacked.
    """
    keys, latest = family.keys(), family.latest()
    sums = family.sums(record_type)
    narrowed = [frame.select(*keys, *latest, *sums) for frame in frames]
    rows = pl.concat(narrowed, how="vertical_relaxed") if len(narrowed) > 1 else narrowed[0]
    schema = rows.schema
    added = [_unpacked(name, schema[name]).sum() for name in sums]
    return rows.group_by(keys).agg(*(pl.col(name).max() for name in latest), *added)


def _unpacked(name: str, held: pl.DataType) -> pl.Expr:
    wide = pl.Int32 if name in COUNTS else pl.Int64
    # a cast costs as much as the sum, also one to the same
    return pl.col(name) if held == wide else pl.col(name).cast(wide)


def packed(frame: pl.DataFrame, family: Family, record_type: str) -> pl.DataFrame:
    """The same with each sum in the narrowest type that holds it: most are zero or one, and two thirds of the state.

    Short frames stay as they are: it would cost more than they take.
    """
    if frame.height < PACKED_FROM_ROWS:
        return frame
    return frame.with_columns(frame[name].shrink_dtype() for name in family.sums(record_type))


def _stored(rows: pl.DataFrame, record_type: str) -> pl.DataFrame:
    """Per STORED record, the keys of all families and what it adds, negated for a reversal."""
    stored = rows["verdict"] == "STORED"
    found = rows if stored.all() else rows.filter(stored)
    if record_type == "network":
        return found.select(*_network())
    # each is needed often; compared once
    flags = found.with_columns(
        is_call=pl.col("record_type").is_in(CALLS),
        is_data=pl.col("record_type") == "DATA",
        is_sms=pl.col("record_type") == "SMS",
    )
    return flags.select(*_cdr()).with_columns(
        ended_answered=pl.col("completed") + pl.col("dropped"), ended_dropped=pl.col("dropped")
    )


def _common(event_time: str) -> list[pl.Expr]:
    return [
        pl.col("partition"),
        (pl.col(event_time) // MINUTE_MS * MINUTE_MS).alias("window"),
        (pl.col("appended_at") - pl.col(event_time) <= MINUTE_WINDOWS_MAX_AGE_MS).alias("recent"),
        pl.col("cell_id").fill_null(""),
        pl.col("region_id").fill_null(""),
        pl.col("src_offset").alias("touched"),
        pl.col("appended_at"),
        pl.col("came_at"),
        (_sign < 0).cast(pl.Int32).alias("reversals"),
    ]


def _cdr() -> list[pl.Expr]:
    end = pl.col("started_at") + pl.coalesce("holding_ms", "duration_ms", pl.lit(0))
    return [
        *_common("started_at"),
        pl.col("plan_id").fill_null(""),
        *(pl.col(name) for name in ("subscriber_id", "subscriber_kind", "local_date", "roaming")),
        pl.col("direction").fill_null(""),
        charged_currency(),
        pl.col("currency").fill_null("").alias("own_currency"),
        pl.min_horizontal(end, "appended_at").alias("event_end"),
        _one.alias("records"),
        *((_one * (pl.col("record_type") == code)).alias(name) for code, name in COUNT_OF_RECORD_TYPE.items()),
        (_one * _is_call).alias("attempts"),
        *((_one * (_is_call & (pl.col("status") == status))).alias(status.lower()) for status in STATUSES),
        pl.col("last_cell_id"),
        (_sign * _is_call * pl.col("pdd_ms").fill_null(0)).alias("pdd_ms"),
        (_one * (_is_call & pl.col("pdd_ms").is_not_null())).alias("pdd_ms_count"),
        (_one * (_is_data & ~pl.col("is_partial"))).alias("sessions"),
        (_sign * _is_data * pl.col("duration_ms").fill_null(0)).alias("data_duration_ms"),
        (_sign * (_is_data & (pl.col("duration_ms") > 0).fill_null(False)) * _bytes).alias("data_bytes"),
        (_sign * pl.col("is_sms") * pl.col("segments").fill_null(1)).alias("sms_segments"),
        marks((_sign > 0) & (pl.col("subscriber_kind") != "NONE")).alias("mark"),
        (_sign * _is_call * pl.col("duration_ms").fill_null(0)).alias("duration_ms"),
        (_sign * _is_call * pl.coalesce("holding_ms", "duration_ms", pl.lit(0))).alias("holding_ms"),
        *((_sign * pl.col(name).fill_null(0)).alias(name) for name in ("bytes_up", "bytes_down", CHARGE)),
    ]


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
        *(
            (_one * (_is_event(code) & pl.col("success").is_not_null())).alias(f"{name}_known")
            for code, name in SUCCESS_OF.items()
        ),
        *(
            (_one * (_is_event(code) & pl.col("success").fill_null(False))).alias(f"{name}_successes")
            for code, name in SUCCESS_OF.items()
        ),
    ]


def _is_event(code: str) -> pl.Expr:
    return pl.col("event_type") == code
