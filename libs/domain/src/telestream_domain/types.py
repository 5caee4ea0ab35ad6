"""A record type is one row of this table; adding one touches nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordType:
    """What a stage needs to know of a kind of event.

    ``time_field`` is the instant an event counts in, ``key_field`` the identity it is keyed by.
    """

    name: str
    time_field: str
    key_field: str


CDR = RecordType("cdr", time_field="started_at", key_field="subscriber_id")
NETWORK = RecordType("network", time_field="occurred_at", key_field="cell_id")
TYPES: dict[str, RecordType] = {record_type.name: record_type for record_type in (CDR, NETWORK)}

REFERENCES: tuple[str, ...] = ("customer", "cell", "region", "plan")

RECORD_TYPES = ("VOICE", "SMS", "MMS", "DATA", "VIDEO", "USSD", "OTHER")
STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
SUBSCRIBER_KINDS = ("MSISDN", "IMSI", "LINE", "NONE")
DIRECTIONS = ("MO", "MT", "FORWARDED", "TRANSIT", "GATEWAY_IN", "GATEWAY_OUT")
PEER_KINDS = ("E164", "SHORT_CODE", "SERVICE", "EMERGENCY", "ALPHANUMERIC", "EXTENSION", "SIP", "ANONYMOUS")
RATS = ("GSM", "UMTS", "LTE", "NR", "NB_IOT", "LTE_M", "WIFI", "FIXED", "SATELLITE")
DOMAINS = ("CS", "PS", "IMS", "FIXED")
CAUSE_FAMILIES = ("Q850", "SIP", "MAP", "NAS", "DIAMETER", "SMS", "VENDOR")
RELEASED_BY = ("CALLER", "CALLEE", "NETWORK")
EVENT_TYPES = ("SAMPLE", "ATTACH", "HANDOVER", "RRC_SETUP", "RADIO_LINK_FAILURE", "ALARM", "CELL_DOWN", "CELL_UP")
SEVERITIES = ("INFO", "MINOR", "MAJOR", "CRITICAL")
ALARM_STATES = ("RAISED", "CLEARED")
VERDICTS = ("STORED", "DUPLICATE", "REJECTED", "ERASED")
ROAMING = ("HOME", "OUTBOUND", "INBOUND", "NATIONAL", "UNKNOWN")
