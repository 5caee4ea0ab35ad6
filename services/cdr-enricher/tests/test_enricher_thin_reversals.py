"""Reversals whose originals lie far apart: finding them takes longer than a transaction may last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from enricher_corner import EnricherCorner
from enricher_reversal_model import Model, brief

pytestmark = [pytest.mark.stack, pytest.mark.faults]

SLOW = str(Path(__file__).with_name("enricher_slow_originals.py"))
STORED, NEW, THIN = 2_000, 900, 15
EACH_S = 0.3  # 18 s in all; an expired transaction is ended within 10 s
SETTINGS: dict[str, object] = {"max_batch_records": 450, "runner": "plain"}


@pytest.fixture
def corner(parts: Any, topic_prefix: str, tmp_path: Path) -> EnricherCorner:
    return EnricherCorner(parts, topic_prefix, tmp_path)


@pytest.fixture
def model(corner: EnricherCorner) -> Model:
    """What is to come: calls, judged already, and behind them others with a reversal here and there."""
    model = Model()

    def call(uid: str, reverses: int | None = None) -> bytes:
        model.take(uid, 1, reverses)
        return corner.value("cdr", event_uid=uid, charge_micros=1, reverses_offset=reverses)

    corner.call(0, *(call(f"u{n}") for n in range(STORED)))
    with corner.running(**SETTINGS) as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == STORED)
        worker.stop()
    far = range(STORED - 7, 0, -(STORED // (NEW // THIN)) - 1)
    values = []
    for number in range(NEW):
        values.append(call(f"v{number}"))
        if number % THIN == 0 and number // THIN < len(far):
            values.append(call(f"u{far[number // THIN]}", far[number // THIN]))
    corner.call(0, *values)
    return model


def test_thinly_spread_reversals_may_take_longer_than_a_transaction(corner: EnricherCorner, model: Model) -> None:
    with corner.running(script=(SLOW, str(EACH_S)), **SETTINGS) as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == len(model.judged))
        worker.stop()
        assert "transaction" not in worker.output
    assert [brief(record) for record in corner.judged(0)] == model.judged


def test_without_quiet_such_reversals_end_the_worker(corner: EnricherCorner, model: Model) -> None:
    with corner.running(script=(SLOW, str(2 * EACH_S), "hurried"), **SETTINGS) as worker:
        assert worker.process.wait(90) == 1, worker.output
        assert "transaction" in worker.stopped
    # and nothing is lost: a worker that takes the time goes on
    with corner.running(**SETTINGS) as worker:
        worker.wait_until(lambda: len(corner.judged(0)) == len(model.judged))
        worker.stop()
    assert [brief(record) for record in corner.judged(0)] == model.judged
