"""``generation=`` and ``at=`` on every question, the newest minutes of several generations, and no answer of two."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from query_api.domain.points import Known, Point, resolved, still_there
from query_api.domain.problems import Problem
from query_api.domain.progress import Progress
from query_api.domain.tail import KEEP_MS, MINUTE_MS, Names, Tail, worth_decoding
from query_api.kafka import Live
from query_api.tails import side_by_side, to_follow
from telestream_contracts import apply_topics
from telestream_devstack import Parts
from telestream_domain import Topics
from telestream_opstore import Derivation, DerivationState, Plan, create_derivation_async, move_derivation_async
from telestream_warehouse import ClickHouse, Query, activate, measures

DAY = datetime(2026, 9, 1, tzinfo=UTC)
CELL, REGION, SUBSCRIBER = "208-01-1", "R1", "k1.BBBBBBBBBBBBBBBBBBBBBB"
PARTITIONS = 4
SPAN = {"from": "2026-09-01", "to": "2026-09-02"}

QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/network/performance": {**SPAN, "step": "15m", "explain": 1},
    "/v1/metrics/timeseries": {**SPAN, "family": "region"},
    f"/v1/cells/{CELL}/kpis": {**SPAN, "step": "1h", "explain": 1},
    f"/v1/customers/{SUBSCRIBER}/usage": {**SPAN, "explain": 1},
    "/v1/quality": SPAN,
    "/v1/completeness": SPAN,
    "/v1/sources": {},
    "/v1/sources/msc-1": SPAN,
    "/v1/amendments": {"since": "2026-08-31"},
    "/v1/reconciliation": {"type": "cdr"},
    "/v1/dead-letters": {},
    "/v1/metrics/realtime": {},
}
TRACE = {"source": "msc-1", "event_id": "e1"}
BOTH_TYPES = {"/v1/network/performance", "/v1/metrics/timeseries", f"/v1/cells/{CELL}/kpis", "/v1/quality"}
BOTH_TYPES |= {"/v1/sources", "/v1/sources/msc-1", "/v1/amendments", "/v1/dead-letters", "/v1/metrics/realtime"}


def window(family: str, generation: int, records: int, **more: Any) -> dict[str, Any]:
    row = {
        **dict.fromkeys(measures(family), 0),
        "generation": generation,
        "type": "cdr",
        "size_s": 900,
        "window_start": DAY + timedelta(hours=9),
        "partition": 0,
        "segment": 0,
        "src_to": 9,
        "freshest_event_end_at": DAY + timedelta(hours=9, minutes=1),
        "records": records,
        **more,
    }
    if family == "subscriber_day":
        del row["freshest_event_end_at"]
    return row


def rows_of(generation: int) -> dict[str, list[dict[str, Any]]]:
    """What there is of a generation: as many records as ten times its number."""
    count = 10 * generation
    at = DAY + timedelta(hours=9)
    origin = {"generation": generation, "src_partition": 0, "source": "msc-1", "batch_id": 7, "appended_at": at}
    late = {"late_records": generation, "late_at": at, "attempts": count, "completed": count}
    books = [
        {
            **origin,
            "type": "cdr",
            "src_offset": n,
            "booked_offset": n,
            "verdict": verdict,
            "sign": 1,
            "rule": rule,
            "node_id": "n1",
            "node_seq": n * generation,
        }
        for n, verdict, rule in [*((n, "STORED", "") for n in range(count)), (count, "REJECTED", "negative_value")]
    ]
    return {
        "fact_cdr_all": [
            {
                **origin,
                "booked_offset": n,
                "withdrawn": 0,
                "src_offset": n,
                "event_uid": f"uid-{generation}-{n}",
                "started_at": at,
                "local_date": DAY.date(),
                "record_type": "VOICE",
                "status": "COMPLETED",
                "subscriber_id": SUBSCRIBER,
                "subscriber_kind": "MSISDN",
                "cell_id": CELL,
                "region_id": REGION,
                "line": n,
            }
            for n in range(count)
        ],
        "judgement_all": books,
        "dead_letter_all": [
            {
                **origin,
                "type": "cdr",
                "src_topic": "raw",
                "src_offset": count,
                "rule": "negative_value",
                "reason": f"generation {generation}",
                "line": 1,
                "rules_version": generation,
                "original": b"x",
            }
        ],
        "agg_cell_all": [window("cell", generation, count, cell_id=CELL, **late)],
        "agg_region_all": [window("region", generation, count, region_id=REGION, **late)],
        "agg_subscriber_day_all": [
            window(
                "subscriber_day",
                generation,
                count,
                size_s=86_400,
                window_start=DAY,
                local_date=DAY.date(),
                subscriber_id=SUBSCRIBER,
                plan_id="P1",
                roaming="HOME",
                direction="MO",
                currency="EUR",
                charge_micros=count,
            )
        ],
        "agg_quality_all": [
            {
                "generation": generation,
                "type": "cdr",
                "size_s": 3_600,
                "window_start": at,
                "source": "msc-1",
                "verdict": verdict,
                "rule": "",
                "partition": 0,
                "segment": 0,
                "src_to": 1,
                "records": records,
                "latency_buckets": [0] * 11,
                "warning_codes": ["-"],
                "warning_counts": [0],
            }
            for verdict, records in (("STORED", count), ("REJECTED", 1))
        ],
    }


def upsert(generation: int) -> dict[str, Any]:
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    row = window("region", generation, 10 * generation, region_id=REGION, attempts=10 * generation)
    row |= {"size_s": 60, "window_start": start, "freshest_event_end_at": start, "marker_offset": None}
    row |= {"charge_currencies": [], "charge_micros": [], "late_at": None}
    return row | {"subscriber_registers": [], "subscriber_ranks": []}


def wait_for(condition: Any, what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def start_replay(world: Any, types: list[str], **more: Any) -> int:
    """A generation whose workers are wanted; there are none, its topics and rows are the test's."""
    prefix = world.topics.prefix
    made = asyncio.run(
        create_derivation_async(world.postgres, prefix, types, Plan(), reason="trial", actor="t", **more)
    )
    running = move_derivation_async(
        world.postgres,
        prefix,
        made.generation,
        DerivationState.RUNNING,
        since=[DerivationState.PREPARING],
        actor="t",
        action="replay run",
    )
    asyncio.run(running)
    return made.generation


@pytest.fixture(scope="module")
def replayed(world: Any, parts: Parts) -> Iterator[Any]:
    """Generation 1 and a replay of CDRs beside it, with rows, newest minutes and no traffic."""
    generation = start_replay(world, ["cdr"])
    assert generation == 2
    topics = Topics(world.topics.prefix, 2)
    apply_topics(parts.kafka, topics, PARTITIONS)
    world.registry.register_all(topics)
    for number in (1, 2):
        for table, rows in rows_of(number).items():
            world.insert(table, rows)
        world.sunk_to("cdr", [10 * number + 1, 0, 0, 0], generation=number)
        world.publish(Topics(world.topics.prefix, number).agg("region"), "agg_region", [upsert(number)], ["k"])
    world.sunk_to("network", [5, 0, 0, 0])
    tails = world.service.parts.tails
    wait_for(lambda: tails.live(2) is not None, "the tail of the candidate")
    wait_for(lambda: all(tails.live(n).tail.keys == 1 for n in (1, 2)), "the newest minutes")
    yield world
    world.clickhouse.command(activate({"cdr": 1, "network": 1}, "end"))


def said(world: Any, path: str, **more: Any) -> Any:
    found = world.client.get(path, params=QUESTIONS[path] | more)
    assert found.status_code == 200, (path, found.text)
    return found.json()


def content(path: str, body: Any) -> str:
    """What an answer says, without what depends on the moment."""
    data = body["data"]
    if path == "/v1/metrics/realtime":
        data = [row["attempts"] for row in data["rows"]]
    return json.dumps(data, sort_keys=True)


@pytest.mark.stack
@pytest.mark.parametrize("path", QUESTIONS)
def test_every_question_can_be_asked_of_a_generation_and_of_a_time(replayed: Any, path: str) -> None:
    now = datetime.now(UTC).isoformat()
    first, second, then = (said(replayed, path, **more) for more in ({"generation": 1}, {"generation": 2}, {"at": now}))
    assert first["generation"] == then["generation"] == said(replayed, path)["generation"] == 1
    # the replay is of CDRs only: the rest of an answer is what people see
    assert second["generation"] == ({"cdr": 2, "network": 1} if path in BOTH_TYPES else 2)
    assert content(path, first) == content(path, then) == content(path, said(replayed, path))
    assert content(path, first) != content(path, second)
    for wrong, status, code, field in (
        ({"generation": 2, "at": now}, 422, "bad_parameter", "at"),
        ({"generation": 9}, 404, "unknown_generation", "generation"),
        ({"generation": 0}, 422, "bad_parameter", "generation"),
        ({"generation": "two"}, 422, "bad_parameter", "generation"),
        ({"at": "yesterday"}, 422, "bad_time", "at"),
        ({"at": "2001-01-01T00:00:00Z"}, 422, "before_first", "at"),
        ({"at": "2099-01-01T00:00:00Z"}, 422, "bad_parameter", "at"),
    ):
        found = replayed.client.get(path, params=QUESTIONS[path] | wrong)
        assert (found.status_code, found.json()["code"], found.json()["field"]) == (status, code, field), found.text


@pytest.mark.stack
def test_a_generation_of_other_types_and_parameters_that_do_not_exist_are_refused(replayed: Any) -> None:
    found = replayed.client.get("/v1/reconciliation", params={"type": "network", "generation": 2})
    assert (found.status_code, found.json()["code"]) == (422, "generation_lacks_type")
    assert "cdr only" in found.json()["detail"]
    both = {"generation": 2, "at": "2026-09-01"}
    found = replayed.client.post("/v1/events/trace", params=both, json=TRACE)
    assert (found.status_code, found.json()["field"]) == (422, "at")
    found = replayed.client.get("/v1/quality", params={"generations": 2})
    assert (found.status_code, found.json()["code"]) == (422, "unknown_parameter")
    assert "at, " in found.json()["detail"]
    assert "generation, " in found.json()["detail"]


@pytest.mark.stack
def test_a_time_is_of_the_generation_that_people_saw_then(replayed: Any) -> None:
    path = "/v1/metrics/timeseries"
    times = []
    for number in (2, 1):
        replayed.clickhouse.command(activate({"cdr": number}, "trial"))
        at = replayed.clickhouse.rows(Query("SELECT now64(3, 'UTC') AS at"))[0]["at"]
        times.append((at, {"cdr": 2, "network": 1} if number == 2 else 1))
        time.sleep(0.01)
    for at, generation in times:
        assert said(replayed, path, at=at)["generation"] == generation
    assert content(path, said(replayed, path, at=times[0][0])) == content(path, said(replayed, path, generation=2))


@pytest.mark.stack
def test_a_cursor_keeps_its_generations_and_refuses_others(replayed: Any) -> None:
    path = "/v1/amendments"
    first = said(replayed, path, generation=2, limit=1)
    assert first["generation"] == {"cdr": 2, "network": 1}
    for same in ({}, {"generation": 2}):
        assert said(replayed, path, limit=1, cursor=first["next_cursor"], **same)["generation"] == first["generation"]
    found = replayed.client.get(path, params=QUESTIONS[path] | {"cursor": first["next_cursor"], "generation": 1})
    assert (found.status_code, found.json()["code"]) == (422, "bad_cursor")


@pytest.mark.stack
def test_a_generation_that_is_being_dropped_answers_no_more(replayed: Any) -> None:
    path, prefix = "/v1/quality", replayed.topics.prefix
    generation = start_replay(replayed, ["network"])
    replayed.sunk_to("network", [1], generation=generation)
    assert said(replayed, path, generation=generation)["generation"] == {"cdr": 1, "network": generation}
    going = move_derivation_async(
        replayed.postgres,
        prefix,
        generation,
        DerivationState.DROPPING,
        since=[DerivationState.RUNNING],
        actor="t",
        action="replay drop",
    )
    asyncio.run(going)

    def refused() -> bool:
        found = replayed.client.get(path, params=SPAN | {"generation": generation})
        return found.status_code == 404 and found.json()["code"] == "unknown_generation"

    wait_for(refused, "the drop to be known")


@pytest.mark.stack
def test_realtime_answers_from_the_new_generation_at_once_and_back(replayed: Any) -> None:
    path = "/v1/metrics/realtime"
    for number in (2, 1, 2, 1):
        replayed.clickhouse.command(activate({"cdr": number}, "trial"))
        body = said(replayed, path)
        assert body["generation"] == ({"cdr": 2, "network": 1} if number == 2 else 1)
        assert body["data"]["rows"][0]["attempts"] == 10 * number


@pytest.mark.stack
def test_newest_minutes_that_nobody_keeps_are_refused_and_those_that_are_not_read_yet_are_waited_for(
    replayed: Any,
) -> None:
    replayed.sunk_to("cdr", [1], generation=8)
    found = replayed.client.get("/v1/metrics/realtime", params={"generation": 8})
    assert (found.status_code, found.json()["code"]) == (422, "not_followed")
    replayed.clickhouse.command(activate({"cdr": 8}, "of which there are no topics"))
    try:
        found = replayed.client.get("/v1/metrics/realtime")
        assert (found.status_code, found.json()["code"]) == (503, "unavailable")
        assert "generation 8" in found.json()["detail"]
        assert replayed.service.parts.tails.missing()
    finally:
        replayed.clickhouse.command(activate({"cdr": 1}, "back"))
    assert said(replayed, "/v1/metrics/realtime")["generation"] == 1


SQL_MARKS = {
    "fact_cdr": "count()",
    "judgement": "countIf(verdict = 'STORED')",
    "dead_letter": "any(rules_version) * 10",
    "agg_cell": "sum(records)",
    "agg_subscriber_day": "sum(records)",
    "kpi_region": "sum(call_attempts_num)",
    "fact_customer_usage_daily": "sum(records)",
}
JOINED = (
    "SELECT "
    + ", ".join(f"v{n}.m AS {view}" for n, view in enumerate(SQL_MARKS))
    + ", ten * 10 AS listed FROM (SELECT generation AS ten FROM active_generation WHERE type = 'cdr') AS l"
    + "".join(f" CROSS JOIN (SELECT {sql} AS m FROM {view}) AS v{n}" for n, (view, sql) in enumerate(SQL_MARKS.items()))
)


def mixed_answers(world: Any, switches: int, between: int, rate: float, threads: int) -> tuple[int, int, list[str]]:
    """Questions by HTTP and SQL, at most ``rate`` a second, with a switch to the other generation after ``between`` of
    them: how many were answered, how many of each generation at least, and what was wrong."""
    expected: dict[tuple[str, int], str] = {}
    for number in (1, 2):
        world.clickhouse.command(activate({"cdr": number}, "trial"))
        for path in QUESTIONS:
            expected[path, number] = content(path, said(world, path))
    wrong: list[str] = []
    seen = {1: 0, 2: 0}
    paths = [*QUESTIONS]
    turns = itertools.count()
    asked = threading.Semaphore(0)
    stop = threading.Event()

    def by_sql(database: ClickHouse) -> None:
        row = database.rows(Query(JOINED))[0]
        if len({int(value) for value in row.values()}) != 1:
            wrong.append(str(row))
        seen[int(row["listed"]) // 10] += 1

    def by_http(client: httpx.Client, path: str) -> None:
        found = client.get(path, params=QUESTIONS[path])
        if found.status_code == 503:  # refused rather than wrong
            return
        body = found.json()
        of = body["generation"]
        generation = of["cdr"] if isinstance(of, dict) else of
        seen[generation] += 1
        if content(path, body) != expected[path, generation]:
            wrong.append(f"{path} {of}: {found.text[:300]}")

    def ask() -> None:
        database = ClickHouse(world.service.settings.clickhouse, world.clickhouse.database)
        with httpx.Client(base_url=world.client.base_url, headers=world.client.headers, timeout=60.0) as client:
            began = time.monotonic()
            for turn in itertools.count():
                time.sleep(max(0.0, began + turn * threads / rate - time.monotonic()))
                if stop.is_set():
                    break
                number = next(turns)
                if number % 4 == 0:
                    by_sql(database)
                else:
                    by_http(client, paths[number % len(paths)])
                asked.release()
        database.close()

    with ThreadPoolExecutor(threads) as pool:
        asking = [pool.submit(ask) for _ in range(threads)]
        try:
            for switch in range(switches):
                for _ in range(between):
                    assert asked.acquire(timeout=60), "nobody asks any more"
                reason = "switch" if switch % 2 else "rollback"
                world.clickhouse.command(activate({"cdr": 1 + switch % 2}, reason))
        finally:
            stop.set()
        for one in asking:
            one.result()
    return sum(seen.values()), min(seen.values()), wrong


@pytest.mark.stack
def test_no_answer_mixes_generations_while_they_are_switched(replayed: Any) -> None:
    answered, of_each, wrong = mixed_answers(replayed, switches=20, between=6, rate=40, threads=4)
    assert wrong == []
    assert answered > 60
    assert of_each > 10


@pytest.mark.faults
@pytest.mark.stack
@pytest.mark.timeout(900)
def test_two_hundred_questions_a_second_during_twenty_switches_give_no_mixed_answer(
    replayed: Any, record_property: Any
) -> None:
    began = time.monotonic()
    answered, of_each, wrong = mixed_answers(replayed, switches=20, between=200, rate=200, threads=16)
    record_property("answers", answered)
    record_property("a_second", round(answered / (time.monotonic() - began)))
    record_property("mixed", len(wrong))
    assert wrong == []
    assert of_each > 100


def derivation(generation: int, state: DerivationState = DerivationState.RUNNING, **more: Any) -> Derivation:
    fields: dict[str, Any] = {
        "types": ("cdr",),
        "compare_only": False,
        "plan": Plan(),
        "reason": "",
        "actor": "",
        "problem": None,
        "created_at": DAY,
        "caught_up_at": None,
        "decided_at": None,
        "dropped_at": None,
    }
    return Derivation(generation=generation, state=state, **fields | more)


def test_what_people_see_is_followed_first_then_the_newest_replays_whose_workers_run() -> None:
    rows = [derivation(1), derivation(2), derivation(3, compare_only=True), derivation(4), derivation(5)]
    rows.append(derivation(6, DerivationState.DROPPED))
    assert to_follow([1], rows, 3) == [1, 5, 4]
    assert to_follow([4, 1], rows, 3) == [1, 4, 5]
    assert to_follow([4, 1], rows, 1) == [1, 4]
    assert to_follow([6], [], 3) == [6]


def test_minutes_of_the_past_are_not_decoded_but_the_last_of_a_partition_is() -> None:
    now = 1_790_000_000_000
    old, new = now - KEEP_MS - MINUTE_MS, now - MINUTE_MS
    keys = [
        f"cdr|60|{old}|R1|0|3".encode(),
        f"cdr|60|{old}|R2|0|3".encode(),
        f"cdr|900|{new}|R1|0|3".encode(),
        f"cdr|60|{new}|R1|1|3".encode(),
        f"cdr|60|{old}|R1|1|3".encode(),
        b"cdr|60|marker|2",
        b"of another writer",
        None,
    ]
    assert set(worth_decoding(keys, now)) == {*keys[1:2], *keys[3:]}


def test_tails_of_two_generations_stand_side_by_side_by_type() -> None:
    names = Names()
    one, two = (Tail(names=names, since_ms=since, included={("region", "cdr", 0): since}) for since in (5, 9))
    lives = {"network": Live(one, Progress(), {"cdr": 1}), "cdr": Live(two, Progress(), {"cdr": 1})}
    both = side_by_side(lives).tail
    assert (both.since_ms, both.included) == (9, {("region", "cdr", 0): 9})
    lives["cdr"] = Live(Tail(), Progress(), {})
    with pytest.raises(Problem) as refused:
        side_by_side(lives)
    assert refused.value.status == 503


def test_a_point_is_resolved_by_type() -> None:
    known = Known({"cdr": 1, "network": 1}, {"cdr": 3, "network": 1}, frozenset({("cdr", 1), ("cdr", 2)}))
    both = ["cdr", "network"]
    assert resolved(Point(), both, known) == {"cdr": 1, "network": 1}
    assert resolved(Point(2), both, known) == {"cdr": 2, "network": 1}
    # of the first generation there is no row of network yet, and it is what people see
    assert resolved(Point(1), ["network"], known) == {"network": 1}
    assert still_there({"cdr": 2}, known) == {"cdr": 2}
    for wrong in (
        lambda: resolved(Point(2), ["network"], known),
        lambda: resolved(Point(at=DAY), both, known),
        lambda: still_there({"cdr": 3}, known),
    ):
        with pytest.raises(Problem):
            wrong()
