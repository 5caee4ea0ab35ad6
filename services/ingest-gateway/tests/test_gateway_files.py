"""Files over HTTP: loaded once, resumed exactly, and never lost by a crash."""

from __future__ import annotations

import base64
import gzip
import hashlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .conftest import DEVELOPMENT_KEY, Running

pytestmark = pytest.mark.stack
HEADER = "event_id,started_at,record_type,status,msisdn,duration_ms,node_id\n"


def csv_of(rows: int, name: str = "r", bad_every: int = 0) -> bytes:
    text = [HEADER]
    for index in range(rows):
        number = "x" if bad_every and index % bad_every == 0 else f"+49170{index % 5000:07d}"
        text.append(f"{name}-{index},2026-11-23T08:00:00Z,VOICE,COMPLETED,{number},{index},some-switch-name\n")
    return "".join(text).encode()


def put(gateway: Running, name: str, body: bytes, query: str = "", **headers: str) -> httpx.Response:
    return gateway.client.put(f"/v1/files/one/{name}?type=cdr{query}", content=body, headers=headers)


def in_topic(gateway: Running, file_id: int) -> list[dict[str, Any]]:
    return [record for record in gateway.stored() if record["batch_id"] == file_id]


def test_a_file_is_loaded_booked_and_its_refused_rows_listed(gateway: Running) -> None:
    answer = put(gateway, "plain.csv", csv_of(1000, "plain", bad_every=100))
    assert answer.status_code == 202
    body = answer.json()
    assert (body["state"], body["rows"], body["accepted"], body["refused"]) == ("LOADED", 1000, 990, 10)
    assert body["refused_by_code"] == {"bad_msisdn": 10}
    stored = in_topic(gateway, body["file_id"])
    assert len(stored) == 990
    assert {record["line"] for record in stored} == {n for n in range(2, 1002) if (n - 2) % 100}
    one = gateway.client.get(f"/v1/files/{body['file_id']}").json()
    assert one == body
    assert gateway.client.get("/v1/files?limit=1").json()["data"] == [body]
    listed = gateway.client.get(f"/v1/files/{body['file_id']}/refused").text.splitlines()
    assert listed[0] == "line,code,field,row"
    assert listed[1].startswith('2,bad_msisdn,msisdn,"plain-0,')
    assert len(listed) == 11


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_content_again_sends_nothing(gateway: Running, packed: bool) -> None:
    content = csv_of(500, f"same-{packed}")
    body, headers = (gzip.compress(content), {"Content-Encoding": "gzip"}) if packed else (content, {})
    first = put(gateway, f"same-{packed}.csv", body, **headers)
    assert first.status_code == 202
    before = len(gateway.stored())
    again = put(gateway, f"another-name-{packed}.csv", content)
    assert again.status_code == 200
    assert again.json() == first.json() | {"duplicate_of": first.json()["file_id"]}
    assert len(gateway.stored()) == before
    other_source = gateway.client.put("/v1/files/two/x.csv?type=cdr", content=content)
    assert other_source.status_code == 202


def test_the_same_file_twice_at_once_is_loaded_once(gateway: Running) -> None:
    content = csv_of(60_000, "twice")
    answers: list[httpx.Response] = []

    def send(name: str) -> None:
        with httpx.Client(base_url=gateway.url, headers={"X-API-Key": DEVELOPMENT_KEY}, timeout=60) as client:
            answers.append(client.put(f"/v1/files/one/{name}?type=cdr", content=content))

    threads = [threading.Thread(target=send, args=(name,)) for name in ("t.csv", "t.csv", "u.csv", "v.csv")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[202] == 1
    assert statuses[202] + statuses[200] + statuses[409] == 4
    loaded = next(answer for answer in answers if answer.status_code == 202).json()
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["code"] == "loading"
    found = Counter(batch for batch, _ in gateway.positions() if batch >= loaded["file_id"])
    assert found == {loaded["file_id"]: 60_000}


def test_an_upload_that_broke_off_goes_on_where_it_stopped(gateway: Running) -> None:
    content = csv_of(20_000, "broken")
    cut = 700_001
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        head = (
            f"PUT /v1/files/one/broken.csv?type=cdr HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEVELOPMENT_KEY}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + content[:cut])
        time.sleep(1)
    url = "/v1/files/one/broken.csv?type=cdr"
    deadline = time.monotonic() + 20
    while True:
        found = gateway.client.head(url)
        if found.status_code == 200 and found.headers["Upload-Offset"] == str(cut):
            break
        assert time.monotonic() < deadline, found.headers
        time.sleep(0.1)
    assert found.headers["Upload-State"] == "UPLOADING"
    assert found.headers["Upload-Length"] == str(len(content))
    wrong = gateway.client.patch(url, content=b"x", headers={"Upload-Offset": "5"})
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["Upload-Offset"]) == (409, "offset", str(cut))
    part = gateway.client.patch(url, content=content[cut : cut + 1000], headers={"Upload-Offset": str(cut)})
    assert (part.status_code, part.headers["Upload-Offset"]) == (204, str(cut + 1000))
    rest = gateway.client.patch(url, content=content[cut + 1000 :], headers={"Upload-Offset": str(cut + 1000)})
    assert rest.status_code == 202
    assert rest.json()["accepted"] == 20_000
    assert len(gateway.lines(rest.json()["file_id"])) == 20_000
    again = put(gateway, "whole.csv", content)
    assert (again.status_code, again.json()["duplicate_of"]) == (200, rest.json()["file_id"])


def test_the_switchs_own_totals_are_compared(gateway: Running) -> None:
    content = csv_of(101, "totals")
    good = put(gateway, "good-totals.csv", content, "&expected_rows=101&expected_duration_ms=5050")
    assert good.json()["state"] == "LOADED"
    bad = put(gateway, "bad-totals.csv", csv_of(101, "totals2"), "&expected_rows=101&expected_duration_ms=5051")
    assert bad.json()["state"] == "LOADED_MISMATCH"
    assert "duration_ms: 5050" in bad.json()["problem"]


@pytest.mark.parametrize(
    ("content", "query", "status", "code"),
    [
        (b"", "", 422, "missing_field"),
        (csv_of(5).replace(b",", b";"), "", 422, "missing_field"),
        (csv_of(5).replace(b"status", b"stat"), "", 422, "unknown_field"),
        (csv_of(5), "&profile=nothing", 422, "not_in_enum"),
        (csv_of(5), "&profile=../generic", 422, "not_in_enum"),
        (csv_of(5), "&allow_age_days=x", 422, "wrong_type"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_clear_problem(
    gateway: Running, content: bytes, query: str, status: int, code: str
) -> None:
    answer = put(gateway, "wrong.csv", content, query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert put(gateway, "wrong.csv", content, query).status_code == status


def test_a_header_only_is_loaded_with_nothing(gateway: Running) -> None:
    answer = put(gateway, "header.csv", HEADER.encode())
    assert (answer.status_code, answer.json()["state"], answer.json()["accepted"]) == (202, "LOADED", 0)


def test_a_body_damaged_on_its_way_is_noticed(gateway: Running) -> None:
    content = csv_of(5, "digest")
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    headers = {"Content-Digest": f"sha-256=:{digest}:"}
    assert put(gateway, "digest.csv", content + b"\n", **headers).json()["code"] == "digest"
    assert put(gateway, "digest.csv", content, **headers).status_code == 202
    broken = put(gateway, "broken.gz", gzip.compress(content)[:-20], **{"Content-Encoding": "gzip"})
    assert (broken.status_code, broken.json()["code"]) == (400, "not_json")


def test_files_of_others_are_not_shown(gateway: Running) -> None:
    from telestream_opstore import create_key

    file_id = put(gateway, "mine.csv", csv_of(2, "mine")).json()["file_id"]
    key, _ = create_key(gateway.dsn, "other", ["ingest"], ["other"])
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": key}) as client:
        assert client.get(f"/v1/files/{file_id}").status_code == 404
        assert client.get(f"/v1/files/{file_id}/refused").status_code == 404
        assert client.get("/v1/files").json()["data"] == []


def _sending(running: Running, name: str, content: bytes) -> threading.Thread:
    def send() -> None:
        try:
            with httpx.Client(headers={"X-API-Key": DEVELOPMENT_KEY}, timeout=60) as client:
                client.put(f"{running.url}/v1/files/one/{name}?type=cdr", content=content)
        except httpx.TransportError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def _until(answer: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not answer():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _latest(running: Running) -> dict[str, Any]:
    try:
        data = running.client.get("/v1/files?limit=1").json()["data"]
    except httpx.TransportError:
        return {}
    found: dict[str, Any] = data[0] if data else {}
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_file_goes_on_by_itself_after_the_gateway_is_killed_and_no_row_is_sent_twice(
    own_gateway: Callable[..., Running], how: signal.Signals
) -> None:
    running = own_gateway().start()
    content = csv_of(200_000, "killed", bad_every=1000)
    thread = _sending(running, "killed.csv", content)
    _until(lambda: 0 < _latest(running).get("rows", 0) < 200_000)
    code = running.end(how)
    assert code == (0 if how is signal.SIGTERM else -how)
    thread.join()
    running.start()
    _until(lambda: _latest(running)["state"] == "LOADED")
    entry = _latest(running)
    assert (entry["rows"], entry["accepted"], entry["refused"]) == (200_000, 199_800, 200)
    lines = running.lines(entry["file_id"])
    assert Counter(lines).most_common(1)[0][1] == 1
    assert len(lines) == 199_800
    listed = running.client.get(f"/v1/files/{entry['file_id']}/refused").text.splitlines()
    assert len(listed) == 201
    again = put(running, "killed.csv", content)
    assert (again.status_code, again.json()["duplicate_of"]) == (200, entry["file_id"])


def test_an_upload_outlives_a_killed_gateway(own_gateway: Callable[..., Running]) -> None:
    running = own_gateway().start()
    content = csv_of(2_000, "outlives")
    url = "/v1/files/one/outlives.csv?type=cdr"
    part = running.client.put(url, content=content[:50_000], headers={"Upload-Length": str(len(content))})
    assert part.status_code == 204
    running.end(signal.SIGKILL)
    running.start()
    offset = int(running.client.head(url).headers["Upload-Offset"])
    assert offset == 50_000
    rest = running.client.patch(url, content=content[offset:], headers={"Upload-Offset": str(offset)})
    assert (rest.status_code, rest.json()["accepted"]) == (202, 2_000)
