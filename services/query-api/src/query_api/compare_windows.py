"""Whether the windows of two generations differ only as their records do: each against its own books, by segment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from query_api.domain.compare_tally import Sums, slices
from query_api.domain.measures import FAMILY_TYPES
from query_api.parts import Parts
from telestream_domain import segment_of, segment_start
from telestream_warehouse import Query
from telestream_warehouse.compare import last_written, stored_by_segment, windows_by_segment
from telestream_warehouse.compare_spans import SLICE_RECORDS, Pair, Span

Place = tuple[int, int]
"""Partition and segment."""

SETTLED_S = 180
"""Windows are published every minute and written within seconds; so long after the last record none is open."""

BOOKS_RECORDS = 8 * SLICE_RECORDS
"""Raw offsets of the books in one question, which keeps nothing of single records."""


async def windows_of(
    parts: Parts,
    pair: Pair,
    spans: Sequence[Span],
    *within: Callable[[int], tuple[int, int]],
) -> list[dict[str, Any]]:
    """One entry per generation and family, of the segments that ``spans`` lie in. ``within`` gives for a partition how
    far each generation has come."""
    found = []
    for generation, reach in zip((pair.this, pair.other), within, strict=True):
        idle = await _idle(parts, pair.record_type, generation)
        own = [_whole_segments(span, *reach(span.partition)) for span in spans]
        books: dict[Place, Sums] = {}
        for piece in slices(own, BOOKS_RECORDS):
            for place, sums in (await _sums(parts, stored_by_segment(pair.record_type, generation, piece))).items():
                _add(books.setdefault(place, Sums()), sums)
        families = [family for family, types in FAMILY_TYPES.items() if pair.record_type in types]
        windows = await asyncio.gather(
            *(_sums(parts, windows_by_segment(pair.record_type, family, generation, own)) for family in families)
        )
        newest = {} if idle else {span.partition: segment_of(reach(span.partition)[1] - 1) for span in spans}
        for family, held in zip(families, windows, strict=True):
            found.append({"generation": generation, "family": family, **agreement(books, held, newest)})
    return found


def agreement(books: Mapping[Place, Sums], windows: Mapping[Place, Sums], newest: Mapping[int, int]) -> dict[str, Any]:
    """``agree``: true, false, or null if only segments that are still being written (the ``newest`` of a partition)
    differ; with the sums of both."""
    sums = [Sums(), Sums()]
    wrong, open_ = 0, 0
    for place in {*books, *windows}:
        both = [side.get(place, Sums()) for side in (books, windows)]
        for total, side in zip(sums, both, strict=True):
            _add(total, side)
        if both[0].shown() != both[1].shown():
            if place[1] >= newest.get(place[0], 2**63):
                open_ += 1
            else:
                wrong += 1
    return {
        "agree": False if wrong else None if open_ else True,
        "books": sums[0].shown(),
        "windows": sums[1].shown(),
        "difference": sums[1].shown(sums[0]),
    }


async def _idle(parts: Parts, record_type: str, generation: int) -> bool:
    rows = await parts.warehouse.rows(last_written(record_type, generation))
    return parts.now_ms() - max((int(row["written_ms"]) for row in rows), default=0) > SETTLED_S * 1_000


def _whole_segments(span: Span, first: int, end: int) -> Span:
    """As much of the segments of ``span`` as a generation that judged ``first`` to ``end`` has."""
    begin = segment_start(segment_of(span.first))
    last = segment_start(segment_of(span.end - 1) + 1)
    return Span(span.partition, max(first, begin), min(end, last))


async def _sums(parts: Parts, query: Query) -> dict[Place, Sums]:
    found = {}
    for row in await parts.warehouse.rows(query):
        sums = Sums(int(row["records"]), 0, int(row["bytes"]))
        sums.charge_micros.update({currency: int(micros) for currency, micros in row["charge_micros"].items()})
        found[int(row["partition"]), int(row["segment"])] = sums
    return found


def _add(total: Sums, more: Sums) -> None:
    total.records += more.records
    total.bytes += more.bytes
    total.charge_micros.update(more.charge_micros)
