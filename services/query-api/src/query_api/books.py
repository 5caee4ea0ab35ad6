"""The books beside offset arithmetic: nothing vanishes (I8), and it must be able to be false."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telestream_opstore import Plan
from telestream_warehouse import NO_BOOKS, Books, Sums

MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Raw offsets ``start`` ≤ offset < ``end`` of one partition; those below ``position`` are judged and stored."""

    partition: int
    start: int
    position: int
    end: int

    @property
    def in_flight(self) -> int:
        return max(0, self.end - max(self.position, self.start))

    @property
    def judged(self) -> int:
        return max(0, min(self.position, self.end) - self.start)


def spans(
    starts: Mapping[int, int],
    positions: Mapping[int, int],
    ends: Mapping[int, int],
    since: Mapping[int, int | None] | None = None,
    until: Mapping[int, int | None] | None = None,
) -> list[Span]:
    """One span per partition; ``since`` and ``until`` are the first offsets at or after a time, None past the end.

    ``positions`` must have been read before ``ends``, so that nothing is counted twice.
    """
    found = []
    for partition, end in sorted(ends.items()):
        last = end if until is None else min(end, _or(until.get(partition), end))
        first = starts.get(partition, 0)
        if since is not None:
            first = max(first, _or(since.get(partition), end))
        found.append(Span(partition, min(first, last), positions.get(partition, 0), last))
    return found


def derived(
    record_type: str, plan: Plan, starts: Mapping[int, int], ends: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Raw's offsets as far as a generation accounts for them: from where it was begun, a rehearsal's to its ends."""
    first = {number: max(start, plan.start_of(record_type, number) or 0) for number, start in starts.items()}
    last = dict(ends)
    if plan.only_to_ends:
        last = {number: min(end, plan.end_of(record_type, number) or 0) for number, end in ends.items()}
    return first, last


def holes(all_spans: Sequence[Span], rows: Mapping[int, int]) -> list[dict[str, int]]:
    """Partitions where the judged rows are not as many as the offsets that were judged."""
    return [
        {"partition": span.partition, "judged_offsets": span.judged, "judged_rows": rows.get(span.partition, 0)}
        for span in all_spans
        if rows.get(span.partition, 0) != span.judged
    ]


def total(books: Sequence[Books]) -> Books:
    """Several hours as one."""
    whole = NO_BOOKS
    for entry in books:
        codes = dict(whole.rejected_by_code)
        for code, count in entry.rejected_by_code.items():
            codes[code] = codes.get(code, 0) + count
        whole = Books(
            whole.accepted + entry.accepted,
            whole.stored + entry.stored,
            whole.withdrawn + entry.withdrawn,
            whole.duplicates + entry.duplicates,
            whole.rejected + entry.rejected,
            whole.erased + entry.erased,
            whole.conflicts + entry.conflicts,
            codes,
        )
    return whole


def shown(books: Books, in_flight: int, whole: bool) -> dict[str, Any]:
    """The books as the contract names them. ``whole``: offset arithmetic found no hole.

    ``accepted`` is what was judged, of all verdicts, plus what is in flight.
    """
    return {
        "accepted": books.accepted.records + in_flight,
        "stored": books.stored.records,
        "duplicates": books.duplicates.records,
        "conflicts": books.conflicts,
        "rejected": dict(books.rejected_by_code),
        "withdrawn": books.withdrawn.records,
        "erased": books.erased.records,
        # facts have no end of life yet; it will be taken from agg.quality, never as a remainder
        "expired": 0,
        "in_flight": in_flight,
        "balanced": books.balanced and whole,
        "sums": {
            "judged": _sums(books.accepted),
            "stored": _sums(books.stored),
            "duplicates": _sums(books.duplicates),
            "rejected": _sums(books.rejected),
            "withdrawn": _sums(books.withdrawn),
            "erased": _sums(books.erased),
        },
    }


def amount(micros: int) -> str:
    """Millionths as exact decimal text."""
    return f"{'-' if micros < 0 else ''}{abs(micros) // MICROS}.{abs(micros) % MICROS:06d}"


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "records": sums.records,
        "duration_ms": sums.duration_ms,
        "bytes": sums.bytes,
        "charges": [
            {"currency": currency, "amount": amount(micros)}
            for currency, micros in sums.charge_micros.items()
            if currency
        ],
    }


def _or(offset: int | None, otherwise: int) -> int:
    return otherwise if offset is None else offset
