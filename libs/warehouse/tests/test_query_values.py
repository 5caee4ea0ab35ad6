from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telestream_warehouse import ClickHouse, Query, reconciliation, usage_per_day, window_kpis


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Query("SELECT {t:DateTime64(3)}", {"t": datetime(2026, 1, 1)}).http_params()


def test_an_unknown_group_or_step_is_refused_before_any_sql() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(KeyError, match="customer"):
        usage_per_day("c1", date(2026, 1, 1), date(2026, 1, 2), group_by=["customer"])
    with pytest.raises(ValueError, match="7 s"):
        window_kpis("cell", now, now, step_s=7)


def test_no_value_stands_in_the_text_of_a_query() -> None:
    query = reconciliation("cdr", [5], source_name="canary'--", batch_id=4711)
    assert "canary" not in query.sql
    assert "4711" not in query.sql


@pytest.mark.stack
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=30), texts=st.lists(st.text(max_size=10), max_size=3), number=st.integers(-(2**63), 2**63 - 1)
)
def test_any_value_comes_back_as_it_went(warehouse: ClickHouse, text: str, texts: list[str], number: int) -> None:
    text, texts = text.replace("\0", ""), [entry.replace("\0", "") for entry in texts]
    sql = "SELECT {a:String} AS a, {b:Array(String)} AS b, {c:Int64} AS c, {d:Map(String, Int64)} AS d"
    row = warehouse.rows(Query(sql, {"a": text, "b": texts, "c": number, "d": {text: number}}))[0]
    assert (row["a"], row["b"], row["c"], row["d"]) == (text, texts, number, {text: number})
