"""A stage may ask that no transaction is open while it prepares for what was fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from faust_batch_corner import Corner, until
from faust_batch_worker import CopyStage

from faust_batch import Batch, NeedsQuiet

pytestmark = pytest.mark.stack

VALUES = [b"%06d" % number for number in range(2_000)]


@dataclass
class Restless(CopyStage):
    """Wants quiet for some batches; remembers how much had been judged, and how much of it was committed, then."""

    corner: Corner | None = None
    asked: int = 0
    quiet: list[tuple[int, int]] = field(default_factory=list)

    def needs_quiet(self, batches: Sequence[Batch]) -> bool:
        self.asked += 1
        return any(b"000777" in batch.values or b"001444" in batch.values for batch in batches)

    def before_round(self, batches: Sequence[Batch]) -> None:
        super().before_round(batches)
        if self.corner is not None and self.needs_quiet(batches):
            self.quiet.append((sum(self.batch_sizes), len(self.corner.values(self.target, 0))))


@pytest.mark.parametrize("runner", ["plain", pytest.param("faust", marks=pytest.mark.faults)])
def test_where_quiet_is_needed_all_that_was_judged_is_committed_before(corner: Corner, runner: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    corner.produce(source, {0: VALUES})
    # rounds of many batches: without the question, a transaction would be open nearly always
    running = corner.start(
        runner, Restless([source], target, corner=corner), max_batch_records=50, commit_interval_ms=4_000
    )
    until(lambda: len(corner.values(target, 0)) == len(VALUES))
    running.finish()
    stage = running.stage
    assert isinstance(stage, Restless)
    assert [judged for judged, _ in stage.quiet] == [committed for _, committed in stage.quiet]
    assert min(judged for judged, _ in stage.quiet) > 0
    assert len(running.observer.rounds) < stage.asked / 3
    assert corner.values(target, 0) == VALUES


def test_a_stage_that_says_nothing_of_quiet_needs_none() -> None:
    assert not isinstance(CopyStage([], ""), NeedsQuiet)
