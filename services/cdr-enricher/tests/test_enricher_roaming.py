from __future__ import annotations

import polars as pl
import pytest

from cdr_enricher.domain.roaming import roaming

OURS = ("208-01", "208-02")
# home, serving, cell, customer known, cell known → with our networks listed, without a list
TABLE = [
    ("208-01", "208-01", None, False, False, "HOME", "HOME"),
    ("208-01", "208-02", None, True, False, "HOME", "NATIONAL"),
    ("208-01", None, "208-01-77", True, True, "HOME", "HOME"),
    ("208-01", None, "208-01-4-77", False, True, "HOME", "HOME"),
    ("208-01", "208-20", "208-01-77", True, False, "NATIONAL", "NATIONAL"),
    ("208-20", "208-01", None, False, True, "NATIONAL", "NATIONAL"),
    ("208-01", "262-01", None, True, False, "OUTBOUND", "OUTBOUND"),
    ("208-01", "262-01", None, False, False, "OUTBOUND", "UNKNOWN"),
    ("262-01", "208-01", None, False, True, "INBOUND", "INBOUND"),
    ("262-01", None, "208-01-77", False, True, "INBOUND", "INBOUND"),
    ("262-01", "208-01", None, False, False, "INBOUND", "UNKNOWN"),
    ("262-01", "262-01", None, False, False, "HOME", "HOME"),
    ("262-01", "234-15", None, False, False, "UNKNOWN", "UNKNOWN"),
    ("310-410", "311-480", None, False, False, "NATIONAL", "NATIONAL"),
    (None, "208-01", None, True, False, "HOME", "UNKNOWN"),
    (None, "262-01", None, True, False, "OUTBOUND", "UNKNOWN"),
    (None, "208-01", None, False, True, "UNKNOWN", "UNKNOWN"),
    ("208-01", None, None, True, False, "UNKNOWN", "UNKNOWN"),
    ("208-01", None, "lab-cell", True, False, "UNKNOWN", "UNKNOWN"),
    (None, None, None, False, False, "UNKNOWN", "UNKNOWN"),
]


@pytest.mark.parametrize(("home_plmns", "column"), [(OURS, 5), ((), 6)])
def test_roaming_follows_its_table(home_plmns: tuple[str, ...], column: int) -> None:
    rows = pl.DataFrame(
        [row[:5] for row in TABLE],
        schema={
            "home_plmn": pl.String,
            "serving_plmn": pl.String,
            "cell_id": pl.String,
            "customer_known": pl.Boolean,
            "cell_known": pl.Boolean,
        },
        orient="row",
    )
    assert rows.select(roaming(home_plmns))["roaming"].to_list() == [row[column] for row in TABLE]
