"""Restores may take longer than the session timeout.

They run inside a group callback. librdkafka's own thread sends heartbeats all the while (its join state is
`wait-assign-call`) and does not need Python's lock for it. `max.poll.interval.ms` is not counted while the callback is
served; it is what the broker gives us to come back in when others want a rebalance meanwhile. A session lost in a
restore thus means that the broker was away or stood still.
"""

from __future__ import annotations

import logging
import time

import pytest
from faust_batch_corner import Corner, numbered, until
from faust_batch_worker import CopyStage, Seen

from faust_batch import Committed, Source

pytestmark = [pytest.mark.stack, pytest.mark.faults]

SESSION_S = 6.0  # a broker's smallest
RESTORE_S = 8.0


class Long(CopyStage):
    def restore(self, source: Source, committed: Committed | None) -> Seen:
        ends = time.monotonic() + RESTORE_S
        if source.partition == 0:
            time.sleep(RESTORE_S)
        while time.monotonic() < ends:
            sum(range(20_000_000))  # holds Python's lock, some tenths of a second at a time
        return super().restore(source, committed)


def test_a_restore_longer_than_the_session_keeps_the_membership(
    corner: Corner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "faust_batch")
    source, target = corner.topics("in", "out", partitions=2)
    corner.produce(source, numbered(2, 100))
    timeouts = {"session_timeout_ms": int(SESSION_S * 1000)}
    long = corner.start("plain", Long([source], target), 0, **timeouts)
    until(lambda: long.stage.restored)  # the first of two
    comes = corner.start("plain", CopyStage([source], target), 1, **timeouts)
    until(lambda: corner.all_values(target) == numbered(2, 100))
    until(lambda: comes.stage.restored)
    assert [s for s, _ in long.stage.restored] == [Source(source, 0), Source(source, 1)]
    assert len(long.stage.given_up) == 1
    assert not [r for r in caplog.messages if "SESSTMOUT" in r or "MAXPOLL" in r]
    long.finish()
    comes.finish()
