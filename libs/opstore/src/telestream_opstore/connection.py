"""Connections to PostgreSQL, with its failures as ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from telestream_opstore.errors import OpstoreError, OpstoreUnavailable

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 15.0
T = TypeVar("T")

UNAVAILABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
)


def where(dsn: str) -> str:
    """Host, port and database of a DSN, without user and password."""
    parts = urlsplit(dsn)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"


@asynccontextmanager
async def failures(dsn: str) -> AsyncIterator[None]:
    """Turn asyncpg's errors into OpstoreUnavailable or OpstoreError."""
    try:
        yield
    except UNAVAILABLE as err:
        raise OpstoreUnavailable(
            f"PostgreSQL at {where(dsn)} does not answer: {str(err) or type(err).__name__}; check that it runs"
        ) from err
    except asyncpg.PostgresError as err:
        raise OpstoreError(f"PostgreSQL at {where(dsn)} refuses: {err}") from err


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def open_pool(dsn: str, size: int = 4) -> Any:
    """A pool of at most ``size`` connections; raises OpstoreUnavailable. Close it with ``await pool.close()``."""
    async with failures(dsn):
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            init=_prepare,
        )


@asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[Any]:
    """One connection for a short piece of work."""
    async with failures(dsn):
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S)
    try:
        async with failures(dsn):
            await _prepare(connection)
            yield connection
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that is not in an event loop."""
    return asyncio.run(work)
