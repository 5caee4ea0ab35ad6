"""One pace for all backfills of a gateway: looked at four times a second while there is one, else nothing is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from ingest_gateway.domain.pacing import Owed, Pace
from ingest_gateway.metrics import BACKFILL_RATE, BACKFILL_UNSEEN, LIVE_WAIT_SECONDS
from telestream_domain import TelestreamError
from telestream_runtime import get_logger

LOOK_EVERY_S = 0.25
GENERATIONS_EVERY_S = 10.0
LOG_EVERY_S = 60.0

log = get_logger("ingest-gateway")


class Positions(Protocol):
    """Asked in a thread. ``waits_s``: how long live records of these generations wait; raises TelestreamError."""

    def waits_s(self, generations: Sequence[int]) -> float: ...

    def close(self) -> None: ...


class Pacer:
    """``live`` says which generations count, and may raise TelestreamError; until it answers, ``generation`` does."""

    def __init__(
        self,
        pace: Pace,
        positions: Positions,
        live: Callable[[], Awaitable[Sequence[int]]],
        generation: int,
    ) -> None:
        self._first, self._pace = pace, pace
        self._positions, self._live = positions, live
        self._generations: Sequence[int] = (generation,)
        self._owed = Owed(0.0, time.monotonic())
        self._held = False
        self._users = 0
        self._looking: asyncio.Task[None] | None = None
        self._told_at = -LOG_EVERY_S

    @asynccontextmanager
    async def pacing(self) -> AsyncIterator[None]:
        """While this is entered, ``take`` follows what live records do."""
        self._users += 1
        if self._looking is None:
            self._pace = self._first
            self._looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                looking, self._looking = self._looking, None
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking
                if self._looking is None:
                    await asyncio.get_running_loop().run_in_executor(None, self._positions.close)

    def take(self, records: int) -> bool:
        """Whether so many may be sent now; if so they count."""
        self._settle()
        if self._owed.records:
            self._held = True
            return False
        self._owed = Owed(float(records), self._owed.at)
        return True

    def _settle(self) -> None:
        self._owed = self._owed.after(time.monotonic(), self._pace.rate)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        asked_at = -GENERATIONS_EVERY_S
        while True:
            began = time.monotonic()
            if began - asked_at > GENERATIONS_EVERY_S:
                # PostgreSQL away: those that counted last
                with suppress(TelestreamError):
                    self._generations = await self._live() or self._generations
                asked_at = began
            waits: float | None = None
            try:
                waits = await loop.run_in_executor(None, self._positions.waits_s, self._generations)
            except TelestreamError as err:
                BACKFILL_UNSEEN.inc()
                if began - self._told_at > LOG_EVERY_S:
                    self._told_at = began
                    log.warning("backfill goes at its floor", records_a_second=self._pace.floor, reason=str(err))
            self._settle()
            self._pace = self._pace.after(waits, self._held)
            self._held = False
            BACKFILL_RATE.set(self._pace.rate)
            LIVE_WAIT_SECONDS.set(float("nan") if waits is None else waits)
            await asyncio.sleep(max(0.05, LOOK_EVERY_S - (time.monotonic() - began)))
