"""Start, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from ingest_gateway.errors import GatewayError, ProducerLost
from ingest_gateway.gateway import Gateway, log
from ingest_gateway.http import build_app
from ingest_gateway.settings import GatewaySettings
from telestream_runtime import AdminServer, run_service

DRAIN_S = 20
LOOK_S = 0.1
KEEP_ALIVE_S = 30


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's, which sets the stop event."""
        yield


def _missing(gateway: Gateway, name: str) -> Callable[[], str | None]:
    def check() -> str | None:
        if name == "postgres" and name not in gateway.missing:
            return gateway.keys.trouble
        return gateway.missing.get(name)

    return check


async def serve(settings: GatewaySettings, stop: threading.Event) -> None:
    """Run until ``stop`` is set. Raises GatewayError if the port is taken or the producer is lost."""
    gateway = Gateway(settings)
    listening = asyncio.Event()

    def http() -> str | None:
        return None if listening.is_set() else "the API's port is not open yet"

    admin = AdminServer(
        settings.admin_host,
        settings.admin_port,
        {**{name: _missing(gateway, name) for name in ("kafka", "registry", "postgres")}, "http": http},
    ).start()
    try:
        if not await gateway.connect(stop):
            return
        await gateway.files.start()
        await _serve_http(gateway, stop, listening)
    finally:
        await gateway.close()
        admin.stop()
    if gateway.lost is not None:
        raise ProducerLost(gateway.lost)


async def _serve_http(gateway: Gateway, stop: threading.Event, listening: asyncio.Event) -> None:
    settings = gateway.settings
    # its tracebacks would show values; what went wrong is logged by the app's own handler
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = _Server(
        uvicorn.Config(
            build_app(gateway),
            host=settings.http_host,
            port=settings.http_port,
            loop="none",
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
            h11_max_incomplete_event_size=64 << 10,
        )
    )
    port = _listen(settings.http_host, settings.http_port)
    running = asyncio.create_task(server.serve(sockets=[port]))
    listening.set()
    log.info("listening", url=f"http://{settings.http_host}:{settings.http_port}")
    while not stop.is_set() and gateway.lost is None and not running.done():
        await asyncio.sleep(LOOK_S)
    await gateway.files.stop()
    server.should_exit = True
    await running
    port.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as err:
        raise GatewayError(
            f"port {host}:{port} cannot be opened: {err.strerror}; set TELESTREAM_HTTP_PORT to a free one"
        ) from err


def _run(settings: GatewaySettings, stop: threading.Event) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, stop))


def main() -> int:
    """The process: see ``telestream_runtime.run_service``."""
    return run_service("ingest-gateway", GatewaySettings, _run)
