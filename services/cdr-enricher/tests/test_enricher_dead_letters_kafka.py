"""Dead letters on real Kafka: never dropped, and too many of them stop their partition alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from enricher_corner import EnricherCorner

pytestmark = pytest.mark.stack


@pytest.fixture
def corner(parts: Any, topic_prefix: str, tmp_path: Path) -> EnricherCorner:
    return EnricherCorner(parts, topic_prefix, tmp_path)


def set_largest(corner: EnricherCorner, topic: str, nbytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(nbytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": corner.parts.kafka, "log_level": 4})
    for future in client.incremental_alter_configs([resource]).values():
        future.result(timeout=20)


def test_a_dead_letter_too_big_for_its_topic_stops_the_worker_and_is_not_dropped(corner: EnricherCorner) -> None:
    rejected = corner.topics.rejected("cdr")
    set_largest(corner, rejected, 2_000)
    junk = os.urandom(10_000)  # compression does not help
    corner.call(0, corner.value("cdr", event_uid="a"), junk, corner.value("cdr", event_uid="b"))
    with corner.running(runner="plain") as worker:
        assert worker.process.wait(60) == 1, worker.output
        assert "MSG_SIZE_TOO_LARGE" in worker.stopped
        assert "Traceback" not in worker.output
    assert (corner.judged(0), corner.letters(0)) == ([], [])
    set_largest(corner, rejected, 1_000_000)
    with corner.running(runner="plain") as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == 3)
        worker.stop()
    assert [record["verdict"] for record in corner.judged(0)] == ["STORED", "REJECTED", "STORED"]
    assert [(letter["src_offset"], letter["original"]) for letter in corner.letters(0)] == [(1, junk)]


@pytest.mark.parametrize("runner", ["faust", pytest.param("plain", marks=pytest.mark.faults)])
def test_too_many_rejections_stop_their_partition_alone_until_the_operator_lets_them_pass(
    corner: EnricherCorner, runner: str
) -> None:
    raw = corner.topics.raw("cdr")
    limit: dict[str, object] = {"max_rejected_window": 100, "max_batch_records": 20, "runner": runner}
    stopped = f'telestream_enricher_stopped_partitions{{partition="0",topic="{raw}"}}'
    good = [corner.value("cdr", event_uid=f"good {n}") for n in range(40)]
    bad = [corner.value("cdr", event_uid=f"bad {n}", duration_ms=-1) for n in range(160)]
    corner.call(0, *good[:10], *bad)
    corner.call(1, *good)

    def others_go_on(worker: Any, name: str, count: int) -> None:
        corner.call(1, corner.value("cdr", event_uid=name))
        worker.wait_until(lambda: len(corner.judged(1)) == count)

    with corner.running(**limit) as worker:
        worker.wait_until(
            lambda: worker.get("/readyz")[0] == 503 and "records are rejected" in worker.get("/readyz")[1]
        )
        others_go_on(worker, "while it stands", 41)
        assert "most by negative_value" in worker.get("/readyz")[1]
        assert worker.metric(stopped) == 1
        assert worker.output.count("docs/runbook/rejections-above-the-limit.md") == 1
        assert worker.get("/livez")[0] == 200
        worker.stop()
    before = corner.judged(0)
    assert 10 < len(before) <= 60
    assert len(corner.letters(0)) == len(before) - 10

    with corner.running(**limit) as worker:  # again, and nothing is judged past it
        worker.wait_until(lambda: worker.metric(stopped))
        others_go_on(worker, "after a restart", 42)
        worker.stop()
    assert len(corner.judged(0)) <= 60

    corner.call(0, *good[10:12])
    with corner.running(**limit | {"max_rejected_share": 1}) as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == 172)
        worker.wait_until(lambda: worker.get("/readyz")[0] == 200)
        worker.stop()
    judged = corner.judged(0)
    assert [record["src_offset"] for record in judged] == list(range(172))
    assert [record["verdict"] for record in judged] == ["STORED"] * 10 + ["REJECTED"] * 160 + ["STORED"] * 2
    assert [letter["original"] for letter in corner.letters(0)] == bad
