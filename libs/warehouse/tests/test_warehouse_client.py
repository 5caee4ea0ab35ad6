from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from telestream_warehouse import ClickHouse, Query, WarehouseRefused, WarehouseUnavailable

Answer = Callable[[int, str, dict[str, str]], ClickHouse]


@pytest.fixture
def answering() -> Iterator[Answer]:
    """A server that gives one answer to everything, and a client of it."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, text: str, headers: dict[str, str]) -> ClickHouse:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Tests are quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return ClickHouse(f"http://user:s3cret@127.0.0.1:{server.server_port}", "db")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (500, "Code: 252. DB::Exception: Too many parts", None),
        (500, "memory", "241"),
        (503, "<html>no upstream</html>", None),
        (429, "slow down", None),
        (200, "Code: 241. DB::Exception: in the middle of the answer", "241"),
    ],
)
def test_what_says_later_is_unavailable(answering: Answer, status: int, text: str, code: str | None) -> None:
    client = answering(status, text, {"X-ClickHouse-Exception-Code": code} if code else {})
    with pytest.raises(WarehouseUnavailable, match=r"^query") as failed:
        client.rows(Query("SELECT 1"))
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize(("status", "code"), [(400, 27), (404, 60), (500, 6), (403, 516), (500, 164)])
def test_what_never_changes_by_trying_again_is_refused_with_its_code(answering: Answer, status: int, code: int) -> None:
    client = answering(status, f"Code: {code}. DB::Exception: no", {})
    with pytest.raises(WarehouseRefused, match="no") as refused:
        client.command("INSERT")
    assert refused.value.code == code


def test_a_url_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(WarehouseRefused, match="not a ClickHouse HTTP URL") as refused:
        ClickHouse("tcp://user:s3cret@host:9000", "db")
    assert "s3cret" not in str(refused.value)
