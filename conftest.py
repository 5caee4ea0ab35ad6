"""Fixtures for tests on real parts: one embedded stack per test session, an own corner of it per test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telestream_devstack import Parts, reserve_base, start_parts
from telestream_devstack.postgres import create_database, psql


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Kafka, schema registry, ClickHouse and PostgreSQL, started for this session in an empty directory."""
    state_dir: Path = tmp_path_factory.mktemp("stack")
    with start_parts(state_dir, reserve_base()) as running:
        yield running


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics, subjects and consumer groups that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture
def clickhouse_database(parts: Parts) -> Iterator[str]:
    """The name of an empty ClickHouse database of this test's own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    httpx.post(parts.clickhouse, content=f"CREATE DATABASE {name}", timeout=30.0).raise_for_status()
    yield name
    httpx.post(parts.clickhouse, content=f"DROP DATABASE IF EXISTS {name} SYNC", timeout=60.0).raise_for_status()


@pytest.fixture
def postgres_dsn(parts: Parts) -> Iterator[str]:
    """The DSN of an empty PostgreSQL database of this test's own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    create_database(parts.postgres, name)
    yield parts.postgres.rsplit("/", 1)[0] + f"/{name}"
    psql(parts.postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
