"""The ledger of files as seen from a source: what became of its files, and what they should have held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telestream_opstore.connection import failures

WHOLE = ("LOADED", "LOADED_MISMATCH")
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Numbered:
    """A file with its producer's number."""

    source: str
    type: str
    sequence: int
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class Declared:
    """A whole file that came with totals. ``loaded`` has a value for each total of ``expected`` that is known."""

    file_id: int
    source: str
    type: str
    name: str
    state: str
    finished_at: datetime
    expected: dict[str, int]
    loaded: dict[str, int]


@dataclass(frozen=True, slots=True)
class StateCount:
    """Files of a type that are in one state, and what was read of them."""

    type: str
    state: str
    files: int
    rows: int
    accepted: int
    refused: int
    refused_by_code: dict[str, int]
    last_at: datetime


class Mirror:
    """Questions about files by source (``sources`` None: all). Every method raises OpstoreUnavailable or
    OpstoreError."""

    def __init__(self, dsn: str, pool: Any) -> None:
        self._dsn, self._pool = dsn, pool

    async def numbered(self, since: datetime, until: datetime, sources: Sequence[str] | None) -> list[Numbered]:
        """Files with a number that began to arrive in ``since ≤ t < until``, failed ones left out. At most MAX_FILES,
        the newest."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT source, type, sequence, created_at FROM file WHERE sequence IS NOT NULL AND state <> 'FAILED' "
                "AND created_at >= $1 AND created_at < $2 AND ($3::text[] IS NULL OR source = ANY($3)) "
                "ORDER BY created_at DESC LIMIT $4",
                since,
                until,
                _list(sources),
                MAX_FILES,
            )
        return [Numbered(row["source"], row["type"], row["sequence"], row["created_at"]) for row in rows]

    async def declared(self, since: datetime, until: datetime, sources: Sequence[str] | None) -> list[Declared]:
        """Files with declared totals that were loaded whole in ``since ≤ t < until``. At most MAX_FILES, the newest."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT file_id, source, type, name, state, finished_at, expected, rows, totals FROM file "
                "WHERE expected <> '{}' AND state = ANY($4) AND finished_at >= $1 AND finished_at < $2 "
                "AND ($3::text[] IS NULL OR source = ANY($3)) ORDER BY finished_at DESC LIMIT $5",
                since,
                until,
                _list(sources),
                list(WHOLE),
                MAX_FILES,
            )
        return [_declared(row) for row in rows]

    async def states(self, source: str, since: datetime, until: datetime) -> list[StateCount]:
        """The files of a source that began to arrive in ``since ≤ t < until``, by type and state."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT type, state, count(*) AS files, sum(rows)::bigint AS rows, sum(accepted)::bigint AS accepted, "
                "sum(refused)::bigint AS refused, max(coalesce(finished_at, created_at)) AS last_at "
                "FROM file WHERE source = $1 AND created_at >= $2 AND created_at < $3 "
                "GROUP BY type, state ORDER BY type, state",
                source,
                since,
                until,
            )
            codes = await self._pool.fetch(
                "SELECT type, state, code.key AS code, sum(code.value::bigint)::bigint AS rows "
                "FROM file, jsonb_each_text(refused_by_code) AS code "
                "WHERE source = $1 AND created_at >= $2 AND created_at < $3 GROUP BY type, state, code.key ORDER BY 3",
                source,
                since,
                until,
            )
        by_code: dict[tuple[str, str], dict[str, int]] = {}
        for row in codes:
            by_code.setdefault((row["type"], row["state"]), {})[row["code"]] = row["rows"]
        return [StateCount(**dict(row), refused_by_code=by_code.get((row["type"], row["state"]), {})) for row in rows]

    async def sources(self, sources: Sequence[str] | None) -> list[str]:
        """Every source that ever sent a file."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT DISTINCT source FROM file WHERE $1::text[] IS NULL OR source = ANY($1) ORDER BY 1",
                _list(sources),
            )
        return [row["source"] for row in rows]


def _declared(row: Any) -> Declared:
    found = {"rows": row["rows"], **row["totals"]}
    loaded = {name: int(found[name]) for name in row["expected"] if name in found}
    names = ("file_id", "source", "type", "name", "state", "finished_at")
    return Declared(**{name: row[name] for name in names}, expected=row["expected"], loaded=loaded)


def _list(sources: Sequence[str] | None) -> list[str] | None:
    return None if sources is None else [*sources]
