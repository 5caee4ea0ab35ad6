"""What was let in, as columns of the raw schema without what every record of the batch has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]

_CDR = """event_uid started_at record_type status subscriber_id subscriber_kind cell_id duration_ms bytes_up bytes_down
charge_micros currency direction peer_id peer_kind peer_country home_plmn serving_plmn is_partial rat domain answered_at
holding_ms pdd_ms last_cell_id cause_family cause_code released_by session_id record_seq closing_reason node_id node_seq
imsi imei device_tac peer_prefix apn route_in route_out segments rating_group ext"""
_NETWORK = """event_uid occurred_at event_type cell_id success severity latency_ms throughput_dl_mbps throughput_ul_mbps
packet_loss_ratio rsrp_dbm rsrq_db sinr_db prb_utilisation_ratio sample_count imsi rat target_cell_id cause_family
cause_code session_id alarm_id alarm_state probable_cause ext"""
_CUSTOMER = """identifier identifier_kind valid_from deleted customer_id plan_id segment region_id status activated_at
bill_cycle_day"""
_CELL = "cell_id valid_from deleted name region_id latitude longitude technology vendor"
_REGION = "region_id valid_from deleted name country"
_PLAN = """plan_id valid_from deleted name payment currency monthly_fee_micros voice_allowance_s sms_allowance
data_allowance_bytes"""

OUTPUT: dict[str, tuple[str, ...]] = {
    "cdr": tuple(_CDR.split()),
    "network": tuple(_NETWORK.split()),
    "customer": tuple(_CUSTOMER.split()),
    "cell": tuple(_CELL.split()),
    "region": tuple(_REGION.split()),
    "plan": tuple(_PLAN.split()),
}
"""Type → the fields of its raw record that come from the producer's. The rest is the gateway's, one value per batch."""

SUMMED = {"duration_ms": ("duration_ms",), "bytes": ("bytes_up", "bytes_down"), "charge_micros": ("charge_micros",)}
"""The totals a switch may declare of a file of CDRs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to send: its values in OUTPUT's order, its shard and its key."""

    row: tuple[Any, ...]
    shard: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """Records to send, ascending by ``lines``. ``columns`` has OUTPUT's names, each as long as ``lines``."""

    columns: Mapping[str, pa.Array]
    lines: Ints
    shards: Ints
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.lines)

    def totals(self) -> dict[str, int]:
        """Sums a switch may have declared; empty for types without them."""
        sums = {}
        for name, parts in SUMMED.items():
            if all(part in self.columns for part in parts):
                sums[name] = sum(exact_sum(self.columns[part]) for part in parts)
        return sums


def exact_sum(column: pa.Array) -> int:
    """The sum without overflow: 64-bit values may add up to more than 64 bits."""
    values = column.drop_null().to_numpy(zero_copy_only=False)
    if not len(values):
        return 0
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if largest < 2**62 // len(values):
        return int(values.sum())
    return sum(int(value) for value in values)


def from_entries(
    record_type: str, entries: list[Entry], lines: list[int], types: Mapping[str, pa.DataType]
) -> Accepted:
    """Columns of entries; ``types`` are the raw schema's."""
    names = OUTPUT[record_type]
    values = zip(*[entry.row for entry in entries], strict=True) if entries else ([] for _ in names)
    columns = {name: pa.array(column, types[name]) for name, column in zip(names, values, strict=True)}
    return Accepted(
        columns,
        np.array(lines, np.int64),
        np.array([entry.shard for entry in entries], np.int64),
        [entry.key for entry in entries],
    )
