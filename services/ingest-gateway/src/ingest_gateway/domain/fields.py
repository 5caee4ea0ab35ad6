"""What producers may send, once: the table that both paths, the profiles and the reference pages are made from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from telestream_domain.types import (
    ALARM_STATES,
    CAUSE_FAMILIES,
    DIRECTIONS,
    DOMAINS,
    EVENT_TYPES,
    RATS,
    RECORD_TYPES,
    RELEASED_BY,
    SEVERITIES,
    STATUSES,
)

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXT_KEYS = 32
EXT_KEY_CHARS = 64
EXT_VALUE_BYTES = 256
NUMBER_CHARS, PARTY_CHARS, CELL_CHARS, PLMN_CHARS = 32, 64, 40, 7
RECORD_BYTES = 64 << 10  # far above any honest record, far below what Kafka takes


class Kind(StrEnum):
    INSTANT = "instant"  # ISO 8601 with zone, or epoch milliseconds
    ENUM = "enum"
    LONG = "long"
    DOUBLE = "double"
    BOOL = "bool"
    TEXT = "text"
    EVENT_ID = "event_id"  # hashed with the source, not kept
    SESSION = "session"  # hashed
    MSISDN = "msisdn"
    IMSI = "imsi"
    IMEI = "imei"
    LINE = "line"
    PARTY = "party"  # only from a profile: an MSISDN or else a line
    PEER = "peer"
    CELL = "cell"
    PLMN = "plmn"
    CURRENCY = "currency"
    COUNTRY = "country"
    EXT = "ext"


@dataclass(frozen=True, slots=True)
class InputField:
    """``limit`` is in characters; ``low`` and ``high`` bound a LONG inclusively."""

    name: str
    kind: Kind
    help: str
    required: bool = False
    limit: int = 128
    values: tuple[str, ...] = ()
    low: int = INT64_MIN
    high: int = INT64_MAX
    masked: bool = False  # free text that may hold somebody's number: long runs of digits are starred out


def _enum(name: str, values: tuple[str, ...], text: str, required: bool = False) -> InputField:
    return InputField(name, Kind.ENUM, text, required, values=values)


def _long(name: str, text: str) -> InputField:
    return InputField(name, Kind.LONG, text)


def _double(name: str, text: str) -> InputField:
    return InputField(name, Kind.DOUBLE, text)


def _text(name: str, text: str, limit: int = 128, required: bool = False, masked: bool = False) -> InputField:
    return InputField(name, Kind.TEXT, text, required, limit, masked=masked)


_EVENT_ID = InputField("event_id", Kind.EVENT_ID, "The producer's own id; unique in its source", limit=128)
_SESSION = InputField("session_id", Kind.SESSION, "Call or data session; legs and partial records share it", limit=128)
_EXT = InputField("ext", Kind.EXT, "What has no field: at most 32 keys, 256 bytes each; in CSV columns ext.NAME")
_RAT = _enum("rat", RATS, "Radio access technology")

CDR_FIELDS: tuple[InputField, ...] = (
    _EVENT_ID,
    InputField("started_at", Kind.INSTANT, "Seizure; start of a session or of this partial record", required=True),
    _enum("record_type", RECORD_TYPES, "Kind of service", required=True),
    _enum("status", STATUSES, "How it ended; DROPPED: answered, then lost", required=True),
    InputField("msisdn", Kind.MSISDN, "The subscriber's E.164 number, with or without +", limit=NUMBER_CHARS),
    InputField("imsi", Kind.IMSI, "The subscriber's IMSI, 14 or 15 digits", limit=NUMBER_CHARS),
    InputField("line", Kind.LINE, "The subscriber as extension or SIP user, if there is no number", limit=PARTY_CHARS),
    _text("route_in", "Incoming trunk; needed where there is no subscriber", 64, masked=True),
    InputField("cell_id", Kind.CELL, "First cell: MCC-MNC-cell (LTE, NR) or MCC-MNC-LAC-cell", limit=CELL_CHARS),
    _long("duration_ms", "Chargeable: answer to release; 0 if not answered"),
    _long("bytes_up", "Bytes from the subscriber"),
    _long("bytes_down", "Bytes to the subscriber"),
    _long("charge_micros", "Millionths of currency"),
    InputField("currency", Kind.CURRENCY, "ISO 4217", limit=3),
    _enum("direction", DIRECTIONS, "Seen from the subscriber"),
    InputField("peer", Kind.PEER, "The other party: number, short code, service, name, SIP user", limit=PARTY_CHARS),
    InputField("serving_plmn", Kind.PLMN, "MCC-MNC that served; else taken from the cell", limit=PLMN_CHARS),
    InputField("is_partial", Kind.BOOL, "true: more records of this session follow"),
    _RAT,
    _enum("domain", DOMAINS, "Core network domain"),
    InputField("answered_at", Kind.INSTANT, "Answer"),
    _long("holding_ms", "Seizure to release"),
    _long("pdd_ms", "Post-dial delay"),
    InputField("last_cell_id", Kind.CELL, "Where it ended", limit=CELL_CHARS),
    _enum("cause_family", CAUSE_FAMILIES, "Which list cause_code is from"),
    _long("cause_code", "Release cause"),
    _enum("released_by", RELEASED_BY, "Who released"),
    _SESSION,
    _long("record_seq", "Number of this partial record in its session"),
    _text("closing_reason", "Why this partial record was closed", 64, masked=True),
    _text("node_id", "The switch", 64),
    _long("node_seq", "The switch's own counter"),
    InputField("imei", Kind.IMEI, "The device, 14 to 16 digits", limit=NUMBER_CHARS),
    _text("apn", "Access point name", 100, masked=True),
    _text("route_out", "Outgoing trunk", 64, masked=True),
    _long("segments", "SMS segments"),
    _long("rating_group", "Rating group of the data flow"),
    _EXT,
)

NETWORK_FIELDS: tuple[InputField, ...] = (
    _EVENT_ID,
    InputField("occurred_at", Kind.INSTANT, "When it happened", required=True),
    _enum("event_type", EVENT_TYPES, "Kind of event", required=True),
    InputField("cell_id", Kind.CELL, "MCC-MNC-cell (LTE, NR) or MCC-MNC-LAC-cell", required=True, limit=CELL_CHARS),
    InputField("success", Kind.BOOL, "Whether the procedure succeeded"),
    _enum("severity", SEVERITIES, "Of an alarm"),
    _double("latency_ms", "Round trip"),
    _double("throughput_dl_mbps", "Downlink"),
    _double("throughput_ul_mbps", "Uplink"),
    _double("packet_loss_ratio", "0 to 1"),
    _double("rsrp_dbm", "Reference signal received power"),
    _double("rsrq_db", "Reference signal received quality"),
    _double("sinr_db", "Signal to interference and noise"),
    _double("prb_utilisation_ratio", "0 to 1"),
    _long("sample_count", "Samples behind this event"),
    InputField("imsi", Kind.IMSI, "The subscriber, 14 or 15 digits", limit=NUMBER_CHARS),
    _RAT,
    InputField("target_cell_id", Kind.CELL, "Of a handover", limit=CELL_CHARS),
    _enum("cause_family", CAUSE_FAMILIES, "Which list cause_code is from"),
    _long("cause_code", "Cause"),
    _SESSION,
    _text("alarm_id", "The alarm's own id"),
    _enum("alarm_state", ALARM_STATES, "Raised or cleared"),
    _text("probable_cause", "ITU-T X.733 text", 256, masked=True),
    _EXT,
)

_VALID_FROM = InputField("valid_from", Kind.INSTANT, "From when this version holds", required=True)
_DELETED = InputField("deleted", Kind.BOOL, "true: a deletion; so is a record whose other fields are all empty")
_NAME = _text("name", "Display name", 200, masked=True)

CUSTOMER_FIELDS: tuple[InputField, ...] = (
    InputField("msisdn", Kind.MSISDN, "E.164 number, with or without +", limit=NUMBER_CHARS),
    InputField("imsi", Kind.IMSI, "14 or 15 digits", limit=NUMBER_CHARS),
    _VALID_FROM,
    _DELETED,
    _text("customer_id", "The operator's customer id", 64),
    _text("plan_id", "Tariff plan", 64),
    _text("segment", "Market segment", 64),
    _text("region_id", "Home region", 64),
    _text("status", "Of the contract", 64),
    InputField("activated_at", Kind.INSTANT, "Activation"),
    InputField("bill_cycle_day", Kind.LONG, "1 to 31", low=1, high=31),
)
CELL_FIELDS: tuple[InputField, ...] = (
    InputField("cell_id", Kind.CELL, "MCC-MNC-cell or MCC-MNC-LAC-cell", required=True, limit=CELL_CHARS),
    _VALID_FROM,
    _DELETED,
    _NAME,
    _text("region_id", "Region", 64),
    _double("latitude", "Degrees north"),
    _double("longitude", "Degrees east"),
    _text("technology", "GSM UMTS LTE NR …", 16),
    _text("vendor", "Equipment vendor", 64),
)
REGION_FIELDS: tuple[InputField, ...] = (
    _text("region_id", "Region", 64, required=True),
    _VALID_FROM,
    _DELETED,
    _NAME,
    InputField("country", Kind.COUNTRY, "ISO 3166 alpha-2", limit=2),
)
PLAN_FIELDS: tuple[InputField, ...] = (
    _text("plan_id", "Tariff plan", 64, required=True),
    _VALID_FROM,
    _DELETED,
    _NAME,
    _enum("payment", ("PREPAID", "POSTPAID"), "How it is paid"),
    InputField("currency", Kind.CURRENCY, "ISO 4217", limit=3),
    _long("monthly_fee_micros", "Millionths of currency"),
    _long("voice_allowance_s", "Seconds a month; empty: unlimited"),
    _long("sms_allowance", "Messages a month; empty: unlimited"),
    _long("data_allowance_bytes", "Bytes a month; empty: unlimited"),
)

INPUT_FIELDS: dict[str, tuple[InputField, ...]] = {
    "cdr": CDR_FIELDS,
    "network": NETWORK_FIELDS,
    "customer": CUSTOMER_FIELDS,
    "cell": CELL_FIELDS,
    "region": REGION_FIELDS,
    "plan": PLAN_FIELDS,
}
"""Type → what may be sent. Nothing else is taken: offsets, batch, line and arrival are the gateway's own."""
