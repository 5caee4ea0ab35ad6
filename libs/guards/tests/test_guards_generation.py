"""A worker is given a number, and begins with what the generation's row says; or not at all."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from telestream_devstack.postgres import psql
from telestream_domain import Topics
from telestream_guards import GenerationNotWanted, Plan, guard_start
from telestream_guards.errors import TopicsMissing
from telestream_guards.topics import topics_of
from telestream_opstore import migrate
from telestream_runtime import ServiceSettings

pytestmark = pytest.mark.stack
NOWHERE = "127.0.0.1:1"


def begin(dsn: str, prefix: str, state: str, generation: int = 2) -> None:
    made = psql(
        dsn,
        "INSERT INTO derivation (topic_prefix, generation, types, state, plan, reason, actor) VALUES "
        f"('{prefix}', {generation}, '{{cdr}}', '{state}', '{{\"starts\": {{\"cdr\": {{\"1\": 7}}}}}}', 't', 't')",
    )
    assert made.returncode == 0, made.stderr


def settings(dsn: str, prefix: str, kafka: str = NOWHERE, generation: int = 2) -> ServiceSettings:
    return ServiceSettings(postgres=dsn, topic_prefix=prefix, kafka=kafka, generation=generation)


def test_only_topics_of_the_types_that_the_row_names_are_looked_at(
    parts: Any, postgres_dsn: str, topic_prefix: str
) -> None:
    migrate(postgres_dsn)
    begin(postgres_dsn, topic_prefix, "RUNNING")
    mine = settings(postgres_dsn, topic_prefix, parts.kafka)
    with pytest.raises(TopicsMissing, match=r"cdr\.raw"):
        guard_start(mine, threading.Event())
    names = topics_of(Topics(topic_prefix, 2), "cdr")
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    for made in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        made.result(30)
    while not set(names) <= set(admin.list_topics(timeout=10).topics):
        time.sleep(0.1)
    row = guard_start(mine, threading.Event())
    assert row is not None
    assert (row.generation, row.types, row.plan) == (2, ("cdr",), Plan(starts={"cdr": {1: 7}}))
    kept = psql(postgres_dsn, "SELECT type FROM generation WHERE generation = 2")
    assert kept.stdout.split() == ["cdr"]


def test_a_generation_that_is_being_prepared_is_waited_for_and_named(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    begin(postgres_dsn, "t.", "PREPARING")
    stop, found = threading.Event(), list[object]()
    waiting = threading.Thread(target=lambda: found.append(guard_start(settings(postgres_dsn, "t."), stop)))
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive()
    # a replay that is dropped before it ran ends the wait
    psql(postgres_dsn, "UPDATE derivation SET state = 'FINISHED' WHERE generation = 2")
    waiting.join(20)
    assert found == [None]


@pytest.mark.parametrize("state", ["DROPPING", "DROPPED"])
def test_what_was_dropped_is_refused(postgres_dsn: str, state: str) -> None:
    migrate(postgres_dsn)
    begin(postgres_dsn, "t.", state)
    with pytest.raises(GenerationNotWanted, match="generation 2 was dropped"):
        guard_start(settings(postgres_dsn, "t."), threading.Event())


def test_what_nobody_began_is_refused_and_what_is_finished_has_nothing_to_do(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    with pytest.raises(GenerationNotWanted, match=r"TELESTREAM_GENERATION is 3, but nobody .* \(at work: 1\)"):
        guard_start(settings(postgres_dsn, "t.", generation=3), threading.Event())
    begin(postgres_dsn, "t.", "FINISHED")
    assert guard_start(settings(postgres_dsn, "t."), threading.Event()) is None
