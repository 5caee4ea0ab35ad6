"""Accepted records → framed Avro values, with what a whole batch has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ingest_gateway.domain.accepted import OUTPUT, Accepted, Entry, from_entries
from telestream_contracts import Schema, arrow_schema, encode, encode_records, load_schema

SMALL = 24
"""Below so many records one by one through fastavro is cheaper than building columns."""


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What all records of one request or file carry."""

    source: str
    batch_id: int
    ingested_at_ms: int
    max_age_days: int | None = None


class Encoder:
    """Encodes one type."""

    def __init__(self, record_type: str, schema_id: int) -> None:
        self.record_type, self.schema_id = record_type, schema_id
        self.schema: Schema = load_schema(record_type)
        self.arrow: pa.Schema = arrow_schema(self.schema)
        self.types: dict[str, pa.DataType] = {field.name: field.type for field in self.arrow}
        produced = set(OUTPUT[record_type])
        self._common = [field for field in self.arrow if field.name not in produced]

    def columns(self, accepted: Accepted, head: BatchHead) -> list[bytes]:
        """One framed value per record, in order."""
        count = len(accepted)
        if not count:
            return []
        arrays: dict[str, Any] = dict(accepted.columns)
        for field in self._common:
            arrays[field.name] = self._constant(field, head, accepted.lines, count)
        for field in self.arrow:
            if arrays[field.name].type != field.type:
                arrays[field.name] = arrays[field.name].cast(field.type)
        batch = pa.RecordBatch.from_arrays([arrays[field.name] for field in self.arrow], schema=self.arrow)
        return encode(batch, self.schema, self.schema_id)

    def entries(self, entries: list[Entry], lines: list[int], head: BatchHead) -> list[bytes]:
        """``columns`` for records that are still rows."""
        if len(entries) >= SMALL:
            return self.columns(from_entries(self.record_type, entries, lines, self.types), head)
        names = OUTPUT[self.record_type]
        records = []
        for entry, line in zip(entries, lines, strict=True):
            record: dict[str, Any] = dict(zip(names, entry.row, strict=True))
            if "ext" in record:
                record["ext"] = dict(record["ext"])
            for field in self._common:
                record[field.name] = line if field.name == "line" else self._value(field.name, head)
            records.append(record)
        return encode_records(records, self.schema, self.schema_id)

    @staticmethod
    def _value(name: str, head: BatchHead) -> Any:
        return {
            "source": head.source,
            "batch_id": head.batch_id,
            "ingested_at": head.ingested_at_ms,
            "max_age_days": head.max_age_days,
        }.get(name)

    def _constant(self, field: pa.Field, head: BatchHead, lines: Any, count: int) -> pa.Array:
        if field.name == "line":
            return pa.array(lines, field.type)
        value = self._value(field.name, head)
        if value is None:
            return pa.nulls(count, field.type)
        if pa.types.is_timestamp(field.type):
            return pa.array(np.full(count, value, np.int64)).cast(field.type)
        return pa.repeat(pa.scalar(value, field.type), count)
