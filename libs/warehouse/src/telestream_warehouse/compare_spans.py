"""What a comparison of two generations is about: pairs of generations, and spans of raw offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telestream_warehouse.query import Parameter

SLICE_RECORDS = 1 << 19
"""Raw offsets that one question may span: what it holds in memory is a few hundred bytes for each."""

ROWS = f"\nSETTINGS max_result_rows = {SLICE_RECORDS + 1}"


@dataclass(frozen=True, slots=True)
class Span:
    """Raw offsets ``first`` ≤ offset < ``end`` of one partition."""

    partition: int
    first: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.first)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two generations of one type: ``this`` is compared with ``other``."""

    record_type: str
    this: int
    other: int

    @property
    def params(self) -> dict[str, Parameter]:
        return {"type": self.record_type, "this": self.this, "other": self.other}


BOTH = "generation IN ({this:UInt32}, {other:UInt32})"
THIS, OTHER = "generation = {this:UInt32}", "generation = {other:UInt32}"


def within(column: str, spans: Sequence[Span]) -> str:
    """Written out, so that the key is used: an offset by array index is not."""
    ranges = [
        f"(src_partition = {int(span.partition)} AND {column} >= {int(span.first)} AND {column} < {int(span.end)})"
        for span in spans
        if len(span)
    ]
    return " OR ".join(ranges) or "0"


def differing(table: str, where: str, offset: str, content: str) -> str:
    """The places of which one generation has no row, or another one than the other: all that is held for the many
    records that are alike is one hash."""
    return f"""SELECT src_partition, {offset} FROM
    (
        SELECT src_partition, {offset}, groupBitOr(if({THIS}, 1, 2)) AS there,
            min({content}) AS low, max({content}) AS high
        FROM {table}
        WHERE {where}
        GROUP BY src_partition, {offset}
    )
    WHERE there != 3 OR low != high"""
