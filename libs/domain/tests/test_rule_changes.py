from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from telestream_domain import RuleChanges, RuleChangesError, Severity
from telestream_domain.rule_conditions import condition, condition_problems

ROOT = Path(__file__).resolve().parents[3]
CDR: dict[str, pl.DataType] = {
    "started_at": pl.Datetime("ms"),
    "record_type": pl.String(),
    "cell_id": pl.String(),
    "serving_plmn": pl.String(),
    "duration_ms": pl.Int64(),
    "holding_ms": pl.Int64(),
    "is_partial": pl.Boolean(),
    "quality": pl.Float64(),
    "ext": pl.List(pl.String()),
}
FIELDS = {"cdr": CDR, "network": {"latency_ms": pl.Float64()}}
RULE = """
[[rule]]
code = "call_over_four_hours"
type = "cdr"
field = "duration_ms"
severity = "rejected"
when = "duration_ms > 14400000"
help = "A call of more than four hours."
"""


def test_a_file_becomes_rules_and_goes_to_json_and_back() -> None:
    changes = RuleChanges.parse('[severity]\nduration_too_long = "rejected"\n' + RULE, FIELDS)
    assert changes.severities == {"duration_too_long": Severity.REJECTED}
    (rule,) = changes.of_type("cdr")
    assert (rule.code, rule.field, rule.severity) == ("call_over_four_hours", "duration_ms", Severity.REJECTED)
    assert changes.of_type("network") == ()
    again = RuleChanges.from_json(changes.to_json())
    assert again == changes
    assert again.digest == changes.digest != RuleChanges.none().digest
    assert RuleChanges.from_json({}) == RuleChanges.none()
    assert RuleChanges.none().to_json() == {}
    assert not RuleChanges.none()


def test_the_example_of_the_reference_is_a_rule_file() -> None:
    page = (ROOT / "docs/reference/rule-files.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    changes = RuleChanges.parse(example, FIELDS)
    assert [rule.code for rule in changes.added] == ["call_over_four_hours", "voice_at_night_abroad"]


def test_all_mistakes_are_told_at_once_with_rule_field_and_an_example() -> None:
    wrong = f"""
surprise = 1
[severity]
no_such_code = "warn"
too_old = "fatal"
undecodable = "warn"
{RULE}
{RULE}
{RULE.replace("call_over_four_hours", "negative_value")}
{RULE.replace("call_over_four_hours", "No!")}
{RULE.replace("call_over_four_hours", "of_no_field").replace('"duration_ms"', '"duration"')}
{RULE.replace("call_over_four_hours", "of_no_type").replace('"cdr"', '"sms"')}
{RULE.replace("call_over_four_hours", "an_aggregate").replace("duration_ms >", "sum(duration_ms) >")}
[[rule]]
code = "half_a_rule"
colour = "red"
"""
    with pytest.raises(RuleChangesError) as told:
        RuleChanges.parse(wrong, FIELDS)
    for word in (
        "'surprise': a rule file has [severity] and [[rule]] only",
        "severity of 'no_such_code': is none of",
        "severity of too_old: 'fatal' is none of rejected, warn; e.g. too_old = \"warn\"",
        "severity of 'undecodable': is none of",
        "rule 2 (call_over_four_hours): code 'call_over_four_hours' is given twice",
        "code 'negative_value' is a built-in rule's",
        "code 'No!' is not 3 to 41",
        "rule of_no_field: field 'duration' is none of started_at, ",
        "rule of_no_type: type 'sms' is none of cdr, network",
        "rule an_aggregate (cdr.duration_ms): when 'sum' is neither a field",
        "rule 8 (half_a_rule): 'colour' is none of code, ",
        'rule 8 (half_a_rule): when is missing or no text; e.g. when = "duration_ms > 14400000"',
    ):
        assert word in str(told.value), f"{word}\n{told.value}"


@pytest.mark.parametrize("text", ["", "[[rule", "severity = 3", "rule = 3", "rule = [1]", "x" * 70_000])
def test_what_is_no_rule_file_is_refused(text: str) -> None:
    with pytest.raises(RuleChangesError, match="rules: "):
        RuleChanges.parse(text, FIELDS)


@pytest.mark.parametrize("stored", [{"severities": ["a"]}, {"added": {"code": "x"}}, {"added": [{"code": "abc"}]}])
def test_a_stored_form_that_nobody_wrote_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(RuleChangesError, match="rules: "):
        RuleChanges.from_json(stored)


@pytest.mark.parametrize(
    ("when", "broken"),
    [
        ("duration_ms > 5", [False, True, False]),
        ("holding_ms < duration_ms * 2", [False, True, False]),
        ("duration_ms IS NULL", [False, False, True]),
        ("record_type IN ('VOICE', 'SMS') AND NOT is_partial", [True, False, False]),
        ("coalesce(duration_ms, 0) = 0", [False, False, True]),
        ("cell_id LIKE '208-%'", [True, False, False]),
        ("starts_with(cell_id, '2')", [True, True, False]),
        ("started_at < TIMESTAMP '2026-01-01 00:00:00'", [True, False, False]),
        ("extract(hour FROM started_at) BETWEEN 1 AND 4", [False, True, False]),
        ("CASE WHEN is_partial THEN duration_ms > 5 ELSE duration_ms > 1 END", [True, True, False]),
        ("quality / 0 > 1", [True, True, False]),
    ],
)
def test_a_condition_is_true_where_a_record_breaks_it_and_null_is_no_break(when: str, broken: list[bool]) -> None:
    assert condition_problems(when, CDR) == []
    records = pl.DataFrame(
        {
            "started_at": pl.Series([1_700_000_000_000, 1_790_046_000_000, None], dtype=pl.Int64).cast(
                pl.Datetime("ms")
            ),
            "record_type": ["VOICE", "DATA", None],
            "cell_id": ["208-1", "262-x", None],
            "duration_ms": [5, 6, None],
            "holding_ms": [50, 6, None],
            "is_partial": [False, True, None],
            "quality": [1.0, 2.0, None],
        }
    )
    assert records.select(condition(when))[:, 0].fill_null(False).to_list() == broken


@pytest.mark.parametrize(
    "when",
    [
        " ",
        "true",
        "1 = 1",
        "now() > started_at",
        "current_timestamp > started_at",
        "duration_ms",
        "nosuch > 1",
        "ext = 'x'",
        "cell_id > 3",
        "NOT cell_id",
        "started_at < '2026-01-01'",
        "sum(duration_ms) > 1",
        "rank() OVER (ORDER BY duration_ms) > 1",
        "duration_ms IN (SELECT 1)",
        "duration_ms > 1 AS x",
        "duration_ms > 1; duration_ms < 1",
        "duration_ms > 1 -- and so on",
        '"duration_ms" > 1',
        "duration_ms >",
        "cast(cell_id AS bigint) > 1",
        "cell_id ~ '('",
        "random() < duration_ms",
        "duration_ms > " + "1 + " * 300 + "1",
    ],
)
def test_a_condition_that_cannot_tell_of_each_record_alone_is_refused(when: str) -> None:
    assert condition_problems(when, CDR)
