"""When something is away: unknown is said, nothing is let in unseen, and what was taken is not lost."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from telestream_devstack.postgres import psql

from .conftest import DEVELOPMENT_KEY, Running

pytestmark = pytest.mark.stack
CDR = {
    "event_id": "e-1",
    "started_at": "2026-11-23T08:00:00Z",
    "record_type": "VOICE",
    "status": "COMPLETED",
    "msisdn": "+491701234567",
}
FILE = b"event_id,started_at,record_type,status,msisdn\n" + b"".join(
    f"f-{index},2026-11-23T08:00:00Z,VOICE,COMPLETED,+4917012{index:05d}\n".encode() for index in range(5_000)
)


@contextmanager
def kafka_stopped() -> Iterator[None]:
    """The session's own broker stands still, as one that does not answer."""
    brokers = [
        child for child in psutil.Process().children(recursive=True) if "kafka.Kafka" in " ".join(child.cmdline())
    ]
    assert len(brokers) == 1
    brokers[0].suspend()
    try:
        yield
    finally:
        brokers[0].resume()


def test_while_kafka_does_not_acknowledge_the_answer_is_503_and_repeating_it_is_safe(
    own_gateway: Callable[..., Running],
) -> None:
    running = own_gateway(ack_timeout_ms="1500").start()
    path = "/v1/events/cdr?source=one"
    assert running.client.post(path, json=CDR).status_code == 202
    with kafka_stopped():
        answer = running.client.post(path, json=CDR | {"event_id": "e-2"})
        assert (answer.status_code, answer.json()["code"]) == (503, "not_acknowledged")
        assert int(answer.headers["Retry-After"]) > 0
        assert running.ready().status_code == 200
        upload = running.client.put("/v1/files/one/f.csv?type=cdr", content=FILE)
        assert upload.status_code == 503
    deadline = time.monotonic() + 60
    while running.client.post(path, json=CDR | {"event_id": "e-2"}).status_code != 202:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    again = running.client.put("/v1/files/one/f.csv?type=cdr", content=FILE)
    while again.status_code in (409, 503):
        assert time.monotonic() < deadline, again.text
        time.sleep(0.5)
        again = running.client.put("/v1/files/one/f.csv?type=cdr", content=FILE)
    assert again.status_code in (200, 202)
    assert again.json()["accepted"] == 5_000
    stored = running.stored()
    of_file = [record for record in stored if record["batch_id"] == again.json()["file_id"]]
    assert len(of_file) == len({record["line"] for record in of_file}) == 5_000
    by_uid = Counter(record["event_uid"] for record in stored if record["batch_id"] >= 2**40)
    assert len(by_uid) == 2
    assert running.end() == 0


@pytest.mark.parametrize("meanwhile", [None, signal.SIGTERM, signal.SIGKILL])
def test_a_file_that_kafka_stopped_acknowledging_is_loaded_once_all_the_same(
    own_gateway: Callable[..., Running], meanwhile: signal.Signals | None
) -> None:
    """Also if the gateway is stopped, or killed, while the broker stands still with requests of it unread."""
    running = own_gateway(ack_timeout_ms="1500").start()
    content = FILE[: FILE.index(b"\n") + 1] + b"".join(
        f"g-{index},2026-11-23T08:00:00Z,VOICE,COMPLETED,+4917012{index % 100_000:05d}\n".encode()
        for index in range(400_000)
    )

    def send() -> None:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(headers={"X-API-Key": DEVELOPMENT_KEY}, timeout=60) as client,
        ):
            client.put(f"{running.url}/v1/files/one/g.csv?type=cdr", content=content)

    def latest() -> dict[str, object]:
        data = running.client.get("/v1/files?limit=1").json()["data"]
        return data[0] if data else {"rows": 0, "state": "none"}

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + 120
    while not latest()["rows"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with kafka_stopped():
        time.sleep(3)
        if meanwhile is not None:
            assert running.end(meanwhile) == (0 if meanwhile is signal.SIGTERM else -meanwhile)
    if meanwhile is not None:
        running.start()
    while latest()["state"] not in ("LOADED", "FAILED"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    thread.join()
    entry = latest()
    assert (entry["state"], entry["accepted"]) == ("LOADED", 400_000)
    lines = running.lines(int(str(entry["file_id"])))
    assert len(lines) == len(set(lines)) == 400_000


def test_while_postgresql_is_away_known_keys_go_on_and_unknown_ones_are_not_let_in(
    own_gateway: Callable[..., Running],
) -> None:
    running = own_gateway().start()
    path = "/v1/events/cdr?source=one"
    assert running.client.post(path, json=CDR).status_code == 202
    database = running.dsn.rsplit("/", 1)[1]
    admin = running.parts.postgres
    psql(admin, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    psql(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    try:
        assert running.client.post(path, json=CDR | {"event_id": "e-9"}).status_code == 202
        unknown = httpx.post(running.url + path, json=CDR, headers={"X-API-Key": "never seen"})
        assert (unknown.status_code, unknown.json()["code"]) == (503, "keys_unknown")
        upload = running.client.put("/v1/files/one/f.csv?type=cdr", content=FILE)
        assert upload.status_code == 503
        deadline = time.monotonic() + 10
        while running.ready().status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "postgres" in running.ready().json()["missing"]
    finally:
        psql(admin, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    deadline = time.monotonic() + 20
    while running.client.put("/v1/files/one/f.csv?type=cdr", content=FILE).status_code != 202:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _refuses(running: Running) -> str:
    running.start(wait=False)
    assert running.process is not None
    assert running.process.wait(60) == 1
    text = running.log.read_text()
    assert "Traceback" not in text
    return text


def test_another_key_than_at_first_start_is_refused(own_gateway: Callable[..., Running]) -> None:
    running = own_gateway().start()
    assert running.end() == 0
    for name in ("identity", "permanent"):
        other = own_gateway(**{f"{name}_key": "ab" * 32})
        text = _refuses(other)
        assert f"the {name} key is not the one this installation started with" in text
        assert "abababab" not in text


def test_a_gateway_waits_for_what_is_missing_and_says_what(own_gateway: Callable[..., Running]) -> None:
    running = own_gateway(kafka="127.0.0.1:9").start(wait=False)
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            missing = running.ready().json()["missing"]
        except httpx.TransportError:
            missing = {}
        if set(missing) == {"kafka", "http"}:
            break
        time.sleep(0.2)
    assert running.end() == 0


def test_a_port_that_is_taken_is_one_clear_line(own_gateway: Callable[..., Running]) -> None:
    first = own_gateway().start()
    text = _refuses(own_gateway(http_port=str(first.port)))
    assert f"port 127.0.0.1:{first.port} cannot be opened" in text
    assert "TELESTREAM_HTTP_PORT" in text


def test_settings_are_checked_without_connecting(tmp_path: Path) -> None:
    environment = {"TELESTREAM_IDENTITY_KEY": "abc", "TELESTREAM_PERMANENT_KEY": "ab" * 8, "TELESTREAM_HTTP_PORT": "0"}
    checked = subprocess.run(
        [sys.executable, "-m", "ingest_gateway", "--check"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 1
    for name in ("IDENTITY_KEY", "PERMANENT_KEY", "HTTP_PORT"):
        assert f"TELESTREAM_{name}" in checked.stderr
    good = {"TELESTREAM_IDENTITY_KEY": "ab" * 32, "TELESTREAM_PERMANENT_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "key").write_text("cd" * 32 + "\n")
    checked = subprocess.run(
        [sys.executable, "-m", "ingest_gateway", "--check"], env=good, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_stopped_gateway_drains_and_ends_well(own_gateway: Callable[..., Running]) -> None:
    running = own_gateway().start()
    running.client.post("/v1/events/cdr?source=one", json=CDR)
    began = time.monotonic()
    assert running.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
