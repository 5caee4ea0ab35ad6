"""What a worker does before it begins."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from telestream_guards.errors import GenerationNotWanted, GenerationPreparing, TopicsUnknown
from telestream_guards.fixed import THIS_INSTALLATION, compare, fixed_by_code, fixed_by_topics, fixed_partitions
from telestream_guards.topics import check_partitions, topic_facts, topics_of
from telestream_opstore import (
    INSTALLATION,
    Derivation,
    DerivationState,
    Fixed,
    OpstoreUnavailable,
    derivations,
    fix_generation,
    fix_generation_async,
    migrate,
)
from telestream_runtime import ServiceSettings, get_logger
from telestream_runtime.waiting import wait_for

log = get_logger(__name__)


def guard_start(settings: ServiceSettings, stop: threading.Event, own: Fixed | None = None) -> Derivation | None:
    """What this generation derives, once its topics are checked and what it depends on is compared, or fixed.

    None: there is nothing to do, as ``stop`` was set before or the generation has reached its ends. ``own``: what this
    service's state depends on beside what all share. Waits as long as Kafka or PostgreSQL is away or the generation is
    being made, and answers on the admin port meanwhile. Raises GuardError, OpstoreError.
    """
    row = _wanted(settings, stop)
    if row is None:
        return None
    topics = settings.topics
    names = sorted({name for kind in row.types for name in topics_of(topics, kind)})
    facts = wait_for("kafka", partial(topic_facts, settings.kafka, names), TopicsUnknown, settings, stop)
    if facts is None:
        return None
    for record_type in row.types:
        check_partitions(facts, topics, record_type)
    fixed = {
        record_type: {
            **fixed_by_topics(facts, topics, record_type),
            **fixed_by_code(settings.business_timezone),
            **(own or {}),
        }
        for record_type in row.types
    }
    kept = wait_for("postgres", partial(_fix, settings, fixed), OpstoreUnavailable, settings, stop)
    if kept is None:
        return None
    compare(f"generation {settings.generation}", kept, fixed)
    return row


async def guard_installation(dsn: str, topic_prefix: str, partitions: Mapping[str, int], own: Fixed) -> None:
    """As ``guard_start``, of what belongs to raw and so to every generation; the store is migrated already.

    ``partitions``: the counts by topic. Raises GuardError, OpstoreError.
    """
    fixed = {"all": {**fixed_partitions(partitions), **own}}
    compare(THIS_INSTALLATION, await fix_generation_async(dsn, topic_prefix, INSTALLATION, fixed), fixed)


def _wanted(settings: ServiceSettings, stop: threading.Event) -> Derivation | None:
    """The generation's row, waited for while it is being made; None: nothing is to be done."""
    row = wait_for("postgres", partial(_first_look, settings), OpstoreUnavailable, settings, stop)
    if row is not None and row.state is DerivationState.PREPARING:
        row = wait_for("generation", partial(_prepared, settings), GenerationPreparing, settings, stop)
    if row is None:
        return None
    if row.state in (DerivationState.DROPPING, DerivationState.DROPPED):
        raise GenerationNotWanted(
            f"generation {row.generation} was dropped: nothing of it is derived any more; stop this worker, or start a "
            'new one with "telestream replay start"'
        )
    if row.state is DerivationState.FINISHED:
        log.info("nothing_to_do", generation=row.generation, reason="it has reached its ends, its rows stay")
        return None
    return row


def _first_look(settings: ServiceSettings) -> Derivation:
    migrate(settings.postgres.get_secret_value())
    return _row(settings)


def _prepared(settings: ServiceSettings) -> Derivation:
    try:
        row = _row(settings)
    except OpstoreUnavailable as err:
        raise GenerationPreparing(str(err)) from err
    if row.state is DerivationState.PREPARING:
        raise GenerationPreparing(
            f"generation {row.generation} is being prepared; {row.problem or 'its topics are made'}"
        )
    return row


def _row(settings: ServiceSettings) -> Derivation:
    known = derivations(settings.postgres.get_secret_value(), settings.topic_prefix)
    for row in known:
        if row.generation == settings.generation:
            return row
    wanted = [row for row in known if row.wanted]
    raise GenerationNotWanted(
        f"TELESTREAM_GENERATION is {settings.generation}, but nobody began generation {settings.generation} (at work: "
        f"{', '.join(str(row.generation) for row in wanted) or 'none'}); a new one begins with "
        '"telestream replay start"'
    )


def _fix(settings: ServiceSettings, fixed: Mapping[str, Fixed]) -> dict[str, dict[str, str | int]]:
    return fix_generation(settings.postgres.get_secret_value(), settings.topic_prefix, settings.generation, fixed)
