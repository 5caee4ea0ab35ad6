"""The families of aggregates: what each groups by, its window sizes, and the measures it sums."""

from __future__ import annotations

from dataclasses import dataclass

from telestream_domain import SEGMENT_BITS, SUBSCRIBER_DAY_SEGMENT_BITS

MINUTE_S = 60
QUARTER_S = 900
HOUR_S = 3_600
DAY_S = 86_400

STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
CALLS = ("VOICE", "VIDEO")
COUNT_OF_RECORD_TYPE = {"SMS": "sms", "MMS": "mms", "DATA": "data_records", "USSD": "ussd", "OTHER": "others"}
COUNT_OF_EVENT_TYPE = {
    "SAMPLE": "samples",
    "ATTACH": "attaches",
    "HANDOVER": "handovers",
    "RRC_SETUP": "rrc_setups",
    "RADIO_LINK_FAILURE": "radio_link_failures",
    "ALARM": "alarms",
    "CELL_DOWN": "cell_downs",
    "CELL_UP": "cell_ups",
}
SCALED = {
    "latency_us": ("latency_ms", 1_000),
    "throughput_dl_kbps": ("throughput_dl_mbps", 1_000),
    "throughput_ul_kbps": ("throughput_ul_mbps", 1_000),
    "packet_loss_ppm": ("packet_loss_ratio", 1_000_000),
}
"""Measure → (field, factor). Each record's value is rounded to a whole number before it is added: sums of doubles
depend on the order of addition, and a replay, which batches otherwise, must give the same bytes."""

CHARGE = "charge_micros"
CDR_SUMS = (
    "records",
    *COUNT_OF_RECORD_TYPE.values(),
    "attempts",
    *(status.lower() for status in STATUSES),
    "duration_ms",
    "holding_ms",
    "bytes_up",
    "bytes_down",
)
NETWORK_SUMS = (
    "events",
    *COUNT_OF_EVENT_TYPE.values(),
    "success_known",
    "successes",
    *(name for measure in SCALED for name in (measure, f"{measure}_count")),
)
COUNTS = frozenset(
    (
        "records",
        *COUNT_OF_RECORD_TYPE.values(),
        "attempts",
        *(status.lower() for status in STATUSES),
        "events",
        *COUNT_OF_EVENT_TYPE.values(),
        "success_known",
        "successes",
        *(f"{measure}_count" for measure in SCALED),
        "reversals",
        "warned",
    )
)
"""Held as 32 bits: a segment has fewer records, and these are most of the state."""

QUALITY_SUMS = ("records", "reversals", "warned", "duration_ms", "bytes", "latency_ms")


@dataclass(frozen=True, slots=True)
class Family:
    """One family in one window size.

    ``topic`` is the family it is published as, ``window_s`` its window. ``recent_only``: only records that arrived
    within MINUTE_WINDOWS_MAX_AGE_MS of their event count. ``charges``: charge is emitted as sorted arrays by currency;
    otherwise the currency is one of the groups.
    """

    name: str
    topic: str
    groups: tuple[str, ...]
    window_s: int
    types: tuple[str, ...]
    bits: int
    charges: bool = True
    event_end: bool = True
    recent_only: bool = False

    def keys(self) -> tuple[str, ...]:
        """The columns that tell rows of the family's state apart."""
        return (*self.windows(), "currency") if self.charges else self.windows()

    def windows(self) -> tuple[str, ...]:
        """The columns that tell its windows apart."""
        return ("partition", "window", *self.groups)

    def sums(self, record_type: str) -> tuple[str, ...]:
        """The measures a record type adds to, charge included."""
        if self.topic == "quality":
            return (*QUALITY_SUMS, CHARGE)
        return (*CDR_SUMS, CHARGE) if record_type == "cdr" else NETWORK_SUMS

    def all_sums(self) -> tuple[str, ...]:
        """The measures of the family's schema, without charge."""
        if self.topic == "quality":
            return QUALITY_SUMS
        return (*CDR_SUMS, *NETWORK_SUMS) if "network" in self.types else CDR_SUMS


def families(bits: int = SEGMENT_BITS, subscriber_day_bits: int = SUBSCRIBER_DAY_SEGMENT_BITS) -> dict[str, Family]:
    """All families by name. Segments are parameters so that tests can use small ones; the daily are never smaller."""
    if subscriber_day_bits < bits:
        raise ValueError("subscriber-day segments must consist of whole segments")
    both = ("cdr", "network")
    subscriber_day = ("subscriber_id", "plan_id", "roaming", "direction", "currency")
    table = [
        Family(
            "subscriber_day",
            "subscriber_day",
            subscriber_day,
            DAY_S,
            ("cdr",),
            subscriber_day_bits,
            charges=False,
            event_end=False,
        ),
        Family("quality", "quality", ("source", "verdict", "rule"), HOUR_S, both, bits, event_end=False),
    ]
    for topic, group, types in (
        ("cell", "cell_id", both),
        ("region", "region_id", both),
        ("plan", "plan_id", ("cdr",)),
    ):
        table.append(Family(f"{topic}_minute", topic, (group,), MINUTE_S, types, bits, recent_only=True))
        table.append(Family(topic, topic, (group,), QUARTER_S, types, bits))
    return {family.name: family for family in table}
