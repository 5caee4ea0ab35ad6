"""A stage that raises, wherever it does: the round is aborted, its input stays, the next start tries again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage, Seen

from faust_batch import Batch, Committed, Output, Source, StageFailed

pytestmark = pytest.mark.stack

RECORDS = 2_000


@dataclass
class Raising(CopyStage):
    """Raises in `where` once it has judged more than 1,000 records; remembers the first offsets of its batches."""

    where: str = ""
    firsts: list[int] = field(default_factory=list)
    judged: int = 0

    def _raise_in(self, where: str) -> None:
        if where == self.where and (self.judged > 1_000 or where == "restore"):
            raise ValueError(f"no {where} today")

    def restore(self, source: Source, committed: Committed | None) -> Seen:
        self._raise_in("restore")
        return super().restore(source, committed)

    def before_round(self, batches: Sequence[Batch]) -> None:
        self._raise_in("before_round")

    def on_batch(self, batch: Batch, state: Seen) -> tuple[Sequence[Output], Seen]:
        self.firsts.append(batch.first_offset)
        self.judged += len(batch)
        self._raise_in("on_batch")
        return super().on_batch(batch, state)

    def due(self, states: Mapping[Source, Seen], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, Seen]]:
        self._raise_in("due")
        return super().due(states, now_ms)

    def metadata(self, source: Source, state: Seen) -> str:
        self._raise_in("metadata")
        return super().metadata(source, state)


@pytest.mark.parametrize("where", ["restore", "before_round", "on_batch", "due", "metadata"])
def test_a_stage_that_raises_leaves_its_batch_uncommitted_and_unseen(corner: Corner, where: str) -> None:
    source, target = corner.topics("in", "out", partitions=1)
    values = numbered(1, RECORDS)[0]
    corner.produce(source, {0: values})
    limits: dict[str, Any] = {"max_batch_records": 200, "max_round_records": 400}
    worker = corner.start("plain", Raising([source], target, where=where), **limits)
    with pytest.raises(StageFailed, match=f"ValueError: no {where} today"):
        worker.ended()
    committed = max(corner.committed(source)[0][0], 0)
    assert corner.values(target, 0) == values[:committed]
    if where == "restore":
        assert committed == 0
    else:
        assert 0 < committed <= 1_200
        assert committed == RECORDS or committed in worker.stage.firsts or committed == worker.stage.judged
    healed = corner.start("plain", CopyStage([source], target), **limits)
    until(lambda: corner.committed(source)[0][0] == RECORDS)
    healed.finish()
    assert corner.values(target, 0) == values
