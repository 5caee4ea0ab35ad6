from __future__ import annotations

import threading

import pytest

from telestream_contracts import enriched_schema, load_schema
from telestream_devstack import Parts
from telestream_domain import FAMILIES, REFERENCES
from telestream_warehouse import (
    PUBLISHED_VIEWS,
    ClickHouse,
    MigrationError,
    Query,
    WarehouseRefused,
    WarehouseUnavailable,
    check,
    migrate,
)
from telestream_warehouse.migrations import LOCK, all_migrations

pytestmark = pytest.mark.stack


def columns_of(client: ClickHouse, table: str) -> set[str]:
    rows = client.rows(
        Query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
            {"table": table},
        )
    )
    return {row["name"] for row in rows}


def test_migrating_twice_applies_everything_once(parts: Parts, clickhouse_database: str) -> None:
    assert check(parts.clickhouse, clickhouse_database) == [f"{clickhouse_database}: no migration was ever applied"]
    names = [migration.name for migration in all_migrations()]
    assert migrate(parts.clickhouse, clickhouse_database) == names
    assert migrate(parts.clickhouse, clickhouse_database) == []
    assert check(parts.clickhouse, clickhouse_database) == []


def test_every_statement_may_run_again_after_a_kill_before_it_was_recorded(
    parts: Parts, warehouse: ClickHouse, clickhouse_database: str
) -> None:
    hours = warehouse.rows(Query("SELECT count() AS n FROM dim_time"))
    warehouse.command("TRUNCATE TABLE migration")
    assert len(migrate(parts.clickhouse, clickhouse_database)) == len(all_migrations())
    assert warehouse.rows(Query("SELECT count() AS n FROM dim_time")) == hours
    assert warehouse.rows(Query("SELECT count() AS n FROM activation")) == [{"n": 1}]


def test_two_who_migrate_at_once_do_it_once(parts: Parts, clickhouse_database: str) -> None:
    applied: list[str] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(migrate(parts.clickhouse, clickhouse_database)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert applied == [migration.name for migration in all_migrations()]


def test_the_lock_of_a_dead_applier_is_moved_aside(
    parts: Parts, clickhouse_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ClickHouse(parts.clickhouse, clickhouse_database)
    client.command(f"CREATE TABLE {LOCK} (x UInt8) ENGINE = Memory COMMENT 'a dead one'")
    monkeypatch.setattr("telestream_warehouse.migrations.LOCK_STALE_S", 1.0)
    assert len(migrate(parts.clickhouse, clickhouse_database)) == len(all_migrations())
    assert migrate(parts.clickhouse, clickhouse_database) == []


def test_a_migration_that_was_edited_after_it_was_applied_is_reported(parts: Parts, warehouse: ClickHouse) -> None:
    warehouse.command("INSERT INTO migration VALUES (1, '0001_facts', 'another text', now64(3))")
    assert "changed after it was applied" in check(parts.clickhouse, warehouse.database)[0]
    with pytest.raises(MigrationError, match="changed after it was applied"):
        migrate(parts.clickhouse, warehouse.database)


def test_a_database_of_a_newer_version_is_left_alone(parts: Parts, warehouse: ClickHouse) -> None:
    warehouse.command("INSERT INTO migration VALUES (9999, '9999_later', 'x', now64(3))")
    with pytest.raises(MigrationError, match="use a newer one"):
        migrate(parts.clickhouse, warehouse.database)


def test_all_published_views_answer_on_an_empty_database(warehouse: ClickHouse) -> None:
    for view in PUBLISHED_VIEWS:
        warehouse.rows(Query(f"SELECT * FROM {view} LIMIT 1"))


def test_every_field_of_the_schemas_has_its_column(warehouse: ClickHouse) -> None:
    not_in_facts = {"verdict", "sign", "rule", "first_offset", "content_hash"}
    for record_type, table in (("cdr", "fact_cdr"), ("network", "fact_network_event")):
        fields = {field["name"] for field in enriched_schema(record_type)["fields"]} - not_in_facts
        assert fields <= columns_of(warehouse, f"{table}_all")
        assert fields - {"reverses_offset", "max_age_days"} <= columns_of(warehouse, table)
    for family in FAMILIES:
        fields = {field["name"] for field in load_schema(f"agg_{family}")["fields"]} - {"marker_offset"}
        assert fields <= columns_of(warehouse, f"agg_{family}_all")
        inside = {"partition", "segment", "src_to", "charge_currencies", "warning_codes"}
        assert fields - inside <= columns_of(warehouse, f"agg_{family}")
    for entity in REFERENCES:
        fields = {field["name"] for field in load_schema(entity)["fields"]}
        assert fields <= columns_of(warehouse, f"reference_{entity}")
    assert {f["name"] for f in load_schema("dead_letter")["fields"]} <= columns_of(warehouse, "dead_letter")


def test_generation_stands_first_in_every_key_and_no_key_is_nullable(warehouse: ClickHouse) -> None:
    tables = warehouse.rows(
        Query("SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase() AND name LIKE '%_all'")
    )
    assert len(tables) == 10
    for table in tables:
        key = table["sorting_key"].split(", ")
        assert key[0] == "generation"
        types = warehouse.rows(
            Query(
                "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {t:String} "
                "AND name IN {key:Array(String)}",
                {"t": table["name"], "key": key},
            )
        )
        assert [row["name"] for row in types if "Nullable" in row["type"]] == []


def test_a_clickhouse_that_is_away_is_unavailable_and_a_wrong_statement_is_refused(
    parts: Parts, warehouse: ClickHouse
) -> None:
    with pytest.raises(WarehouseUnavailable, match="does not answer"):
        ClickHouse("http://127.0.0.1:1", "x").ping()
    with pytest.raises(WarehouseRefused, match="nowhere") as refused:
        warehouse.rows(Query("SELECT * FROM nowhere"))
    assert refused.value.code == 60
    warehouse.ping()
