"""Segments: the log cut by offset arithmetic alone, never by time (design section 5)."""

from __future__ import annotations

SEGMENT_BITS = 18
"""2¹⁸ source offsets: the open one is re-read in seconds, and fits in a few tens of megabytes."""

SUBSCRIBER_DAY_SEGMENT_BITS = 20
"""Larger, because nearly every record of a small segment would touch a subscriber-day of its own."""

MINUTE_WINDOWS_MAX_AGE_MS = 2 * 3_600_000
"""A record counts in one-minute windows if it arrived at most so long after its event: they serve what happens now.
In a file of yesterday nearly every record has a minute and cell of its own (ADR 5)."""

LATENESS_MS = 5 * 60_000
"""A record is late in a window if it arrived more than so long after the window's end. Fixed, unlike the lateness of
watermarks: figures of windows may not depend on a setting."""

LATENCY_BOUNDS_MS = tuple(1_000 * s for s in (1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400, 604_800))
"""Upper bounds, inclusive, of the distribution of event to arrival; what took longer has a last bucket of its own."""


def segment_of(src_offset: int, bits: int = SEGMENT_BITS) -> int:
    """The segment a source offset lies in."""
    return src_offset >> bits


def segment_start(segment: int, bits: int = SEGMENT_BITS) -> int:
    """The first source offset of a segment."""
    return segment << bits


def cuts(first: int, last: int, bits: int = SEGMENT_BITS) -> list[tuple[int, int, int]]:
    """Cut the inclusive range ``first … last`` at segment borders: ``(segment, first, last)`` each."""
    parts = []
    while first <= last:
        segment = segment_of(first, bits)
        end = min(last, segment_start(segment + 1, bits) - 1)
        parts.append((segment, first, end))
        first = end + 1
    return parts
