"""Replays over HTTP, on real parts: begun, prepared, followed, gated, switched and removed; also by a process that dies
in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from query_api.app import build
from query_api.generations_keeper import Keeper
from telestream_contracts import Registry, apply_topics, generation_topics
from telestream_devstack import Parts, reserve_base
from telestream_devstack.postgres import psql
from telestream_domain import Topics, group_id
from telestream_opstore import DerivationState, derivations
from telestream_warehouse import Query, activate

pytestmark = pytest.mark.stack
KEY, KEY_NAME = "development-key-of-the-tests", "development"
PARTITIONS = 4
RECORDS = 5
"""Of each raw partition of cdr."""


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def refused(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.fixture(scope="module")
def raw(world: Any) -> None:
    """A few records in every partition of cdr; their content does not matter here."""
    for partition in range(PARTITIONS):
        world.produce(world.topics.raw("cdr"), partition, [b"x"] * RECORDS)


def start(world: Any, **body: Any) -> httpx.Response:
    return world.client.post("/v1/generations", json={"reason": "a test", **body})


def one(world: Any, generation: int) -> dict[str, Any]:
    return world.data(f"/v1/generations/{generation}")


def in_state(world: Any, generation: int, state: str) -> dict[str, Any]:
    return until(lambda: (row := one(world, generation))["state"] == state and row, f"{generation} is {state}")


def topics_there(world: Any, parts: Parts, generation: int) -> set[str]:
    there = AdminClient({"bootstrap.servers": parts.kafka}).list_topics(timeout=10).topics
    return set(generation_topics(Topics(world.topics.prefix, generation))) & set(there)


def derive(
    world: Any, parts: Parts, generation: int, rejected: int = 0, next_: int = RECORDS, record_type: str = "cdr"
) -> None:
    """What workers of this generation would have left after raw offsets below ``next_``."""
    topics, at = Topics(world.topics.prefix, generation), datetime.now(UTC)
    rows = [
        {
            "generation": generation,
            "type": record_type,
            "src_partition": partition,
            "src_offset": offset,
            "booked_offset": offset,
            "verdict": "REJECTED" if offset < rejected else "DUPLICATE",
            "rule": "too_old" if offset < rejected else "",
            "sign": 1,
            "source": "s",
            "appended_at": at,
        }
        for partition in range(PARTITIONS)
        for offset in range(next_)
    ]
    world.insert("judgement_all", rows)
    metadata = json.dumps({"v": 1, "rules": "", "next": next_, "f": {"cell": [0, 0, 1, 0, next_ - 1]}})
    commit(parts, group_id("cdr-enricher", topics), topics.raw(record_type), next_, "")
    commit(parts, group_id("window-aggregator", topics), topics.enriched(record_type), next_, metadata)
    position(world, topics, "enriched", record_type, topics.enriched(record_type), next_, next_)


def position(world: Any, topics: Topics, kind: str, subject: str, topic: str, next_: int, src: int | None) -> None:
    world.insert(
        "sink_position",
        [
            {
                "topic": topic,
                "partition": partition,
                "topic_id": "x",
                "generation": topics.generation,
                "kind": kind,
                "subject": subject,
                "next_offset": next_,
                "src_next": src,
                "written_at": datetime.now(UTC),
            }
            for partition in range(PARTITIONS)
        ],
    )


def commit(parts: Parts, group: str, topic: str, offset: int, metadata: str) -> None:
    places = [TopicPartition(topic, partition, offset, metadata) for partition in range(PARTITIONS)]
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    (future,) = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)]).values()
    future.result(timeout=10)


def test_a_replay_from_its_beginning_to_its_end(world: Any, parts: Parts, raw: None) -> None:
    (first,) = world.data("/v1/generations")
    assert (first["generation"], first["state"], first["active"]) == (1, "RUNNING", ["cdr", "network"])
    assert [span["to"] for span in first["active_spans"]] == [None, None]

    begun = start(world, types=["cdr"])
    assert begun.status_code == 201, begun.text
    row = begun.json()["data"]
    assert (row["generation"], row["state"], row["active"], row["types"]) == (2, "PREPARING", [], ["cdr"])
    assert row["starts"] == {"cdr": {str(number): 0 for number in range(PARTITIONS)}}
    assert row["ends"] == {"cdr": {str(number): RECORDS for number in range(PARTITIONS)}}
    assert set(row["reference"]) == {world.topics.ref(name) for name in ("customer", "cell", "region", "plan")}
    assert {"code", "rules", f"schema of {world.topics.raw('cdr')}"} <= set(row["versions"])
    assert refused(start(world, types=["network", "cdr"])) == (409, "replay_in_work")

    in_state(world, 2, "RUNNING")
    topics = Topics(world.topics.prefix, 2)
    assert topics_there(world, parts, 2) == set(generation_topics(topics))
    assert world.registry.check_all(topics) == []
    progress = one(world, 2)["progress"]
    assert (progress["done_ratio"], progress["caught_up"]) == (0.0, False)
    assert [part["lag"] for part in progress["partitions"]] == [RECORDS] * PARTITIONS

    def activate(**more: Any) -> httpx.Response:
        return world.client.post("/v1/generations/2/activate", json={"reason": "better", **more})

    assert refused(activate()) == (409, "not_caught_up")
    derive(world, parts, 1)
    derive(world, parts, 2, rejected=1)
    # an aggregate that is published, but not in ClickHouse yet
    world.produce(topics.agg("cell"), 1, [b"upsert"], ["key"])
    time.sleep(2)
    behind = one(world, 2)
    assert (behind["caught_up_at"], behind["progress"]["done_ratio"]) == (None, 1.0)
    assert refused(activate()) == (409, "not_caught_up")
    position(world, topics, "agg", "cell", topics.agg("cell"), 1, None)
    until(lambda: one(world, 2)["caught_up_at"], "caught up")
    told = one(world, 2)["progress"]
    assert {(part["judged"], part["aggregated"], part["stored"], part["lag"]) for part in told["partitions"]} == {
        (RECORDS, RECORDS, RECORDS, 0)
    }
    assert told["costs"]["tables"]["judgement_all"]["rows"] == RECORDS * PARTITIONS

    failed = activate()
    assert refused(failed) == (409, "gate_failed")
    checks = {check["check"]: (check["value"], check["passed"]) for check in failed.json()["gate"]}
    assert checks == {
        "rejected_share": (0.2, False),
        "rejected_rise": (0.2, False),
        "books_unbalanced": (0, True),
        "records_missing": (0, True),
        "lag_records": (0, True),
    }
    assert one(world, 2)["active"] == []
    assert refused(activate(types=["network"], force=True)) == (422, "bad_types")
    forced = activate(force=True)
    assert forced.status_code == 200, forced.text
    assert forced.json()["data"]["activated"] == {"cdr": 2}
    assert forced.json()["generation"] == {"cdr": 2, "network": 1}
    assert one(world, 2)["active"] == ["cdr"]
    assert one(world, 2)["decided_at"] is not None
    assert refused(activate()) == (409, "already_active")
    assert refused(drop(world, 2)) == (409, "active")

    back = world.client.post("/v1/generations/rollback", json={"reason": "worse"})
    assert (back.status_code, back.json()["data"]["activated"]) == (200, {"cdr": 1})
    assert [span["to"] is None for span in one(world, 1)["active_spans"]] == [False, True, True]

    assert drop(world, 2).status_code == 202
    gone = in_state(world, 2, "DROPPED")
    assert gone["dropped_at"] is not None
    assert_nothing_left(world, parts, 2)
    assert refused(drop(world, 2)) == (409, "dropped")
    assert refused(world.client.post("/v1/generations/rollback", json={"reason": "?"})) == (409, "nothing_to_roll_back")
    assert audited(world) == [
        ("replay start", KEY_NAME),
        ("replay prepared", "query-api"),
        ("replay caught up", "query-api"),
        ("replay activate", KEY_NAME),
        ("replay rollback", KEY_NAME),
        ("replay drop", KEY_NAME),
        ("replay dropped", "query-api"),
    ]


def audited(world: Any) -> list[tuple[str, ...]]:
    sql = "COPY (SELECT action, actor FROM audit_log WHERE action LIKE 'replay%' ORDER BY id) TO STDOUT (DELIMITER '|')"
    return [tuple(line.split("|")) for line in psql(world.postgres, sql).stdout.splitlines() if line]


def drop(world: Any, generation: int) -> httpx.Response:
    return world.client.delete(f"/v1/generations/{generation}", params={"reason": "not wanted"})


def assert_nothing_left(world: Any, parts: Parts, generation: int) -> None:
    topics = Topics(world.topics.prefix, generation)
    assert topics_there(world, parts, generation) == set()
    assert world.count(f"SELECT count() FROM judgement_all WHERE generation = {generation}") == 0
    assert world.count(f"SELECT count() FROM sink_position WHERE endsWith(topic, '.g{generation}')") == 0
    # nothing of the other generations went with its schemas
    registry = Registry(world.registry.url)
    assert len([line for line in registry.check_all(topics) if f".g{generation}-value" in line]) >= 10
    enriched = world.topics.enriched("cdr")
    assert registry.schema(world.registry.id_for(enriched)) is not None
    assert registry.check_all(world.topics) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"types": ["sms"]}, "bad_types"),
        ({"types": []}, "bad_types"),
        ({"types": "cdr"}, "bad_types"),
        ({"reason": " "}, "bad_reason"),
        ({"reason": 5}, "bad_reason"),
        ({"from": "yesterday"}, "bad_from"),
        ({"from": True}, "bad_from"),
        ({"from": "-5"}, "bad_from"),
        ({"from": "99"}, "past_the_end"),
        ({"from": "2099-01-01T00:00:00Z"}, "past_the_end"),
        ({"from": "2026-01-01T00:00:00"}, "bad_from"),
        ({"sample": "1y", "compare_only": True}, "bad_sample"),
        ({"sample": "1d"}, "bad_sample"),
        ({"sample": "1d", "from": "0", "compare_only": True}, "bad_sample"),
        ({"types": ["network"], "sample": "1d", "compare_only": True}, "bad_sample"),
        ({"compare_only": "yes"}, "bad_compare_only"),
        ({"rules": "not = toml ="}, "bad_rules"),
        ({"rules": '[severity]\nno_such_rule = "warn"\n'}, "bad_rules"),
        ({"reference_of": "1"}, "bad_reference_of"),
        ({"reference_of": 1}, "bad_reference_of"),
        ({"speed": 9}, "unknown_field"),
    ],
)
def test_a_replay_that_cannot_be_is_refused_and_changes_nothing(
    world: Any, raw: None, body: Mapping[str, Any], code: str
) -> None:
    before = world.data("/v1/generations")
    found = start(world, **{"types": ["cdr"], **body})
    assert refused(found) == (422, code), found.text
    assert world.data("/v1/generations") == before


def test_what_is_not_there_is_said_with_what_there_is(world: Any, raw: None) -> None:
    for method, path in (("GET", ""), ("POST", "/activate"), ("DELETE", "?reason=x")):
        body = {"json": {"reason": "x"}} if method == "POST" else {}
        found = world.client.request(method, f"/v1/generations/99{path}", **body)
        assert refused(found) == (404, "unknown_generation")
    assert "there is no generation 99; there are 1" in found.json()["detail"]
    assert refused(start(world, reference_of=99)) == (404, "unknown_generation")
    assert refused(world.client.post("/v1/generations/1/activate", json={"reason": "x"})) == (409, "already_active")
    assert refused(world.client.post("/v1/generations/1/activate", json={"reason": ""})) == (422, "bad_reason")
    assert refused(world.client.delete("/v1/generations/1", params={"reason": "x"})) == (409, "active")
    assert refused(world.client.delete("/v1/generations/1")) == (422, "missing_parameter")
    assert refused(start(world, types=["cdr"], from_="0")) == (422, "unknown_field")


def test_a_rehearsal_ends_by_itself_and_is_never_activated(world: Any, parts: Parts, raw: None) -> None:
    begun = start(world, types=["cdr"], sample="1d", compare_only=True)
    assert begun.status_code == 201, begun.text
    row = begun.json()["data"]
    number = row["generation"]
    assert (row["compare_only"], row["only_to_ends"], row["asked"]["sample"]) == (True, True, "1440m")
    in_state(world, number, "RUNNING")
    activating = world.client.post(f"/v1/generations/{number}/activate", json={"reason": "x", "force": True})
    assert refused(activating) == (409, "compare_only")
    derive(world, parts, number)
    finished = in_state(world, number, "FINISHED")
    assert finished["caught_up_at"] is not None
    # nobody has to decide on it before the next one of its types begins
    again = start(world, types=["cdr"], reference_of=number, compare_only=True)
    assert again.status_code == 201, again.text
    assert (again.json()["data"]["reference"], again.json()["data"]["ends"]) == (row["reference"], row["ends"])
    for made in (number, again.json()["data"]["generation"]):
        assert drop(world, made).status_code == 202
        in_state(world, made, "DROPPED")


def test_a_generation_that_begins_later_is_refused_and_so_is_a_beginning_that_retention_has_removed(
    world: Any, parts: Parts
) -> None:
    raw = world.topics.raw("network")
    for partition in range(PARTITIONS):
        world.produce(raw, partition, [b"x"] * RECORDS)
    derive(world, parts, 1, record_type="network")
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    for future in admin.delete_records([TopicPartition(raw, 1, 2)]).values():
        future.result(timeout=10)

    def begin(**more: Any) -> httpx.Response:
        return start(world, types=["network"], **more)

    asked = begin(**{"from": "0"})
    assert refused(asked) == (409, "beyond_retention")
    assert re.search(
        r"network\.raw\[1\]: offset 0 was asked for, .* before offset 2, which arrived at 20.*; there is 2 to 5",
        asked.json()["detail"],
    )
    asked = begin(**{"from": "2026-01-01T00:00:00Z"})
    assert refused(asked) == (409, "beyond_retention")
    begun = begin()
    assert begun.status_code == 201, begun.text
    row = begun.json()["data"]
    number = row["generation"]
    assert row["starts"] == {"network": {"0": 0, "1": 2, "2": 0, "3": 0}}
    in_state(world, number, "RUNNING")
    derive(world, parts, number, record_type="network")
    until(lambda: one(world, number)["caught_up_at"], "caught up")
    later = world.client.post(f"/v1/generations/{number}/activate", json={"reason": "x", "force": True})
    assert refused(later) == (409, "begins_later")
    assert "network.raw[1] offset 2, generation 1, which people see, at 0" in later.json()["detail"]
    assert one(world, number)["active"] == []
    # somebody who can write into ClickHouse is believed, and the row is mended
    world.clickhouse.command(activate({"network": number}, "by hand"))
    until(lambda: one(world, number)["decided_at"], "noted")
    assert one(world, number)["active"] == ["network"]
    back = world.client.post("/v1/generations/rollback", json={"types": ["network"], "reason": "by hand"})
    assert back.json()["data"]["activated"] == {"network": 1}
    drop(world, number)
    in_state(world, number, "DROPPED")


def test_activations_at_the_same_time_do_not_lose_one_another(world: Any, parts: Parts, raw: None) -> None:
    made = {}
    for name in ("cdr", "network"):
        begun = start(world, types=[name])
        assert begun.status_code == 201, begun.text
        made[name] = begun.json()["data"]["generation"]
    for name, number in made.items():
        in_state(world, number, "RUNNING")
        # where generation 1 begins: what it has of network before that would be missed
        world.clickhouse.command(Query(f"ALTER TABLE judgement_all DROP PARTITION (1, '{name}')"))
        derive(world, parts, number, record_type=name)

    def switch(name: str) -> httpx.Response:
        return world.client.post(f"/v1/generations/{made[name]}/activate", json={"reason": "both", "force": True})

    for number in made.values():
        until(lambda number=number: one(world, number)["caught_up_at"], "caught up")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(switch, made))
    assert [found.status_code for found in answers] == [200, 200], [found.text for found in answers]
    assert world.get("/v1/generations").json()["generation"] == made
    back = world.client.post("/v1/generations/rollback", json={"types": ["cdr", "network"], "reason": "x"})
    assert back.json()["data"]["activated"] == {"cdr": 1, "network": 1}


def test_what_is_begun_or_dropped_is_finished_by_another_process_after_kill_9(
    world: Any, parts: Parts, raw: None
) -> None:
    # of a prefix of its own: the query API of this module leaves it alone
    prefix = f"{world.topics.prefix}killed."
    topics = Topics(prefix, 1)
    apply_topics(parts.kafka, topics, PARTITIONS)
    Registry(parts.registry).register_all(topics)
    port = reserve_base()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port + 81}", headers={"X-API-Key": KEY}, timeout=30.0)
    process = query_api(world, parts, prefix, port)
    try:
        ready(client)
        begun = client.post("/v1/generations", json={"types": ["cdr"], "reason": "killed"})
        process.send_signal(signal.SIGKILL)
        assert begun.status_code == 201, begun.text
        process.wait(timeout=10)
        (row,) = [found for found in derivations(world.postgres, prefix) if found.generation == 2]
        assert row.state is DerivationState.PREPARING

        # a worker that has not ended yet holds the removal up
        process = query_api(world, parts, prefix, port)
        ready(client)
        state = lambda: client.get("/v1/generations/2").json()["data"]  # noqa: E731
        until(lambda: state()["state"] == "RUNNING", "prepared by the second process")
        second = Topics(prefix, 2)
        assert Registry(parts.registry).check_all(second) == []
        worker = Consumer({"bootstrap.servers": parts.kafka, "group.id": group_id("cdr-enricher", second)})
        worker.subscribe([second.raw("cdr")])
        until(lambda: worker.poll(0.2) or worker.assignment(), "the worker has its partitions")
        assert client.delete("/v1/generations/2", params={"reason": "killed"}).status_code == 202
        problem = until(lambda: state()["problem"], "it says what it waits for")
        assert f"members of {prefix}cdr-enricher.g2 has 1" in problem
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        worker.close()

        asyncio.run(keep_until(world, prefix, 2, DerivationState.DROPPED))
        there = AdminClient({"bootstrap.servers": parts.kafka}).list_topics(timeout=10).topics
        assert not set(generation_topics(second)) & set(there)
        assert set(generation_topics(topics)) <= set(there)
    finally:
        process.kill()
        process.wait(timeout=10)
        client.close()


async def keep_until(world: Any, prefix: str, generation: int, state: DerivationState) -> None:
    """What a query API does beside answering, here without it."""
    own = build(world.service.settings.model_copy(update={"topic_prefix": prefix}))
    keeper = Keeper(own.control)
    keeper.start()
    try:
        for _ in range(300):
            if (await own.control.row(generation)).state is state:
                return
            await asyncio.sleep(0.1)
    finally:
        await keeper.stop()
        own.parts.warehouse.close()
    raise AssertionError(f"generation {generation} is not {state}")


def query_api(world: Any, parts: Parts, prefix: str, port: int) -> subprocess.Popen[bytes]:
    settings = {
        "KAFKA": parts.kafka,
        "REGISTRY": parts.registry,
        "CLICKHOUSE": parts.clickhouse,
        "CLICKHOUSE_DATABASE": world.clickhouse.database,
        "POSTGRES": world.postgres,
        "TOPIC_PREFIX": prefix,
        "HTTP_PORT": str(port + 81),
        "ADMIN_PORT": str(port + 80),
    }
    environment = {**os.environ, **{f"TELESTREAM_{name}": value for name, value in settings.items()}}
    return subprocess.Popen([sys.executable, "-m", "query_api"], env=environment, stdout=subprocess.DEVNULL)


def ready(client: httpx.Client) -> None:
    def answers() -> bool:
        try:
            return client.get("/v1/generations").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, "the query API answers", 60.0)
