"""The ledger of files: what was uploaded, how far it is loaded, what was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import asyncpg

from telestream_opstore.connection import failures

State = Literal["UPLOADING", "LOADING", "LOADED", "LOADED_MISMATCH", "FAILED", "DUPLICATE"]
Priority = Literal["live", "backfill"]
"""``backfill``: sent only as fast as live records do not wait for it."""

REFUSED_KEPT = 10_000
"""Refused rows kept by file; the rest is only counted."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One row of the ledger. ``read_bytes``, ``read_lines`` and the counts cover acknowledged rows only."""

    file_id: int
    source: str
    name: str
    type: str
    profile: str
    profile_digest: str
    allow_age_days: int | None
    state: State
    instance: str
    content_encoding: str | None
    upload_offset: int
    upload_length: int | None
    content_digest: str | None
    size: int | None
    read_bytes: int
    read_lines: int
    rows: int
    accepted: int
    refused: int
    refused_by_code: dict[str, int]
    totals: dict[str, int]
    expected: dict[str, int]
    sent_from: dict[str, int]
    problem: str | None
    duplicate_of: int | None
    created_at: datetime
    finished_at: datetime | None
    sequence: int | None
    priority: Priority


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is known of a file when its upload begins."""

    source: str
    name: str
    type: str
    profile: str
    profile_digest: str
    instance: str
    allow_age_days: int | None = None
    content_encoding: str | None = None
    upload_length: int | None = None
    expected: Mapping[str, int] = field(default_factory=dict)
    sequence: int | None = None
    priority: Priority = "live"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    line: int
    code: str
    field: str | None
    row: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What Kafka has acknowledged of a file, from its beginning on."""

    read_bytes: int
    read_lines: int
    rows: int
    accepted: int
    refused_by_code: Mapping[str, int]
    totals: Mapping[str, int]
    sent_from: Mapping[str, int]


class FileLedger:
    """The ledger over a pool. Every method raises OpstoreUnavailable or OpstoreError."""

    def __init__(self, dsn: str, pool: Any) -> None:
        self._dsn, self._pool = dsn, pool

    async def begin_upload(self, new: NewFile) -> FileEntry:
        """A row in state UPLOADING; one that was left in it under the same name starts over."""
        async with failures(self._dsn), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE file SET state = 'FAILED', problem = 'started over', finished_at = now() "
                "WHERE source = $1 AND type = $2 AND name = $3 AND state = 'UPLOADING'",
                new.source,
                new.type,
                new.name,
            )
            row = await connection.fetchrow(
                "INSERT INTO file (source, name, type, profile, profile_digest, allow_age_days, state, instance, "
                "content_encoding, upload_length, expected, sequence, priority) "
                "VALUES ($1, $2, $3, $4, $5, $6, 'UPLOADING', $7, $8, $9, $10, $11, $12) RETURNING *",
                new.source,
                new.name,
                new.type,
                new.profile,
                new.profile_digest,
                new.allow_age_days,
                new.instance,
                new.content_encoding,
                new.upload_length,
                dict(new.expected),
                new.sequence,
                new.priority,
            )
        return _entry(row)

    async def latest(self, source: str, record_type: str, name: str) -> FileEntry | None:
        """The newest row of this name."""
        async with failures(self._dsn):
            row = await self._pool.fetchrow(
                "SELECT * FROM file WHERE source = $1 AND type = $2 AND name = $3 ORDER BY file_id DESC LIMIT 1",
                source,
                record_type,
                name,
            )
        return _entry(row) if row else None

    async def uploaded(self, file_id: int, offset: int, length: int | None) -> None:
        """How much of the body is in the spool."""
        async with failures(self._dsn):
            await self._pool.execute(
                "UPDATE file SET upload_offset = $2, upload_length = coalesce($3, upload_length) WHERE file_id = $1",
                file_id,
                offset,
                length,
            )

    async def begin_load(
        self, file_id: int, digest: str, size: int, sent_from: Mapping[str, int]
    ) -> tuple[FileEntry, FileEntry | None]:
        """Claim the content: ``(this row, None)`` in state LOADING, or ``(this row, the earlier row of the same
        content)``, which is LOADING or loaded; this row is then a DUPLICATE of it and nothing of it may be sent.
        """
        async with failures(self._dsn):
            try:
                row = await self._pool.fetchrow(
                    "UPDATE file SET state = 'LOADING', content_digest = $2, size = $3, sent_from = $4 "
                    "WHERE file_id = $1 RETURNING *",
                    file_id,
                    digest,
                    size,
                    dict(sent_from),
                )
                return _entry(row), None
            except asyncpg.UniqueViolationError:
                pass
            first = await self._pool.fetchrow(
                "SELECT f.* FROM file f JOIN file mine ON mine.file_id = $1 WHERE f.source = mine.source "
                "AND f.type = mine.type AND f.profile_digest = mine.profile_digest "
                "AND f.allow_age_days IS NOT DISTINCT FROM mine.allow_age_days "
                "AND f.content_digest = $2 AND f.state IN ('LOADING', 'LOADED', 'LOADED_MISMATCH')",
                file_id,
                digest,
            )
            if first is None:  # the other one failed in this very moment
                return await self.begin_load(file_id, digest, size, sent_from)
            row = await self._pool.fetchrow(
                "UPDATE file SET state = 'DUPLICATE', content_digest = $2, size = $3, duplicate_of = $4, "
                "finished_at = now() WHERE file_id = $1 RETURNING *",
                file_id,
                digest,
                size,
                first["file_id"],
            )
        return _entry(row), _entry(first)

    async def advance(self, file_id: int, progress: Progress, refused: Sequence[RefusedRow]) -> None:
        """Book acknowledged rows, and their refusals beside them, in one transaction."""
        async with failures(self._dsn), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE file SET read_bytes = $2, read_lines = $3, rows = $4, accepted = $5, refused = $6, "
                "refused_by_code = $7, totals = $8, sent_from = $9 WHERE file_id = $1",
                file_id,
                progress.read_bytes,
                progress.read_lines,
                progress.rows,
                progress.accepted,
                progress.rows - progress.accepted,
                dict(progress.refused_by_code),
                dict(progress.totals),
                dict(progress.sent_from),
            )
            already = progress.rows - progress.accepted - len(refused)
            room = max(0, REFUSED_KEPT - already)
            if refused and room:
                await connection.executemany(
                    "INSERT INTO file_refused (file_id, line, code, field, row) VALUES ($1, $2, $3, $4, $5) "
                    "ON CONFLICT DO NOTHING",
                    [(file_id, entry.line, entry.code, entry.field, entry.row) for entry in refused[:room]],
                )

    async def finish(self, file_id: int, state: State, problem: str | None = None) -> FileEntry:
        """The last state of a file."""
        async with failures(self._dsn):
            row = await self._pool.fetchrow(
                "UPDATE file SET state = $2, problem = $3, finished_at = now() WHERE file_id = $1 RETURNING *",
                file_id,
                state,
                problem,
            )
        return _entry(row)

    async def get(self, file_id: int) -> FileEntry | None:
        async with failures(self._dsn):
            row = await self._pool.fetchrow("SELECT * FROM file WHERE file_id = $1", file_id)
        return _entry(row) if row else None

    async def recent(
        self, limit: int, before: int | None = None, sources: Sequence[str] | None = None
    ) -> list[FileEntry]:
        """Newest first, ids below ``before``, only of these sources (None: all)."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT * FROM file WHERE ($2::bigint IS NULL OR file_id < $2) "
                "AND ($3::text[] IS NULL OR source = ANY($3)) ORDER BY file_id DESC LIMIT $1",
                limit,
                before,
                None if sources is None else [*sources],
            )
        return [_entry(row) for row in rows]

    async def unfinished(self, instance: str) -> list[FileEntry]:
        """Files this instance was loading when it stopped, oldest first."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT * FROM file WHERE instance = $1 AND state = 'LOADING' ORDER BY file_id", instance
            )
        return [_entry(row) for row in rows]

    async def refused_rows(self, file_id: int) -> list[RefusedRow]:
        """The refused rows that were kept, by line."""
        async with failures(self._dsn):
            rows = await self._pool.fetch(
                "SELECT line, code, field, row FROM file_refused WHERE file_id = $1 ORDER BY line", file_id
            )
        return [RefusedRow(row["line"], row["code"], row["field"], row["row"]) for row in rows]

    async def batch_range(self) -> tuple[int, int]:
        """``[first, end)`` batch ids for requests that nobody else gets."""
        async with failures(self._dsn):
            first = int(await self._pool.fetchval("SELECT nextval('batch_range')"))
        return first, first + 100_000


def _entry(row: Any) -> FileEntry:
    return FileEntry(**{name: row[name] for name in FileEntry.__dataclass_fields__})
