"""The process: admin port, HTTP server, orderly stop."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from query_api.app import build, serve
from query_api.settings import QuerySettings
from telestream_runtime import AdminServer, TelestreamError, run_service


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; returns the exit status."""
    return run_service("query-api", QuerySettings, _run, argv)


def _run(settings: QuerySettings, stop: threading.Event) -> None:
    service = build(settings)
    parts = service.parts
    ready = {
        "tail": parts.tails.missing,
        "clickhouse": parts.warehouse.missing,
        "postgres": parts.keys.missing,
        "kafka": parts.raw.missing,
    }
    admin = AdminServer(settings.admin_host, settings.admin_port, ready, live={"tail": parts.tails.alive}).start()
    server = serve(service)
    # our own signal handling stays: stop is the one event
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not stop.wait(0.5):
            pass
        stopped_by_itself = not thread.is_alive()
        server.should_exit = True
        thread.join(timeout=settings.drain_s + 5)
    finally:
        admin.stop()
    if stopped_by_itself:
        raise TelestreamError(
            f"the HTTP server at {settings.http_host}:{settings.http_port} did not start or ended; "
            "is the port taken? set TELESTREAM_HTTP_PORT to a free one"
        )
