"""One record's story: the uid from a real gateway, rows from real ClickHouse, what is in flight from real Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from query_api.app import build, serve
from query_api.domain import trace as story
from telestream_devstack import Parts, reserve_base
from telestream_domain import shown_subscriber

from .conftest import KEY, World, wait_for

PARIS = ZoneInfo("Europe/Paris")
NOON = datetime(2026, 10, 25, 12, tzinfo=UTC)
CALL = {
    "event_at": "2026-10-25T10:14:59.999Z",
    "appended_at": "2026-10-25T10:20:00.000Z",
    "kind": "VOICE",
    "status": "COMPLETED",
    "cell_id": "208-01-1",
    "last_cell_id": None,
    "region_id": None,
    "plan_id": "gold",
    "subscriber_id": "k1.AAAAAAAAAAAAAAAAAAAAAA",
    "subscriber_kind": "MSISDN",
    "local_date": "2026-10-25",
    "roaming": "HOME",
    "direction": "",
    "currency": "EUR",
}


def windows(**changes: Any) -> set[tuple[str, int, str, bool]]:
    found = story.windows_of("cdr", {**CALL, **changes}, PARIS)
    return {(window.family, window.size_s, window.group, window.only_ends) for window in found}


def test_a_record_counts_in_its_cell_region_plan_and_day() -> None:
    assert windows() == {
        *(("cell", size, "208-01-1", False) for size in (60, 900)),
        *(("region", size, "", False) for size in (60, 900)),
        *(("plan", size, "gold", False) for size in (60, 900)),
        ("subscriber_day", 86_400, CALL["subscriber_id"], False),
    }


def test_late_records_are_in_no_minute_and_records_of_nobody_in_no_day() -> None:
    late = windows(appended_at="2026-10-25T13:00:00.000Z", subscriber_kind="NONE")
    assert {size for _, size, _, _ in late} == {900}


@pytest.mark.parametrize(("status", "moved"), [("COMPLETED", True), ("DROPPED", True), ("BUSY", False)])
def test_the_end_of_an_answered_call_that_moved_is_counted_in_its_last_cell(status: str, moved: bool) -> None:
    found = windows(last_cell_id="208-01-2", status=status)
    assert (("cell", 900, "208-01-2", True) in found) is moved


def test_windows_begin_on_their_own_step_and_days_at_local_midnight() -> None:
    starts = {window.family + str(window.size_s): window.start_ms for window in story.windows_of("cdr", CALL, PARIS)}
    at = datetime(2026, 10, 25, 10, 0, tzinfo=UTC)
    assert starts["cell60"] == story.ms_of("2026-10-25T10:14:00Z")
    assert starts["cell900"] == round(at.timestamp() * 1000)
    assert starts["subscriber_day86400"] == story.ms_of("2026-10-24T22:00:00Z")


def test_a_number_in_the_clear_is_masked() -> None:
    assert shown_subscriber("33612345678") == "masked"
    assert shown_subscriber("k1.AAAAAAAAAAAAAAAAAAAAAA") == "k1.AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(scope="module")
def asked(world: World, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str, str]]:
    """The world, a real gateway over its topics, and a query API that asks that gateway."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    base = reserve_base()
    gateway, api = f"http://127.0.0.1:{base + 80}", f"http://127.0.0.1:{base + 81}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")},
        **parts.environment(),
        "TELESTREAM_POSTGRES": world.postgres,
        "TELESTREAM_TOPIC_PREFIX": world.topics.prefix,
        "TELESTREAM_HTTP_PORT": str(base + 80),
        "TELESTREAM_ADMIN_PORT": str(base + 82),
        "TELESTREAM_STATE_DIR": str(folder),
        "TELESTREAM_IDENTITY_KEY": bytes(range(32)).hex(),
        "TELESTREAM_PERMANENT_KEY": bytes(range(32, 64)).hex(),
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "ingest_gateway"], env=environment, stdout=out, stderr=out)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{gateway}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False

    settings = world.service.settings.model_copy(update={"gateway": gateway, "http_port": base + 81})
    server = serve(build(settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server")
        wait_for(answers, "the gateway", 90)
        yield world, gateway, api
    finally:
        server.should_exit = True
        thread.join(30)
        process.terminate()
        process.wait(40)
    assert "4917" not in log.read_text()


def post(url: str, body: Any, **params: str) -> httpx.Response:
    return httpx.post(url, json=body, params=params, headers={"X-API-Key": KEY}, timeout=60)


def call(event_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "started_at": (datetime.now(UTC) - timedelta(minutes=3)).isoformat(),
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": "+491701234567",
    }


@pytest.mark.stack
def test_a_record_in_flight_is_found_in_raw_and_once_written_in_the_warehouse(asked: tuple[World, str, str]) -> None:
    world, gateway, api = asked
    event = {"source": "msc-1", "event_id": "4917012-1"}
    unknown = post(f"{api}/v1/events/trace", event)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert "nor among the 0 records in flight" in unknown.json()["detail"]
    assert post(f"{gateway}/v1/events/cdr", [call(event["event_id"])], source="msc-1").status_code == 202

    (copy,) = post(f"{api}/v1/events/trace", event).json()["data"]["copies"]
    assert (copy["verdict"], copy["source"], copy["origin"]["kind"]) == ("IN_FLIGHT", "msc-1", "request")
    assert copy["raw"]["in_log"]
    assert "not judged yet" in copy["warehouse"]["why"]

    place = {"src_partition": copy["raw"]["partition"], "src_offset": copy["raw"]["offset"], "generation": 1}
    uid = post(f"{api}/v1/events/trace", event).json()["data"]["event_uid"]
    now = datetime.now(UTC)
    row = {
        **place,
        "booked_offset": place["src_offset"],
        "event_uid": uid,
        "started_at": now,
        "appended_at": now,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.AAAAAAAAAAAAAAAAAAAAAA",
        "source": "msc-1",
        "batch_id": story.FIRST_REQUEST,
        "line": 0,
    }
    world.insert("fact_cdr_all", [row])
    answer = post(f"{api}/v1/events/trace", event)
    assert answer.json()["data"]["copies"][0]["verdict"] == "STORED"
    assert "4917012" not in answer.text

    reversal = {**row, "src_offset": place["src_offset"] + 7, "withdrawn": 1}
    world.insert("fact_cdr_all", [reversal])
    world.clickhouse.command("OPTIMIZE TABLE fact_cdr_all FINAL")
    (copy,) = post(f"{api}/v1/events/trace", event).json()["data"]["copies"]
    assert (copy["raw"]["offset"], copy["warehouse"]["table"]) == (place["src_offset"], None)
    assert {window["adds"] for window in copy["windows"]} == {1, -1}


@pytest.mark.stack
def test_a_first_copy_whose_row_has_expired_is_told_of_by_its_duplicate(asked: tuple[World, str, str]) -> None:
    world, _, api = asked
    event = {"source": "msc-1", "event_id": "old-1", "type": "cdr"}
    uid = httpx.post(
        f"{asked[1]}/v1/identity/event",
        json={name: event[name] for name in ("source", "event_id")},
        headers={"X-API-Key": KEY},
    ).json()["event_uid"]
    book = {"generation": 1, "type": "cdr", "src_partition": 2, "sign": 1, "source": "msc-1", "appended_at": NOON}
    first = {**book, "src_offset": 5, "booked_offset": 5, "verdict": "STORED"}
    second = {**book, "src_offset": 9, "booked_offset": 9, "verdict": "DUPLICATE"}
    world.insert("judgement_all", [first, second])
    copied = {name: book[name] for name in ("generation", "type", "src_partition", "sign", "source", "appended_at")}
    world.insert(
        "duplicate_all",
        [{**copied, "src_offset": 9, "first_offset": 5, "event_uid": uid, "event_at": NOON, "batch_id": 3, "line": 4}],
    )
    old, repeat = post(f"{api}/v1/events/trace", event).json()["data"]["copies"]
    assert (old["raw"]["offset"], old["raw"]["in_log"]) == (5, False)
    assert "expired by retention" in old["warehouse"]["why"]
    assert repeat["duplicate_of"] == {"partition": 2, "offset": 5}


@pytest.mark.stack
def test_uids_are_for_keys_that_may_look_up_and_nothing_is_echoed(asked: tuple[World, str, str], key_of: Any) -> None:
    _, gateway, api = asked
    event = {"source": "msc-1", "event_id": "4917012-2"}
    for url, role in ((f"{gateway}/v1/identity/event", "read"), (f"{api}/v1/events/trace", "read")):
        answer = httpx.post(url, json=event, headers={"X-API-Key": key_of(role)})
        assert answer.status_code == 403
    for wrong in ({**event, "source": "4917012 !"}, {**event, "event_id": "4917012" * 30}, {**event, "4917012": 1}):
        answer = post(f"{api}/v1/events/trace", wrong)
        assert answer.status_code == 422
        assert "4917012" not in answer.text
