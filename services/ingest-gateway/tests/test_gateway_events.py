"""Requests over HTTP into real topics: acknowledged means there, refused means named."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest
import zstandard

from telestream_opstore import create_key, revoke_key

from .conftest import HEAD, Running

pytestmark = pytest.mark.stack
NDJSON = {"Content-Type": "application/x-ndjson"}


def cdr(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": name,
        "started_at": "2026-11-23T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": "+491701234567",
    } | fields


def lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records)


def test_what_is_answered_with_202_lies_in_the_raw_topic(gateway: Running) -> None:
    records = [cdr(f"a-{index}", msisdn=f"+4917012345{index % 10:02d}", duration_ms=index) for index in range(500)]
    records[3]["duration_ms"] = "long"
    answer = gateway.client.post("/v1/events/cdr?source=one", content=lines(*records), headers=NDJSON)
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["refused"], body["errors_truncated"]) == (499, 1, False)
    assert body["errors"] == [
        {
            "index": 3,
            "event_id": "a-3",
            "field": "duration_ms",
            "code": "wrong_type",
            "message": "duration_ms must be a whole number of at most 64 bits",
        }
    ]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    stored = [record for record in gateway.stored() if record["source"] == "one"]
    assert len(stored) == 499
    assert len({record["batch_id"] for record in stored}) == 1
    by_key = {record["key"]: record["partition"] for record in stored}
    assert all(by_key[record["subscriber_id"]] == record["partition"] for record in stored)
    assert len(set(by_key.values())) > 1
    for partition in set(by_key.values()):
        order = [record["line"] for record in stored if record["partition"] == partition]
        assert order == sorted(order)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_bodies_are_read(gateway: Running, encoding: str) -> None:
    body = lines(cdr(f"p-{encoding}"))
    packed = gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)
    headers = NDJSON | {"Content-Encoding": encoding}
    answer = gateway.client.post("/v1/events/cdr?source=packed", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)


def test_one_object_an_array_and_an_empty_array_are_taken(gateway: Running) -> None:
    for body, accepted in ((cdr("o"), 1), ([cdr("p"), cdr("q")], 2), ([], 0)):
        answer = gateway.client.post("/v1/events/cdr?source=json", json=body)
        assert (answer.status_code, answer.json()["accepted"]) == (202, accepted)


def test_network_events_and_reference_data_enter(gateway: Running) -> None:
    event = {
        "event_id": "n",
        "occurred_at": "2026-11-23T08:00:00Z",
        "event_type": "SAMPLE",
        "cell_id": "262-01-0007",
        "latency_ms": 5,
    }
    assert gateway.client.post("/v1/events/network?source=oss", json=event).status_code == 202
    stored = gateway.stored("network")[-1]
    assert (stored["cell_id"], stored["key"], stored["latency_ms"]) == ("262-01-7", "262-01-7", 5.0)
    at = {"valid_from": "2026-01-01T00:00:00Z"}
    for entity, body in {
        "customer": {"msisdn": "+491701234567", "imsi": "262011234567890", "customer_id": "c-1"},
        "cell": {"cell_id": "262-01-7", "name": "Harbour"},
        "region": {"region_id": "north", "name": "North"},
        "plan": {"plan_id": "flat", "payment": "PREPAID"},
    }.items():
        answer = gateway.client.post(f"/v1/reference/{entity}?source=crm", json=body | at)
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text
        assert len(gateway.stored(entity)) == (2 if entity == "customer" else 1)


def test_a_lookup_gives_what_the_topics_hold(gateway: Running) -> None:
    gateway.client.post("/v1/events/cdr?source=look", json=cdr("l", msisdn="+33612345678"))
    gateway.client.post(
        "/v1/reference/customer?source=look",
        json={"msisdn": "33612345678", "valid_from": "2026-01-01T00:00:00Z", "customer_id": "c-2"},
    )
    found = gateway.client.post("/v1/identity/lookup", json={"msisdn": "+33612345678"}).json()
    record = next(record for record in gateway.stored() if record["source"] == "look")
    customer = next(record for record in gateway.stored("customer") if record["source"] == "look")
    assert found["subscriber_id"] == record["subscriber_id"] == customer["identifier"]
    assert found["partition"] == record["partition"] == customer["partition"]
    wrong = gateway.client.post("/v1/identity/lookup", json={"msisdn": "+1705551234"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_msisdn")
    assert "1705551234" not in wrong.text


def test_a_dry_run_judges_and_stores_nothing(gateway: Running) -> None:
    answer = gateway.client.post("/v1/events/cdr?source=dry&dry_run=true", json=[cdr("d"), cdr("e", rat="6G")])
    assert (answer.status_code, answer.json()["accepted"], answer.json()["refused"]) == (200, 1, 1)
    assert not [record for record in gateway.stored() if record["source"] == "dry"]


def test_an_allowance_for_old_records_goes_with_them(gateway: Running) -> None:
    assert gateway.client.post("/v1/events/cdr?source=old&allow_age_days=900", json=cdr("x")).status_code == 202
    stored = [record for record in gateway.stored() if record["source"] == "old"]
    assert [record["max_age_days"] for record in stored] == [900]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status), answer.text
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


def test_every_wrong_request_has_its_status_and_code(gateway: Running) -> None:
    client, path = gateway.client, "/v1/events/cdr?source=bad"
    problem(client.post(path, content=b"{", headers={"Content-Type": "application/json"}), 400, "not_json")
    problem(client.post(path, content=b"x", headers={"Content-Type": "application/avro"}), 415, "media_type")
    problem(client.post(path, content=b"x", headers=NDJSON | {"Content-Encoding": "br"}), 415, "not_json")
    problem(client.post(path, content=b" " * (17 << 20), headers=NDJSON), 413, "too_large")
    problem(client.post(path + "&dry_run=maybe", json=[]), 422, "wrong_type")
    problem(client.post(path + "&allow_age_days=0", json=[]), 422, "wrong_type")
    problem(client.post("/v1/events/cdr", json=cdr("x")), 422, "missing_field")
    problem(client.post("/v1/events/cdr?source=a/b", json=cdr("x")), 422, "wrong_type")
    problem(client.post("/v1/events/nothing", json=[]), 404, "not_found")
    problem(client.get("/v1/events/cdr"), 405, "method_not_allowed")
    body = problem(client.post(path, json=[cdr("x", rat="6G")]), 422, "not_in_enum")
    assert (body["accepted"], body["refused"], body["errors"][0]["field"]) == (0, 1, "rat")
    assert not [record for record in gateway.stored() if record["source"] == "bad"]


def test_without_a_good_key_nobody_gets_in(gateway: Running) -> None:
    path = "/v1/events/cdr?source=one"
    problem(httpx.post(gateway.url + path, json=[]), 401, "no_key")
    problem(httpx.post(gateway.url + path, json=[], headers={"X-API-Key": "wrong"}), 401, "unknown_key")
    reader, _ = create_key(gateway.dsn, "reader", ["read"], ["*"])
    problem(httpx.post(gateway.url + path, json=[], headers={"X-API-Key": reader}), 403, "role_missing")
    problem(
        httpx.post(gateway.url + "/v1/identity/lookup", json={"line": "1"}, headers={"X-API-Key": reader}),
        403,
        "role_missing",
    )


def test_a_key_sends_only_for_its_sources(gateway: Running) -> None:
    bound, _ = create_key(gateway.dsn, "one switch", ["ingest"], ["msc-7"])
    headers = {"X-API-Key": bound}
    assert httpx.post(gateway.url + "/v1/events/cdr", json=cdr("s"), headers=headers).status_code == 202
    assert httpx.post(gateway.url + "/v1/events/cdr?source=msc-7", json=cdr("t"), headers=headers).status_code == 202
    stored = [record for record in gateway.stored() if record["source"] == "msc-7"]
    assert len(stored) == 2
    refused = httpx.post(gateway.url + "/v1/events/cdr?source=msc-8", json=cdr("u"), headers=headers)
    problem(refused, 403, "source_not_allowed")
    put = httpx.put(gateway.url + "/v1/files/msc-8/x.csv?type=cdr", content=b"x", headers=headers)
    problem(put, 403, "source_not_allowed")


def test_a_revoked_key_is_worthless_within_five_seconds(gateway: Running) -> None:
    key, row = create_key(gateway.dsn, "short-lived", ["ingest"], ["*"])
    headers = {"X-API-Key": key}
    path = gateway.url + "/v1/events/cdr?source=one"
    assert httpx.post(path, json=[], headers=headers).status_code == 202
    revoke_key(gateway.dsn, row.id)
    revoked_at = time.monotonic()
    while httpx.post(path, json=[], headers=headers).status_code != 401:
        assert time.monotonic() - revoked_at < 5
        time.sleep(0.2)


def test_the_api_describes_itself_with_examples(gateway: Running) -> None:
    document = gateway.client.get("/openapi.json").json()
    for record_type in ("events/cdr", "events/network", "reference/customer", "reference/plan"):
        content = document["paths"][f"/v1/{record_type}"]["post"]["requestBody"]["content"]
        assert gateway.client.post(f"/v1/{record_type}?source=docs", json=content["application/json"]["example"])
    assert "PUT" in {method.upper() for method in document["paths"]["/v1/files/{source}/{name}"]}


def test_health_and_metrics_are_on_the_admin_port(gateway: Running) -> None:
    assert gateway.ready().json() == {"ok": True, "missing": {}}
    metrics = httpx.get(f"http://127.0.0.1:{gateway.admin_port}/metrics").text
    assert 'telestream_gateway_records_accepted_total{path="direct",type="cdr"}' in metrics
    assert 'telestream_gateway_requests_total{route="/v1/events/cdr",status="202"}' in metrics


def test_no_log_line_ever_holds_a_number(gateway: Running) -> None:
    canary = "4917055512345"
    for record in (
        cdr("c", msisdn=canary),
        cdr(canary, peer=canary),
        cdr("x", msisdn=canary + "9" * 30),
        {canary: canary},
    ):
        gateway.client.post("/v1/events/cdr?source=log", json=record)
        gateway.client.post(f"/v1/events/cdr?source=log&dry_run={canary}", json=record)
    gateway.client.post("/v1/identity/lookup", json={"msisdn": canary, canary: canary})
    gateway.client.put(
        "/v1/files/log/x.csv?type=cdr",
        content=f"event_id,started_at,record_type,status,msisdn\n1,x,VOICE,COMPLETED,{canary}\n{canary}\n".encode(),
    )
    file_id = gateway.client.get("/v1/files?limit=1").json()["data"][0]["file_id"]
    assert "5551234" not in gateway.client.get(f"/v1/files/{file_id}/refused").text
    assert "5551234" not in gateway.log.read_text()
    assert all("5551234" not in json.dumps(record, default=str) for record in gateway.stored())


def test_batches_of_requests_and_files_never_share_an_id(gateway: Running) -> None:
    gateway.client.post("/v1/events/cdr?source=ids", json=cdr("x"))
    stored = [record for record in gateway.stored() if record["source"] == "ids"]
    assert stored[0]["batch_id"] >= 2**40 > HEAD.batch_id
