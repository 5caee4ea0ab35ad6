"""The admin port: ``/livez``, ``/readyz`` (names the dependency that is missing), ``/metrics``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from telestream_domain import TelestreamError

Check = Callable[[], str | None]
"""None if all is well, else the reason in words."""

REQUEST_TIMEOUT_S = 10


class AdminServer:
    """A thread of its own, so that it answers whatever the service is busy with."""

    def __init__(
        self,
        host: str,
        port: int,
        ready: Mapping[str, Check],
        live: Mapping[str, Check] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._ready, self._live, self._registry = dict(ready), dict(live or {}), registry
        self._address = (host, port)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> AdminServer:
        """Listen; raises TelestreamError if the port is taken."""
        try:
            server = ThreadingHTTPServer(self._address, _handler(self._ready, self._live, self._registry))
        except OSError as err:
            host, port = self._address
            raise TelestreamError(
                f"admin port {host}:{port} cannot be opened: {err.strerror}; set TELESTREAM_ADMIN_PORT to a free one"
            ) from err
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _handler(
    ready: Mapping[str, Check], live: Mapping[str, Check], registry: CollectorRegistry
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/metrics":
                self._send(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path in ("/livez", "/readyz"):
                reasons = {
                    name: reason
                    for name, check in (live if path == "/livez" else ready).items()
                    if (reason := _ask(check))
                }
                body = json.dumps({"ok": not reasons, "missing": reasons}).encode()
                self._send(503 if reasons else 200, body, "application/json")
            else:
                self._send(404, b'{"ok": false}', "application/json")

        def _send(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every second; they are not news."""

    return Handler


def _ask(check: Check) -> str | None:
    try:
        return check()
    except Exception as err:
        return f"{type(err).__name__}: {err}"
