"""How far a generation is, as arithmetic on offsets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RATE_OVER_S = 60.0
METADATA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One raw partition of a generation. All are raw offsets: ``start`` ≤ those that are derived; below ``judged``,
    ``aggregated`` and ``stored`` they are through that stage, below ``published`` in every published window.

    ``end``: the raw end as the replay was asked for, None for the first generation; ``raw_end``: now.
    """

    type: str
    partition: int
    start: int
    end: int | None
    raw_end: int
    judged: int
    aggregated: int
    published: int
    stored: int

    def lag(self, only_to_ends: bool) -> int:
        """Records not stored yet, of those that shall be."""
        last = self.end if only_to_ends and self.end is not None else self.raw_end
        return max(0, last - self.stored)

    @property
    def left(self) -> int:
        """Records not stored yet, of those that lay there as the replay was asked for."""
        return 0 if self.end is None else max(0, self.end - self.stored)

    @property
    def total(self) -> int:
        return 0 if self.end is None else max(0, self.end - self.start)

    @property
    def through(self) -> bool:
        """Whether these are judged, stored and in all published windows."""
        return self.end is None or self.end <= self.start or min(self.stored, self.published) >= self.end

    def shown(self, only_to_ends: bool) -> dict[str, Any]:
        return {
            "type": self.type,
            "partition": self.partition,
            "start": self.start,
            "end": self.end,
            "raw_end": self.raw_end,
            "judged": self.judged,
            "aggregated": self.aggregated,
            "published": self.published,
            "stored": self.stored,
            "lag": self.lag(only_to_ends),
        }


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What the aggregator says beside its position in Kafka: raw offsets below ``read`` are in its sums, below
    ``published`` in every published window."""

    read: int
    published: int


def aggregated_of(metadata: str | None) -> Aggregated | None:
    """From the committed metadata; None where it has seen nothing yet, or writes it otherwise."""
    try:
        # a transport's stamp stands before the stage's own words
        text = metadata or ""
        found = json.loads(text[text.index("{") :])
        if found["v"] != METADATA_VERSION or found["next"] is None:
            return None
        published = [int(family[4]) + 1 for family in found["f"].values()]
        return Aggregated(int(found["next"]), min(published, default=int(found["next"])))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


@dataclass(slots=True)
class Pace:
    """How many records are stored a second, over the last minute."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now_s: float, stored: int) -> None:
        """``now_s`` on a monotonic clock; ``stored`` over all partitions, which only rises."""
        if self.seen and stored < self.seen[-1][1]:
            return  # two looks that overtook one another
        self.seen.append((now_s, stored))
        while len(self.seen) > 2 and now_s - self.seen[1][0] >= RATE_OVER_S:
            self.seen.popleft()

    def per_second(self) -> float | None:
        """None until two looks, a second apart, were taken."""
        if len(self.seen) < 2:
            return None
        (first_s, first), (last_s, last) = self.seen[0], self.seen[-1]
        return (last - first) / (last_s - first_s) if last_s - first_s >= 1 else None


def progress_shown(
    parts: Sequence[Part], only_to_ends: bool, pace: float | None, caught_up: bool, costs: Mapping[str, Any]
) -> dict[str, Any]:
    """``done_ratio`` and ``seconds_left`` are of what lay in raw as the replay was asked for."""
    total, left = sum(part.total for part in parts), sum(part.left for part in parts)
    planned = any(part.end is not None for part in parts)
    seconds_left = None
    if planned and not left:
        seconds_left = 0
    elif planned and pace:
        seconds_left = round(left / pace)
    return {
        "partitions": [part.shown(only_to_ends) for part in parts],
        "done_ratio": None if not planned else (round(1 - left / total, 6) if total else 1.0),
        "records_per_second": None if pace is None else round(pace, 1),
        "seconds_left": seconds_left,
        "caught_up": caught_up,
        "costs": dict(costs),
    }


def costs_shown(rows: Iterable[Mapping[str, Any]], generation: int) -> dict[str, Any]:
    """What a generation takes in ClickHouse. Kafka's clients do not tell how large a topic is."""
    own = [row for row in rows if int(row["generation"]) == generation]
    return {
        "topic_bytes": None,
        "rows": sum(int(row["rows"]) for row in own),
        "bytes_on_disk": sum(int(row["bytes_on_disk"]) for row in own),
        "tables": {
            str(row["table"]): {"rows": int(row["rows"]), "bytes_on_disk": int(row["bytes_on_disk"])} for row in own
        },
    }
