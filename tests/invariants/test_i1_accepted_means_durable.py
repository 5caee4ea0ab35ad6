"""I1: a producer gets 2xx only after Kafka acknowledged every accepted record; to repeat what is unknown is safe."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from .corner import API_KEY, Corner, Worker

pytestmark = pytest.mark.stack
PATH = "/v1/events/cdr?source=one"
Answers = dict[str, int | None]
"""Event id → the status its request was answered with; None: the connection broke."""


def cdr(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": name,
        "started_at": "2026-11-23T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": "+491701234567",
        # the id itself is not stored: the content says which record it was
        "duration_ms": int(name),
    } | fields


@contextmanager
def kafka_standing_still() -> Iterator[None]:
    """The session's own broker does not answer."""
    brokers = [p for p in psutil.Process().children(recursive=True) if "kafka.Kafka" in " ".join(p.cmdline())]
    assert len(brokers) == 1
    brokers[0].suspend()
    try:
        yield
    finally:
        brokers[0].resume()


def send(worker: Worker, first: int, requests: int, size: int = 5) -> Answers:
    """So many requests at once, of ``size`` records each."""

    def one(number: int) -> Answers:
        records = [cdr(str(first + number * size + place)) for place in range(size)]
        status = None
        with contextlib.suppress(httpx.TransportError), httpx.Client(headers={"X-API-Key": API_KEY}) as client:
            status = client.post(worker.http + PATH, json=records, timeout=60).status_code
        return {record["event_id"]: status for record in records}

    found: Answers = {}
    with ThreadPoolExecutor(requests) as pool:
        for answers in pool.map(one, range(requests)):
            found |= answers
    return found


def stored(corner: Corner) -> list[str]:
    """Ids of what lies in the raw topic."""
    found = []
    for partition in range(corner.partitions):
        found += [str(record["duration_ms"]) for record in corner.records(corner.topics.raw("cdr"), partition)]
    return found


def check_durable(corner: Corner, answers: Answers) -> None:
    """Whatever was answered with 2xx is in Kafka."""
    there = set(stored(corner))
    lost = [name for name, status in answers.items() if status is not None and status < 300 and name not in there]
    assert not lost, f"{len(lost)} records were accepted and are not there"


def killed_while_kafka_stands_still(gateway: Worker, first: int, wait_s: float = 1.5) -> Answers:
    """Requests that Kafka gets no chance to acknowledge before the gateway is killed, all answered or not."""
    answers: Answers = {}
    sending = threading.Thread(target=lambda: answers.update(send(gateway, first, 6)))
    with kafka_standing_still():
        sending.start()
        sending.join(wait_s)
        gateway.kill()
        sending.join()
    return answers


def test_what_was_accepted_is_there_though_the_gateway_is_killed_at_any_moment(corner: Corner) -> None:
    gateway = corner.start("ingest-gateway").until_ready()
    answers = send(gateway, 0, 4)
    assert set(answers.values()) == {202}
    check_durable(corner, answers)
    killer = threading.Timer(0.05, gateway.kill)
    killer.start()
    answers |= send(gateway, 1_000, 40)
    killer.join()
    gateway = corner.start("ingest-gateway").until_ready()
    still = killed_while_kafka_stands_still(gateway, 2_000)
    assert set(still.values()) == {None}, "Kafka cannot have acknowledged it"
    check_durable(corner, answers | still)

    # unknown is not no: everything once more, as a producer would, changes nothing
    gateway = corner.start("ingest-gateway").until_ready()
    again = send(gateway, 0, 4) | send(gateway, 1_000, 40) | send(gateway, 2_000, 6)
    assert set(again.values()) == {202}
    check_durable(corner, again)
    worker = corner.start("cdr-enricher")
    corner.judged(worker=worker)
    worker.stop()
    judged = [r for p in range(corner.partitions) for r in corner.records(corner.topics.enriched("cdr"), p)]
    kept = [str(record["duration_ms"]) for record in judged if record["verdict"] == "STORED"]
    assert sorted(kept) == sorted(again), "each accepted record is stored exactly once"
    assert len(judged) == len(stored(corner)) > len(kept)
    assert gateway.stop() == 0


def test_a_refusal_names_record_field_and_rule_and_the_rest_is_accepted(corner: Corner) -> None:
    gateway = corner.start("ingest-gateway").until_ready()
    records = [
        cdr("5000"),
        cdr("5001", status="SOMEHOW"),
        cdr("5002"),
        cdr("5003", started_at="yesterday"),
        {"event_id": "5004", "record_type": "VOICE"},
        cdr("5005"),
    ]
    answer = httpx.post(gateway.http + PATH, json=records, headers={"X-API-Key": API_KEY}, timeout=60)
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["refused"]) == (202, 3, 3)
    assert [(error["index"], error["event_id"], error["field"], error["code"]) for error in body["errors"]] == [
        (1, "5001", "status", "not_in_enum"),
        (3, "5003", "started_at", "bad_time"),
        (4, "5004", "started_at", "missing_field"),
    ]
    there = set(stored(corner))
    assert {"5000", "5002", "5005"} <= there
    assert not {"5001", "5003", "5004"} & there
    assert gateway.process.send_signal(signal.SIGTERM) is None
    assert gateway.wait() == 0


def test_control_a_gateway_that_answers_before_the_flush_loses_what_it_accepted(corner: Corner) -> None:
    gateway = corner.start("ingest-gateway", "answers-before-the-flush").until_ready()
    answers = killed_while_kafka_stands_still(gateway, 9_000, wait_s=60)
    assert set(answers.values()) == {202}
    with pytest.raises(AssertionError, match="accepted and are not there"):
        check_durable(corner, answers)
