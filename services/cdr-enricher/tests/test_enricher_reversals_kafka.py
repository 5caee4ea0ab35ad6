"""Reversals in the worker itself: rounds of many small batches, killed in the middle, on real Kafka."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from enricher_corner import EnricherCorner
from enricher_reversal_model import Model, brief

pytestmark = pytest.mark.stack


@pytest.fixture
def corner(parts: Any, topic_prefix: str, tmp_path: Path) -> EnricherCorner:
    return EnricherCorner(parts, topic_prefix, tmp_path)


def test_killed_in_the_middle_reversals_are_judged_as_one_record_after_the_other(corner: EnricherCorner) -> None:
    rng, models = random.Random(9), [Model(), Model()]

    def send(count: int) -> None:
        for partition, model in enumerate(models):
            corner.call(partition, *(corner.value("cdr", **model.take_something(rng)) for _ in range(count)))

    settings: dict[str, object] = {"max_batch_records": 40, "max_rejected_share": 1}
    send(300)
    with corner.running(**settings) as worker:
        worker.wait_until(lambda: corner.judged(1))
        send(100)
    with corner.running(**settings) as worker:
        worker.wait_until(lambda: all(len(corner.judged(partition)) == 400 for partition in (0, 1)))
        send(100)
        worker.wait_until(lambda: all(len(corner.judged(partition)) == 500 for partition in (0, 1)))
        worker.stop()
    for partition, model in enumerate(models):
        assert [brief(record) for record in corner.judged(partition)] == model.judged


def test_an_original_that_was_cut_off_the_log_stops_the_worker_with_one_clear_line(corner: EnricherCorner) -> None:
    enriched = corner.topics.enriched("cdr")
    corner.call(0, *(corner.value("cdr", event_uid=f"u{n}") for n in range(50)))
    with corner.running(runner="plain") as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == 50)
        admin = AdminClient({"bootstrap.servers": corner.parts.kafka})
        for future in admin.delete_records([TopicPartition(enriched, 0, 30)]).values():
            future.result(timeout=20)
        corner.call(0, corner.value("cdr", event_uid="u40", reverses_offset=40))
        worker.wait_until(lambda: [r["sign"] for r in corner.judged(0)][-1] == -1)
        corner.call(0, corner.value("cdr", event_uid="u7", reverses_offset=7))
        assert worker.process.wait(60) == 1, worker.output
        assert f"{enriched}[0]: the judged record of raw offset 7, which is to be reversed" in worker.stopped
        assert "Traceback" not in worker.output
