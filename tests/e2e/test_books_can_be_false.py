"""I8: the equation must be able to be false."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def _sql(stack: Any, statement: str) -> str:
    answer = httpx.post(stack.clickhouse, params={"database": "telestream"}, content=statement, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def _books(stack: Any) -> dict[str, Any]:
    done = stack.run("reconcile", "--type", "cdr", "--json")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found.get("cdr", found)


def test_balanced_is_false_without_one_stored_row_and_true_when_the_same_row_is_back(stack: Any) -> None:
    done = stack.run(
        "demo",
        "--records",
        "5000",
        "--network-records",
        "1000",
        "--customers",
        "500",
        "--cells",
        "40",
        "--asterisk",
        "0",
        "--live",
        "0",
    )
    assert done.returncode == 0, done.stdout[-4000:]
    whole = _books(stack)
    assert whole["balanced"] is True

    _sql(stack, "CREATE TABLE taken_out AS fact_cdr_all")
    row = _sql(stack, "SELECT src_partition, src_offset FROM fact_cdr ORDER BY src_offset LIMIT 1 FORMAT TSV").split(
        "\t"
    )
    one = f"src_partition = {int(row[0])} AND src_offset = {int(row[1])}"
    _sql(stack, f"INSERT INTO taken_out SELECT * FROM fact_cdr_all WHERE {one}")
    _sql(stack, f"ALTER TABLE fact_cdr_all DELETE WHERE {one} SETTINGS mutations_sync = 2")
    _sql(stack, "SYSTEM STOP MERGES")
    try:
        short = _books(stack)
        assert short["balanced"] is False
        assert short["stored"] == whole["stored"] - 1
        assert short["accepted"] == whole["accepted"]

        _sql(stack, "INSERT INTO fact_cdr_all SELECT * FROM taken_out")
        assert _books(stack) == whole
        _sql(stack, "INSERT INTO fact_cdr_all SELECT * FROM taken_out")
        assert _books(stack) == whole, "the same row twice counts once, merges or not"
    finally:
        _sql(stack, "SYSTEM START MERGES")
        _sql(stack, "DROP TABLE taken_out")
