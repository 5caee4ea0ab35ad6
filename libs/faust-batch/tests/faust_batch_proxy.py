"""A TCP proxy before a broker that knows one thing of Kafka's protocol: which request is which.

`PRODUCE`, `ADD_PARTITIONS`, `ADD_OFFSETS`, `END_TXN`, `TXN_OFFSET_COMMIT` are its api keys. A `Fault` says what happens
after a request of that kind was forwarded: the answer comes late, or never because the connection is cut, or the
request itself is held back while the client's other connections go on.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 24, 25, 26, 28


@dataclass
class Fault:
    """At the `after`-th request of kind `api_key` (counted from when the fault was set), `times` times:

    `cut`: forward it, then close the connection without its answer; `silence`: forward it, and let no answer through
    any more on this connection; `hold_s`: forward it so much later; `answer_late_s`: let the answer through so much
    later; `away`: forward it, then be unreachable until `restore`.
    """

    api_key: int
    after: int = 1
    times: int = 1
    cut: bool = False
    silence: bool = False
    away: bool = False
    hold_s: float = 0.0
    answer_late_s: float = 0.0
    seen: int = 0
    struck: int = 0

    def strikes(self, api_key: int) -> bool:
        if api_key != self.api_key:
            return False
        self.seen += 1
        if self.seen < self.after or self.struck >= self.times:
            return False
        self.struck += 1
        return True


class Proxy:
    """Runs on a loop of its own thread while entered."""

    def __init__(self, host: str, upstream: tuple[str, int]) -> None:
        self._host = host
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: set[_Link] = set()
        self.fault: Fault | None = None
        self.away = False
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, host, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def set(self, fault: Fault | None) -> Fault | None:
        self.fault = fault
        return fault

    def restore(self) -> None:
        """Faults end; connections may be made again."""
        self.fault, self.away = None, False

    def go_away(self) -> None:
        """Cut everything, and refuse what comes."""
        self.away = True
        self._loop.call_soon_threadsafe(self.cut_all)

    def cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        self.cut_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, up_writer)
        self._links.add(link)
        try:
            await asyncio.gather(link.requests(reader), link.answers(up_reader))
        finally:
            self._links.discard(link)
            link.cut()


class _Link:
    """One client connection and its counterpart."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._silent = False
        self._late: dict[int, float] = {}

    def cut(self) -> None:
        for writer in (self._client, self._broker):
            writer.transport.abort()

    async def requests(self, reader: asyncio.StreamReader) -> None:
        async for frame in _frames(reader):
            api_key, correlation = struct.unpack(">h2xi", frame[4:12])
            fault = self._proxy.fault
            if fault is None or not fault.strikes(api_key):
                self._broker.write(frame)
                continue
            if fault.answer_late_s:
                self._late[correlation] = fault.answer_late_s
            await asyncio.sleep(fault.hold_s)
            self._silent = self._silent or fault.silence
            self._broker.write(frame)
            with suppress(ConnectionError):
                await self._broker.drain()
            if fault.cut or fault.away:
                self._silent = True
                await asyncio.sleep(0.2)  # the broker has it
                if fault.away:
                    self._proxy.away = True
                    self._proxy.cut_all()
                self.cut()
        self.cut()

    async def answers(self, reader: asyncio.StreamReader) -> None:
        async for frame in _frames(reader):
            late_s = self._late.pop(struct.unpack(">i", frame[4:8])[0], 0.0)
            if late_s:
                await asyncio.sleep(late_s)
            if not self._silent:
                self._client.write(frame)
        self.cut()


async def _frames(reader: asyncio.StreamReader) -> Any:
    """Length-prefixed frames, prefix included, until the end."""
    with suppress(asyncio.IncompleteReadError, ConnectionError, OSError):
        while True:
            head = await reader.readexactly(4)
            yield head + await reader.readexactly(struct.unpack(">i", head)[0])
