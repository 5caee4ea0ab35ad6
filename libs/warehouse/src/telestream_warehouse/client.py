"""A small synchronous client of ClickHouse's HTTP interface: statements, reads, Arrow inserts.

It tells two kinds of failure apart, because the sink must: what to do again, and what never to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import polars as pl
import pyarrow as pa
import urllib3

from telestream_warehouse.errors import WarehouseRefused, WarehouseUnavailable
from telestream_warehouse.query import Query

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0

# ClickHouse's codes for "not now"; every other one says that the statement itself can never be taken.
LATER: Mapping[int, str] = {
    3: "UNEXPECTED_END_OF_FILE",
    75: "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
    76: "CANNOT_OPEN_FILE",
    159: "TIMEOUT_EXCEEDED",
    160: "TOO_SLOW",
    198: "DNS_ERROR",
    201: "QUOTA_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    225: "NO_ZOOKEEPER",
    236: "ABORTED",
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    243: "NOT_ENOUGH_SPACE",
    252: "TOO_MANY_PARTS",
    279: "ALL_CONNECTION_TRIES_FAILED",
    285: "TOO_FEW_LIVE_REPLICAS",
    286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    289: "REPLICA_IS_NOT_IN_QUORUM",
    319: "UNKNOWN_STATUS_OF_INSERT",
    364: "RECEIVED_ERROR_TOO_MANY_REQUESTS",
    373: "SESSION_IS_LOCKED",
    394: "QUERY_WAS_CANCELLED",
    425: "SYSTEM_ERROR",
    439: "CANNOT_SCHEDULE_TASK",
    499: "S3_ERROR",
    641: "CANNOT_APPEND_TO_FILE",
    745: "SERVER_OVERLOADED",
    999: "KEEPER_EXCEPTION",
}
INSERT_SETTINGS = {
    # rows are collapsed when read and when merged; doing it at the insert too triples its cost
    "optimize_on_insert": "0",
    "async_insert": "0",
    # a file of old records touches many months
    "max_partitions_per_insert_block": "0",
    "max_insert_block_size": "1048576",
    "input_format_arrow_allow_missing_columns": "0",
}
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_CODE = re.compile(r"Code: (\d+)")


class ClickHouse:
    """One connection pool to one database. Safe to use from several threads.

    ``url`` may carry user and password. Every method raises WarehouseUnavailable (do it again) or WarehouseRefused.
    """

    def __init__(
        self,
        url: str,
        database: str,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WarehouseRefused(f"{_shown(url)} is not a ClickHouse HTTP URL such as http://127.0.0.1:8123")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._url = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "") + (parts.path or "/")
        self._headers = {"X-ClickHouse-User": unquote(parts.username)} if parts.username else {}
        if parts.password:
            self._headers["X-ClickHouse-Key"] = unquote(parts.password)
        self.database = database
        self._settings = dict(settings or {})
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        self._pool = urllib3.PoolManager(maxsize=4, retries=False)

    def command(self, statement: str | Query, *, in_database: bool = True) -> None:
        """Run a statement whose answer does not matter. ``in_database`` false: without a current database."""
        query = statement if isinstance(statement, Query) else Query(statement)
        self._post(query.http_params(), query.sql.encode(), "statement", in_database=in_database)

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The answer as dicts: 64-bit numbers are ints, times are ISO strings in UTC, maps are dicts."""
        settings = {
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_decimals": "1",
            "date_time_output_format": "iso",
            "wait_end_of_query": "1",
        }
        body = self._post({**settings, **query.http_params()}, f"{query.sql}\nFORMAT JSONEachRow".encode(), "query")
        return [json.loads(line) for line in body.splitlines() if line]

    def frame(self, query: Query) -> pl.DataFrame:
        """The answer as columns; an empty frame without columns if there are no rows."""
        settings = {"output_format_arrow_string_as_string": "1", "wait_end_of_query": "1"}
        body = self._post({**settings, **query.http_params()}, f"{query.sql}\nFORMAT ArrowStream".encode(), "query")
        if not body:
            return pl.DataFrame()
        table = pa.ipc.open_stream(body).read_all()
        return pl.from_arrow(table)  # type: ignore[return-value]

    def insert(self, table: str, rows: pa.RecordBatch | pa.Table) -> None:
        """Insert all columns of ``rows`` by name in one block. Raising WarehouseUnavailable says nothing about whether
        it was done: insert the same again."""
        columns = ", ".join(f"`{name}`" for name in rows.schema.names)
        statement = f"INSERT INTO {self.database}.{table} ({columns}) FORMAT ArrowStream"
        batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
        head = rows.schema.serialize()
        length = head.size + sum(map(pa.ipc.get_record_batch_size, batches)) + len(_END_OF_STREAM)
        self._post(
            {**INSERT_SETTINGS, "query": statement},
            _stream(head, batches),
            f"insert of {rows.num_rows} rows into {table}",
            headers={"Content-Length": str(length)},
        )

    def ping(self) -> None:
        """Raises WarehouseUnavailable if ClickHouse does not answer."""
        self._post({}, b"SELECT 1", "ping", in_database=False)

    def close(self) -> None:
        self._pool.clear()

    def _post(
        self,
        params: Mapping[str, str],
        body: Any,
        what: str,
        *,
        in_database: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        query = {**self._settings, **params}
        if in_database:
            query["database"] = self.database
        url = f"{self._url}?{urlencode(query)}" if query else self._url
        try:
            answer = self._pool.request(
                "POST", url, body=body, headers={**self._headers, **(headers or {})}, timeout=self._timeout
            )
        except urllib3.exceptions.HTTPError as err:
            raise WarehouseUnavailable(f"{what}: ClickHouse at {self._url} does not answer: {_brief(err)}") from err
        if answer.status == 200 and "X-ClickHouse-Exception-Code" not in answer.headers:
            return bytes(answer.data)
        raise self._failure(answer, what)

    def _failure(self, answer: urllib3.BaseHTTPResponse, what: str) -> WarehouseUnavailable | WarehouseRefused:
        text = bytes(answer.data).decode("utf-8", "replace").strip()
        found = answer.headers.get("X-ClickHouse-Exception-Code") or (m.group(1) if (m := _CODE.search(text)) else None)
        code = int(found) if found and found.isdigit() else None
        message = f"{what}: ClickHouse at {self._url} says {answer.status}: {text[:500] or 'nothing'}"
        if code in LATER or (code is None and (answer.status >= 500 or answer.status in (408, 429))):
            return WarehouseUnavailable(message)
        return WarehouseRefused(message, code)


def _stream(head: pa.Buffer, batches: Sequence[pa.RecordBatch]) -> Iterator[memoryview]:
    """Arrow's stream format, one batch in memory at a time: a whole block beside its columns would double them."""
    yield memoryview(head)
    for batch in batches:
        yield memoryview(batch.serialize())
    yield memoryview(_END_OF_STREAM)


def _brief(err: Exception) -> str:
    return str(err).split(": ", 1)[-1][:200] or type(err).__name__


def _shown(url: str) -> str:
    return re.sub(r"//[^@/]*@", "//…@", url)
