"""The families of aggregates: what each groups by, its window sizes, and the measures it sums."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from telestream_domain import LATENCY_BOUNDS_MS, SEGMENT_BITS, SUBSCRIBER_DAY_SEGMENT_BITS

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

SUCCESS_OF = {"RRC_SETUP": "rrc_setup", "HANDOVER": "handover", "ATTACH": "attach"}
"""Event type → the measures ``<name>_known`` and ``<name>_successes``."""

CHARGE = "charge_micros"
ENDED = ("ended_answered", "ended_dropped")
LATE = ("late_records", "reversals")
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
CDR_DAY_SUMS = (*CDR_SUMS, "sessions", "sms_segments", *LATE)
CDR_WINDOW_SUMS = (
    *CDR_SUMS,
    *ENDED,
    *("pdd_ms", "pdd_ms_count", "sessions", "data_duration_ms", "data_bytes", "sms_segments"),
    *LATE,
)
NETWORK_SUMS = (
    "events",
    *COUNT_OF_EVENT_TYPE.values(),
    "success_known",
    "successes",
    *(name for measure in SCALED for name in (measure, f"{measure}_count")),
    *(name for event in SUCCESS_OF.values() for name in (f"{event}_known", f"{event}_successes")),
    *LATE,
)
LATENCY_WITHIN = tuple(f"latency_within_{number}" for number in range(len(LATENCY_BOUNDS_MS) + 1))
"""Records that waited up to each bound, and all."""
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
        *(name for event in SUCCESS_OF.values() for name in (f"{event}_known", f"{event}_successes")),
        *ENDED,
        "pdd_ms_count",
        "sessions",
        *LATE,
        "warned",
        *LATENCY_WITHIN,
        "warning_counts",
    )
)
"""Held as 32 bits: a segment has fewer records, and these are most of the state."""

QUALITY_SUMS = ("records", "reversals", "warned", "duration_ms", "bytes", "latency_ms")


@dataclass(frozen=True, slots=True)
class Family:
    """One family in one window size.

    ``topic`` is the family it is published as, ``window_s`` its window. ``recent_only``: only records that arrived
    within MINUTE_WINDOWS_MAX_AGE_MS of their event count. ``charges``: charge is emitted as sorted arrays by currency;
    otherwise the currency is one of the groups. ``zone``: whose local days it counts, None if its windows are not days.
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
    zone: ZoneInfo | None = None

    @property
    def late(self) -> bool:
        """Whether its windows end, so that a record can be late."""
        return self.topic != "quality"

    def sketched(self, record_type: str) -> bool:
        """Whether its windows say how many subscribers they hold."""
        return record_type == "cdr" and self.window_s == QUARTER_S

    def keys(self) -> tuple[str, ...]:
        """The columns that tell rows of the family's state apart."""
        if self.topic == "quality":
            return (*self.windows(), "currency", "warning")
        return (*self.windows(), "currency") if self.charges else self.windows()

    def latest(self) -> tuple[str, ...]:
        """The columns of which a window keeps the greatest."""
        return ("touched", *(["event_end"] if self.event_end else []), *(["late_at"] if self.late else []))

    def windows(self) -> tuple[str, ...]:
        """The columns that tell its windows apart."""
        return ("partition", "window", *self.groups)

    def sums(self, record_type: str) -> tuple[str, ...]:
        """The measures a record type adds to, charge included."""
        if self.topic == "quality":
            return (*QUALITY_SUMS, *LATENCY_WITHIN, "warning_counts", CHARGE)
        if record_type == "network":
            return NETWORK_SUMS
        return (*(CDR_DAY_SUMS if self.topic == "subscriber_day" else CDR_WINDOW_SUMS), CHARGE)

    def all_sums(self) -> tuple[str, ...]:
        """The measures of the family's schema that are plain sums, without charge."""
        if self.topic == "quality":
            return QUALITY_SUMS
        if self.topic == "subscriber_day":
            return CDR_DAY_SUMS
        own = NETWORK_SUMS if "network" in self.types else ()
        return tuple(dict.fromkeys((*CDR_WINDOW_SUMS, *own)))


UTC = ZoneInfo("UTC")


def families(
    bits: int = SEGMENT_BITS, subscriber_day_bits: int = SUBSCRIBER_DAY_SEGMENT_BITS, zone: ZoneInfo = UTC
) -> dict[str, Family]:
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
            zone=zone,
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
