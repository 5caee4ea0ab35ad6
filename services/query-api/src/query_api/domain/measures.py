"""Which columns an aggregate has, by type of record: counts fit 32 bits within one segment, sums do not."""

from __future__ import annotations

from dataclasses import dataclass

from telestream_warehouse import measures


@dataclass(frozen=True, slots=True)
class Measures:
    """``counts`` count records of at most one segment (2¹⁸), ``sums`` add up what they carry."""

    counts: tuple[str, ...]
    sums: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.counts + self.sums

    def within(self, family: str) -> Measures:
        """Those that the aggregates of a family have."""
        have = set(measures(family))
        return Measures(
            tuple(name for name in self.counts if name in have), tuple(name for name in self.sums if name in have)
        )


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
        "ended_answered",
        "ended_dropped",
        "pdd_ms_count",
        "sessions",
    ),
    sums=(
        "duration_ms",
        "holding_ms",
        "bytes_up",
        "bytes_down",
        "pdd_ms",
        "data_duration_ms",
        "data_bytes",
        "sms_segments",
    ),
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
        "rrc_setup_known",
        "rrc_setup_successes",
        "handover_known",
        "handover_successes",
        "attach_known",
        "attach_successes",
        "latency_us_count",
        "throughput_dl_kbps_count",
        "throughput_ul_kbps_count",
        "packet_loss_ppm_count",
    ),
    sums=("latency_us", "throughput_dl_kbps", "throughput_ul_kbps", "packet_loss_ppm"),
)
MEASURES: dict[str, Measures] = {"cdr": CDR_MEASURES, "network": NETWORK_MEASURES}

USAGE_MEASURES = CDR_MEASURES.within("subscriber_day")
"""What a subscriber-day has of them."""

LATE_MEASURES = ("late_records", "reversals")
"""Of both types together: records that arrived after their window was complete, and records taken back."""

GROUP_FIELDS: dict[str, str] = {"cell": "cell_id", "region": "region_id", "plan": "plan_id"}
"""Family → the field it groups by."""

FAMILY_TYPES: dict[str, tuple[str, ...]] = {"cell": ("cdr", "network"), "region": ("cdr", "network"), "plan": ("cdr",)}
"""Which types a family aggregates: a network event has no plan."""


def measures_of(family: str) -> tuple[str, ...]:
    """All measures of a family, both types."""
    return tuple(name for kind in FAMILY_TYPES[family] for name in MEASURES[kind].all)
