"""A partition's state, rebuilt from what is in Kafka: the judged records and what was committed beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from cdr_enricher.dedup_log import Position
from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.hashing import TextKeys, identity_key
from cdr_enricher.domain.kinds import Kind
from cdr_enricher.domain.rejection_limit import Rejections
from cdr_enricher.domain.watermark import Watermark
from cdr_enricher.errors import (
    JudgedCut,
    JudgedNotDense,
    JudgementBroken,
    PositionForeign,
    PositionGone,
    SettingsDiffer,
)
from cdr_enricher.stage import STORED, State
from faust_batch import Batch, Committed, Source
from telestream_contracts import (
    FRAME_BYTES,
    DecodeError,
    Schema,
    decode_payloads,
    prefix_schema,
    schema_id_of,
)
from telestream_domain import segment_of, segment_start

_MAX_SOURCES = 40  # in the metadata: Kafka allows 4,096 bytes
_MAX_METADATA = 3_500
_LAST_FIELD = "reverses_offset"  # of what is decoded of a judged record


def metadata_of(state: State) -> str:
    """What is committed beside the offset: what the judged records themselves do not tell cheaply."""
    dedup = {
        "bits": state.seen.segment_bits,
        "horizon_days": state.seen.horizon.days,
        "from": state.dedup.enriched_from,
        "chain": state.dedup.chain,
        "withdrawn": state.dedup.withdrawn_hash,
    }
    for sources in (_MAX_SOURCES, _MAX_SOURCES // 4, 0):
        saved = {"began": state.began_at, "watermark": state.watermark.as_json(sources), "dedup": dedup}
        saved["rejections"] = state.rejections.as_json()
        text = json.dumps(saved, separators=(",", ":"))
        if len(text) <= _MAX_METADATA:
            break
    return text


@dataclass(frozen=True, slots=True)
class Saved:
    """What ``metadata_of`` wrote. ``position`` lacks the hashes of withdrawn bits; ``withdrawn_hash`` is of all."""

    began: int | None
    watermark: Watermark
    segment_bits: int
    horizon_days: int
    position: Position
    withdrawn_hash: str
    rejections: Rejections

    @classmethod
    def read(cls, source: Source, committed: Committed) -> Saved:
        """Raises JudgementBroken if it is missing or another's."""
        try:
            saved: Mapping[str, Any] = json.loads(committed.metadata)
            dedup: Mapping[str, Any] = saved["dedup"]
            return cls(
                saved["began"],
                Watermark.from_json(saved["watermark"]),
                int(dedup["bits"]),
                int(dedup["horizon_days"]),
                Position(dedup["from"], str(dedup["chain"])),
                str(dedup["withdrawn"]),
                Rejections.from_json(saved["rejections"]),
            )
        except (ValueError, KeyError, TypeError) as err:
            raise PositionForeign(
                f"{source}@{committed.offset} was committed without the enricher's metadata: the offset was set from "
                "outside; derive a new generation instead"
            ) from err

    def check_same(self, source: Source, segment_bits: int, horizon_days: int) -> None:
        """Raises JudgementBroken if the settings are not those the partition was judged with."""
        for name, was, now in (
            ("DEDUP_SEGMENT_BITS", self.segment_bits, segment_bits),
            ("DEDUP_HORIZON_DAYS", self.horizon_days, horizon_days),
        ):
            if was != now:
                raise SettingsDiffer(
                    f"TELESTREAM_{name} is {now}, but {source} was judged with {was}: a generation keeps it, or a "
                    "replay would find other duplicates; set it back or derive a new generation"
                )


class Restorer:
    """Rebuilds the state of one type's partitions. ``schema_of`` finds the schema of an id."""

    def __init__(self, kind: Kind, group: str, schema_of: Callable[[int], Schema | None]) -> None:
        self._kind, self._group, self._schema_of = kind, group, schema_of
        self._prefixes: dict[int, Schema] = {}
        self._keys = TextKeys("event_uid", kind.record_type.key_field)

    def state(
        self,
        source: Source,
        committed: Committed | None,
        saved: Saved | None,
        enriched: Source,
        judged: Iterable[Batch],
        *,
        raw_end: int,
        seen: Seen,
        position: Position,
    ) -> State:
        """The state as of ``committed``, from the batches of ``enriched`` from ``position`` on.

        ``seen``: what was remembered when the open segment began; it is spent. Raises JudgementBroken where they do not
        fit together: going on would lose or repeat records.
        """
        if committed is None or saved is None:
            for batch in judged:
                offset = int(self._decode(enriched, batch)["src_offset"][0])
                raise PositionGone(
                    f"{enriched} holds judged records from raw offset {offset} on, but group {self._group} has "
                    f"committed nothing for {source}: delete both or neither, or derive a new generation"
                )
            return State(None, raw_end, seen)
        open_from = segment_start(segment_of(committed.offset, seen.segment_bits), seen.segment_bits)
        last: int | None = None
        for batch in judged:
            records = self._decode(enriched, batch)
            if last is None:
                self._check_whole(source, enriched, int(records["src_offset"][0]), max(open_from, saved.began or 0))
            last = _last_of_dense(enriched, batch, records, last)
            self._tell(records.filter(pl.col("src_offset") >= open_from), seen)
        if last is None and saved.began is not None:
            raise JudgedCut(
                f"{enriched} holds nothing from {position.enriched_from or 0} on, but group {self._group} has judged "
                f"{source} from {saved.began} to {committed.offset}: the topic was cut or made anew; derive a new "
                "generation"
            )
        if last is not None and last + 1 != committed.offset:
            raise JudgedCut(
                f"{enriched} ends with raw offset {last}, group {self._group} committed {source}@{committed.offset}: "
                "they are written in one transaction, so one was changed since; derive a new generation"
            )
        return State(
            committed.offset,
            raw_end,
            seen,
            saved.watermark,
            began_at=saved.began,
            dedup=position,
            rejections=saved.rejections,
        )

    def _check_whole(self, source: Source, enriched: Source, first: int, needed: int) -> None:
        if first > needed:
            raise JudgedCut(
                f"{enriched} begins with raw offset {first}, but the open segment of {source} with {needed}: judged "
                "records that are still needed were deleted; restore them, or derive a new generation and keep "
                "judged records as long as raw ones"
            )

    def _tell(self, records: pl.DataFrame, seen: Seen) -> None:
        stored = records.filter(pl.col("verdict") == STORED)
        if not stored.height:
            return
        record_type = self._kind.record_type
        keys = self._keys.of(stored)
        time_ms = stored[record_type.time_field].to_physical().to_numpy()
        key = identity_key(keys["event_uid"], time_ms, keys[record_type.key_field])
        offsets = stored["src_offset"].to_numpy()
        undone = (stored["sign"] < 0).to_numpy()
        told = np.flatnonzero(~undone)
        seen.remember(
            (key[0][told], key[1][told]),
            time_ms[told],
            offsets[told],
            stored["content_hash"].to_numpy()[told],
            stored["appended_at"].to_physical().to_numpy()[told],
        )
        back = np.flatnonzero(undone)
        if len(back):
            originals = stored["reverses_offset"].to_numpy()[back].astype(np.int64)
            seen.withdraw((key[0][back], key[1][back]), time_ms[back], originals, offsets[back])

    def _decode(self, enriched: Source, batch: Batch) -> pl.DataFrame:
        """The judgement and identity of each record; the rest of it is not read."""
        ids = [schema_id_of(value) for value in batch.values]
        frames: list[pl.DataFrame] = []
        start = 0
        for stop in [*(np.flatnonzero(np.array(ids[1:]) != np.array(ids[:-1])) + 1).tolist(), len(ids)]:
            try:
                payloads = [(value or b"")[FRAME_BYTES:] for value in batch.values[start:stop]]
                frames.append(decode_payloads(payloads, self._prefix(ids[start])).select(self._columns()))
            except DecodeError as err:
                raise JudgementBroken(f"{enriched}@{int(batch.offsets[start])}: not a judged record: {err}") from err
            start = stop
        return pl.concat(frames)

    def _columns(self) -> Sequence[str]:
        record_type = self._kind.record_type
        judged = ("src_offset", "appended_at", "verdict", "sign", "content_hash", "reverses_offset")
        return (*judged, "event_uid", record_type.time_field, record_type.key_field)

    def _prefix(self, schema_id: int | None) -> Schema:
        if schema_id is None:
            raise DecodeError("not in the wire format")
        if schema_id not in self._prefixes:
            schema = self._schema_of(schema_id)
            if schema is None or schema.get("name") != f"{self._kind.name}_enriched":
                raise DecodeError(f"schema id {schema_id} is not one of {self._kind.name} enriched")
            self._prefixes[schema_id] = prefix_schema(schema, _LAST_FIELD)
        return self._prefixes[schema_id]


def _last_of_dense(enriched: Source, batch: Batch, records: pl.DataFrame, last: int | None) -> int:
    offsets = records["src_offset"].to_numpy()
    first = int(offsets[0]) if last is None else last + 1
    wrong = np.flatnonzero(offsets != np.arange(first, first + len(offsets)))
    if len(wrong):
        at = int(wrong[0])
        raise JudgedNotDense(
            f"{enriched}@{int(batch.offsets[at])}: raw offset {int(offsets[at])} where {first + at} should be; "
            "the judged records have a hole or a repeat, derive a new generation"
        )
    return int(offsets[-1])
