"""Every code a record can meet, once (contract section 5). Order is precedence: the first that applies counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RULES_VERSION = 1


class Severity(StrEnum):
    REFUSED = "refused"  # structural: never accepted by the gateway
    REJECTED = "rejected"  # business: accepted, then a dead letter
    WARN = "warn"  # stored and counted


@dataclass(frozen=True, slots=True)
class Rule:
    code: str
    severity: Severity
    help: str


def _rules(severity: Severity, **helps: str) -> tuple[Rule, ...]:
    return tuple(Rule(code, severity, text) for code, text in helps.items())


REFUSED = _rules(
    Severity.REFUSED,
    not_json="The body or line is not JSON (or not a CSV row: wrong number of columns, an unclosed quote).",
    unknown_field="A field that the type does not have; what has no field goes into ext.",
    missing_field="A field that must be there is missing or empty.",
    wrong_type="The value has another type than the field, or lies outside its range.",
    not_in_enum="The value is none of the field's codes.",
    bad_time="Not a time: ISO 8601 with zone, or epoch milliseconds (13 digits).",
    bad_msisdn="Not a possible E.164 number, IMSI or line.",
    bad_cell_id="Not MCC-MNC-cell or MCC-MNC-LAC-cell.",
    too_long="Longer than the field may be.",
    too_large="The record or request is larger than may be sent.",
    source_not_allowed="The API key is not bound to this source.",
)
REJECTED = _rules(
    Severity.REJECTED,
    undecodable="The raw bytes cannot be decoded.",
    negative_value="A duration, byte count or charge below 0.",
    from_the_future="The event lies more than 10 minutes after its arrival.",
    too_old="The event lies more than 400 days before its arrival, or more than its batch's max_age_days.",
    ratio_out_of_range="A ratio outside 0 to 1.",
    inconsistent_times="Answered before the start, or held shorter than charged.",
)
WARN = _rules(
    Severity.WARN,
    duration_too_long="A duration above 24 hours.",
    voice_with_bytes="A voice call with bytes.",
    data_without_bytes="A data record without bytes.",
    implausible_value="A measurement outside what physics allows.",
    ambiguous_time="Local time in the hour that exists twice.",
    number_not_normalised="A number that could not be made E.164.",
    looks_like_number="Something in ext or a name that looks like a number; masked.",
)
RULES: tuple[Rule, ...] = REFUSED + REJECTED + WARN
OVERRIDABLE = frozenset(rule.code for rule in REJECTED + WARN) - {
    "undecodable",
    "ambiguous_time",
    "number_not_normalised",
    "looks_like_number",
}
"""Codes whose severity an operator may change to ``rejected`` or ``warn``: they are found in a record as it stands."""

CONFLICT = "conflict"
"""Rule of a duplicate with the same identity but other content."""
