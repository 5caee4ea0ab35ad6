"""ClickHouse's HTTP interface as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from telestream_devstack.clickhouse_server.compression import Decoder, Encoder, UnknownEncoding, accepted
from telestream_devstack.clickhouse_server.engine import TRANSPORT_PARAMETERS, Engine, EngineError, Statement
from telestream_devstack.clickhouse_server.statements import insert_with_data, output_format

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PIECE_BYTES = 4 * 1024 * 1024  # of a request's data at a time
_STATEMENT_LIMIT_BYTES = 64 * 1024 * 1024  # of text that must be known whole (all but an INSERT's data)
_DRAINED_BYTES = 256 * 1024 * 1024  # of a refused request
_HELD_BYTES = 1024 * 1024  # of an answer are kept back, so that an early error still gets a status of its own

# ClickHouse's own table, as far as it matters to clients.
_STATUS_OF_CODE = {
    **dict.fromkeys((60, 81, 46), 404),
    **dict.fromkeys((6, 27, 38, 41, 53, 62, 70, 72, 115, 117, 130, 456, 457), 400),
    **dict.fromkeys((192, 193, 194, 516), 401),
    **dict.fromkeys((241, 202), 503),
    **dict.fromkeys((159, 160), 408),
}


class _BadRequest(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Body:
    """A request's body, decoded, in pieces of about _PIECE_BYTES: the first on the event loop, more on demand of the
    worker thread, which so holds the client back."""

    def __init__(self, receive: Receive, encoding: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._decoder = Decoder(encoding) if encoding else None
        self._loop = loop
        self.ended = False

    async def piece(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not self.ended and size < _PIECE_BYTES:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _BadRequest(400, "Code: 210. DB::Exception: The client went away. (NETWORK_ERROR)")
            data = message.get("body", b"")
            if data and self._decoder is not None:
                try:
                    data = self._decoder.decode(data)
                except Exception as error:
                    raise _BadRequest(
                        400, f"Code: 271. DB::Exception: Cannot decompress the body: {error}. (CANNOT_DECOMPRESS)"
                    ) from None
            if data:
                parts.append(data)
                size += len(data)
            self.ended = not message.get("more_body", False)
        if self.ended and self._decoder is not None and not self._decoder.complete():
            raise _BadRequest(400, "Code: 271. DB::Exception: The compressed body ends early. (CANNOT_DECOMPRESS)")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def drain(self) -> None:
        """Read on and forget: a client that is still sending would otherwise see a broken pipe, not our answer."""
        left = _DRAINED_BYTES
        while not self.ended and left > 0:
            message = await self._receive()
            left -= len(message.get("body", b""))
            self.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def rest(self, first: bytes) -> Iterator[bytes]:
        """All data from `first` on; for a thread other than the event loop's."""
        if first:
            yield first
        while not self.ended:
            if data := asyncio.run_coroutine_threadsafe(self.piece(), self._loop).result():
                yield data


class _Answer:
    """Takes the pieces of an answer from a worker thread and sends them, with a head as late as possible."""

    def __init__(self, send: Send, loop: asyncio.AbstractEventLoop, encoding: str | None) -> None:
        self._send = send
        self._loop = loop
        self._encoder = Encoder(encoding) if encoding else None
        self._encoding = encoding
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.headers: dict[str, str] = {}
        self.started = False

    def emit(self, data: bytes) -> None:
        if self._encoder is not None:
            data = self._encoder.encode(data)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _HELD_BYTES:
            asyncio.run_coroutine_threadsafe(self._flush(more=True), self._loop).result()

    async def _flush(self, *, more: bool) -> None:
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        if not self.started:
            headers = dict(self.headers)
            if self._encoding and (body or more):
                headers["Content-Encoding"] = self._encoding
            if not more:
                headers["Content-Length"] = str(len(body))
            await self._send(_head(200, headers))
            self.started = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def finish(self) -> None:
        if self._encoder is not None and (self._held or self.started):
            self._held.append(self._encoder.finish())
        await self._flush(more=False)


def _head(status: int, headers: dict[str, str]) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
    }


class Application:
    """`workers` statements run side by side; more wait their turn."""

    def __init__(self, engine: Engine, workers: int) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="statement")
        self._closing = threading.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if path in ("/ping", "/replicas_status") or (
            path == "/" and method in ("GET", "HEAD") and "query" not in query
        ):
            await _plain(send, 200, "Ok.\n")
        elif path not in ("/", "/query"):
            await _plain(send, 404, f"There is no handle {path}\n")
        elif method not in ("GET", "POST", "HEAD", "PUT"):
            await _plain(send, 405, "Use GET or POST\n")
        else:
            await self._statement(scope, query, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._engine.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _statement(
        self, scope: MutableMapping[str, Any], query: dict[str, str], receive: Receive, send: Send
    ) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query_id = query.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
        loop = asyncio.get_running_loop()
        common = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "telestream",
        }
        answer: _Answer | None = None
        body: _Body | None = None
        try:
            body = _Body(receive, headers.get("content-encoding"), loop)
            statement = await _read_statement(query, headers, body, read_only=scope["method"] in ("GET", "HEAD"))
            wished = query.get("enable_http_compression", "0") in ("1", "true")
            answer = _Answer(send, loop, accepted(headers.get("accept-encoding", "")) if wished else None)
            answer.headers = common | {
                "Content-Type": "text/plain; charset=UTF-8",
                "X-ClickHouse-Format": output_format(statement.text, statement.default_format),
            }
            summary = await loop.run_in_executor(self._pool, self._engine.run, statement, answer.emit)
            answer.headers["X-ClickHouse-Summary"] = json.dumps(summary.header())
            await answer.finish()
            return
        except EngineError as error:
            status, code, text = _STATUS_OF_CODE.get(error.code, 500), error.code, str(error)
        except UnknownEncoding as error:
            status, code, text = 415, 89, f"Code: 89. DB::Exception: {error}. (UNKNOWN_COMPRESSION_METHOD)"
        except _BadRequest as error:
            status, code, text = error.status, EngineError(str(error)).code, str(error)
        if answer is not None and answer.started:
            # The head is out; a connection that breaks off inside a chunk is what no client takes for a whole answer.
            raise ConnectionAbortedError(text)
        if body is not None:
            await body.drain()
        await _fail(send, common, status, code, text)


async def _read_statement(query: dict[str, str], headers: dict[str, str], body: _Body, *, read_only: bool) -> Statement:
    if query.get("compress") in ("1", "true") or query.get("decompress") in ("1", "true"):
        raise _BadRequest(
            400,
            "Code: 48. DB::Exception: ClickHouse's own block compression is not spoken here: use Content-Encoding and "
            "enable_http_compression=1. (NOT_IMPLEMENTED)",
        )
    if headers.get("content-type", "").startswith("multipart/"):
        raise _BadRequest(400, "Code: 48. DB::Exception: Multipart requests are not spoken here. (NOT_IMPLEMENTED)")
    settings = {
        name: value
        for name, value in query.items()
        if name not in TRANSPORT_PARAMETERS and not name.startswith("param_")
    }
    if read_only and "readonly" not in settings:
        settings["readonly"] = "2"  # as ClickHouse does: GET must not change anything
    statement = Statement(
        text=query.get("query", "").encode(),
        insert=None,
        data=iter(()),
        database=query.get("database") or headers.get("x-clickhouse-database"),
        default_format=query.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        settings=settings,
        parameters={name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")},
        session=query.get("session_id"),
    )
    first = await body.piece()
    if statement.text:
        statement.insert = insert_with_data(statement.text)
        if statement.insert is not None:
            begun = statement.text[statement.insert.data_offset :]
            statement.data = _chain(begun, body.rest(first))
            return statement
        first = statement.text + b"\n" + first if first else statement.text
    else:
        statement.insert = insert_with_data(first)
        if statement.insert is not None:
            statement.text = first[: statement.insert.data_offset]
            statement.data = body.rest(first[statement.insert.data_offset :])
            return statement
    pieces = [first]
    while not body.ended:
        pieces.append(await body.piece())
        if sum(map(len, pieces)) > _STATEMENT_LIMIT_BYTES:
            raise _BadRequest(413, "Code: 62. DB::Exception: The statement is longer than 64 MiB. (SYNTAX_ERROR)")
    statement.text = b"".join(pieces)
    if not statement.text.strip():
        raise _BadRequest(400, "Code: 62. DB::Exception: Syntax error: empty query. (SYNTAX_ERROR)")
    return statement


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


async def _plain(send: Send, status: int, text: str) -> None:
    body = text.encode()
    await send(_head(status, {"Content-Type": "text/plain; charset=UTF-8", "Content-Length": str(len(body))}))
    await send({"type": "http.response.body", "body": body})


async def _fail(send: Send, common: dict[str, str], status: int, code: int, text: str) -> None:
    body = (text.rstrip() + "\n").encode()
    headers = common | {
        "Content-Type": "text/plain; charset=UTF-8",
        "X-ClickHouse-Exception-Code": str(code),
        "Content-Length": str(len(body)),
    }
    await send(_head(status, headers))
    await send({"type": "http.response.body", "body": body})
