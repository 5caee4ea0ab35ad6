"""What was taken in and is not written yet, by partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message

from warehouse_sink.domain.places import Source
from warehouse_sink.domain.routes import Route


@dataclass(slots=True)
class Pending:
    """Values of one partition in order, with their offsets; of an upsert topic the last value of each key only."""

    route: Route
    next_offset: int
    nbytes: int = 0
    _values: list[bytes | None] = field(default_factory=list)
    _offsets: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _latest: dict[bytes | None, tuple[bytes | None, int]] = field(default_factory=dict)

    def add(self, messages: Sequence[Message]) -> None:
        values = list(map(Message.value, messages))
        offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        if self.route.latest_by_key:
            self._latest.update(
                zip(map(Message.key, messages), zip(values, offsets.tolist(), strict=True), strict=True)
            )
        else:
            self._values += values
            self._offsets.append(offsets)
        self.nbytes += sum(map(len, messages))
        self.next_offset = int(offsets[-1]) + 1

    def __len__(self) -> int:
        return len(self._values) + len(self._latest)

    @property
    def values(self) -> list[bytes | None]:
        return [value for value, _ in self._latest.values()] if self.route.latest_by_key else self._values

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        if self.route.latest_by_key:
            return np.array([offset for _, offset in self._latest.values()], np.int64)
        return np.concatenate(self._offsets) if self._offsets else np.empty(0, np.int64)


class Buffer:
    """All of it, with its size and the time its oldest record came in."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._pending: dict[Source, Pending] = {}
        self.oldest_at: float | None = None

    def add(self, source: Source, messages: Sequence[Message], now: float) -> None:
        pending = self._pending.get(source)
        if pending is None:
            pending = self._pending[source] = Pending(self._routes[source.topic], 0)
        pending.add(messages)
        if self.oldest_at is None:
            self.oldest_at = now

    def drop(self, sources: Sequence[Source]) -> None:
        """Forget what belongs to partitions that are no longer ours: who has them now reads it again."""
        for source in sources:
            self._pending.pop(source, None)
        if not self._pending:
            self.oldest_at = None

    def take(self) -> dict[Source, Pending]:
        taken, self._pending, self.oldest_at = self._pending, {}, None
        return taken

    @property
    def sources(self) -> frozenset[Source]:
        return frozenset(self._pending)

    @property
    def rows(self) -> int:
        return sum(map(len, self._pending.values()))

    @property
    def nbytes(self) -> int:
        return sum(pending.nbytes for pending in self._pending.values())

    def age_s(self, now: float) -> float:
        return 0.0 if self.oldest_at is None else now - self.oldest_at
