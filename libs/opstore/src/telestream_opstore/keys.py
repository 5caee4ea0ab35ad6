"""API keys: kept as SHA-256, looked up in a snapshot that is never older than a revocation may take."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telestream_opstore.connection import connect, failures, run_sync
from telestream_opstore.errors import OpstoreError, OpstoreUnavailable, WrongKey

ROLES = ("ingest", "identity", "read", "operate", "admin")
"""ingest: events, reference, files. identity: look a number up. read: query. operate: replays, withdrawals.
admin: keys."""
ALL_SOURCES = "*"
REFRESH_S = 2.0  # a revoked key works at most this long, and the time of one query, after the revocation
MISS_KEPT_S = 2.0
MISSES_KEPT = 10_000
KEY_PREFIX = "ts_"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One row, without the key itself."""

    id: int
    name: str
    roles: frozenset[str]
    sources: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None

    def may(self, role: str) -> bool:
        return role in self.roles

    def may_send(self, source: str) -> bool:
        return ALL_SOURCES in self.sources or source in self.sources

    @property
    def only_source(self) -> str | None:
        """The one source this key is bound to, None if it is bound to several or to none in particular."""
        if len(self.sources) == 1 and ALL_SOURCES not in self.sources:
            return next(iter(self.sources))
        return None


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _row(row: Any) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        roles=frozenset(row["roles"]),
        sources=frozenset(row["sources"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def _checked(name: str, roles: list[str], sources: list[str]) -> None:
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        raise OpstoreError(
            f"key {name!r}: roles must be some of {', '.join(ROLES)}; not {', '.join(unknown) or 'none'}"
        )
    if not sources:
        raise OpstoreError(f"key {name!r}: name its sources, or '*' for all")


async def create_key_async(dsn: str, name: str, roles: list[str], sources: list[str]) -> tuple[str, ApiKey]:
    """A new key: the key itself, shown only now, and its row. Raises OpstoreError for an unknown role."""
    _checked(name, roles, sources)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    async with connect(dsn) as connection:
        row = await connection.fetchrow(
            "INSERT INTO api_key (sha256, name, roles, sources) VALUES ($1, $2, $3, $4) RETURNING *",
            hash_key(key),
            name,
            roles,
            sources,
        )
    return key, _row(row)


async def list_keys_async(dsn: str) -> list[ApiKey]:
    """Every key, revoked ones too, oldest first."""
    async with connect(dsn) as connection:
        return [_row(row) for row in await connection.fetch("SELECT * FROM api_key ORDER BY id")]


async def revoke_key_async(dsn: str, key_id: int) -> ApiKey | None:
    """Revoke a key; None if there is none with this id. Doing it again keeps the first time."""
    async with connect(dsn) as connection:
        row = await connection.fetchrow(
            "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *", key_id
        )
    return _row(row) if row else None


async def ensure_development_key_async(dsn: str, key: str) -> None:
    """Make ``key`` work with all roles and sources. For the embedded stack only."""
    async with connect(dsn) as connection:
        await connection.execute(
            "INSERT INTO api_key (sha256, name, roles, sources) VALUES ($1, 'development', $2, $3) "
            "ON CONFLICT (sha256) DO UPDATE SET revoked_at = NULL, roles = excluded.roles, sources = excluded.sources",
            hash_key(key),
            list(ROLES),
            [ALL_SOURCES],
        )


def create_key(dsn: str, name: str, roles: list[str], sources: list[str]) -> tuple[str, ApiKey]:
    return run_sync(create_key_async(dsn, name, roles, sources))


def list_keys(dsn: str) -> list[ApiKey]:
    return run_sync(list_keys_async(dsn))


def revoke_key(dsn: str, key_id: int) -> ApiKey | None:
    return run_sync(revoke_key_async(dsn, key_id))


def ensure_development_key(dsn: str, key: str) -> None:
    run_sync(ensure_development_key_async(dsn, key))


class KeyCache:
    """Who a key is. All keys are read every two seconds; one not among them is asked for at once.

    While PostgreSQL is away the last snapshot goes on; a key that is not in it is then *unknown*, not refused.
    """

    def __init__(self, dsn: str, pool: Any) -> None:
        self._dsn, self._pool = dsn, pool
        self._keys: dict[bytes, ApiKey] | None = None
        self._misses: dict[bytes, float] = {}
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = "no keys read yet"

    async def start(self) -> None:
        """Read the keys once, then keep on reading them in the running loop. Never raises."""
        await self._refresh()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def check(self, key: str) -> ApiKey | None:
        """The key's row; None if there is no such key or it is revoked.

        Raises OpstoreUnavailable if that cannot be known now.
        """
        digest = hash_key(key)
        known = (self._keys or {}).get(digest)
        if known is not None:
            return known
        now = time.monotonic()
        if self._keys is not None and self.trouble is None and now - self._misses.get(digest, -60.0) < MISS_KEPT_S:
            return None
        async with failures(self._dsn):
            row = await self._pool.fetchrow(
                "SELECT * FROM api_key WHERE sha256 = $1 AND revoked_at IS NULL", digest, timeout=REFRESH_S
            )
        if row is None:
            if len(self._misses) >= MISSES_KEPT:
                self._misses.clear()
            self._misses[digest] = now
            return None
        found = _row(row)
        if self._keys is not None:
            self._keys[digest] = found
        return found

    async def _refresh(self) -> None:
        try:
            async with failures(self._dsn):
                rows = await self._pool.fetch("SELECT * FROM api_key WHERE revoked_at IS NULL", timeout=REFRESH_S)
        except OpstoreUnavailable as err:
            self.trouble = str(err)
            return
        except OpstoreError as err:
            self.trouble = str(err)
            return
        self._keys = {bytes(row["sha256"]): _row(row) for row in rows}
        self.trouble = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._refresh()


def fingerprint_of(secret: bytes) -> str:
    """Names a secret without giving it away."""
    return hashlib.blake2b(secret, digest_size=16, person=b"fingerprint").hexdigest()


async def check_fingerprints_async(dsn: str, secrets_by_name: dict[str, bytes]) -> None:
    """Keep each secret's fingerprint at first start. Raises WrongKey if one differs from then."""
    async with connect(dsn) as connection:
        for name, secret in secrets_by_name.items():
            fingerprint = fingerprint_of(secret)
            await connection.execute(
                "INSERT INTO key_fingerprint (name, fingerprint) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                name,
                fingerprint,
            )
            kept = await connection.fetchval("SELECT fingerprint FROM key_fingerprint WHERE name = $1", name)
            if kept != fingerprint:
                raise WrongKey(
                    f"the {name} key is not the one this installation started with (fingerprint {fingerprint[:8]}…, "
                    f"kept {kept[:8]}…): it would split every subscriber in two; set TELESTREAM_{name.upper()}_KEY back"
                )


def check_fingerprints(dsn: str, secrets_by_name: dict[str, bytes]) -> None:
    run_sync(check_fingerprints_async(dsn, secrets_by_name))
