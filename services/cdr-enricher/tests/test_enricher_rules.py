from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cdr_enricher.domain.rules import CHECKS, rule_set
from telestream_contracts import decode_record, enriched_schema, raw_fields
from telestream_domain import OVERRIDABLE, REJECTED, WARN, RuleChanges, Severity

ARRIVED_MS = 1_790_000_000_000
MINUTE, DAY = 60_000, 86_400_000

CDR_REJECTIONS = [
    ({"duration_ms": -1}, "negative_value", "duration_ms"),
    ({"bytes_up": -1}, "negative_value", "bytes_up"),
    ({"bytes_down": -1}, "negative_value", "bytes_down"),
    ({"charge_micros": -1}, "negative_value", "charge_micros"),
    ({"holding_ms": -1, "duration_ms": None}, "negative_value", "holding_ms"),
    ({"pdd_ms": -1}, "negative_value", "pdd_ms"),
    ({"started_at": ARRIVED_MS + 10 * MINUTE + 1}, "from_the_future", "started_at"),
    ({"started_at": ARRIVED_MS - 400 * DAY - 1}, "too_old", "started_at"),
    ({"started_at": ARRIVED_MS - 500 * DAY - 1, "max_age_days": 500}, "too_old", "started_at"),
    ({"answered_at": ARRIVED_MS - 60_001}, "inconsistent_times", "answered_at"),
    ({"holding_ms": 29_999}, "inconsistent_times", "holding_ms"),
    # the first in the table counts
    ({"duration_ms": -1, "started_at": ARRIVED_MS + DAY, "holding_ms": -5}, "negative_value", "duration_ms"),
    ({"started_at": 2**62}, "from_the_future", "started_at"),
    ({"started_at": -(2**62)}, "too_old", "started_at"),
    ({"started_at": -(2**62), "max_age_days": 2**62}, "too_old", "started_at"),
]
CDR_GOOD = [
    {"started_at": ARRIVED_MS + 10 * MINUTE},
    {"started_at": ARRIVED_MS - 400 * DAY},
    {"started_at": ARRIVED_MS - 500 * DAY, "max_age_days": 500},
    {"started_at": ARRIVED_MS - 399 * DAY, "max_age_days": 3},
    {"duration_ms": None, "holding_ms": None},
    {"duration_ms": 0, "holding_ms": 0, "answered_at": ARRIVED_MS - 60_000},
]
NETWORK_REJECTIONS = [
    ({"latency_ms": -0.5}, "negative_value", "latency_ms"),
    ({"packet_loss_ratio": 1.01}, "ratio_out_of_range", "packet_loss_ratio"),
    ({"prb_utilisation_ratio": -0.01}, "ratio_out_of_range", "prb_utilisation_ratio"),
    ({"packet_loss_ratio": float("nan")}, "ratio_out_of_range", "packet_loss_ratio"),
    ({"occurred_at": ARRIVED_MS + 10 * MINUTE + 1}, "from_the_future", "occurred_at"),
    ({"occurred_at": ARRIVED_MS - 400 * DAY - 1}, "too_old", "occurred_at"),
]
WARNINGS = [
    ("cdr", {"duration_ms": DAY + 1}, ["duration_too_long"]),
    ("cdr", {"duration_ms": DAY}, []),
    ("cdr", {"holding_ms": DAY + 1}, ["duration_too_long"]),
    ("cdr", {"bytes_down": 5}, ["voice_with_bytes"]),
    ("cdr", {"record_type": "DATA"}, ["data_without_bytes"]),
    ("cdr", {"record_type": "DATA", "bytes_up": 1}, []),
    ("cdr", {"bytes_up": 1, "duration_ms": DAY + 1}, ["duration_too_long", "voice_with_bytes"]),
    ("network", {"rsrp_dbm": -200.0}, ["implausible_value"]),
    ("network", {"rsrp_dbm": -90.0, "rsrq_db": -10.0, "sinr_db": 12.0}, []),
    ("network", {"throughput_dl_mbps": -1.0, "throughput_ul_mbps": -1.0}, ["implausible_value"]),
    ("network", {"sinr_db": float("inf")}, ["implausible_value"]),
]


@pytest.mark.parametrize(
    ("type_name", "changes", "code", "field"),
    [("cdr", *row) for row in CDR_REJECTIONS] + [("network", *row) for row in NETWORK_REJECTIONS],
)
def test_a_record_that_breaks_a_rejecting_rule_is_rejected_with_rule_and_field(
    bench: Callable[..., Any],
    letters: Callable[..., Any],
    type_name: str,
    changes: dict[str, Any],
    code: str,
    field: str,
) -> None:
    judge = bench(type_name)
    value = judge.value(**changes)
    outputs = judge.outputs(judge.value(event_uid="good"), value)

    (letter,) = letters(outputs["rejected"])
    assert (letter["rule"], letter["field"]) == (code, field)
    assert letter["reason"].startswith(f"{field}: ")
    assert letter["original"] == value
    assert (letter["src_topic"], letter["src_partition"], letter["src_offset"]) == (f"t.{type_name}.raw", 3, 1)
    assert letter["event_uid"] == "uid-0"


@pytest.mark.parametrize("changes", CDR_GOOD)
def test_a_record_at_the_edge_of_a_rule_is_stored(bench: Callable[..., Any], changes: dict[str, Any]) -> None:
    judge = bench()
    assert [(r["verdict"], r["rule"]) for r in judge.judged(judge.value(**changes))] == [("STORED", None)]


@pytest.mark.parametrize(("type_name", "changes", "codes"), WARNINGS)
def test_a_warning_is_listed_once_and_the_record_stored(
    bench: Callable[..., Any], type_name: str, changes: dict[str, Any], codes: list[str]
) -> None:
    judge = bench(type_name)
    plain, warned = judge.judged(judge.value(event_uid="other"), judge.value(**changes))
    assert (plain["verdict"], plain["warnings"]) == ("STORED", [])
    assert (warned["verdict"], warned["warnings"]) == ("STORED", codes)


def test_time_rules_compare_with_the_arrival_not_with_the_clock(bench: Callable[..., Any]) -> None:
    judge = bench()
    value = judge.value(started_at=5 * DAY, ingested_at=5 * DAY)
    (record,) = judge.judged(value, arrived_ms=6 * DAY)
    assert record["verdict"] == "STORED"


def test_an_operator_turns_a_rejection_into_a_warning_and_a_warning_into_a_rejection(bench: Callable[..., Any]) -> None:
    judge = bench(severities={"too_old": Severity.WARN, "voice_with_bytes": Severity.REJECTED})
    old, bytes_ = judge.judged(judge.value(started_at=0), judge.value(event_uid="b", bytes_up=1))
    assert (old["verdict"], old["warnings"]) == ("STORED", ["too_old"])
    assert (bytes_["verdict"], bytes_["rule"]) == ("REJECTED", "voice_with_bytes")


def test_every_check_has_a_code_of_the_table_in_the_tables_order() -> None:
    order = [rule.code for rule in (*REJECTED, *WARN)]
    assert {check.code for checks in CHECKS.values() for check in checks} == OVERRIDABLE
    for checks in CHECKS.values():
        rules = rule_set(checks)
        for chosen in (rules.rejecting, rules.warning):
            places = [order.index(check.code) for check in chosen]
            assert places == sorted(places)
        assert len(rules.rejecting) + len(rules.warning) == len(checks)


def test_added_rules_come_after_the_built_in_ones_and_reject_or_warn_in_their_own_words(
    bench: Callable[..., Any], letters: Callable[..., Any]
) -> None:
    changes = RuleChanges.parse(
        """
        [severity]
        voice_with_bytes = "warn"
        duration_too_long = "rejected"
        [[rule]]
        code = "long_call"
        type = "cdr"
        field = "duration_ms"
        severity = "rejected"
        when = "duration_ms > 14400000"
        help = "A call of more than four hours."
        [[rule]]
        code = "long_call_too"
        type = "cdr"
        field = "duration_ms"
        severity = "rejected"
        when = "duration_ms > 14400000"
        help = "Never the first."
        [[rule]]
        code = "unknown_cell"
        type = "cdr"
        field = "cell_id"
        severity = "warn"
        when = "cell_id IS NULL"
        help = "No cell."
        [[rule]]
        code = "of_the_other_type"
        type = "network"
        field = "cell_id"
        severity = "rejected"
        when = "cell_id IS NULL"
        help = "No cell."
        """,
        raw_fields(),
    )
    hours = 3_600_000
    judge = bench(changes=changes, severities={"voice_with_bytes": Severity.REJECTED})
    outputs = judge.outputs(
        judge.value(event_uid="a", cell_id=None, bytes_up=1, duration_ms=4 * hours, holding_ms=5 * hours),
        judge.value(event_uid="b", duration_ms=5 * hours, holding_ms=6 * hours),
        judge.value(event_uid="c", duration_ms=5 * hours, holding_ms=-1),
        judge.value(event_uid="d", duration_ms=25 * hours, holding_ms=26 * hours),
        judge.value(event_uid="e", duration_ms=None, holding_ms=None),
    )
    found = [(letter["event_uid"], letter["rule"], letter["reason"]) for letter in letters(outputs["rejected"])]
    assert found == [
        ("b", "long_call", "duration_ms: A call of more than four hours."),
        ("c", "negative_value", "holding_ms: A duration, byte count or charge below 0."),
        ("d", "duration_too_long", "duration_ms: A duration above 24 hours."),
    ]
    first, *_ = [decode_record(message["value"], enriched_schema("cdr")) for message in outputs["enriched"]]
    assert (first["verdict"], first["warnings"]) == ("STORED", ["voice_with_bytes", "unknown_cell"])
