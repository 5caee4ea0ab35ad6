"""All five services in one corner, and what a producer and a reader do with them."""

from __future__ import annotations

import json
from typing import Any

import httpx

from .corner import API_KEY, Corner, Worker, until

NDJSON = {"Content-Type": "application/x-ndjson"}


class Pipeline:
    """Gateway, enricher, aggregator, sink and query API of one corner, ready."""

    def __init__(self, corner: Corner, **gateway: str) -> None:
        self.corner = corner
        corner.make_warehouse()
        self.gateway = corner.start("ingest-gateway", **gateway)
        corner.environment["TELESTREAM_GATEWAY"] = self.gateway.http
        self.query_api = corner.start("query-api")
        stages = [corner.start(name) for name in ("cdr-enricher", "window-aggregator", "warehouse-sink")]
        self.workers: list[Worker] = [self.gateway, self.query_api, *stages]
        self.client = httpx.Client(headers={"X-API-Key": API_KEY}, timeout=60)
        for worker in self.workers:
            worker.until_ready()

    def post(self, path: str, *records: dict[str, Any]) -> httpx.Response:
        """Records as lines of JSON to the gateway."""
        body = b"\n".join(json.dumps(record).encode() for record in records)
        return self.client.post(f"{self.gateway.http}{path}", content=body, headers=NDJSON)

    def load(self, source: str, name: str, content: bytes, **params: str) -> dict[str, Any]:
        """A file, until it is loaded: its entry in the ledger."""
        answer = self.client.put(f"{self.gateway.http}/v1/files/{source}/{name}", content=content, params=params)
        assert answer.status_code == 202, answer.text
        entry: dict[str, Any] = {}

        def loaded() -> bool:
            entry.update(self.client.get(f"{self.gateway.http}/v1/files/{answer.json()['file_id']}").json())
            return entry["state"] in ("LOADED", "FAILED")

        until(loaded, f"{name} loaded")
        assert entry["state"] == "LOADED", entry
        return entry

    def books(self, **params: str) -> dict[str, Any]:
        """What the API says of the books."""
        answer = self.client.get(f"{self.query_api.http}/v1/reconciliation", params=params)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def settle(self) -> None:
        """Wait until nothing is in flight."""
        until(
            lambda: not any(self.books(type=kind)["in_flight"] for kind in ("cdr", "network")), "all in the warehouse"
        )

    def close(self) -> None:
        self.client.close()
