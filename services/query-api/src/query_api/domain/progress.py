"""How complete an answer is, from the marks that the enricher leaves once a second (design section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

HISTORY = 900
"""Marks kept per partition: a quarter of an hour at one a second. An answer further behind is of unknown age."""

SILENT_MS = 15 * 60_000
"""A source that nothing came from for so long is named as silent: what it would have sent is in no answer."""

EXPECTED_MS = 2 * 86_400_000
"""Until then; one that is silent for longer is gone. Daily files come every day."""

Partition = tuple[str, int]
"""Type and partition number."""


@dataclass(frozen=True, slots=True)
class Mark:
    """All raw offsets below ``next_offset`` were judged at ``since_ms``; no event before ``watermark_ms`` is expected.

    ``freshest_ms`` is the greatest event end among them, never past its arrival.
    """

    next_offset: int
    raw_end: int
    watermark_ms: int | None
    freshest_ms: int | None
    since_ms: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What an answer surely includes, per partition.

    ``exact``: all offsets below. ``processed``: offsets below are through the stage that publishes, which does so
    within a known time; so they are included if they were judged before ``settled_ms``. That covers records which
    publish nothing because they were not STORED.
    """

    exact: Mapping[Partition, int] = field(default_factory=dict)
    processed: Mapping[Partition, int] = field(default_factory=dict)
    settled_ms: int = 0

    def includes(self, partition: Partition, mark: Mark) -> bool:
        return mark.next_offset <= self.exact.get(partition, 0) or (
            mark.since_ms <= self.settled_ms and mark.next_offset <= self.processed.get(partition, 0)
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """The latest marks per partition, offsets ascending. A new value is made for each batch."""

    marks: Mapping[Partition, tuple[Mark, ...]] = field(default_factory=dict)
    arrivals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Type and source → its latest arrival in epoch ms, over all partitions."""

    def newest(self, partition: Partition, reach: Reach) -> Mark | None:
        """The newest mark that is wholly within ``reach``."""
        for mark in reversed(self.marks.get(partition, ())):
            if reach.includes(partition, mark):
                return mark
        return None


def noted(progress: Progress, marks: Iterable[tuple[Partition, Mark]]) -> Progress:
    """With newer marks. One at the same offset replaces the last, since when stays; at a lower offset starts anew."""
    updated: dict[Partition, list[Mark]] = {}
    for partition, mark in marks:
        held = updated.setdefault(partition, list(progress.marks.get(partition, ())))
        if held and mark.next_offset < held[-1].next_offset:
            held.clear()
        if held and mark.next_offset == held[-1].next_offset:
            held[-1] = replace(mark, since_ms=held[-1].since_ms)
        else:
            held.append(mark)
    if not updated:
        return progress
    return replace(progress, marks={**progress.marks, **{key: tuple(held[-HISTORY:]) for key, held in updated.items()}})


def heard(progress: Progress, arrivals: Iterable[tuple[tuple[str, str], int]]) -> Progress:
    """With the arrivals of sources, type by type; the latest of each counts."""
    latest = dict(progress.arrivals)
    for key, arrived_ms in arrivals:
        latest[key] = max(arrived_ms, latest.get(key, arrived_ms))
    return replace(progress, arrivals=latest)


def silent_sources(progress: Progress, types: Iterable[str], now_ms: int) -> list[tuple[str, str, int]]:
    """Type, source and latest arrival of those that are expected and silent, in order."""
    wanted = set(types)
    return sorted(
        (kind, source, arrived_ms)
        for (kind, source), arrived_ms in progress.arrivals.items()
        if kind in wanted and now_ms - EXPECTED_MS < arrived_ms < now_ms - SILENT_MS
    )


def complete_to_ms(progress: Progress, partitions: Iterable[Partition], reach: Reach) -> int | None:
    """The least watermark over ``partitions``, as far as an answer of that ``reach`` includes them.

    None where any partition's is unknown: then nothing can be promised. A partition that never held a record delays
    nobody.
    """
    least: int | None = None
    for partition in partitions:
        mark = progress.newest(partition, reach)
        if mark is None:
            return None
        if mark.watermark_ms is None:
            if mark.raw_end == 0:
                continue
            return None
        least = mark.watermark_ms if least is None else min(least, mark.watermark_ms)
    return least


def freshest_ms(progress: Progress, partitions: Iterable[Partition], reach: Reach) -> int | None:
    """The greatest event end, never past its arrival, that an answer of that ``reach`` surely includes."""
    marks = (progress.newest(partition, reach) for partition in partitions)
    return max((mark.freshest_ms for mark in marks if mark is not None and mark.freshest_ms is not None), default=None)
