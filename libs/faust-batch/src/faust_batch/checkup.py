"""Looks after a worker from outside its thread: asks the broker now and then, and keeps the verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from faust_batch.config import WorkerConfig
from faust_batch.health import Condition, Diagnosis, Glimpse, Health
from faust_batch.holdings import handles
from faust_batch.source import Source

_log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5.0
ASK_EVERY_S = 10.0


class Checkup:
    """`look` is for one thread, `health` for any."""

    def __init__(self, config: WorkerConfig, glimpse: Callable[[], Glimpse]) -> None:
        self._glimpse = glimpse
        self._diagnosis = Diagnosis(config.wedged_after_s, config.max_poll_interval_ms / 1000)
        self._every_s = min(config.wedged_after_s / 4, ASK_EVERY_S)
        self._probe = BrokerProbe(config.bootstrap, config.client_options)
        self._asked_at: float | None = None
        self.health = Health(Condition.WAITING, "the worker is starting")

    def look(self) -> Health:
        """The worker's health now; it may put a question to the broker, and never waits for the answer."""
        glimpse = self._glimpse()
        now = time.monotonic()
        answer = self._probe.answer()
        if isinstance(answer, str):
            self._diagnosis.away(answer)
        elif answer is not None:
            self._diagnosis.answered(now, answer)
        if not self._probe.pending and (self._asked_at is None or now - self._asked_at >= self._every_s):
            self._asked_at = now
            self._probe.ask(glimpse.positions.keys())
        before, self.health = self.health.condition, self._diagnosis.look(now, glimpse)
        if self.health.condition is not before and Condition.WAITING in (before, self.health.condition):
            _log.info("%s%s", self.health.condition, self.health.reason and f": {self.health.reason}")
        return self.health


class BrokerProbe:
    """Asks for the ends of logs through a client of its own, one question at a time. Not thread-safe."""

    def __init__(self, bootstrap: str, client_options: Mapping[str, str]) -> None:
        self._settings: dict[str, Any] = {**client_options, "bootstrap.servers": bootstrap}
        self._admin: AdminClient | None = None
        self._asked: dict[Source | None, Future[Any]] = {}

    @property
    def pending(self) -> bool:
        return bool(self._asked)

    def ask(self, sources: Collection[Source]) -> None:
        """Put the question; `answer` has the answer within about `ASK_TIMEOUT_S`."""
        if self._admin is None:
            self._admin = AdminClient(self._settings, logger=logging.getLogger("faust_batch.librdkafka"))
        if not sources:
            self._asked = {None: self._admin.describe_cluster(request_timeout=ASK_TIMEOUT_S)}
            return
        asked = self._admin.list_offsets(
            {handle: OffsetSpec.latest() for handle in handles(sources)},  # type: ignore[no-untyped-call]
            # what an open transaction upstream holds back is nothing that we are late with
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ASK_TIMEOUT_S,
        )
        self._asked = {Source(handle.topic, handle.partition): future for handle, future in asked.items()}

    def answer(self) -> Mapping[Source, int] | str | None:
        """The ends of the logs asked for, as far as known; or why the broker did not answer; None: not yet."""
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, {}
        ends: dict[Source, int] = {}
        trouble: str | None = None
        answered = False
        for source, future in asked.items():
            try:
                found = future.result()
            except KafkaException as error:
                trouble = error.args[0].str()
                continue
            answered = True
            if source is not None and found.offset >= 0:
                ends[source] = found.offset
        return ends if answered or trouble is None else trouble
