"""The aggregates that must come out, summed a second time from the truth, and how they are compared with the topics'.

Compared is every upsert: one window of one group in one segment of one partition, in every field. So what people read,
sums over segments and partitions, is compared too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from telestream_contracts import decode, load_schema

_MINUTE, _QUARTER, _HOUR, _DAY = 60, 900, 3_600, 86_400
_RECENT_MS = 2 * 3_600_000
_SEGMENT_BITS, _DAY_SEGMENT_BITS = 18, 20
_STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
_COUNTED = {"sms": "SMS", "mms": "MMS", "data_records": "DATA", "ussd": "USSD", "others": "OTHER"}
_CDR = ("records", *_COUNTED, "attempts", *(s.lower() for s in _STATUSES))
_CDR_LONG = ("duration_ms", "holding_ms", "bytes_up", "bytes_down")
_LATENESS_MS = 5 * 60_000
_OF_DAYS = ("sessions", "sms_segments", "late_records", "reversals")
_OF_WINDOWS = ("ended_answered", "ended_dropped", "data_duration_ms", "data_bytes", *_OF_DAYS)
_QUALITY = ("records", "reversals", "warned", "duration_ms", "bytes", "latency_ms")
_MERGE_ROWS = 600_000
_PORTION = 50_000
_MAX_SAID = 6


@dataclass(frozen=True, slots=True)
class Family:
    """One family in one window size: its topic, groups and whether charge is an array by currency."""

    topic: str
    size_s: int
    groups: tuple[str, ...]
    sums: tuple[str, ...] = (*_CDR, *_CDR_LONG, *_OF_WINDOWS)
    bits: int = _SEGMENT_BITS
    arrays: bool = True
    event_end: bool = True

    @property
    def name(self) -> str:
        return f"{self.topic} by {self.size_s} s"

    @property
    def keys(self) -> tuple[str, ...]:
        return ("window", *self.groups, "segment")


_BY_TIME = (("cell", "cell_id"), ("region", "region_id"), ("plan", "plan_id"))
_SUBSCRIBER_DAY = ("subscriber_id", "plan_id", "roaming", "direction", "currency")
FAMILIES = (
    *(Family(topic, size, (group,)) for topic, group in _BY_TIME for size in (_MINUTE, _QUARTER)),
    Family("quality", _HOUR, ("source", "verdict", "rule"), _QUALITY, event_end=False),
    Family(
        "subscriber_day",
        _DAY,
        _SUBSCRIBER_DAY,
        (*_CDR, *_CDR_LONG, *_OF_DAYS),
        bits=_DAY_SEGMENT_BITS,
        arrays=False,
        event_end=False,
    ),
)


class Truth:
    """Sums of one partition, by family; fed with judged records of which each comes once."""

    def __init__(self) -> None:
        self._sums: dict[str, list[pl.DataFrame]] = {family.name: [] for family in FAMILIES}

    def add(self, judged: pl.DataFrame) -> None:
        """``judged`` as ``Traffic.judged`` gives it, and ``appended_ms``."""
        stored = _stored(judged)
        for family in FAMILIES:
            rows = _quality(judged) if family.topic == "quality" else _of(stored, family)
            held = self._sums[family.name]
            held.append(_summed(rows.with_columns(segment=pl.col("n") // (1 << family.bits), src_to="n"), family))
            if len(held) > 8 or sum(frame.height for frame in held[1:]) > _MERGE_ROWS:
                self._sums[family.name] = [_summed(pl.concat(held), family)]

    def of(self, family: Family) -> pl.DataFrame:
        """One row per upsert that must be there."""
        held = self._sums[family.name]
        return _folded(_summed(pl.concat(held), family), family) if held else pl.DataFrame()


def _stored(judged: pl.DataFrame) -> pl.DataFrame:
    started = pl.col("started_at").cast(pl.Int64)
    call = pl.col("record_type").is_in(["VOICE", "VIDEO"])
    data = pl.col("record_type") == "DATA"
    zero = pl.lit(0)
    sign = pl.col("sign")
    counts = lambda which: (which.cast(pl.Int32) * sign).cast(pl.Int32)  # noqa: E731
    both = pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0)
    return judged.filter(pl.col("verdict") == "STORED").select(
        "n",
        started.alias("started"),
        (pl.col("appended_ms") - started <= _RECENT_MS).alias("recent"),
        *(pl.col(name).fill_null("") for name in ("cell_id", "region_id", "plan_id", "direction")),
        "subscriber_id",
        "subscriber_kind",
        "roaming",
        "local_date",
        pl.col("currency").fill_null("").alias("own_currency"),
        pl.when(pl.col("charge_micros").is_not_null()).then(pl.col("currency").fill_null("")).alias("currency"),
        (sign * pl.col("charge_micros").fill_null(0)).alias("charge"),
        pl.min_horizontal(started + pl.coalesce("holding_ms", "duration_ms", zero), "appended_ms").alias("event_end"),
        sign.cast(pl.Int32).alias("records"),
        (sign < 0).cast(pl.Int32).alias("reversals"),
        *(counts(pl.col("record_type") == code).alias(name) for name, code in _COUNTED.items()),
        counts(call).alias("attempts"),
        *(counts(call & (pl.col("status") == status)).alias(status.lower()) for status in _STATUSES),
        (sign * pl.when(call).then(pl.col("duration_ms").fill_null(0)).otherwise(zero)).alias("duration_ms"),
        (sign * pl.when(call).then(pl.coalesce("holding_ms", "duration_ms", zero)).otherwise(zero)).alias("holding_ms"),
        *((sign * pl.col(name).fill_null(0)).alias(name) for name in ("bytes_up", "bytes_down")),
        "appended_ms",
        # the traffic has no last cells, partial records or SMS segments: what would be counted from them is plain
        counts(call & pl.col("status").is_in(["COMPLETED", "DROPPED"])).alias("ended_answered"),
        counts(call & (pl.col("status") == "DROPPED")).alias("ended_dropped"),
        (sign * pl.when(data).then(pl.col("duration_ms").fill_null(0)).otherwise(zero)).alias("data_duration_ms"),
        (sign * pl.when(data & (pl.col("duration_ms") > 0)).then(both).otherwise(zero)).alias("data_bytes"),
        counts(data).alias("sessions"),
        counts(pl.col("record_type") == "SMS").alias("sms_segments"),
    )


def _of(stored: pl.DataFrame, family: Family) -> pl.DataFrame:
    if family.topic == "subscriber_day":
        day = pl.col("local_date").cast(pl.Int32).cast(pl.Int64)
        rows = stored.filter(pl.col("subscriber_kind") != "NONE").with_columns(window=day, currency="own_currency")
        return rows.with_columns(late_records=_late((day + 1) * _DAY * 1_000))  # days are UTC's
    rows = stored.filter("recent") if family.size_s == _MINUTE else stored
    ms = family.size_s * 1_000
    window = pl.col("started") // ms * ms
    return rows.with_columns(window=window, late_records=_late(window + ms))


def _late(end: pl.Expr) -> pl.Expr:
    return (pl.col("appended_ms") > end + _LATENESS_MS).cast(pl.Int32)


def _quality(judged: pl.DataFrame) -> pl.DataFrame:
    junk = pl.col("rule").fill_null("") == "undecodable"
    sign = pl.col("sign")
    counts = (sign > 0) | (pl.col("verdict") == "STORED")  # a reversal without effect takes nothing back
    effect = pl.when(counts).then(sign).otherwise(0)
    known = lambda name: effect * pl.when(~junk).then(pl.col(name).fill_null(0)).otherwise(0)  # noqa: E731
    waited = (pl.col("appended_ms") - pl.col("started_at").cast(pl.Int64)).clip(0)
    return judged.select(
        "n",
        (pl.col("appended_ms") // (_HOUR * 1_000) * (_HOUR * 1_000)).alias("window"),
        pl.when(~junk).then("source").otherwise(pl.lit("")).alias("source"),
        "verdict",
        pl.col("rule").fill_null(""),
        pl.when(counts & ~junk & pl.col("charge_micros").is_not_null())
        .then(pl.col("currency").fill_null(""))
        .alias("currency"),
        known("charge_micros").alias("charge"),
        (sign > 0).cast(pl.Int32).alias("records"),
        (sign < 0).cast(pl.Int32).alias("reversals"),
        (effect * (pl.col("warnings") != "")).cast(pl.Int32).alias("warned"),
        known("duration_ms").alias("duration_ms"),
        (known("bytes_up") + known("bytes_down")).alias("bytes"),
        (effect * pl.when(junk).then(0).otherwise(waited)).alias("latency_ms"),
    )


def _summed(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    """One row per window and currency."""
    keys = list(dict.fromkeys((*family.keys, "currency")))
    ends = [pl.col("event_end").max()] if family.event_end else []
    return rows.group_by(keys).agg(pl.col("src_to").max(), *ends, *(pl.col(s).sum() for s in (*family.sums, "charge")))


def _folded(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    """One row per window, its charges as text: EUR=12 USD=3."""
    ends = [pl.col("event_end").max()] if family.event_end else []
    charge = pl.concat_str(pl.col("currency"), pl.lit("="), pl.col("charge")) if family.arrays else pl.col("charge")
    charges = charge.drop_nulls().str.join(" ") if family.arrays else charge.sum().cast(pl.String)
    return (
        rows.sort("currency", nulls_last=False)
        .group_by(family.keys)
        .agg(
            pl.col("src_to").max(),
            *ends,
            *(pl.col(s).sum().cast(pl.Int64) for s in family.sums),
            charges.alias("charges"),
        )
    )


def latest(values: Sequence[bytes], family: Family) -> pl.DataFrame:
    """The last upserts of one family, size and partition, in the same shape as the truth."""
    schema = load_schema(f"agg_{family.topic}")
    found = decode(list(values), schema)
    known = {*family.sums, "size_s", "partition", "segment", "src_to", "charge_micros"}
    other = [one["name"] for one in schema["fields"] if one["type"] == "long" and one["name"] not in known]
    day = family.topic == "subscriber_day"
    window = pl.col("local_date").cast(pl.Int32).cast(pl.Int64) if day else pl.col("window_start").cast(pl.Int64)
    charges = pl.col("charge_micros").cast(pl.String)
    if family.arrays:
        pairs = found.select("charge_currencies", "charge_micros").iter_rows()
        texts = [" ".join(f"{c}={m}" for c, m in zip(cs, ms, strict=True)) for cs, ms in pairs]
        charges = pl.Series("charges", texts, pl.String)
    return found.select(
        window.alias("window"),
        *family.groups,
        "segment",
        "src_to",
        *([pl.col("freshest_event_end_at").cast(pl.Int64).alias("event_end")] if family.event_end else []),
        *family.sums,
        charges.alias("charges"),
        (pl.sum_horizontal(other) if other else pl.lit(0)).cast(pl.Int64).alias("of_other_types"),
    )


def all_differences(truth: pl.DataFrame, values: list[bytes], family: Family) -> tuple[int, list[str]]:
    """As ``differences``, of all last upserts, a portion of the windows after the other; ``values`` is emptied."""
    rows = []
    while values:
        rows.append(latest(values[-_PORTION:], family))
        del values[-_PORTION:]
    found = pl.concat(rows) if rows else pl.DataFrame()
    rows.clear()
    portions = max(truth.height, found.height) // _PORTION + 1
    ms_or_day = 1 if family.topic == "subscriber_day" else family.size_s * 1_000
    wrong, said = 0, list[str]()
    for portion in range(portions):
        mine = pl.col("window") // ms_or_day % portions == portion
        some = [one.filter(mine) if one.height else one for one in (truth, found)]
        count, words = differences(*some, family)
        wrong += count
        said += words
    return wrong, said[:_MAX_SAID]


def differences(truth: pl.DataFrame, found: pl.DataFrame, family: Family) -> tuple[int, list[str]]:
    """How many upserts are missing, too many or wrong, and the first of them in words."""
    if truth.is_empty() and found.is_empty():
        return 0, []
    if truth.is_empty() or found.is_empty():
        one, what = (found, "not in the truth") if truth.is_empty() else (truth, "missing")
        return one.height, [f"{family.name}: {one.height} upserts are {what}"]
    columns = [name for name in truth.columns if name not in family.keys]
    both = truth.with_columns(of_other_types=pl.lit(0, pl.Int64), there=True).join(
        found.with_columns(there=True), on=family.keys, how="full", suffix=" found", coalesce=True
    )
    columns = [*columns, "of_other_types", "there"]
    wrong = both.filter(pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} found")) for name in columns))
    said = []
    for row in wrong.sort(family.keys, nulls_last=True).head(3).iter_rows(named=True):
        where = ", ".join(f"{name} {row[name]}" for name in family.keys)
        if row["there"] is None or row["there found"] is None:
            said.append(f"{family.name}: {where}: {'not in the truth' if row['there'] is None else 'missing'}")
        else:
            what = [f"{n} is {row[f'{n} found']}, truth {row[n]}" for n in columns if row[n] != row[f"{n} found"]]
            said.append(f"{family.name}: {where}: {'; '.join(what)}")
    return wrong.height, said
