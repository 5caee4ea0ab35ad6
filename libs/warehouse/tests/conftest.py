"""A migrated database of the test's own, merges stopped: what is right there is right at any state of merging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from telestream_devstack import Parts
from telestream_warehouse import ClickHouse, Query, migrate

Insert = Callable[[str, Sequence[Mapping[str, Any]]], None]
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


@pytest.fixture
def warehouse(parts: Parts, clickhouse_database: str) -> Iterator[ClickHouse]:
    migrate(parts.clickhouse, clickhouse_database)
    client = ClickHouse(parts.clickhouse, clickhouse_database)
    tables = client.rows(
        Query("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'")
    )
    for table in tables:
        client.command(f"SYSTEM STOP MERGES {clickhouse_database}.{table['name']}")
    yield client
    client.close()


@pytest.fixture
def insert(warehouse: ClickHouse) -> Insert:
    """Insert dicts as one block, as the sink does."""

    def insert_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
        warehouse.insert(table, pa.table(columns))

    return insert_rows


def _column(values: list[Any]) -> pa.Array:
    if any(isinstance(value, datetime) for value in values):
        return pa.array(values, pa.timestamp("ms", "UTC"))
    array = pa.array(values)
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _at(offset: int) -> datetime:
    return START + timedelta(seconds=37 * offset)


@pytest.fixture
def fact() -> Callable[..., dict[str, Any]]:
    """A stored CDR at a source offset; keyword arguments override fields."""

    def row(offset: int, partition: int = 0, generation: int = 1, **fields: Any) -> dict[str, Any]:
        return {
            "generation": generation,
            "booked_offset": offset,
            "withdrawn": 0,
            "src_partition": partition,
            "src_offset": offset,
            "appended_at": _at(offset),
            "event_uid": f"uid-{partition}-{offset}",
            "started_at": _at(offset) - timedelta(minutes=10),
            "subscriber_id": f"s{offset % 3}",
            "cell_id": f"208-01-{offset % 2}",
            "record_type": "VOICE",
            "duration_ms": 1000 + offset,
            "bytes_up": None,
            "bytes_down": offset,
            "charge_micros": 10 * offset,
            "currency": "EUR",
            "source": "msc1",
            "batch_id": 7,
            **fields,
        }

    return row


@pytest.fixture
def judgement() -> Callable[..., dict[str, Any]]:
    """A judged CDR of the books with the same sums as the fact at that offset."""

    def row(
        offset: int, verdict: str = "STORED", partition: int = 0, generation: int = 1, **fields: Any
    ) -> dict[str, Any]:
        return {
            "generation": generation,
            "type": "cdr",
            "src_partition": partition,
            "src_offset": offset,
            "booked_offset": offset,
            "verdict": verdict,
            "sign": 1,
            "rule": "",
            "source": "msc1",
            "batch_id": 7,
            "appended_at": _at(offset),
            "duration_ms": 1000 + offset,
            "bytes": offset,
            "charge_micros": 10 * offset,
            "currency": "EUR",
            **fields,
        }

    return row
