"""Batch ids of requests, taken from PostgreSQL in ranges so that it may be away for a while."""

from __future__ import annotations

import asyncio

from ingest_gateway.problems import unavailable
from telestream_opstore import FileLedger, OpstoreError


class BatchIds:
    """``take`` never waits for PostgreSQL unless two ranges are used up."""

    def __init__(self, ledger: FileLedger) -> None:
        self._ledger = ledger
        self._next, self._end = 0, 0
        self._spare: tuple[int, int] | None = None
        self._refill: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._next, self._end = await self._ledger.batch_range()
        self._spare = await self._ledger.batch_range()

    async def take(self) -> int:
        if self._next == self._end:
            if self._spare is None:
                try:
                    self._spare = await self._ledger.batch_range()
                except OpstoreError as err:
                    raise unavailable("postgres_away", "no batch ids are left while PostgreSQL is away") from err
            (self._next, self._end), self._spare = self._spare, None
            self._refill = asyncio.create_task(self._fill())
        taken = self._next
        self._next += 1
        return taken

    async def _fill(self) -> None:
        while self._spare is None:
            try:
                self._spare = await self._ledger.batch_range()
            except OpstoreError:
                await asyncio.sleep(1)
