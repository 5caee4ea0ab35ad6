"""Everything the gateway holds while it runs, wired from its settings."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ingest_gateway.batch_ids import BatchIds
from ingest_gateway.domain.direct import Direct
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.numbers import load_tables
from ingest_gateway.domain.pacing import Pace
from ingest_gateway.domain.resolve import PartyRules, Resolver
from ingest_gateway.encode import Encoder
from ingest_gateway.files import Files
from ingest_gateway.kafka import Sender
from ingest_gateway.live_positions import LivePositions
from ingest_gateway.pacer import Pacer
from ingest_gateway.requests import RequestJudge
from ingest_gateway.settings import GatewaySettings
from telestream_contracts import Registry
from telestream_domain import REFERENCES, TYPES, TelestreamError
from telestream_guards import GuardError, PartitionsChanged, guard_installation
from telestream_opstore import (
    FileLedger,
    KeyCache,
    check_fingerprints_async,
    derivations_async,
    migrate_async,
    open_pool,
)
from telestream_opstore.errors import OpstoreUnavailable, WrongKey
from telestream_runtime import get_logger

RECORD_TYPES = (*TYPES, *REFERENCES)
RETRY_S = 0.5
LOG_EVERY_S = 10.0
LINGER_MS = 5.0
NOT_YET = "not reached yet"
HASHES = {"event_uid_hash": 1, "partition_hash": 1}  # versions; raw depends on them for as long as it is kept

log = get_logger("ingest-gateway")


class Gateway:
    """Connections and judges. Made by ``connect``; ``lost`` is set once the Kafka producer cannot be used any more."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.missing: dict[str, str] = {"kafka": NOT_YET, "registry": NOT_YET, "postgres": NOT_YET}
        self.lost: str | None = None
        self.in_flight = 0
        secrets = {
            "identity": bytes.fromhex(settings.identity_key.get_secret_value()),
            "permanent": bytes.fromhex(settings.permanent_key.get_secret_value()),
        }
        self._secrets = secrets
        self.identity = Identity(secrets["identity"], secrets["permanent"], clear=settings.identity == "clear")
        self.resolver = Resolver(self.identity, PartyRules())
        self.judge_thread = ThreadPoolExecutor(1, "judge")
        self.encoders: dict[str, Encoder] = {}
        self.partitions: dict[str, int] = {}
        self.judges: dict[str, RequestJudge] = {}
        self.sender: Sender
        self.file_sender: Sender
        self.pool: Any = None
        self.keys: KeyCache
        self.ledger: FileLedger
        self.batch_ids: BatchIds
        self.pacer: Pacer
        self.files = Files(self)

    def topic(self, record_type: str) -> str:
        topics = self.settings.topics
        return topics.raw(record_type) if record_type in TYPES else topics.ref(record_type)

    async def connect(self, stop: threading.Event) -> bool:
        """Reach Kafka, the registry and PostgreSQL, however long it takes; False if ``stop`` was set before that.

        Raises WrongKey, GuardError if a secret, a partition count or the identity mode is not what this installation
        started with.
        """
        settings = self.settings
        name = f"ingest-gateway-{settings.instance}"
        ack_s = settings.ack_timeout_ms / 1000
        self.sender = Sender(settings.kafka, name, ack_s, LINGER_MS, self._on_lost)
        self.file_sender = Sender(settings.kafka, name + "-files", None, LINGER_MS, self._on_lost)
        steps = {"postgres": self._reach_postgres, "kafka": self._reach_kafka, "registry": self._reach_registry}
        await asyncio.get_running_loop().run_in_executor(None, load_tables)
        logged = 0.0
        while self.missing:
            if stop.is_set():
                return False
            for dependency in list(self.missing):
                try:
                    await steps[dependency]()
                    del self.missing[dependency]
                    if not self.missing:
                        await self._guard()
                except (WrongKey, GuardError):
                    raise
                except OpstoreUnavailable as err:
                    self.missing["postgres"] = str(err)
                except TelestreamError as err:
                    self.missing[dependency] = str(err)
            if self.missing:
                if time.monotonic() - logged > LOG_EVERY_S:
                    log.warning("waiting", missing=self.missing)
                    logged = time.monotonic()
                await asyncio.sleep(RETRY_S)
        for record_type in RECORD_TYPES:
            direct = Direct(record_type, self.resolver, from_json=True)
            self.judges[record_type] = RequestJudge(direct, self.encoders[record_type], self.partitions[record_type])
        floor = float(settings.backfill_floor)
        self.pacer = Pacer(
            Pace(settings.backfill_wait_ms / 1_000, floor, floor),
            LivePositions(settings.kafka, settings.topics, self.partitions),
            self._live_generations,
            settings.generation,
        )
        return True

    async def _reach_postgres(self) -> None:
        dsn = self.settings.postgres.get_secret_value()
        await migrate_async(dsn)
        await check_fingerprints_async(dsn, self._secrets)
        if self.pool is None:
            self.pool = await open_pool(dsn)
        self.ledger = FileLedger(dsn, self.pool)
        self.keys = KeyCache(dsn, self.pool)
        self.batch_ids = BatchIds(self.ledger)
        await self.batch_ids.start()
        await self.keys.start()
        if self.keys.trouble is not None:
            raise OpstoreUnavailable(self.keys.trouble)

    async def _guard(self) -> None:
        settings = self.settings
        await guard_installation(
            settings.postgres.get_secret_value(),
            settings.topic_prefix,
            {self.topic(record_type): self.partitions[record_type] for record_type in (*TYPES, "customer")},
            {"identity": settings.identity, **HASHES},
        )

    async def _reach_kafka(self) -> None:
        loop = asyncio.get_running_loop()
        for record_type in RECORD_TYPES:
            topic = self.topic(record_type)
            self.partitions[record_type] = await loop.run_in_executor(None, self.sender.partitions, topic)
            # the other connections too, so that the first file does not wait for them
            await loop.run_in_executor(None, self.file_sender.partitions, topic)
            await loop.run_in_executor(None, self.files.raw.ends, topic, self.partitions[record_type])
        if self.partitions["customer"] != self.partitions["cdr"]:
            raise PartitionsChanged(
                f"{self.topic('customer')} has {self.partitions['customer']} partitions, {self.topic('cdr')} "
                f"{self.partitions['cdr']}: they must be the same, a customer lies beside its records"
            )

    async def _reach_registry(self) -> None:
        registry = Registry(self.settings.registry)
        loop = asyncio.get_running_loop()
        for record_type in RECORD_TYPES:
            schema_id = await loop.run_in_executor(None, registry.id_for, self.topic(record_type))
            self.encoders[record_type] = Encoder(record_type, schema_id)

    async def _live_generations(self) -> list[int]:
        """Those people see or may go back to; a replay that is not decided on is behind by its nature."""
        found = await derivations_async(self.settings.postgres.get_secret_value(), self.settings.topic_prefix)
        return [
            derivation.generation for derivation in found if derivation.wanted and derivation.decided_at is not None
        ]

    def _on_lost(self, reason: str) -> None:
        self.lost = reason

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sender in (self.sender, self.file_sender):
            await loop.run_in_executor(None, sender.close)
        if self.pool is not None:
            await self.keys.stop()
            await self.pool.close()
        self.judge_thread.shutdown(wait=False)
