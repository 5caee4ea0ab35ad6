"""The rules that reject or warn: one table, from which the reference page is made.

Codes and their words are ``telestream_domain.RULES``; their order is precedence. A check says where in a record a code
applies. A generation may add rules of an operator's own after them. Time rules compare with the broker's append time,
never with a clock, so a replay judges alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from telestream_domain import RULES, AddedRule, Severity

EVENT_MS = "event_ms"
APPENDED_MS = "appended_ms"
"""Columns of int64 epoch milliseconds that checks find beside the record's own."""

FUTURE_TOLERANCE = timedelta(minutes=10)  # clocks of switches drift
MAX_AGE = timedelta(days=400)  # a year and a late correction; what is older needs its batch's allowance
LONG_CALL = timedelta(hours=24)
UNDECODABLE = "undecodable"

_DAY_MS = 86_400_000
_MAX_AGE_DAYS = MAX_AGE // timedelta(days=1)
_ANY_AGE_DAYS = 100_000  # beyond it the arithmetic could overflow
_HELP = {rule.code: rule.help for rule in RULES}
_ORDER = {rule.code: place for place, rule in enumerate(RULES)}


@dataclass(frozen=True, slots=True)
class Check:
    """``breaks`` is true where a record breaks the rule ``code`` in ``field``; null counts as false."""

    code: str
    field: str
    breaks: pl.Expr
    help: str = ""

    @property
    def reason(self) -> str:
        """Field and rule in words; never a value."""
        return f"{self.field}: {self.help or _HELP[self.code]}"


def _ms(delta: timedelta) -> int:
    return delta // timedelta(milliseconds=1)


def _negative(*fields: str) -> tuple[Check, ...]:
    return tuple(Check("negative_value", name, pl.col(name) < 0) for name in fields)


def _outside(code: str, name: str, low: float, high: float) -> Check:
    # a NaN lies nowhere
    return Check(code, name, ~pl.col(name).is_between(low, high))


def _times(time_field: str) -> tuple[Check, ...]:
    allowed = pl.col("max_age_days").fill_null(0).clip(_MAX_AGE_DAYS, _ANY_AGE_DAYS)
    return (
        Check("from_the_future", time_field, pl.col(EVENT_MS) > pl.col(APPENDED_MS) + _ms(FUTURE_TOLERANCE)),
        Check("too_old", time_field, pl.col(EVENT_MS) < pl.col(APPENDED_MS) - allowed * _DAY_MS),
    )


_BYTES = pl.col("bytes_up").fill_null(0).clip(0) + pl.col("bytes_down").fill_null(0).clip(0)

CDR_CHECKS: tuple[Check, ...] = (
    *_negative("duration_ms", "bytes_up", "bytes_down", "charge_micros", "holding_ms", "pdd_ms"),
    *_times("started_at"),
    Check("inconsistent_times", "answered_at", pl.col("answered_at") < pl.col("started_at")),
    Check("inconsistent_times", "holding_ms", pl.col("holding_ms") < pl.col("duration_ms")),
    Check("duration_too_long", "duration_ms", pl.max_horizontal("duration_ms", "holding_ms") > _ms(LONG_CALL)),
    Check("voice_with_bytes", "record_type", (pl.col("record_type") == "VOICE") & (_BYTES > 0)),
    Check("data_without_bytes", "record_type", (pl.col("record_type") == "DATA") & (_BYTES == 0)),
)
# signal bounds: 3GPP TS 38.133 reporting ranges, and a little more
NETWORK_CHECKS: tuple[Check, ...] = (
    *_negative("latency_ms"),
    *_times("occurred_at"),
    _outside("ratio_out_of_range", "packet_loss_ratio", 0.0, 1.0),
    _outside("ratio_out_of_range", "prb_utilisation_ratio", 0.0, 1.0),
    _outside("implausible_value", "latency_ms", 0.0, 600_000.0),
    _outside("implausible_value", "throughput_dl_mbps", 0.0, 100_000.0),
    _outside("implausible_value", "throughput_ul_mbps", 0.0, 100_000.0),
    _outside("implausible_value", "rsrp_dbm", -160.0, -20.0),
    _outside("implausible_value", "rsrq_db", -50.0, 30.0),
    _outside("implausible_value", "sinr_db", -40.0, 60.0),
    Check("implausible_value", "sample_count", pl.col("sample_count") < 0),
)
CHECKS: dict[str, tuple[Check, ...]] = {"cdr": CDR_CHECKS, "network": NETWORK_CHECKS}

_DEFAULTS = {rule.code: rule.severity for rule in RULES}
NO_RULE = -1


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The checks of one type in order of precedence, by what they lead to."""

    rejecting: tuple[Check, ...]
    warning: tuple[Check, ...]
    _expressions: list[pl.Expr] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "_expressions",
            [check.breaks.alias(str(place)) for place, check in enumerate((*self.rejecting, *self.warning))],
        )

    def judge(self, records: pl.DataFrame) -> Broken:
        """Apply every check to every record: columns of the type, EVENT_MS and APPENDED_MS."""
        hits = records.select(self._expressions)
        rejected = np.full(records.height, NO_RULE, np.int64)
        for place in reversed(range(len(self.rejecting))):
            if hits[str(place)].any():
                rejected[hits[str(place)].fill_null(False).to_numpy()] = place
        warned: dict[str, npt.NDArray[np.bool_]] = {}
        for place, check in enumerate(self.warning, len(self.rejecting)):
            if hits[str(place)].any():
                where = hits[str(place)].fill_null(False).to_numpy()
                warned[check.code] = warned[check.code] | where if check.code in warned else where
        return Broken(rejected, warned)


@dataclass(frozen=True, slots=True)
class Broken:
    """Per record: the index in ``rejecting`` of the first check it breaks, or NO_RULE; and who broke which warning."""

    rejected: npt.NDArray[np.int64]
    warned: Mapping[str, npt.NDArray[np.bool_]]


def rule_set(
    checks: Sequence[Check],
    severities: Mapping[str, Severity] | None = None,
    changed: Mapping[str, Severity] | None = None,
    added: Sequence[AddedRule] = (),
) -> RuleSet:
    """The checks with their severities in the order of ``RULES``, then the added rules in theirs.

    A severity that the generation's rules ``changed`` goes before the installation's, that one before the default.
    """
    chosen = {**_DEFAULTS, **(severities or {}), **(changed or {}), **{rule.code: rule.severity for rule in added}}
    ordered = [
        *sorted(checks, key=lambda check: _ORDER[check.code]),
        *(Check(rule.code, rule.field, rule.breaks(), rule.help) for rule in added),
    ]
    return RuleSet(
        tuple(check for check in ordered if chosen[check.code] is Severity.REJECTED),
        tuple(check for check in ordered if chosen[check.code] is Severity.WARN),
    )


def warning_lists(warned: Mapping[str, npt.NDArray[np.bool_]], count: int) -> pl.Series:
    """A list of codes per record, in the order of ``warned``; most are empty."""
    if not warned:
        return pl.Series("warnings", pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), pa.array([], pa.string())))
    codes = list(warned)
    matrix = np.stack([warned[code] for code in codes], axis=1)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(matrix.sum(axis=1), out=offsets[1:])
    values = pa.array(codes).take(pa.array(np.nonzero(matrix)[1]))
    return pl.Series("warnings", pa.ListArray.from_arrays(offsets, values))
