"""What goes on, and what says so, while a dependency is away; and the process itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from query_api.app import Service, build, serve
from telestream_devstack import reserve_base

KEY = "development-key-of-the-tests"
NOWHERE = "127.0.0.1:1"


@contextmanager
def running(world: Any, **changes: Any) -> Iterator[tuple[Service, httpx.Client]]:
    """Another query API on the same parts, with some settings changed."""
    fields = world.service.settings.model_dump()
    settings = type(world.service.settings)(**fields | {"http_port": reserve_base() + 81} | changes)
    service = build(settings)
    server = serve(service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{settings.http_port}", headers={"X-API-Key": KEY}, timeout=30.0
    ) as client:
        yield service, client
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


def caught_up(service: Service) -> None:
    deadline = time.monotonic() + 20
    while service.parts.tails.any_live() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.stack
def test_realtime_goes_on_while_clickhouse_is_away_and_the_rest_says_when_to_come_back(world: Any) -> None:
    with running(world, clickhouse=f"http://{NOWHERE}") as (service, client):
        caught_up(service)
        assert client.get("/v1/metrics/realtime").status_code == 200
        for path in ("/v1/reconciliation", "/v1/network/performance", "/v1/dead-letters", "/v1/customers/C1/usage"):
            found = client.get(path)
            assert (found.status_code, found.json()["code"]) == (503, "unavailable")
            assert int(found.headers["retry-after"]) > 0
        assert NOWHERE in str(service.parts.warehouse.missing())
        assert service.parts.tails.missing() is None


@pytest.mark.stack
def test_without_postgresql_nobody_gets_in(world: Any) -> None:
    with running(world, postgres=f"postgresql://nobody@{NOWHERE}/telestream") as (service, client):
        caught_up(service)
        found = client.get("/v1/metrics/realtime")
        assert (found.status_code, found.json()["code"]) == (503, "unavailable")
        assert found.headers["retry-after"]
        assert service.parts.keys.missing()


@pytest.mark.stack
def test_without_kafka_history_is_answered_and_realtime_and_books_are_not(world: Any) -> None:
    with running(world, kafka=NOWHERE) as (service, client):
        assert client.get("/v1/dead-letters").status_code == 200
        assert client.get("/v1/network/performance").json()["complete_to"] is None
        assert client.get("/v1/metrics/realtime").status_code == 503
        assert client.get("/v1/reconciliation").status_code == 503
        assert service.parts.tails.missing()


@pytest.mark.stack
def test_topics_that_come_later_are_found(world: Any) -> None:
    with running(world, topic_prefix="nothing.here.") as (service, client):
        deadline = time.monotonic() + 20
        while "telestream topics apply" not in str(service.parts.tails.missing()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/v1/metrics/realtime").status_code == 503


@pytest.mark.stack
def test_the_process_becomes_ready_and_ends_in_order_on_sigterm(world: Any) -> None:
    base = reserve_base()
    settings = world.service.settings
    environment = os.environ | {
        "TELESTREAM_KAFKA": settings.kafka,
        "TELESTREAM_REGISTRY": settings.registry,
        "TELESTREAM_CLICKHOUSE": settings.clickhouse,
        "TELESTREAM_CLICKHOUSE_DATABASE": settings.clickhouse_database,
        "TELESTREAM_POSTGRES": settings.postgres.get_secret_value(),
        "TELESTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "TELESTREAM_HTTP_PORT": str(base + 81),
        "TELESTREAM_ADMIN_PORT": str(base + 105),
        "TELESTREAM_LOG_FORMAT": "json",
    }
    process = subprocess.Popen([sys.executable, "-m", "query_api"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 40
        while True:
            try:
                ready = httpx.get(f"http://127.0.0.1:{base + 105}/readyz", timeout=5.0)
                if ready.status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        number = "33698765432"
        httpx.post(
            f"http://127.0.0.1:{base + 81}/v1/customers/lookup", json={"msisdn": number}, headers={"X-API-Key": KEY}
        )
        found = httpx.get(f"http://127.0.0.1:{base + 81}/v1/reconciliation", headers={"X-API-Key": KEY}, timeout=30.0)
        assert found.status_code == 200
        metrics = httpx.get(f"http://127.0.0.1:{base + 105}/metrics").text
        assert 'telestream_query_requests_total{route="/v1/reconciliation",status="200"} 1.0' in metrics
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert number not in errors
        assert KEY not in errors
        assert "Traceback" not in errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_check_lists_every_mistake_and_connects_to_nothing() -> None:
    environment = os.environ | {"TELESTREAM_HTTP_PORT": "0", "TELESTREAM_BUSINESS_TIMEZONE": "Mars/Olympus"}
    found = subprocess.run(
        [sys.executable, "-m", "query_api", "--check"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1
    assert "TELESTREAM_HTTP_PORT" in found.stderr
    assert "TELESTREAM_BUSINESS_TIMEZONE" in found.stderr
    good = subprocess.run([sys.executable, "-m", "query_api", "--check"], capture_output=True, text=True, timeout=60)
    assert (good.returncode, good.stderr.strip()) == (0, "query-api: settings are good")
