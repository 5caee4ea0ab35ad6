"""What is kept, what goes, and what makes the books false."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from telestream_devstack import Parts
from telestream_warehouse import ClickHouse, Query, migrate
from telestream_warehouse.lifecycle import RETENTION, differing_ttls, ttls

pytestmark = pytest.mark.stack


@pytest.fixture
def clickhouse(parts: Parts, clickhouse_database: str) -> ClickHouse:
    migrate(parts.clickhouse, clickhouse_database)
    return ClickHouse(parts.clickhouse, clickhouse_database)


def test_every_table_lives_as_long_as_the_table_of_retentions_says(clickhouse: ClickHouse) -> None:
    rows = clickhouse.rows(ttls())
    assert {row["name"] for row in rows} == set(RETENTION)
    assert differing_ttls(rows) == []

    kept = Query("SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%\\_all'")
    assert {row["name"] for row in clickhouse.rows(kept)} == set(RETENTION)


def test_a_ttl_set_by_hand_on_a_table_of_the_books_is_named(clickhouse: ClickHouse) -> None:
    clickhouse.command("ALTER TABLE fact_cdr_all MODIFY TTL toDateTime(appended_at) + INTERVAL 400 DAY")
    assert [line.split(":")[0] for line in differing_ttls(clickhouse.rows(ttls()))] == ["fact_cdr_all"]


def test_old_minutes_go_and_old_quarter_hours_stay(clickhouse: ClickHouse) -> None:
    old = datetime.now(UTC) - timedelta(days=30)
    young = datetime.now(UTC) - timedelta(days=1)
    for at in (old, young):
        for size_s in (60, 900):
            clickhouse.command(
                Query(
                    "INSERT INTO agg_cell_all (generation, type, size_s, window_start, cell_id, records) "
                    "VALUES (1, 'cdr', {size:UInt32}, {at:DateTime64(3, 'UTC')}, 'c', 1)",
                    {"size": size_s, "at": at},
                )
            )
    clickhouse.command("OPTIMIZE TABLE agg_cell_all FINAL")
    left = clickhouse.rows(Query("SELECT size_s, count() AS n FROM agg_cell GROUP BY size_s ORDER BY size_s"))
    assert left == [{"size_s": 60, "n": 1}, {"size_s": 900, "n": 2}]
