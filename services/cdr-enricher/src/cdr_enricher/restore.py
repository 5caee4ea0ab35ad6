"""A partition's state, rebuilt from what is in Kafka: the judged records and what was committed beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.hashing import TextKeys, identity_key
from cdr_enricher.domain.kinds import Kind
from cdr_enricher.domain.watermark import Watermark
from cdr_enricher.errors import JudgementBroken
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

_MAX_SOURCES = 40  # in the metadata: Kafka allows 4,096 bytes
_MAX_METADATA = 3_500


def metadata_of(state: State) -> str:
    """What is committed beside the offset: what the judged records themselves do not tell cheaply."""
    for sources in (_MAX_SOURCES, _MAX_SOURCES // 4, 0):
        text = json.dumps(
            {"began": state.began_at, "watermark": state.watermark.as_json(sources)}, separators=(",", ":")
        )
        if len(text) <= _MAX_METADATA:
            break
    return text


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
        enriched: Source,
        judged: Iterable[Batch],
        *,
        raw_end: int,
        expected: int,
    ) -> State:
        """The state as of ``committed``, from all batches of the ``enriched`` partition; about ``expected`` records.

        Raises JudgementBroken where the two do not fit together: going on would lose or repeat records.
        """
        seen = Seen(expected)
        last: int | None = None
        for batch in judged:
            last = self._add(enriched, batch, seen, last)
        began, watermark = _saved(source, committed)
        if committed is None:
            if last is not None:
                raise JudgementBroken(
                    f"{enriched} holds judged records up to raw offset {last}, but group {self._group} has committed "
                    f"nothing for {source}: delete both or neither, or derive a new generation"
                )
            return State(None, raw_end, seen, watermark)
        if last is None and began is not None:
            raise JudgementBroken(
                f"{enriched} is empty, but group {self._group} has judged {source} from {began} to {committed.offset}: "
                "the topic was cut or made anew; derive a new generation"
            )
        if last is not None and last + 1 != committed.offset:
            raise JudgementBroken(
                f"{enriched} ends with raw offset {last}, group {self._group} committed {source}@{committed.offset}: "
                "they are written in one transaction, so one was changed since; derive a new generation"
            )
        return State(committed.offset, raw_end, seen, watermark, began_at=began)

    def _add(self, enriched: Source, batch: Batch, seen: Seen, last: int | None) -> int:
        records = self._decode(enriched, batch)
        offsets = records["src_offset"].to_numpy()
        first = int(offsets[0]) if last is None else last + 1
        wrong = np.flatnonzero(offsets != np.arange(first, first + len(offsets)))
        if len(wrong):
            at = int(wrong[0])
            raise JudgementBroken(
                f"{enriched}@{int(batch.offsets[at])}: raw offset {int(offsets[at])} where {first + at} should be; "
                "the judged records have a hole or a repeat, derive a new generation"
            )
        stored = records.filter((pl.col("verdict") == STORED) & (pl.col("sign") == 1))
        keys = self._keys.of(stored)
        time_ms = stored[self._kind.record_type.time_field].to_physical().to_numpy()
        seen.judge(
            identity_key(keys["event_uid"], time_ms, keys[self._kind.record_type.key_field]),
            time_ms,
            stored["src_offset"].to_numpy(),
            stored["content_hash"].to_numpy(),
            np.zeros(len(time_ms), np.int64),
        )
        return int(offsets[-1])

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
        judged = ("src_offset", "verdict", "sign", "content_hash")
        return (*judged, "event_uid", record_type.time_field, record_type.key_field)

    def _prefix(self, schema_id: int | None) -> Schema:
        if schema_id is None:
            raise DecodeError("not in the wire format")
        if schema_id not in self._prefixes:
            schema = self._schema_of(schema_id)
            if schema is None or schema.get("name") != f"{self._kind.name}_enriched":
                raise DecodeError(f"schema id {schema_id} is not one of {self._kind.name} enriched")
            self._prefixes[schema_id] = prefix_schema(schema, self._kind.identity_last)
        return self._prefixes[schema_id]


def _saved(source: Source, committed: Committed | None) -> tuple[int | None, Watermark]:
    if committed is None:
        return None, Watermark()
    try:
        saved: Mapping[str, Any] = json.loads(committed.metadata)
        return saved["began"], Watermark.from_json(saved["watermark"])
    except (ValueError, KeyError, TypeError) as err:
        raise JudgementBroken(
            f"{source}@{committed.offset} was committed without the enricher's metadata: the offset was set from "
            "outside; derive a new generation instead"
        ) from err
