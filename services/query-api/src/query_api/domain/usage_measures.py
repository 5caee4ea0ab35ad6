"""What each number of a usage row is: unit and formula over STORED records, for ``?explain=1`` and the docs."""

from __future__ import annotations

from query_api.domain.measures import LATE_MEASURES, USAGE_MEASURES

_CALLS = "record_type in VOICE, VIDEO"
_WORDS: dict[str, tuple[str, str]] = {
    "records": ("records", "count"),
    "sms": ("messages", "count where record_type = SMS"),
    "mms": ("messages", "count where record_type = MMS"),
    "data_records": ("records", "count where record_type = DATA, partial records each"),
    "ussd": ("records", "count where record_type = USSD"),
    "others": ("records", "count where record_type = OTHER"),
    "attempts": ("calls", f"count where {_CALLS}"),
    **{
        status: ("calls", f"count where {_CALLS} and status = {status.upper()}")
        for status in ("completed", "no_answer", "busy", "cancelled", "congestion", "failed", "dropped", "unknown")
    },
    "sessions": ("sessions", "count where record_type = DATA and not is_partial: the record that closes it"),
    "duration_ms": ("ms", f"sum of duration_ms, answer to release, where {_CALLS}; ÷ 1000: voice seconds"),
    "holding_ms": ("ms", f"sum of holding_ms, else duration_ms, where {_CALLS}"),
    "bytes_up": ("bytes", "sum of bytes_up of all record types"),
    "bytes_down": ("bytes", "sum of bytes_down of all record types"),
    "sms_segments": ("segments", "sum of segments, else 1, where record_type = SMS"),
    "charges": ("currency", "sum of charge_micros ÷ 1,000,000 per currency"),
    "late_records": ("records", "count of arrivals more than 5 minutes after the end of the local day, reversals too"),
    "reversals": ("records", "count of records that were taken back; what they had added is subtracted everywhere"),
}
SHOWN: tuple[str, ...] = (*USAGE_MEASURES.all, "charges", *LATE_MEASURES)
"""The plain numbers of a usage row, beside its KPIs."""


def explained() -> dict[str, dict[str, str]]:
    """Name → unit and formula, for every number of ``SHOWN``."""
    return {name: dict(zip(("unit", "formula"), _WORDS[name], strict=True)) for name in SHOWN}
