"""A worker's configuration and what librdkafka is told because of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faust_batch.errors import ConfigInvalid
from faust_batch.source import Source

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Who a worker is and how much it may take at once.

    `instance` and `transactional_id` must be stable for a worker across restarts and unique in the cluster: a
    restarted worker takes its partitions back without a rebalance and ends its predecessor's transaction at once.
    `client_options` go to every client (security, …), `consumer_options` and `producer_options` to one kind; they
    override what is set here, except what correctness rests on.

    `starts`: where a partition begins of which nothing is committed; one that is not named begins where its log does.
    `ends`: of these partitions nothing is judged from there on.
    """

    bootstrap: str
    group: str
    instance: str
    transactional_id: str
    commit_interval_ms: int = 100
    max_batch_records: int = 20_000
    max_batch_bytes: int = 8 * MIB
    max_held_bytes: int = 32 * MIB
    max_round_records: int = 100_000
    max_round_bytes: int = 32 * MIB
    prefetch_bytes: int = 16 * MIB
    session_timeout_ms: int = 10_000
    transaction_timeout_ms: int = 10_000
    max_poll_interval_ms: int = 300_000
    drain_timeout_s: float = 20.0
    wedged_after_s: float = 60.0  # nothing moves although it could: the process ends
    hand_over_timeout_s: float = 45.0  # FaustRunner: agents that sit on a batch; before it looks wedged
    client_options: Mapping[str, str] = field(default_factory=dict)
    consumer_options: Mapping[str, str] = field(default_factory=dict)
    producer_options: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[Source, int] = field(default_factory=dict)
    ends: Mapping[Source, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} is empty"
            for name in ("bootstrap", "group", "instance", "transactional_id")
            if not getattr(self, name)
        ]
        mistakes += [
            f"{name} must be positive"
            for name in (
                "commit_interval_ms",
                "max_batch_records",
                "max_batch_bytes",
                "max_held_bytes",
                "max_round_records",
                "max_round_bytes",
                "session_timeout_ms",
                "transaction_timeout_ms",
                "drain_timeout_s",
                "wedged_after_s",
                "hand_over_timeout_s",
            )
            if getattr(self, name) <= 0
        ]
        if self.commit_interval_ms * 2 > self.transaction_timeout_ms:
            mistakes.append("commit_interval_ms must be at most half of transaction_timeout_ms")
        if mistakes:
            raise ConfigInvalid("worker configuration: " + "; ".join(mistakes))

    @property
    def commit_interval_s(self) -> float:
        return self.commit_interval_ms / 1000

    @property
    def call_timeout_s(self) -> float:
        """How long one transactional call may take before the worker gives up."""
        return self.transaction_timeout_ms / 1000 + 5

    def consumer_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "group.instance.id": self.instance,
            "client.id": self.instance,
            # One step: every member gives all back, then all is dealt out. A cooperative rebalance takes two, and if a
            # static member dies between them and comes back, the group stays as the first one left it: partitions
            # that nobody owns, until something else rebalances.
            "partition.assignment.strategy": "range",
            "session.timeout.ms": self.session_timeout_ms,
            "heartbeat.interval.ms": max(self.session_timeout_ms // 10, 100),
            "max.poll.interval.ms": self.max_poll_interval_ms,
            "queued.max.messages.kbytes": max(self.prefetch_bytes // 1024, 1024),
            "queued.min.messages": 100_000,
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
            "fetch.queue.backoff.ms": 10,  # the default of a second leaves a fast worker without records
            "topic.metadata.refresh.interval.ms": 30_000,
            **self.client_options,
            **self.consumer_options,
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            # every start position is set explicitly; whatever is not in the log is an error, never a jump
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
        if settings.get("group.protocol") == "consumer":
            # KIP-848: assignment and timeouts are the broker's
            for name in ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"):
                del settings[name]
        return settings

    @property
    def incremental(self) -> bool:
        """Whether the group gives and takes partitions one by one, not all at once."""
        settings = self.consumer_settings()
        return settings.get("group.protocol") == "consumer" or "cooperative" in str(
            settings["partition.assignment.strategy"]
        )

    def producer_settings(self) -> dict[str, Any]:
        return {
            "client.id": self.instance,
            "linger.ms": 5,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            # When all brokers were away, librdkafka would throw away the ones it knew and start from the bootstrap
            # servers, but its transactions go on waiting for the coordinator it threw away (its issue 5511).
            "metadata.recovery.strategy": "none",
            # Room is counted in messages before each call (see transactions.py). The limit in bytes would refuse
            # single large messages and let smaller ones behind them pass.
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 2_147_483_647,
            **self.client_options,
            **self.producer_options,
            "bootstrap.servers": self.bootstrap,
            "transactional.id": self.transactional_id,
            "transaction.timeout.ms": self.transaction_timeout_ms,
            "enable.idempotence": True,
        }
