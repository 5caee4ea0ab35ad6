"""Live events against a small HTTP server that stands for a gateway: it knows a record's fate only by its fields."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from telestream_simulator import Scenario, SimulationError, populate
from telestream_simulator.live import send_live

SCENARIO = Scenario(
    start=date(2026, 11, 22), customers=100, cells=20, duplicates=0.1, invalid=0.1, seed=3, source="live-test"
)


class Gateway(ThreadingHTTPServer):
    """Keeps every request; answers as the list ``first_answers`` says, then with 202."""

    def __init__(self, first_answers: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.first_answers = first_answers
        self.requests: list[list[dict[str, Any]]] = []
        self.keys: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = self.headers["Content-Type"] == "application/x-ndjson"
        events = [json.loads(line) for line in body.splitlines()] if lines else json.loads(body)
        self.server.requests.append(events)
        self.server.keys.add(self.headers["X-API-Key"])
        status = self.server.first_answers.pop(0) if self.server.first_answers else 202
        answer = json.dumps({"accepted": len(events), "refused": 0, "errors": []}).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0.05")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway([])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_truth_of_live_events_is_of_what_was_sent(gateway: Gateway) -> None:
    result = send_live(populate(SCENARIO), gateway.url, "a-key", rate=400, seconds=1, source="live-test")
    sent = [event for request in gateway.requests for event in request]
    assert gateway.keys == {"a-key"}
    assert len(sent) == result.sent == result.truth["cdr"]["rows"] == 400
    truth = result.truth["cdr"]
    assert truth["rows"] == truth["accepted"] + sum(truth["refused"].values())
    assert truth["accepted"] == truth["stored"] + truth["duplicates"] + sum(truth["rejected"].values())
    # a stored record is one that shares id and time with no earlier one: no fault of these may be in it
    good = {
        (event["event_id"], event["started_at"])
        for event in sent
        if isinstance(event.get("started_at"), int) and "event_id" in event
    }
    assert len(good) >= truth["stored"]
    assert "colour" in {name for event in sent for name in event}


def test_what_the_gateway_cannot_take_is_sent_again_with_the_same_ids(gateway: Gateway) -> None:
    gateway.first_answers = [503, 429]
    result = send_live(populate(SCENARIO), gateway.url, "a-key", rate=100, seconds=0.3, source="live-test")
    first, second, third = gateway.requests[:3]
    assert first == second == third
    assert result.unknown == len(first), "a 429 leaves nothing open, a 503 does"
    assert result.truth["cdr"]["rows"] == 30


def test_an_answer_that_differs_from_the_truth_is_told(gateway: Gateway) -> None:
    result = send_live(populate(SCENARIO), gateway.url, "a-key", rate=400, seconds=0.5, source="live-test")
    refused = sum(result.truth["cdr"]["refused"].values())
    assert refused > 0
    assert sum("was refused as None, not" in surprise for surprise in result.surprises) == refused


def test_a_key_that_is_refused_is_an_error_in_one_line(gateway: Gateway) -> None:
    gateway.first_answers = [401]
    with pytest.raises(SimulationError, match="answered 401"):
        send_live(populate(SCENARIO), gateway.url, "wrong", rate=10, seconds=0.2, source="live-test")


def test_sending_stops_after_a_whole_request_when_asked_to(gateway: Gateway) -> None:
    population = populate(replace(SCENARIO, seed=4))
    result = send_live(
        population,
        gateway.url,
        "a-key",
        rate=100,
        seconds=30,
        source="live-test",
        stop=lambda: len(gateway.requests) >= 2,
    )
    assert result.sent == sum(map(len, gateway.requests)) == 20
