"""Originals, found in a real log whose positions are not raw offsets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cdr_enricher import judged_log
from cdr_enricher.errors import JudgedCut
from cdr_enricher.judged_log import JudgedLog
from faust_batch import ClientFailed, Source
from telestream_contracts import encode_record, enriched_schema, prefix_schema

pytestmark = pytest.mark.stack

SCHEMA = prefix_schema(enriched_schema("cdr"), "warnings")
HEAD = {field["name"]: field.get("default") for field in SCHEMA["fields"]} | {
    "src_partition": 0,
    "appended_at": 0,
    "verdict": "STORED",
    "sign": 1,
    "content_hash": 0,
    "rules_version": 1,
    "warnings": [],
}


def value(src_offset: int) -> bytes:
    return encode_record(HEAD | {"src_offset": src_offset}, SCHEMA, 5)


class Written:
    """A partition of judged records, written in transactions, some of which come to nothing."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.kafka, self.source = kafka, Source(topic, 0)
        self.admin = AdminClient({"bootstrap.servers": kafka})
        for future in self.admin.create_topics([NewTopic(topic, 1, 1)]).values():
            future.result()
        self.producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic, "linger.ms": 5})
        self.producer.init_transactions(30)
        self.next_src = 0

    def send(self, count: int) -> list[bytes]:
        """Within the open transaction."""
        values = [value(src) for src in range(self.next_src, self.next_src + count)]
        self.producer.produce_batch(self.source.topic, [{"value": v} for v in values], partition=0)
        self.next_src += count
        return values

    def transaction(self, count: int, *, commit: bool = True) -> None:
        self.producer.begin_transaction()
        before = self.next_src
        self.send(count)
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.flush()
            self.producer.abort_transaction(30)
            self.next_src = before

    def cut(self, position: int) -> None:
        place = TopicPartition(self.source.topic, 0, position)
        for future in self.admin.delete_records([place]).values():
            future.result()


@pytest.fixture
def written(parts: Any, topic_prefix: str) -> Written:
    return Written(parts.kafka, f"{topic_prefix}enriched")


@pytest.fixture
def log(parts: Any) -> Iterator[JudgedLog]:
    made = JudgedLog(parts.kafka, {5: SCHEMA}.get)
    yield made
    made.close()


def read(log: JudgedLog, source: Source, *src_offsets: int) -> None:
    assert log.read(source, np.array(src_offsets, np.int64)) == [value(src) for src in src_offsets]


def test_any_records_are_found_between_markers_and_aborted_ones(
    written: Written, log: JudgedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judged_log, "NEAR", 50)
    monkeypatch.setattr(judged_log, "CHUNK", 40)
    monkeypatch.setattr(judged_log, "MAX_KNOWN", 8)
    rng = random.Random(4)
    for number in range(120):
        # markers are many where little was judged at once
        written.transaction(rng.choice((1, 1, 1, 30)), commit=number % 7 != 3)
    end = written.next_src
    assert end > 400
    for _ in range(25):
        read(log, written.source, *sorted(rng.sample(range(end), rng.choice((1, 2, 30)))))
    read(log, written.source)
    read(log, written.source, *range(end))


def test_what_the_open_round_judged_is_at_hand_and_what_was_committed_is_waited_for(
    written: Written, log: JudgedLog
) -> None:
    written.transaction(10)
    written.producer.begin_transaction()
    log.keep(written.source, 10, written.send(5))
    log.keep(written.source, 15, written.send(5))
    # an open transaction hides nothing that was committed before it
    read(log, written.source, 3, 9, 10, 14, 15, 19)
    log.committing(written.source)
    written.producer.commit_transaction(30)
    read(log, written.source, 3, 9, 10, 14, 15, 19)
    written.producer.begin_transaction()
    log.keep(written.source, 20, written.send(1))
    read(log, written.source, 19, 20)
    log.settle()
    read(log, written.source, 20)
    log.committing(written.source)
    written.producer.commit_transaction(30)
    log.settle()
    read(log, written.source, 0, 20)


def test_an_original_that_the_log_no_longer_holds_is_named(written: Written, log: JudgedLog) -> None:
    for _ in range(10):
        written.transaction(10)
    read(log, written.source, 5, 95)
    written.cut(56)
    log.close()
    read(log, written.source, 52, 95)
    with pytest.raises(JudgedCut, match=r"enriched\[0\]: the judged record of raw offset 5, .* is of 51"):
        read(log, written.source, 5, 95)


def test_what_cannot_be_read_in_time_ends_the_round(
    written: Written, log: JudgedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judged_log, "VISIBLE_S", 0.5)
    written.transaction(3)
    with pytest.raises(ClientFailed, match="raw offset 3 could not be read"):
        read(log, written.source, 2, 3)


def test_read_ahead_are_those_that_the_log_holds(written: Written, log: JudgedLog) -> None:
    for _ in range(10):
        written.transaction(10)
    written.cut(56)
    held = [51, 52, 70, 99]
    assert log.read_ahead(written.source, np.array([0, 3, 50, *held])) == {src: value(src) for src in held}
    assert log.read_ahead(written.source, np.array([7])) == {}
