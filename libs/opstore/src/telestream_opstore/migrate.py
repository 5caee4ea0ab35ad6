"""Numbered SQL files, each applied once in its own transaction, under a lock that several processes may wait for."""

from __future__ import annotations

from importlib import resources

from telestream_opstore.connection import connect, run_sync
from telestream_opstore.errors import OpstoreError

_LOCK = 0x7465_6C65  # "tele": any number that nothing else in the database locks


def migrations() -> list[tuple[str, str]]:
    """Name and text of every migration, in order."""
    folder = resources.files("telestream_opstore") / "migrations"
    return sorted((entry.name, entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".sql"))


async def migrate_async(dsn: str) -> list[str]:
    """Apply what is missing; returns the names applied now, empty if none.

    Raises OpstoreError if an applied migration is not known to this version: an older one must not write.
    """
    known = migrations()
    async with connect(dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        try:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migration "
                "(name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
            )
            done = {row["name"] for row in await connection.fetch("SELECT name FROM schema_migration")}
            unknown = sorted(done - {name for name, _ in known})
            if unknown:
                raise OpstoreError(
                    f"the database was migrated by a newer version ({', '.join(unknown)}); run that version or newer"
                )
            applied = []
            for name, text in known:
                if name in done:
                    continue
                async with connection.transaction():
                    await connection.execute(text)
                    await connection.execute("INSERT INTO schema_migration (name) VALUES ($1)", name)
                applied.append(name)
            return applied
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


def migrate(dsn: str) -> list[str]:
    """``migrate_async`` for code without an event loop."""
    return run_sync(migrate_async(dsn))
