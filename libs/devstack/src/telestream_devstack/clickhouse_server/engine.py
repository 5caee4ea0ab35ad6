"""The engine: one statement at a time on a connection of its own."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telestream_devstack.clickhouse_server.statements import InsertData, first_word, is_read, output_format

# chdb formats each block for itself when it streams; only these are the same as when they are formatted whole.
_STREAMABLE = frozenset({"native", "tabseparated", "tsv", "tabseparatedraw", "csv", "jsoneachrow", "rowbinary"})
_SESSIONS_KEPT = 1000
_CODE = re.compile(r"Code: (\d+)\.")
_SAFE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")

# Of HTTP, not of the statement; "compress" is answered for by the caller.
TRANSPORT_PARAMETERS = frozenset(
    {
        *("query", "database", "default_format", "query_id", "session_id", "session_check", "session_timeout"),
        *("user", "password", "quota_key", "compress", "decompress", "wait_end_of_query", "buffer_size"),
        *("enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms"),
        *("client_protocol_version", "role", "stacktrace", "framing", "add_http_cors_header"),
    }
)


class EngineError(Exception):
    """What ClickHouse says of a statement that it could not carry out; `code` is ClickHouse's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = _CODE.search(text)
        self.code = int(found.group(1)) if found else 1002


@dataclass(slots=True)
class Statement:
    """A statement with its circumstances, as a request gives them.

    `text` has no data of an INSERT; `data` yields that, in the format of `insert`.
    """

    text: bytes
    insert: InsertData | None
    data: Iterator[bytes]
    database: str | None
    default_format: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    session: str | None


@dataclass(slots=True)
class Summary:
    """Counts of a statement, as ClickHouse's X-ClickHouse-Summary header has them."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_ns: int = 0
    format: str = field(default="", kw_only=True)

    def header(self) -> dict[str, str]:
        return {
            "read_rows": str(self.read_rows),
            "read_bytes": str(self.read_bytes),
            "written_rows": str(self.written_rows),
            "written_bytes": str(self.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": "0",
            "result_bytes": "0",
            "elapsed_ns": str(self.elapsed_ns),
        }


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Engine:
    """The one engine of this process on one data path.

    Every statement gets a fresh connection: settings, current database and parameters cannot leak into another's, and
    what a failed statement leaves behind goes with it (chdb hands it to the next one on the same connection). Opening
    one takes 0.1 ms as long as another is open, which is what `_keeper` is for.
    """

    def __init__(self, path: Path, options: Mapping[str, str]) -> None:
        from chdb import _chdb

        self._connect: Callable[[str], Any] = _chdb.connect  # type: ignore[attr-defined]
        query = "&".join(f"{name}={value}" for name, value in options.items())
        self._address = f"{path}?{query}" if query else str(path)
        self._keeper = self._connect(self._address)
        self._sessions: OrderedDict[str, list[str]] = OrderedDict()
        self._guard = threading.Lock()

    def close(self) -> None:
        self._keeper.close()

    def run(self, statement: Statement, emit: Callable[[bytes], None]) -> Summary:
        """Carry out a statement; the answer goes to `emit` in pieces. Raises EngineError (some pieces may be out)."""
        connection = self._connect(self._address)
        try:
            for preparation in self._preparations(statement):
                connection.query(preparation, "TabSeparated")
            if statement.insert is not None:
                return self._insert(connection, statement)
            return self._query(connection, statement, emit)
        except RuntimeError as error:
            raise EngineError(str(error)) from None
        except UnicodeDecodeError:
            raise EngineError("Code: 62. DB::Exception: The statement is not UTF-8. (SYNTAX_ERROR)") from None
        finally:
            connection.close()

    def _preparations(self, statement: Statement) -> list[str]:
        todo = []
        if statement.database:
            todo.append(f"USE `{statement.database.replace(chr(92), chr(92) * 2).replace('`', chr(92) + '`')}`")
        if statement.session is not None:
            with self._guard:
                todo.extend(self._sessions.get(statement.session, ()))
        assignments = dict(statement.settings)
        if statement.insert is not None:
            assignments |= {f"param_{name}": value for name, value in statement.parameters.items()}
        # Once "readonly" is set, nothing else can be.
        for name, value in sorted(assignments.items(), key=lambda assignment: assignment[0] == "readonly"):
            if not _SAFE_NAME.match(name):
                raise EngineError(f"Code: 115. DB::Exception: Setting {name!r} is unknown. (UNKNOWN_SETTING)")
            todo.append(f"SET {name} = {_quoted(value)}")
        return todo

    def _insert(self, connection: Any, statement: Statement) -> Summary:
        assert statement.insert is not None
        handle = connection.send_insert(statement.insert.statement, statement.insert.format)
        try:
            for piece in statement.data:
                connection.insert_append(handle, piece)
        except BaseException:
            connection.insert_cancel(handle)
            raise
        done = connection.insert_done(handle)
        if done.has_error():
            raise RuntimeError(done.error_message())
        return Summary(
            written_rows=done.rows_written(), written_bytes=done.bytes_written(), elapsed_ns=int(done.elapsed() * 1e9)
        )

    def _query(self, connection: Any, statement: Statement, emit: Callable[[bytes], None]) -> Summary:
        text = b"".join([statement.text, *statement.data])
        wanted = output_format(text, statement.default_format)
        sql = text.decode()
        if wanted.lower() in _STREAMABLE and is_read(text) and first_word(text) in (b"SELECT", b"WITH", b"FROM"):
            summary = Summary(format=wanted)
            stream = connection.send_query(sql, wanted, params=dict(statement.parameters))
            while True:
                block = connection.streaming_fetch_result(stream)
                if block is None or block.rows_read() == 0:
                    break
                summary.read_rows += block.storage_rows_read() or block.rows_read()
                summary.read_bytes += block.storage_bytes_read() or block.bytes_read()
                emit(block.bytes())
            return summary
        result = connection.query(sql, wanted, params=dict(statement.parameters))
        if result.has_error():
            raise RuntimeError(result.error_message())
        if result.size():
            emit(result.bytes())
        if statement.session is not None and first_word(text) in (b"SET", b"USE"):
            self._remember(statement.session, sql)
        return Summary(
            read_rows=result.storage_rows_read() or result.rows_read(),
            read_bytes=result.storage_bytes_read() or result.bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            elapsed_ns=int(result.elapsed() * 1e9),
            format=wanted,
        )

    def _remember(self, session: str, sql: str) -> None:
        with self._guard:
            self._sessions.setdefault(session, []).append(sql)
            self._sessions.move_to_end(session)
            while len(self._sessions) > _SESSIONS_KEPT:
                self._sessions.popitem(last=False)
