"""Pure rules every service shares: types, names, segments, rule codes."""

from telestream_domain.errors import TelestreamError
from telestream_domain.names import DEFAULT_PREFIX, FAMILIES, Topics, group_id
from telestream_domain.pseudonyms import MASKED, PSEUDONYM, is_pseudonym, shown_subscriber, shown_subscriber_sql
from telestream_domain.rule_changes import AddedRule, RuleChanges, RuleChangesError
from telestream_domain.rules import CONFLICT, OVERRIDABLE, REFUSED, REJECTED, RULES, RULES_VERSION, WARN, Rule, Severity
from telestream_domain.segments import (
    LATENCY_BOUNDS_MS,
    LATENESS_MS,
    MINUTE_WINDOWS_MAX_AGE_MS,
    SEGMENT_BITS,
    SUBSCRIBER_DAY_SEGMENT_BITS,
    cuts,
    segment_of,
    segment_start,
)
from telestream_domain.types import CDR, NETWORK, REFERENCES, TYPES, RecordType

__all__ = [
    "CDR",
    "CONFLICT",
    "DEFAULT_PREFIX",
    "FAMILIES",
    "LATENCY_BOUNDS_MS",
    "LATENESS_MS",
    "MASKED",
    "MINUTE_WINDOWS_MAX_AGE_MS",
    "NETWORK",
    "OVERRIDABLE",
    "PSEUDONYM",
    "REFERENCES",
    "REFUSED",
    "REJECTED",
    "RULES",
    "RULES_VERSION",
    "SEGMENT_BITS",
    "SUBSCRIBER_DAY_SEGMENT_BITS",
    "TYPES",
    "WARN",
    "AddedRule",
    "RecordType",
    "Rule",
    "RuleChanges",
    "RuleChangesError",
    "Severity",
    "TelestreamError",
    "Topics",
    "cuts",
    "group_id",
    "is_pseudonym",
    "segment_of",
    "segment_start",
    "shown_subscriber",
    "shown_subscriber_sql",
]
