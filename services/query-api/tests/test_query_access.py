"""Who may ask, how a refusal looks, and that the OpenAPI document says all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from query_api.http import ROLE_OF_ROUTE
from telestream_opstore import list_keys, revoke_key

pytestmark = pytest.mark.stack
ROUTES = sorted(ROLE_OF_ROUTE)


def ask(world: Any, method: str, path: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"X-API-Key": key}
    body = {"json": {"msisdn": "+33612345678"}} if method == "POST" else {}
    return httpx.request(method, world.url(path.replace("{id}", "C1")), headers=headers, timeout=30.0, **body)


def test_every_route_of_the_document_has_a_role_and_every_role_a_route(world: Any) -> None:
    document = httpx.get(world.url("/openapi.json")).json()
    in_document = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert in_document == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_gets_in_without_a_good_key(world: Any, method: str, path: str) -> None:
    for key, code in (
        (None, "key_missing"),
        ("ts_wrong", "key_unknown"),
        ("", "key_unknown"),
        ("x" * 999, "key_unknown"),
    ):
        found = ask(world, method, path, key)
        assert (found.status_code, found.json()["code"]) == (401, code)
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["request_id"] == found.headers["x-request-id"]


@pytest.mark.parametrize("role", ["ingest", "identity", "read", "operate", "admin"])
def test_a_role_opens_its_own_routes_only(world: Any, key_of: Callable[[str], str], role: str) -> None:
    key = key_of(role)
    for (method, path), needed in ROLE_OF_ROUTE.items():
        found = ask(world, method, path, key)
        assert (found.status_code == 403) == (role != needed), (path, found.text)


def test_a_revoked_key_stops_working_within_five_seconds(world: Any, key_of: Callable[[str], str]) -> None:
    import time

    key = key_of("read")
    assert ask(world, "GET", "/v1/dead-letters", key).status_code == 200
    newest = list_keys(world.postgres)[-1]
    revoke_key(world.postgres, newest.id)
    deadline = time.monotonic() + 5
    while ask(world, "GET", "/v1/dead-letters", key).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_key_is_asked_for_before_anything_is_parsed_or_found(world: Any) -> None:
    assert httpx.get(world.url("/v1/nothing/here")).status_code == 401
    assert world.client.get("/v1/nothing/here").status_code == 404
    assert httpx.get(world.url("/v1/reconciliation"), params={"type": "'"}).status_code == 401
    assert httpx.post(world.url("/v1/customers/lookup"), content=b"{").status_code == 401
    assert world.client.delete("/v1/reconciliation").status_code == 405


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("/v1/metrics/realtime", {"minutes": "61"}, "minutes"),
        ("/v1/metrics/realtime", {"minutes": "x"}, "minutes"),
        ("/v1/metrics/realtime", {"group_by": "vendor"}, "group_by"),
        ("/v1/metrics/realtime", {"group_by": "cell", "region_id": "R1"}, "region_id"),
        ("/v1/metrics/realtime", {"minute": "5"}, "minute"),
        ("/v1/network/performance", {"step": "5m"}, "step"),
        ("/v1/network/performance", {"tz": "Mars/Olympus"}, "tz"),
        ("/v1/network/performance", {"from": "yesterday"}, "from"),
        ("/v1/network/performance", {"from": "2026-09-02", "to": "2026-09-01"}, "to"),
        ("/v1/network/performance", {"from": "2020-09-02", "to": "2026-09-01"}, "from"),
        ("/v1/reconciliation", {"type": "sms"}, "type"),
        ("/v1/reconciliation", {"batch": "-1"}, "batch"),
        ("/v1/reconciliation", {"by": "day"}, "by"),
        ("/v1/dead-letters", {"limit": "0"}, "limit"),
        ("/v1/dead-letters", {"cursor": "WzEsMl0"}, "cursor"),
        ("/v1/customers/C1/usage", {"group_by": "cell_id"}, "group_by"),
    ],
)
def test_a_bad_parameter_is_422_and_named(world: Any, path: str, params: dict[str, str], field: str) -> None:
    found = world.client.get(path, params=params)
    body = found.json()
    assert (found.status_code, body["status"], body.get("field")) == (422, 422, field), found.text
    assert set(body) == {"type", "title", "status", "code", "detail", "field", "request_id"}
    assert found.headers["content-type"] == "application/problem+json"


def test_the_document_has_an_example_for_every_answer_and_parameter(world: Any) -> None:
    document = httpx.get(world.url("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert document["security"] == [{"key": []}]
    for method, path in ROUTES:
        operation = document["paths"][path][method.lower()]
        assert operation["summary"]
        success = next(status for status in operation["responses"] if status.startswith("2"))
        example = operation["responses"][success]["content"]["application/json"]["example"]
        assert set(example) == {"data", "as_of", "complete_to", "generation", "next_cursor", "request_id"}
        assert {"401", "403", "422", "503"} <= set(operation["responses"])
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            assert "examples" in schema or "example" in parameter or parameter["name"].endswith(("_id", "cursor"))
        if method == "POST":
            assert operation["requestBody"]["content"]["application/json"]["examples"]


def test_examples_have_the_shape_that_the_document_promises(world: Any) -> None:
    from query_api import examples, models

    for model, example in (
        (models.Answer[models.Realtime], examples.REALTIME),
        (models.Answer[models.Timeseries], examples.TIMESERIES),
        (models.Answer[models.CellKpis], examples.CELL),
        (models.Answer[models.NetworkPerformance], examples.NETWORK),
        (models.Answer[models.Usage], examples.USAGE),
        (models.Answer[models.Customer], examples.LOOKUP),
        (models.Answer[models.Reconciliation], examples.RECONCILIATION),
        (models.Answer[list[models.DeadLetter]], examples.DEAD_LETTERS),
    ):
        model.model_validate(example)
    for path, model in (
        ("/v1/metrics/realtime", models.Answer[models.Realtime]),
        ("/v1/reconciliation?by=hour", models.Answer[models.Reconciliation]),
        ("/v1/network/performance", models.Answer[models.NetworkPerformance]),
        ("/v1/dead-letters", models.Answer[list[models.DeadLetter]]),
    ):
        model.model_validate(json.loads(world.client.get(path).content))


def test_the_home_page_leads_to_the_document(world: Any) -> None:
    assert httpx.get(world.url("/")).headers["location"] == "/docs"
    assert re.search("swagger", httpx.get(world.url("/docs")).text, re.IGNORECASE)
