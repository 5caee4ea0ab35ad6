"""What ``progress`` says of one partition, and when it is said again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cdr_enricher.domain.watermark import Watermark
from telestream_domain import RULES_VERSION

EVERY_MS = 1_000
IDLE_EVERY_MS = 5_000  # where nothing changes but the clock, which still moves the watermark


@dataclass(frozen=True, slots=True)
class Reported:
    """What was said last, and when."""

    next_offset: int = -1
    raw_end: int = -1
    at_ms: int = 0

    def due(self, next_offset: int, raw_end: int, now_ms: int) -> bool:
        """Whether to say it again: once a second what has changed, now and then what has not."""
        changed = (next_offset, raw_end) != (self.next_offset, self.raw_end)
        # a clock that was set back must not silence a partition
        waited_ms = abs(now_ms - self.at_ms)
        return waited_ms >= (EVERY_MS if changed else IDLE_EVERY_MS)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far judgement has come in one partition of one type: raw offsets below ``next_offset`` are judged."""

    type: str
    partition: int
    next_offset: int
    raw_end: int
    watermark: Watermark
    reference_positions: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        return f"{self.type}/{self.partition}".encode()

    def record(self, now_ms: int, lateness_ms: int) -> dict[str, Any]:
        """The fields of schema ``progress``."""
        caught_up_ms = now_ms if self.next_offset >= self.raw_end else None
        sources = sorted(self.watermark.sources.items())
        return {
            "type": self.type,
            "partition": self.partition,
            "next_offset": self.next_offset,
            "raw_end": self.raw_end,
            "watermark": self.watermark.at(lateness_ms, caught_up_ms),
            "sources": [name for name, _ in sources],
            "source_event_end_at": [freshness.event_end_ms for _, freshness in sources],
            "source_arrived_at": [freshness.arrived_ms for _, freshness in sources],
            "rules_version": RULES_VERSION,
            "reference_positions": dict(self.reference_positions),
            "at": now_ms,
        }
