"""The judged records that reversals undo, read back, and the copies of them that reversals become.

Such a copy says what was said then: it is not judged by the rules and reference data of today.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from cdr_enricher.domain.dedupe import Repeats, Seen
from cdr_enricher.domain.hashing import Ints, TextKeys, identity_key
from cdr_enricher.domain.kinds import Kind
from cdr_enricher.domain.reversals import Arrived, Identities, judge_in_order
from cdr_enricher.errors import JudgedCut, JudgedNotDense, JudgementBroken, Unsupported
from faust_batch import Batch
from telestream_contracts import (
    FRAME_BYTES,
    DecodeError,
    Schema,
    decode_each,
    decode_payloads,
    encode,
    enriched_schema,
    frame,
)


class Originals(Protocol):
    """The judged records of one partition, by the raw offset they were judged at."""

    def read(self, src_offsets: Ints) -> list[bytes]:
        """The framed values at these offsets, which ascend and were judged before.

        Raises JudgedCut if one is gone.
        """
        ...


class _NoOriginals:
    def read(self, src_offsets: Ints) -> list[bytes]:
        if len(src_offsets):
            raise JudgedCut(f"the judged record of raw offset {int(src_offsets[0])} is not at hand")
        return []


NO_ORIGINALS: Originals = _NoOriginals()
"""Of a partition of which nothing was judged before."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The reversals that take effect: their places ``at`` in the batch, and the raw offsets of their originals.

    ``before``: judged records from before the batch, by ascending offset, all those originals among them.
    """

    at: Ints
    originals: Ints
    before: pl.DataFrame


NOTHING_UNDONE = Undone(np.empty(0, np.int64), np.empty(0, np.int64), pl.DataFrame())


class Reversals:
    """Judges batches of one type that hold reversals. ``schema_of`` finds the schema of an id."""

    def __init__(
        self, kind: Kind, enriched_topic: str, enriched_id: int, schema_of: Callable[[int], Schema | None]
    ) -> None:
        self._kind, self._topic, self._enriched_id, self._schema_of = kind, enriched_topic, enriched_id, schema_of
        self._schema = enriched_schema(kind.name)
        self._frame = frame(enriched_id)
        self._columns = dict(decode_payloads([], self._schema).schema)
        self._keys = TextKeys("event_uid", kind.record_type.key_field)

    def judge(self, batch: Batch, arrived: Arrived, seen: Seen, originals: Originals) -> tuple[Repeats, Undone]:
        """The repeats among the batch's records, and which of its reversals take effect.

        Raises JudgementBroken where an original is gone or not what it should be.
        """
        named = arrived.named_before()
        named = named[seen.standing(named)]
        before = self._decode(batch, originals.read(named), named)
        repeats, effective = judge_in_order(arrived, self._identities(before), seen)
        at = np.flatnonzero(effective)
        return repeats, Undone(at, arrived.reverses[at], before)

    def put_copies(self, batch: Batch, undone: Undone, judged: list[dict[str, bytes | None]]) -> None:
        """Put each original's copy, with the sign turned, in the place of the reversal; ``judged`` as they are sent."""
        own = np.unique(undone.originals[undone.originals >= batch.first_offset])
        values = [judged[index]["value"] or b"" for index in (own - batch.first_offset).tolist()]
        known = pl.concat([undone.before, self._decode(batch, values, own)])
        originals = known[np.searchsorted(known["src_offset"].to_numpy(), undone.originals)]
        copies = originals.with_columns(
            pl.Series("src_offset", batch.offsets[undone.at], pl.Int64),
            pl.lit(-1, pl.Int64).alias("sign"),
            pl.col("src_offset").alias("reverses_offset"),
        )
        for index, value in zip(undone.at.tolist(), encode(copies, self._schema, self._enriched_id), strict=True):
            judged[index] = {"key": batch.keys[index], "value": value}

    def _decode(self, batch: Batch, values: Sequence[bytes], src_offsets: Ints) -> pl.DataFrame:
        """Columns of the current schema, one row per value."""
        where = f"{self._topic}[{batch.source.partition}]"
        try:
            if all(value.startswith(self._frame) for value in values):
                records = decode_payloads([value[FRAME_BYTES:] for value in values], self._schema)
            else:
                records = self._decode_older(values, src_offsets, where)
        except DecodeError as err:
            raise JudgementBroken(f"{where}: not judged records: {err}") from err
        wrong = np.flatnonzero(records["src_offset"].to_numpy() != src_offsets)
        if len(wrong):
            at = int(wrong[0])
            raise JudgedNotDense(
                f"{where}: the judged record of raw offset {int(records['src_offset'][at])} stands where that of "
                f"{int(src_offsets[at])} should; the judged records have a hole or a repeat, derive a new generation"
            )
        return records

    def _identities(self, records: pl.DataFrame) -> Identities:
        keys = self._keys.of(records)
        event_ms = records[self._kind.record_type.time_field].cast(pl.Int64).to_numpy()
        uid = keys["event_uid"]
        key = identity_key(uid, event_ms, keys[self._kind.record_type.key_field])
        return Identities(records["src_offset"].to_numpy(), uid, key, event_ms)

    def _decode_older(self, values: Sequence[bytes], src_offsets: Ints, where: str) -> pl.DataFrame:
        found = decode_each(values, lambda id_: self._schema if id_ == self._enriched_id else self._schema_of(id_))
        if found.bad:
            bad = found.bad[0]
            raise JudgementBroken(
                f"{where}: the judged record of raw offset {int(src_offsets[bad.index])} cannot be read: {bad.reason}"
            )
        if unknown := set(found.frame.columns) - self._columns.keys():
            raise Unsupported(
                f"{where}: judged records have fields this version does not know ({', '.join(sorted(unknown))}); "
                "upgrade the enricher"
            )
        return found.frame.select(
            pl.col(name) if name in found.frame.columns else pl.lit(None).cast(dtype).alias(name)
            for name, dtype in self._columns.items()
        )
