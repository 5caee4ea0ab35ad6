"""Wiring: ``build(settings)`` makes everything, and nothing is made before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp

from query_api import (
    amendments,
    cells,
    compare,
    completeness,
    dead_letters,
    examples,
    generations,
    network,
    quality,
    realtime,
    reconciliation,
    sources,
    timeseries,
    trace,
    usage,
)
from query_api.generations_control import Control
from query_api.generations_keeper import Keeper
from query_api.http import Gate, install_problems
from query_api.identity import Identity
from query_api.kafka import RawEnds
from query_api.keys import Keys
from query_api.parts import Parts
from query_api.raw import RawRecords
from query_api.settings import QuerySettings
from query_api.sql import Warehouse
from query_api.tails import Tails
from telestream_contracts import Registry
from telestream_opstore import derivations

VERSION = "0.1.0"
ROUTES = (
    realtime.register,
    timeseries.register,
    network.register,
    cells.register,
    usage.register,
    reconciliation.register,
    dead_letters.register,
    trace.register,
    quality.register,
    completeness.register,
    sources.register,
    amendments.register,
    compare.register,
)


class Service:
    """The application and the edges it owns; they start and stop with it."""

    def __init__(self, settings: QuerySettings) -> None:
        self.settings = settings
        key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        registry = Registry(settings.registry)
        warehouse, postgres = Warehouse(settings), settings.postgres.get_secret_value()
        self.parts = Parts(
            settings=settings,
            warehouse=warehouse,
            keys=Keys(settings.postgres.get_secret_value()),
            identity=Identity(settings.gateway, key),
            tails=Tails(
                settings.kafka,
                settings.topic_prefix,
                registry,
                settings.tail_max_keys,
                settings.tail_max_generations,
                warehouse.active,
                lambda: derivations(postgres, settings.topic_prefix),
            ),
            raw=RawEnds(settings.kafka),
            records=RawRecords(settings.kafka),
            registry=registry,
        )
        self.control = Control.of(settings, self.parts)
        self._keeper = Keeper(self.control)
        self.api = _api(self)
        self.app: ASGIApp = Gate(self.api, self.api, self.parts.keys)

    async def start(self) -> None:
        await self.parts.keys.start()
        self.parts.tails.start()
        self._keeper.start()

    async def stop(self) -> None:
        await self._keeper.stop()
        self.parts.tails.stop()
        await self.parts.identity.close()
        await self.parts.keys.stop()
        self.parts.warehouse.close()


def build(settings: QuerySettings) -> Service:
    """Everything of one query API; two can live in one process."""
    return Service(settings)


def serve(service: Service) -> uvicorn.Server:
    """An HTTP server that owns the service; ``should_exit`` ends it once open requests are answered."""
    settings = service.settings
    return uvicorn.Server(
        uvicorn.Config(
            service.app,
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.drain_s,
            timeout_keep_alive=30,
            limit_concurrency=512,
        )
    )


def _api(service: Service) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    api = FastAPI(
        title="TeleStream query API",
        version=VERSION,
        description="Live KPIs, usage and books. Every answer is "
        "`{data, as_of, complete_to, generation, next_cursor, request_id}`; errors are `application/problem+json`. "
        "Send your key as `X-API-Key`. Ranges are `from` ≤ t < `to`; times are ISO 8601 with zone, 13 digits of epoch "
        "milliseconds, or local dates of `tz`. Money is exact decimal text per currency.",
        lifespan=lifespan,
    )
    install_problems(api)
    for register in ROUTES:
        register(api, service.parts)
    generations.register(api, service.control, VERSION)

    @api.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/docs")

    _complete_document(api)
    return api


def _complete_document(api: FastAPI) -> None:
    """Say that a key is needed, and put the examples of answers in whole: FastAPI leaves their nulls out."""
    document = api.openapi()
    for (method, path), example in examples.ANSWERS.items():
        answers = document["paths"][path][method.lower()]["responses"]
        success = next(status for status in answers if status.startswith("2"))
        answers[success]["content"]["application/json"]["example"] = example
    document.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }
    document["security"] = [{"key": []}]
