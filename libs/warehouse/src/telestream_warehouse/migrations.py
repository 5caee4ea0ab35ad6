"""Numbered migrations, applied under a lock and recorded.

ClickHouse has no transactions for DDL and no locks. So every statement may run twice (IF NOT EXISTS, OR REPLACE,
inserts that look first), and the lock, which only keeps two appliers from confusing each other's reports, is a table:
creating it succeeds for one. A lock left by an applier that died is moved aside once it is old, under a name made of
its own UUID, so of several who see it old one succeeds.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from dataclasses import dataclass
from importlib import resources

from telestream_warehouse.client import ClickHouse
from telestream_warehouse.errors import MigrationError, WarehouseRefused
from telestream_warehouse.query import Query

LOCK = "migration_lock"
LOCK_WAIT_S = 120.0
LOCK_STALE_S = 60.0  # all migrations together take a second or two
_TABLE_EXISTS = 57
_UNKNOWN_TABLE = 60
_UNKNOWN_DATABASE = 81
_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_DATABASE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")

RECORD = """CREATE TABLE IF NOT EXISTS {database}.migration
(
    number UInt32,
    name String,
    sha256 String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``number`` orders, ``sha256`` is of its text before the database's name is put in."""

    number: int
    name: str
    sha256: str
    text: str

    def statements(self, database: str) -> list[str]:
        text = "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("--"))
        return [part.strip() for part in text.replace("{database}", database).split(";\n") if part.strip(" \n;")]


def all_migrations() -> list[Migration]:
    """What this version brings, in order."""
    found = []
    for entry in (resources.files("telestream_warehouse") / "sql").iterdir():
        if match := _NAME.match(entry.name):
            text = entry.read_text(encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(match.group(1)), entry.name.removesuffix(".sql"), digest, text))
    return sorted(found, key=lambda migration: migration.number)


def migrate(clickhouse_url: str, database: str) -> list[str]:
    """Create the database and apply what is missing; returns the names applied. Doing it again is harmless.

    Raises MigrationError if the tables come from a newer version or a migration was changed after it was applied.
    """
    client = _client(clickhouse_url, database)
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", in_database=False)
    client.command(RECORD.replace("{database}", database))
    applied: list[str] = []
    lock = _Lock(client)
    lock.take()
    try:
        done = _recorded(client)
        _compare(done, database)
        for migration in all_migrations():
            if migration.number in done:
                continue
            for statement in migration.statements(database):
                client.command(statement)
            client.command(
                f"INSERT INTO {database}.migration VALUES "
                f"({migration.number}, '{migration.name}', '{migration.sha256}', now64(3))"
            )
            applied.append(migration.name)
    finally:
        lock.release()
        client.close()
    return applied


def check(clickhouse_url: str, database: str) -> list[str]:
    """What is missing or differs: one line each, empty if nothing. Changes nothing."""
    client = _client(clickhouse_url, database)
    try:
        done = _recorded(client)
        _compare(done, database)
    except MigrationError as err:
        return [str(err)]
    except WarehouseRefused as err:
        if err.code in (_UNKNOWN_TABLE, _UNKNOWN_DATABASE):
            return [f"{database}: no migration was ever applied"]
        raise
    finally:
        client.close()
    return [f"{migration.name}: not applied" for migration in all_migrations() if migration.number not in done]


def _client(url: str, database: str) -> ClickHouse:
    if not _DATABASE.match(database):
        raise MigrationError(f"{database!r} is not a database name: letters, digits and _ only")
    return ClickHouse(url, database)


def _recorded(client: ClickHouse) -> dict[int, tuple[str, str]]:
    rows = client.rows(Query(f"SELECT number, name, sha256 FROM {client.database}.migration FINAL"))
    return {row["number"]: (row["name"], row["sha256"]) for row in rows}


def _compare(done: dict[int, tuple[str, str]], database: str) -> None:
    known = {migration.number: migration for migration in all_migrations()}
    for number, (name, sha256) in sorted(done.items()):
        if number not in known:
            raise MigrationError(f"{database} has migration {name}, which this version does not know: use a newer one")
        if known[number].sha256 != sha256:
            raise MigrationError(
                f"{database}: migration {name} was changed after it was applied; migrations are never edited, add one"
            )


class _Lock:
    def __init__(self, client: ClickHouse) -> None:
        self._client, self._database = client, client.database
        self._holder = f"{socket.gethostname()} {os.getpid()} {os.urandom(4).hex()}"

    def take(self) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                self._client.command(
                    f"CREATE TABLE {self._database}.{LOCK} (x UInt8) ENGINE = Memory COMMENT '{self._holder}'"
                )
                return
            except WarehouseRefused as err:
                if err.code != _TABLE_EXISTS:
                    raise
            self._move_aside_if_stale()
            if time.monotonic() > deadline:
                raise MigrationError(
                    f"{self._database}.{LOCK} is held by {self._held_by()}; if it is dead, drop that table"
                )
            time.sleep(0.2)

    def release(self) -> None:
        # only our own: it may have been moved aside as stale, and be another's now
        if self._held_by() == self._holder:
            self._client.command(f"DROP TABLE IF EXISTS {self._database}.{LOCK}")

    def _held_by(self) -> str:
        rows = self._look()
        return str(rows[0]["comment"]) if rows else "nobody"

    def _look(self) -> list[dict[str, object]]:
        sql = (
            "SELECT comment, toString(uuid) AS uuid, dateDiff('second', metadata_modification_time, now()) AS age_s "
            "FROM system.tables WHERE database = {database:String} AND name = {name:String}"
        )
        return self._client.rows(Query(sql, {"database": self._database, "name": LOCK}))

    def _move_aside_if_stale(self) -> None:
        rows = self._look()
        if not rows or int(str(rows[0]["age_s"])) < LOCK_STALE_S:
            return
        aside = f"{LOCK}_stale_{str(rows[0]['uuid']).replace('-', '')}"
        try:
            self._client.command(f"RENAME TABLE {self._database}.{LOCK} TO {self._database}.{aside}")
        except WarehouseRefused as err:
            if err.code not in (_TABLE_EXISTS, _UNKNOWN_TABLE):
                raise
