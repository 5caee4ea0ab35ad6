"""ClickHouse's side: a few threads, bound parameters only, limits on time and rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import polars as pl

from query_api import metrics
from query_api.domain.problems import Problem, unavailable
from query_api.settings import QuerySettings
from telestream_runtime import get_logger
from telestream_warehouse import active_generations
from telestream_warehouse.client import ClickHouse
from telestream_warehouse.errors import WarehouseError, WarehouseRefused, WarehouseUnavailable
from telestream_warehouse.query import Query

log = get_logger(__name__)
T = TypeVar("T")

_TOO_SLOW = "TIMEOUT_EXCEEDED"
_NARROWER = "ask for a shorter range or fewer groups"
_TOO_MUCH_CODES = frozenset({158, 241, 307, 396})
"""Too many rows, too much memory, too many bytes, too many rows in the answer."""

WAITING_PER_THREAD = 8
"""Questions that may wait for a thread; more are refused at once, rather than all being late."""


class Warehouse:
    """Asks ClickHouse from a few threads. Raises Problem: 503 while it is away, 422 for a question that is too wide."""

    def __init__(self, settings: QuerySettings) -> None:
        limits = {
            "max_execution_time": str(settings.query_timeout_s),
            "max_result_rows": str(settings.query_max_rows + 1),
            "result_overflow_mode": "throw",
        }
        self._client = ClickHouse(
            _with_user(settings),
            settings.clickhouse_database,
            read_timeout_s=settings.query_timeout_s + 2,
            settings=limits,
        )
        self._where = settings.clickhouse
        self._pool = ThreadPoolExecutor(settings.query_threads, thread_name_prefix="clickhouse")
        self._room = settings.query_threads * (1 + WAITING_PER_THREAD)
        self._asked = 0

    async def frame(self, query: Query) -> pl.DataFrame:
        """The answer as columns."""
        return await self._ask(lambda: self._client.frame(query))

    async def rows(self, query: Query) -> list[dict[str, Any]]:
        """The answer as dicts; for small ones with maps."""
        return await self._ask(lambda: self._client.rows(query))

    async def frames(self, *queries: Query) -> list[pl.DataFrame]:
        """Several answers, asked side by side."""
        return list(await asyncio.gather(*(self.frame(query) for query in queries)))

    def active(self) -> dict[str, int]:
        """Type → the generation that people see; from any thread. Raises WarehouseError."""
        return {str(row["type"]): int(row["generation"]) for row in self._client.rows(active_generations())}

    def missing(self) -> str | None:
        """Why ClickHouse cannot be asked, or None."""
        try:
            self._client.ping()
        except WarehouseError as err:
            return str(err)
        return None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _ask(self, work: Callable[[], T]) -> T:
        if self._asked >= self._room:
            raise Problem(503, "busy", "too many questions at the same time; ask again", retry_after_s=1)
        self._asked += 1
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except WarehouseUnavailable as err:
            metrics.CLICKHOUSE_FAILURES.inc()
            if _TOO_SLOW in str(err):
                raise Problem(
                    422, "too_wide", "the question takes too long: ask for a shorter range or fewer groups"
                ) from err
            log.warning("ClickHouse does not answer", reason=str(err))
            raise unavailable("ClickHouse") from err
        except WarehouseRefused as err:
            metrics.CLICKHOUSE_FAILURES.inc()
            if err.code in _TOO_MUCH_CODES:
                raise Problem(
                    422, "too_wide", "the answer is too large: ask for a shorter range or fewer groups"
                ) from err
            # tables that are not there (yet), no rights: nothing the caller can mend
            log.error("ClickHouse refused a question", code=err.code, reason=str(err))
            raise unavailable("ClickHouse", retry_after_s=30) from err
        finally:
            self._asked -= 1
            metrics.CLICKHOUSE_SECONDS.observe(time.perf_counter() - started)


def _with_user(settings: QuerySettings) -> str:
    parts = urlsplit(settings.clickhouse)
    if parts.username or (
        settings.clickhouse_user == "default" and not settings.clickhouse_password.get_secret_value()
    ):
        return settings.clickhouse
    user = quote(settings.clickhouse_user, safe="")
    password = quote(settings.clickhouse_password.get_secret_value(), safe="")
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))
