from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from telestream_contracts import encode_record, enriched_schema, load_schema, schema_of_topic
from telestream_warehouse import Books, Query, books_of, reconciliation

if TYPE_CHECKING:
    World = Any

pytestmark = pytest.mark.stack

MakeRecord = Callable[..., dict[str, Any]]
Until = Callable[..., None]

BOOKS_OF = "SELECT * FROM judgement ORDER BY type, src_partition, src_offset"
FACTS = "SELECT * FROM fact_cdr ORDER BY src_partition, src_offset"


def books(world: World, record_type: str, *src_next: int) -> Books:
    return books_of(world.clickhouse.rows(reconciliation(record_type, src_next))[0])


def assert_whole(world: World, record_type: str, each: int) -> None:
    """Both partitions hold source offsets 0 … each - 1, judged as the fixture judges, and the books balance."""
    found = books(world, record_type, each, each)
    assert found.accepted.records == 2 * each
    assert found.duplicates.records == 2 * each // 10
    assert found.rejected_by_code == {"too_old": 2 * each // 20}
    assert found.stored.records == 2 * each * 17 // 20
    assert found.balanced
    holes = world.rows(
        "SELECT src_partition FROM judgement "
        f"WHERE type = '{record_type}' GROUP BY src_partition HAVING count() != max(src_offset) + 1"
    )
    assert holes == []


def test_everything_a_topic_holds_is_in_its_table_field_by_field(
    world: World, make_record: MakeRecord, until: Until
) -> None:
    topics = world.topics
    cdr = enriched_schema("cdr")
    start = make_record(cdr)["started_at"]
    stored = make_record(
        cdr,
        verdict="STORED",
        sign=1,
        event_uid="u0",
        subscriber_id="k1.abc",
        cell_id="208-01-7",
        started_at=start + timedelta(milliseconds=123),
        duration_ms=61_000,
        charge_micros=2_500_000,
        currency="EUR",
        customer_id="C1",
        plan_id="P1",
        warnings=["voice_with_bytes", "implausible_value"],
        local_date=start.date(),
        is_partial=True,
        ext={"trunk": "7", "ünïcode": "yes"},
        source="msc1",
        batch_id=2**62,
        rat="LTE",
        answered_at=start,
    )
    duplicate = {**stored, "src_offset": 1, "verdict": "DUPLICATE", "rule": "conflict", "first_offset": 0}
    rejected = make_record(cdr, src_offset=2, verdict="REJECTED", rule="undecodable", sign=1)
    world.records(topics.enriched("cdr"), 0, [stored, duplicate, rejected])
    letter = make_record(
        load_schema("dead_letter"), type="cdr", src_offset=2, rule="undecodable", reason="no", original=b"\xff\x00"
    )
    world.records(topics.rejected("cdr"), 0, [letter])
    window = {"type": "cdr", "size_s": 900, "cell_id": "208-01-7", "window_start": start}
    agg = load_schema("agg_cell")
    upserts = [
        make_record(agg, **window, src_to=1, records=1, charge_currencies=["EUR"], charge_micros=[5]),
        make_record(
            agg,
            **window,
            src_to=9,
            records=4,
            charge_currencies=["EUR"],
            charge_micros=[20],
            ended_dropped=1,
            late_at=start,
            subscriber_registers=[3, 1_000],
            subscriber_ranks=[1, 55],
        ),
        make_record(agg, type="cdr", size_s=900, marker_offset=3),
    ]
    world.records(topics.agg("cell"), 1, upserts, key="src_to")
    day = {"type": "cdr", "size_s": 86_400, "window_start": start.replace(hour=0), "local_date": start.date()}
    world.records(
        topics.agg("subscriber_day"),
        0,
        [make_record(load_schema("agg_subscriber_day"), **day, subscriber_id="k1.abc", records=3)],
        key="subscriber_id",
    )
    quality = {"type": "cdr", "size_s": 3_600, "window_start": start, "source": "msc1", "verdict": "STORED"}
    warned = {"warning_codes": ["a", "b"], "warning_counts": [2, 1], "latency_buckets": [*range(11)]}
    world.records(
        topics.agg("quality"), 0, [make_record(load_schema("agg_quality"), **quality, **warned)], key="source"
    )
    versions = {
        "customer": {"identifier": "k1.abc", "customer_id": "C1"},
        "cell": {"cell_id": "208-01-7", "latitude": 48.5},
        "region": {"region_id": "R1", "name": "Nord"},
        "plan": {"plan_id": "P1", "monthly_fee_micros": 5},
    }
    for entity, fields in versions.items():
        before = start - timedelta(days=1)
        world.records(topics.ref(entity), 0, [make_record(load_schema(entity), **fields, valid_from=before)])
    sink = world.sink()
    until(lambda: len(world.rows("SELECT 1 FROM sink_position FINAL")) >= 9, "nine positions")

    fact = world.clickhouse.frame(Query("SELECT * FROM fact_cdr")).to_dicts()
    assert len(fact) == 1
    not_in_facts = {"verdict", "sign", "rule", "first_offset", "content_hash", "reverses_offset", "max_age_days"}
    for name, value in stored.items():
        if name not in not_in_facts:
            assert fact[0][name] == value, name
    assert [row["verdict"] for row in world.rows(BOOKS_OF)] == ["STORED", "DUPLICATE", "REJECTED"]
    twin = world.rows("SELECT first_offset, rule, event_uid FROM duplicate")
    assert twin == [{"first_offset": 0, "rule": "conflict", "event_uid": "u0"}]
    assert world.rows("SELECT hex(original) AS bytes, rule FROM dead_letter") == [
        {"bytes": "FF00", "rule": "undecodable"}
    ]
    kpi = world.rows("SELECT cell_id, records, charge_micros FROM fact_cell_kpi")
    assert kpi == [{"cell_id": "208-01-7", "records": 4, "charge_micros": {"EUR": 20}}]
    registers = "subscriber_registers AS registers, subscriber_ranks AS ranks"
    late = world.rows(f"SELECT ended_dropped, late_at = '{start:%F %T}' AS then, {registers} FROM agg_cell")
    assert late == [{"ended_dropped": 1, "then": 1, "registers": [3, 1_000], "ranks": [1, 55]}]
    assert world.rows("SELECT warning_counts, latency_buckets FROM agg_quality") == [
        {"warning_counts": {"a": 2, "b": 1}, "latency_buckets": [*range(11)]}
    ]
    usage = world.rows("SELECT customer_id, records FROM fact_customer_usage_daily")
    assert usage == [{"customer_id": "C1", "records": 3}]
    assert world.rows("SELECT latitude FROM dim_cell") == [{"latitude": 48.5}]
    assert world.rows("SELECT name FROM dim_region") == [{"name": "Nord"}]
    assert world.rows("SELECT monthly_fee_micros AS fee FROM dim_service_plan") == [{"fee": 5}]
    assert books(world, "cdr", 3).balanced
    assert sink.ready() == {}
    until(lambda: sink.metric("telestream_sink_lag_records") == 0, "no lag")
    assert sink.stop() == 0


def test_killing_the_sink_again_and_again_changes_no_answer(world: World, until: Until) -> None:
    each = 30_000
    for record_type in ("cdr", "network"):
        for partition in range(2):
            world.judged(record_type, partition, 0, each)
    kills = 0
    while kills < 4:
        sink = world.sink(sink_max_rows="2000")
        before = world.written("cdr") + world.written("network")
        until(
            lambda start=before, s=sink: (
                world.written("cdr") + world.written("network") > start or s.process.poll() is not None
            ),
            "progress",
        )
        time.sleep(0.05 * kills)
        sink.kill()
        kills += 1
    sink = world.sink()
    for record_type in ("cdr", "network"):
        until(lambda t=record_type: world.written(t) == 2 * each, f"all {record_type} written")
        assert_whole(world, record_type, each)
    physical = world.rows("SELECT count() AS n FROM judgement_all")[0]["n"]
    assert physical >= 4 * each
    world.clickhouse.command("OPTIMIZE TABLE fact_cdr_all FINAL")
    world.clickhouse.command("OPTIMIZE TABLE judgement_all FINAL")
    assert_whole(world, "cdr", each)
    assert sink.stop() == 0


def test_while_clickhouse_is_away_the_sink_waits_keeps_its_place_and_says_so(world: World, until: Until) -> None:
    world.judged("cdr", 0, 0, 3000)
    world.judged("cdr", 1, 0, 3000)
    sink = world.sink()
    until(lambda: world.written("cdr") == 6000, "the first records written")
    world.proxy.set("refuse")
    world.judged("cdr", 0, 3000, 57_000)
    until(lambda: "clickhouse" in sink.ready(), "readiness names ClickHouse")
    assert "does not answer" in sink.ready()["clickhouse"]
    settled = sink.rss()
    world.judged("cdr", 1, 3000, 57_000)
    time.sleep(4)
    assert sink.process.poll() is None
    assert world.written("cdr") == 6000
    # what waits is one batch and librdkafka's bounded queue, however much Kafka holds
    assert sink.rss() < settled + 80_000_000
    world.proxy.set("pass")
    until(lambda: world.written("cdr") == 120_000, "all written after all")
    assert_whole(world, "cdr", 60_000)
    assert sink.ready() == {}
    assert "put off" in sink.log()
    assert sink.stop() == 0


def test_an_insert_that_was_done_but_not_answered_is_done_again_and_counts_once(world: World, until: Until) -> None:
    world.clickhouse.command(
        f"SYSTEM STOP MERGES {world.database}.judgement_all"
    )  # or repeats may be gone when counted
    sink = world.sink(sink_max_rows="2000")
    world.judged("cdr", 0, 0, 2000)
    until(lambda: world.written("cdr") == 2000, "the first records written")
    world.proxy.set("deaf")
    world.judged("cdr", 0, 2000, 18_000)
    world.judged("cdr", 1, 0, 20_000)
    until(lambda: "put off" in sink.log(), "an insert without an answer")
    time.sleep(1)
    world.proxy.set("pass")
    until(lambda: world.written("cdr") == 40_000, "all written after all")
    assert world.rows("SELECT count() AS n FROM judgement_all")[0]["n"] > 40_000
    assert_whole(world, "cdr", 20_000)
    assert sink.stop() == 0


def test_two_sinks_share_the_partitions_and_one_takes_over_from_the_other(world: World, until: Until) -> None:
    first, second = world.sink(0), world.sink(1)
    until(
        lambda: first.ready() == {} and second.ready() == {} and first.metric("telestream_sink_partitions") < 20,
        "both have partitions",
    )
    for partition in range(2):
        world.judged("cdr", partition, 0, 10_000)
    until(lambda: world.written("cdr") == 20_000, "written by both")
    first.kill()
    for partition in range(2):
        world.judged("cdr", partition, 10_000, 10_000)
    until(lambda: world.written("cdr") == 40_000, "written by the one that is left")
    assert_whole(world, "cdr", 20_000)
    assert second.stop() == 0


def test_a_gap_in_the_judged_records_stops_the_sink_with_its_position(world: World, until: Until) -> None:
    world.judged("cdr", 0, 0, 1000)
    sink = world.sink()
    until(lambda: world.written("cdr") == 1000, "the first records written")
    world.judged("cdr", 0, 1001, 10)
    assert sink.process.wait(60) == 1
    assert "source offset 1000 should come next, 1001 came" in sink.log()
    assert world.written("cdr") == 1000
    assert world.rows("SELECT max(src_offset) AS last FROM judgement") == [{"last": 999}]


def test_judged_records_that_come_again_are_written_again_and_change_nothing(world: World, until: Until) -> None:
    world.judged("cdr", 0, 0, 1000)
    world.judged("cdr", 0, 500, 1000)
    sink = world.sink()
    until(lambda: world.written("cdr") == 1500, "all written")
    assert books(world, "cdr", 1500).accepted.records == 1500
    assert books(world, "cdr", 1500).balanced
    assert "came again" in sink.log()
    assert sink.stop() == 0


def test_a_value_that_cannot_be_read_stops_the_sink_before_it(world: World, until: Until) -> None:
    world.raw_value(world.topics.enriched("cdr"), 1, b"\0\0\0\0\1")
    sink = world.sink()
    assert sink.process.wait(60) == 1
    assert f"{world.topics.enriched('cdr')}[1]@0" in sink.log()
    assert "Traceback" not in sink.log()


def test_rows_that_clickhouse_will_never_take_stop_the_sink_with_a_reason(world: World, until: Until) -> None:
    world.judged("cdr", 0, 0, 100)
    world.clickhouse.command("ALTER TABLE fact_cdr_all DROP COLUMN rating_group")
    sink = world.sink()
    assert sink.process.wait(60) == 1
    assert "fact_cdr_all" in sink.log()
    assert "rating_group" in sink.log()
    assert "telestream warehouse migrate" in sink.log()
    assert world.written("cdr") == 0


def test_a_topic_that_was_recreated_stops_the_sink(world: World, until: Until) -> None:
    topic = world.topics.ref("region")
    schema = schema_of_topic(topic, world.topics)
    assert schema is not None
    version = {field["name"]: None if isinstance(field["type"], list) else "" for field in schema["fields"]} | {
        "region_id": "R1",
        "valid_from": 0,
        "deleted": False,
        "batch_id": 0,
        "line": 0,
        "ingested_at": 0,
    }
    world.raw_value(topic, 0, encode_record(version, schema, world.registry.id_for(topic, schema)))
    sink = world.sink()
    until(lambda: world.rows("SELECT 1 FROM dim_region") != [], "the region written")
    assert sink.stop() == 0
    admin = AdminClient({"bootstrap.servers": world.parts.kafka})
    admin.delete_topics([topic])[topic].result(30)
    time.sleep(1)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    time.sleep(1)
    again = world.sink()
    assert again.process.wait(60) == 1
    assert f"{topic}[0] was made anew" in again.log()


def test_a_sink_before_its_tables_says_what_to_run(world: World) -> None:
    sink = world.sink(clickhouse_database="nowhere")
    assert sink.process.wait(60) == 1
    assert 'run \\"telestream warehouse migrate\\"' in sink.log()


def test_told_to_stop_the_sink_writes_what_it_has_taken_in(world: World, until: Until) -> None:
    sink = world.sink(sink_max_age_ms="600000", sink_max_rows="1000000")
    until(lambda: sink.ready() == {}, "ready")
    world.judged("cdr", 0, 0, 5000)
    until(lambda: sink.metric("telestream_sink_oldest_waiting_seconds") > 0.5, "records waiting")
    assert world.written("cdr") == 0
    assert sink.stop() == 0
    assert world.written("cdr") == 5000


def test_told_to_stop_while_clickhouse_is_away_the_sink_ends_in_time(world: World, until: Until) -> None:
    sink = world.sink()
    until(lambda: sink.ready() == {}, "ready")
    world.proxy.set("refuse")
    world.judged("cdr", 0, 0, 5000)
    until(lambda: "clickhouse" in sink.ready(), "readiness names ClickHouse")
    assert sink.stop() == 0
    assert "Kafka holds" in sink.log()
    world.proxy.set("pass")
    again = world.sink()
    until(lambda: world.written("cdr") == 5000, "written by the next one")
    assert again.stop() == 0
