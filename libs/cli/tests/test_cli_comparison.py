from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from telestream_cli import reconcile
from telestream_cli.comparison import Difference, Report
from telestream_domain import TelestreamError

BOOKS = {
    "accepted": 10,
    "stored": 6,
    "duplicates": 2,
    "conflicts": 1,
    "rejected": {"too_old": 1},
    "withdrawn": 0,
    "erased": 0,
    "expired": 0,
    "in_flight": 1,
    "balanced": True,
}


def test_a_group_that_is_missing_or_should_not_be_there_is_told_apart_from_one_that_differs() -> None:
    report = Report()
    expected = {("a", "d1"): {"records": 2}, ("b", "d1"): {"records": 3}, ("zeros", "d1"): {"records": 0}}
    found = {("b", "d1"): {"records": 4}, ("c", "d1"): {"records": 1}}
    report.compare_groups("sums", ("records",), expected, found)
    assert sorted(map(str, report.differences)) == [
        "sums: a d1 is missing",
        "sums: b d1: records is 4, not 3",
        "sums: c d1 should not be there (records 1)",
    ]


def test_every_figure_that_was_compared_is_counted() -> None:
    report = Report()
    report.compare("verdicts", "here", {"stored": 1, "duplicates": 2}, {"stored": 1, "rejected": 5})
    assert report.figures == {"verdicts": 3}
    assert set(report.differences) == {
        Difference("verdicts", "here", "duplicates", 2, 0),
        Difference("verdicts", "here", "rejected", 0, 5),
    }


class _Api(BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, dict[str, Any]]]] = []

    def do_GET(self) -> None:
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _run(*arguments: str) -> Any:
    app = typer.Typer()
    reconcile.register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["reconcile", "--type", "cdr", "--api-key", "k", *arguments])


def test_the_table_of_the_books_adds_up_from_top_to_bottom(api: str) -> None:
    _Api.answers = [(200, {"data": BOOKS})]
    result = _run("--query-api", api)
    assert result.exit_code == 0, result.output
    for words in ("accepted", "= stored", "+ duplicates", "too_old", "+ in flight", "balanced"):
        assert words in result.output


def test_books_that_do_not_balance_are_a_failure(api: str) -> None:
    _Api.answers = [(200, {"data": BOOKS | {"balanced": False}})]
    result = _run("--query-api", api, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["cdr"]["balanced"] is False


def test_waiting_ends_when_nothing_is_in_flight(api: str) -> None:
    busy = (503, {"detail": "ClickHouse does not answer right now", "code": "unavailable"})
    _Api.answers = [(200, {"data": BOOKS}), busy, (200, {"data": BOOKS | {"in_flight": 0, "stored": 7}})]
    result = _run("--query-api", api, "--wait", "20", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["cdr"]["stored"] == 7


def test_an_api_that_does_not_run_is_one_line_that_says_what_to_do() -> None:
    result = _run("--query-api", "http://127.0.0.1:9")
    assert isinstance(result.exception, TelestreamError)
    assert "telestream up" in str(result.exception)
