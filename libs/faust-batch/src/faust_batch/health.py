"""Whether a worker is well: decided here from what is seen of it and of the broker; no thread, no Kafka.

Waiting for a broker that is away must never end a process: that would turn an outage into a storm of restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from faust_batch.source import Source
from faust_batch.staged import Call

OVERDUE_LIMIT_S = 5.0  # librdkafka may overstay a timeout a little
COMMIT_GRACE_S = 10.0  # positions past control records are committed late on purpose
GAP_S = 3.0  # not having looked for so long means that this process was stopped itself


class Condition(StrEnum):
    """`WORKING`: records wait and are judged. `IDLE`: none wait. `WAITING`: the broker does not answer.
    `WEDGED`: it does, and yet nothing moves; only this ends the process."""

    WORKING = "working"
    IDLE = "idle"
    WAITING = "waiting"
    WEDGED = "wedged"


@dataclass(frozen=True, slots=True)
class Health:
    """`reason`: one line, empty unless waiting or wedged."""

    condition: Condition
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What another thread sees of the owning one.

    `turned_at`: when its loop last came round (monotonic); `overdue_s`: by how much a transactional call in work has
    overstayed its own timeout, None between calls; `positions`: next offset to judge, and as committed.
    """

    turned_at: float
    call: Call | None
    overdue_s: float | None
    positions: Mapping[Source, tuple[int, int]]


class Diagnosis:
    """Tell it what the broker says (`answered`, `away`), show it the worker often (`look`); times are monotonic."""

    def __init__(self, limit_s: float, patience_s: float) -> None:
        self._limit_s = limit_s
        self._patience_s = max(patience_s, limit_s)
        self._looked_at: float | None = None
        self._woken_at = float("-inf")
        self._free_at = float("-inf")  # when it was last seen in a call that may take its time
        self._answering_since: float | None = None
        self._away = "it has not answered yet"
        self._ends: Mapping[Source, int] = {}
        self._still: dict[Source, tuple[int, int, float]] = {}
        self._behind: dict[Source, float] = {}

    def answered(self, now: float, ends: Mapping[Source, int]) -> None:
        """The broker answered: the ends of logs, without what is in open transactions."""
        if self._answering_since is None:
            self._answering_since = now
        self._ends = ends

    def away(self, reason: str) -> None:
        """The broker did not answer."""
        self._away = reason
        self._forget()

    def look(self, now: float, glimpse: Glimpse) -> Health:
        if self._looked_at is not None and now - self._looked_at > GAP_S:
            self._woken_at = now
            self._forget()
        self._looked_at = now
        self._follow(now, glimpse.positions)
        if glimpse.overdue_s is not None:
            # bounded by itself; past that the transaction's fate is unknown, broker or not
            if glimpse.overdue_s > OVERDUE_LIMIT_S and now - self._woken_at > GAP_S:
                return Health(
                    Condition.WEDGED, f"a transactional call overstayed its timeout by {glimpse.overdue_s:.0f} s"
                )
        elif self._answering_since is not None:
            reason = self._stuck(now, self._answering_since, glimpse)
            if reason is not None:
                return Health(Condition.WEDGED, reason)
        if self._answering_since is None:
            return Health(Condition.WAITING, f"the broker is away: {self._away}")
        return Health(Condition.WORKING if self._behind or glimpse.call is not None else Condition.IDLE)

    def _forget(self) -> None:
        self._answering_since = None
        self._behind.clear()

    def _follow(self, now: float, positions: Mapping[Source, tuple[int, int]]) -> None:
        for source in self._still.keys() - positions.keys():
            del self._still[source]
            self._behind.pop(source, None)
        for source, (position, committed) in positions.items():
            still = self._still.get(source)
            if still is None or still[:2] != (position, committed):
                self._still[source] = (position, committed, now)
                self._behind.pop(source, None)
            if self._answering_since is None or self._ends.get(source, 0) <= position:
                self._behind.pop(source, None)
            else:
                self._behind.setdefault(source, now)

    def _stuck(self, now: float, answering_since: float, glimpse: Glimpse) -> str | None:
        call = glimpse.call
        if call is not None:
            limit_s = self._patience_s if call.patient else self._limit_s
            if call.patient:
                self._free_at = now
            lasting_s = now - call.since
            if now - max(call.since, answering_since) > limit_s:
                return f"{call.doing}: not done after {lasting_s:.0f} s"
            return None  # everything else waits for it
        answering_since = max(answering_since, self._free_at)
        if now - max(glimpse.turned_at, answering_since) > self._limit_s:
            return f"the owning thread has not come round for {now - glimpse.turned_at:.0f} s"
        for source, since in self._behind.items():
            position = self._still[source][0]
            if now - max(since, self._free_at) > self._limit_s:
                lag = self._ends[source] - position
                return f"{source}: position {position} has not moved for {now - since:.0f} s, {lag} records behind"
        for source, (position, committed, since) in self._still.items():
            if position > committed and now - max(since, answering_since) > self._limit_s + COMMIT_GRACE_S:
                return f"{source}: {position} was judged, {committed} is committed, for {now - since:.0f} s"
        return None
