"""A rejected record as its producer may see it: enough to find and mend it, nothing that names a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from query_api.domain.ranges import iso

MASK = "***"
SHOWN = frozenset(
    {
        *("started_at", "occurred_at", "answered_at", "record_type", "event_type", "status", "direction", "is_partial"),
        *("cell_id", "last_cell_id", "target_cell_id", "duration_ms", "holding_ms", "pdd_ms", "bytes_up", "bytes_down"),
        *("charge_micros", "currency", "rat", "domain", "success", "severity", "latency_ms", "throughput_dl_mbps"),
        *("throughput_ul_mbps", "packet_loss_ratio", "prb_utilisation_ratio", "node_id", "node_seq", "max_age_days"),
        *("segments", "record_seq", "serving_plmn"),
    }
)
"""Fields that say what happened; every other one that has a value is masked, also one that a later version adds."""

INTERNAL = frozenset({"event_uid", "ingested_at", "reverses_offset", "origin_offset", "source", "batch_id", "line"})
"""Not the producer's own words, or told beside the record."""

_FREE_TEXT = frozenset({"node_id"})
_LONG_NUMBER = re.compile(r"\d{6,}")


def masked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with a value, in the record's order; identities, and long numbers in free text, as ``***``."""
    shown: dict[str, Any] = {}
    for name, value in record.items():
        if value is None or name in INTERNAL or (name == "ext" and not value):
            continue
        if name not in SHOWN:
            shown[name] = MASK
        elif isinstance(value, datetime):
            shown[name] = iso(value)
        elif name in _FREE_TEXT:
            shown[name] = _LONG_NUMBER.sub(MASK, str(value))
        else:
            shown[name] = value
    return shown
