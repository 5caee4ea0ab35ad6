"""How far event time has come in one partition (design section 5). No value depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

SOURCE, EVENT_END_MS, ARRIVED_MS = "source", "event_end_ms", "arrived_ms"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The latest event end and the latest arrival of one producer, epoch ms."""

    event_end_ms: int
    arrived_ms: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """``reached_ms``: the greatest event end, never past its arrival; None before the first record."""

    reached_ms: int | None = None
    sources: Mapping[str, Freshness] = field(default_factory=dict)

    def after(self, events: pl.DataFrame) -> Watermark:
        """With a batch: columns SOURCE, EVENT_END_MS (never past arrival), ARRIVED_MS."""
        if not events.height:
            return self
        sources = dict(self.sources)
        reached = self.reached_ms
        for source, end, arrived in _per_source(events).iter_rows():
            known = sources.get(source)
            sources[source] = Freshness(
                max(end, known.event_end_ms) if known else end, max(arrived, known.arrived_ms) if known else arrived
            )
            reached = end if reached is None else max(end, reached)
        return replace(self, reached_ms=reached, sources=sources)

    def at(self, lateness_ms: int, caught_up_ms: int | None) -> int | None:
        """No event before this is expected. ``caught_up_ms``: now, if all of raw is judged: then the clock counts."""
        instants = [ms for ms in (self.reached_ms, caught_up_ms) if ms is not None]
        return max(instants) - lateness_ms if instants else None

    def as_json(self, max_sources: int) -> dict[str, Any]:
        """A short form for commit metadata, of the freshest ``max_sources`` producers."""
        freshest = sorted(self.sources.items(), key=lambda item: -item[1].arrived_ms)[:max_sources]
        return {"reached": self.reached_ms, "sources": {s: [f.event_end_ms, f.arrived_ms] for s, f in freshest}}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Watermark:
        """Of what ``as_json`` gave."""
        return cls(saved["reached"], {s: Freshness(int(end), int(at)) for s, (end, at) in saved["sources"].items()})


def _per_source(events: pl.DataFrame) -> pl.DataFrame:
    if events[SOURCE].n_unique() == 1:
        return events.select(pl.col(SOURCE).first(), pl.col(EVENT_END_MS).max(), pl.col(ARRIVED_MS).max())
    return events.group_by(SOURCE, maintain_order=True).agg(pl.col(EVENT_END_MS).max(), pl.col(ARRIVED_MS).max())
