"""PostgreSQL's side: who a key is. Fails closed: without an answer, and nothing remembered, nobody gets in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from query_api import metrics
from query_api.domain.problems import unavailable
from telestream_opstore import ApiKey, FileLedger, KeyCache, Mirror, OpstoreError, open_pool

RETRY_S = 2.0
MAX_KEY_CHARS = 200


class Keys:
    """Connects in the background, so that the service starts also while PostgreSQL is away."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: Any = None
        self._cache: KeyCache | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble = "not connected yet"

    async def start(self) -> None:
        """Connect; if that fails, go on trying in the running loop."""
        if not await self._connect():
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._cache is not None:
            await self._cache.stop()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout=2)
            except (TimeoutError, OSError):
                self._pool.terminate()

    async def check(self, key: str) -> ApiKey | None:
        """The key's row, None if there is none; raises Problem (503) if that cannot be known now."""
        if not key or len(key) > MAX_KEY_CHARS:
            return None
        if self._cache is None:
            metrics.KEY_LOOKUPS.labels(outcome="unavailable").inc()
            raise unavailable("the store of API keys")
        try:
            found = await self._cache.check(key)
        except OpstoreError as err:
            metrics.KEY_LOOKUPS.labels(outcome="unavailable").inc()
            raise unavailable("the store of API keys") from err
        metrics.KEY_LOOKUPS.labels(outcome="unknown" if found is None else "known").inc()
        return found

    def missing(self) -> str | None:
        """Why keys cannot be looked up, or None."""
        return self._trouble if self._cache is None else self._cache.trouble

    def mirror(self) -> Mirror | None:
        """The ledger of files over the same connections; None until there are any."""
        return None if self._pool is None else Mirror(self._dsn, self._pool)

    async def file_names(self, file_ids: Sequence[int]) -> dict[int, str]:
        """Id → name of those files that the ledger knows; nothing while PostgreSQL is away."""
        if self._pool is None:
            return {}
        ledger = FileLedger(self._dsn, self._pool)
        try:
            found = [await ledger.get(file_id) for file_id in file_ids]
        except OpstoreError:
            return {}
        return {entry.file_id: entry.name for entry in found if entry is not None}

    async def _connect(self) -> bool:
        try:
            self._pool = await open_pool(self._dsn)
        except OpstoreError as err:
            self._trouble = str(err)
            return False
        cache = KeyCache(self._dsn, self._pool)
        await cache.start()
        self._cache = cache
        return True

    async def _run(self) -> None:
        while not await self._connect():
            await asyncio.sleep(RETRY_S)
