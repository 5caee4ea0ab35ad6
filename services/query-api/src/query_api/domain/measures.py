"""Which columns an aggregate has, by type of record: counts fit 32 bits within one segment, sums do not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measures:
    """``counts`` count records of at most one segment (2¹⁸), ``sums`` add up what they carry."""

    counts: tuple[str, ...]
    sums: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.counts + self.sums


CDR_MEASURES = Measures(
    counts=(
        "records",
        "sms",
        "mms",
        "data_records",
        "ussd",
        "others",
        "attempts",
        "completed",
        "no_answer",
        "busy",
        "cancelled",
        "congestion",
        "failed",
        "dropped",
        "unknown",
    ),
    sums=("duration_ms", "holding_ms", "bytes_up", "bytes_down"),
)
NETWORK_MEASURES = Measures(
    counts=(
        "events",
        "samples",
        "attaches",
        "handovers",
        "rrc_setups",
        "radio_link_failures",
        "alarms",
        "cell_downs",
        "cell_ups",
        "success_known",
        "successes",
        "latency_us_count",
        "throughput_dl_kbps_count",
        "throughput_ul_kbps_count",
        "packet_loss_ppm_count",
    ),
    sums=("latency_us", "throughput_dl_kbps", "throughput_ul_kbps", "packet_loss_ppm"),
)
MEASURES: dict[str, Measures] = {"cdr": CDR_MEASURES, "network": NETWORK_MEASURES}

GROUP_FIELDS: dict[str, str] = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
"""Family → the field it groups by."""

FAMILY_TYPES: dict[str, tuple[str, ...]] = {"cell": ("cdr", "network"), "region": ("cdr", "network"), "plan": ("cdr",)}
"""Which types a family aggregates: a network event has no plan."""
