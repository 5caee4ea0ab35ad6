"""What a worker does before it begins."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from telestream_domain import TYPES
from telestream_guards.errors import TopicsUnknown
from telestream_guards.fixed import THIS_INSTALLATION, compare, fixed_by_code, fixed_by_topics, fixed_partitions
from telestream_guards.topics import check_partitions, topic_facts, topics_of
from telestream_opstore import (
    INSTALLATION,
    Fixed,
    OpstoreUnavailable,
    fix_generation,
    fix_generation_async,
    migrate,
)
from telestream_runtime import ServiceSettings
from telestream_runtime.waiting import wait_for


def guard_start(settings: ServiceSettings, stop: threading.Event, own: Fixed | None = None) -> bool:
    """Check the topics, then compare with (or fix) what the generation depends on; False if ``stop`` was set before.

    ``own``: what this service's state depends on beside what all share. Waits as long as Kafka or PostgreSQL is away,
    and answers on the admin port meanwhile. Raises GuardError, OpstoreError.
    """
    topics = settings.topics
    names = sorted({name for kind in TYPES for name in topics_of(topics, kind)})
    facts = wait_for("kafka", partial(topic_facts, settings.kafka, names), TopicsUnknown, settings, stop)
    if facts is None:
        return False
    for record_type in TYPES:
        check_partitions(facts, topics, record_type)
    fixed = {
        record_type: {
            **fixed_by_topics(facts, topics, record_type),
            **fixed_by_code(settings.business_timezone),
            **(own or {}),
        }
        for record_type in TYPES
    }
    kept = wait_for("postgres", partial(_fix, settings, fixed), OpstoreUnavailable, settings, stop)
    if kept is None:
        return False
    compare(f"generation {settings.generation}", kept, fixed)
    return True


async def guard_installation(dsn: str, topic_prefix: str, partitions: Mapping[str, int], own: Fixed) -> None:
    """As ``guard_start``, of what belongs to raw and so to every generation; the store is migrated already.

    ``partitions``: the counts by topic. Raises GuardError, OpstoreError.
    """
    fixed = {"all": {**fixed_partitions(partitions), **own}}
    compare(THIS_INSTALLATION, await fix_generation_async(dsn, topic_prefix, INSTALLATION, fixed), fixed)


def _fix(settings: ServiceSettings, fixed: Mapping[str, Fixed]) -> dict[str, dict[str, str | int]]:
    dsn = settings.postgres.get_secret_value()
    migrate(dsn)
    return fix_generation(dsn, settings.topic_prefix, settings.generation, fixed)
