"""I9: no number of a subscriber, device or other party is anywhere past the gateway."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from telestream_devstack import Parts
from telestream_devstack.postgres import psql

from .corner import Corner
from .pipeline import Pipeline

pytestmark = pytest.mark.stack
MSISDN, IMSI, IMEI, PEER, LINE = "4917091374211", "262019137421155", "356938035643809", "33691374219", "913742117"
CANARIES = {
    # what identifies, without the parts that may be kept: country, network, device type, number range
    "msisdn": MSISDN[-9:],
    "imsi": IMSI[-10:],
    "imei": IMEI[2:14],  # its check digit is not kept
    "peer": PEER[-8:],
    "line": LINE,
}
WHO = {"msisdn": "+" + MSISDN, "imsi": IMSI, "imei": IMEI, "peer": "+" + PEER}
CALL = {"started_at": "2026-11-23T08:00:00Z", "record_type": "VOICE", "status": "COMPLETED", "duration_ms": 5}


def call(event_id: str, **fields: object) -> dict[str, object]:
    return {"event_id": event_id, **CALL, **WHO} | fields


def feed(pipeline: Pipeline) -> None:
    """The canaries in every input there is: good, refused, rejected, repeated, contradicting, and not even readable."""
    at = {"valid_from": "2026-01-01T00:00:00Z"}
    pipeline.post("/v1/reference/customer?source=crm", {"msisdn": "+" + MSISDN, "imsi": IMSI, "customer_id": "c1"} | at)
    pipeline.post("/v1/reference/customer?source=crm", {"msisdn": "+" + MSISDN, "valid_from": "soon"})
    pipeline.post("/v1/reference/region?source=crm", {"region_id": "r1", "name": f"Haus {MSISDN}"} | at)
    free_text = {"ext": {MSISDN: f"to {PEER}", "imei": IMEI}, "route_in": f"SIP/{MSISDN}", "apn": f"{IMSI}.net"}
    pipeline.post(
        "/v1/events/cdr?source=switch",
        call(f"{MSISDN}-1", session_id=f"sip:{MSISDN}@x", **free_text),
        call(f"{MSISDN}-1", session_id=f"sip:{MSISDN}@x", **free_text),
        call(f"{MSISDN}-1", duration_ms=9),
        call(f"{IMSI}-2", duration_ms=-5),
        call("3", started_at="1999-01-01T00:00:00Z"),
        call("4", duration_ms="long"),
        call("5", msisdn=f"{MSISDN}{MSISDN}"),
        call("6", msisdn=f"x{MSISDN}"),
        call("7", imsi=f"{IMSI}9"),
        call("8", **{f"to {MSISDN}": 1}),
        call("9", msisdn=None, imsi=None, line=LINE),
    )
    for junk in (b'{"msisdn": "+%b", ' % MSISDN.encode(), b"\xff" + IMSI.encode(), b"[" * 2000 + IMSI.encode()):
        pipeline.client.post(f"{pipeline.gateway.http}/v1/events/cdr?source=switch", content=junk)
    pipeline.client.get(f"{pipeline.gateway.http}/v1/events/cdr?source={MSISDN}", headers={"X-API-Key": MSISDN})
    sample = {"event_id": IMSI, "occurred_at": "2026-11-23T08:00:00Z", "event_type": "ATTACH", "cell_id": "262-01-7"}
    pipeline.post(
        "/v1/events/network?source=oss",
        sample | {"imsi": IMSI, "probable_cause": f"imsi {IMSI}", "ext": {"who": MSISDN}},
        sample | {"imsi": IMSI, "event_id": "2", "packet_loss_ratio": 7},
        sample | {"imsi": IMSI + "99", "event_id": "3"},
    )
    header = "event_id,started_at,record_type,status,msisdn,imsi,imei,peer,duration_ms,ext.note\n"
    row = f"{{}},2026-11-23T08:00:00Z,VOICE,COMPLETED,+{MSISDN},{IMSI},{IMEI},+{PEER},{{}},call {MSISDN}\n"
    bad = f'x,not a time,VOICE,COMPLETED,+{MSISDN},{IMSI},{IMEI},+{PEER},1,\nshort,{MSISDN}\n"open,{IMSI}\n'
    content = header + "".join(row.format(f"{MSISDN}-{n}", n - 1) for n in range(30)) + bad
    pipeline.load("exchange", "day.csv", content.encode(), type="cdr")
    leg = f'"","{MSISDN}","{PEER}","from-pstn","""A"" <{MSISDN}>","SIP/{MSISDN}-0000{{:04x}}","SIP/{PEER}-00000001",'
    leg += (
        f'"Dial","SIP/{PEER},30","2026-11-23 08:00:0{{}}","2026-11-23 08:00:05","2026-11-23 08:00:09",9,4,"ANSWERED",'
    )
    leg += f'"DOCUMENTATION","{MSISDN}.{{}}",""\n'
    legs = "".join(leg.format(n, n, n) for n in range(5)) + leg.format(1, 9, 9).replace("2026-11-23 08:00:09", "never")
    pipeline.load("pbx", "Master.csv", legs.encode(), type="cdr", profile="asterisk")


def searched(pipeline: Pipeline) -> Iterator[tuple[str, bytes]]:
    """Every place past the gateway and what lies there: topics, tables, PostgreSQL, files, metrics, answers."""
    corner = pipeline.corner
    yield from _topics(corner)
    for table in corner.rows("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine != 'View'"):
        sql = f"SELECT * FROM {corner.database}.{table['name']} FORMAT TSVRaw"  # bytes as they are
        answer = httpx.post(corner.parts.clickhouse, content=sql, timeout=60).raise_for_status()
        yield f"ClickHouse {table['name']}", answer.content
    dsn = corner.environment["TELESTREAM_POSTGRES"]
    for name in psql(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").stdout.split():
        yield f"PostgreSQL {name}", psql(dsn, f'SELECT t::text FROM "{name}" t').stdout.encode()
    for path in sorted(corner.folder.rglob("*")):
        if path.is_file():
            yield f"file {path.relative_to(corner.folder)}", path.read_bytes()
    for worker in pipeline.workers:
        yield f"metrics {worker.admin}", httpx.get(f"{worker.admin}/metrics", timeout=30).content
    for question in (
        "metrics/realtime?group_by=region",
        "dead-letters?type=cdr",
        "dead-letters?type=network",
        "reconciliation?type=cdr",
        "customers/c1/usage",
    ):
        yield f"answer {question}", pipeline.client.get(f"{pipeline.query_api.http}/v1/{question}").content
    files = pipeline.client.get(f"{pipeline.gateway.http}/v1/files").json()["data"]
    for entry in files:
        refused = pipeline.client.get(f"{pipeline.gateway.http}/v1/files/{entry['file_id']}/refused")
        yield f"refused rows of {entry['file_id']}", refused.content


def _topics(corner: Corner) -> Iterator[tuple[str, bytes]]:
    consumer = Consumer(
        {
            "bootstrap.servers": corner.parts.kafka,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        known = consumer.list_topics(timeout=30).topics
        places = [(name, p) for name in known if name.startswith(corner.prefix) for p in known[name].partitions]
        consumer.assign([TopicPartition(name, partition, 0) for name, partition in places])
        found: dict[str, bytes] = {name: b"" for name, _ in places}
        open_ = set(places)
        while open_:
            for message in consumer.consume(1000, 1.0):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    open_.discard((str(message.topic()), int(message.partition() or 0)))
                    continue
                parts = [message.key(), message.value(), repr(message.headers()).encode()]
                found[str(message.topic())] += b"\n".join(part for part in parts if isinstance(part, bytes))  # type: ignore[misc]
        yield from ((f"topic {name.removeprefix(corner.prefix)}", content) for name, content in found.items())
    finally:
        consumer.close()


def check_no_canary(pipeline: Pipeline) -> None:
    """No canary in any byte past the gateway."""
    places = dict(searched(pipeline))
    assert len(places["topic cdr.raw"]) > 1_000
    assert len(places["ClickHouse fact_cdr_all"]) > 1_000
    found = [
        f"{kind} in {place}"
        for place, content in places.items()
        for kind, canary in CANARIES.items()
        if canary.encode() in content or json.dumps(canary)[1:-1].encode() in content
    ]
    assert not found, f"found: {', '.join(found)}"


@pytest.fixture(scope="module")
def pipeline(corner: Corner) -> Iterator[Pipeline]:
    made = Pipeline(corner)
    yield made
    made.close()


def test_no_canary_is_found_past_the_gateway(pipeline: Pipeline) -> None:
    feed(pipeline)
    pipeline.settle()
    books = pipeline.books(type="cdr")
    assert books["stored"] > 30
    assert books["duplicates"] == 2
    assert set(books["rejected"]) >= {"negative_value", "too_old"}
    check_no_canary(pipeline)


def test_control_with_numbers_in_the_clear_they_are_found_everywhere(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corner = Corner(parts, f"t{uuid.uuid4().hex[:12]}.", tmp_path_factory.mktemp("clear"))
    pipeline = Pipeline(corner, identity="clear")
    try:
        feed(pipeline)
        pipeline.settle()
        with pytest.raises(AssertionError, match="found: ") as caught:
            check_no_canary(pipeline)
        for place in ("topic cdr.raw", "topic cdr.enriched.g1", "topic cdr.rejected.g1", "ClickHouse fact_cdr_all"):
            assert f"msisdn in {place}" in str(caught.value)
        for kind in CANARIES:
            assert f"{kind} in topic cdr.raw" in str(caught.value)
    finally:
        pipeline.close()
        corner.stop_all()
