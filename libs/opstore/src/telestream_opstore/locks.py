"""Locks that processes on any machine share. PostgreSQL gives one back when its holder ends, however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

from telestream_opstore.connection import connect


class Lock(IntEnum):
    """``SWITCH``: what people see, and that it stays there. ``KEEP``: making and removing what generations consist
    of."""

    SWITCH = 0x7465_6C01
    KEEP = 0x7465_6C02


@asynccontextmanager
async def locked_async(dsn: str, topic_prefix: str, lock: Lock, *, wait: bool) -> AsyncIterator[bool]:
    """Hold this installation's lock over the body; False if another has it and ``wait`` is false.

    Raises OpstoreUnavailable, also when waiting takes longer than a statement may.
    """
    async with connect(dsn) as connection:
        if wait:
            await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", int(lock), topic_prefix)
            yield True
        else:
            yield await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", int(lock), topic_prefix)
