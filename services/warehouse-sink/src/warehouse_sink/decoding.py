"""Avro values to Arrow columns of the schema this version knows, whatever version wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from telestream_contracts import (
    FRAME_BYTES,
    Schema,
    arrow_schema,
    decode_arrow,
    decode_each,
    decode_record,
    schema_id_of,
)
from telestream_contracts.errors import DecodeError
from warehouse_sink.buffer import Pending
from warehouse_sink.domain.places import Source
from warehouse_sink.errors import Undecodable

SchemaOf = Callable[[int], Schema | None]


def decode_columns(source: Source, pending: Pending, schema_of: SchemaOf) -> pa.RecordBatch:
    """All values, in order. Raises Undecodable, naming the first offset that is not what its schema says."""
    values, schema = pending.values, pending.route.schema
    if pending.route.latest_by_key:
        values = [value for value in values if value is not None]  # a tombstone takes nothing out of a warehouse
    if None in values:
        raise Undecodable(f"{source}@{int(pending.offsets[values.index(None)])}: a null value in a topic that has none")
    if not values:
        return pa.RecordBatch.from_pylist([], schema=arrow_schema(schema))
    heads = {value[:FRAME_BYTES] for value in values if value is not None}
    try:
        if len(heads) == 1:
            return _aligned(decode_arrow(values, _schema(heads.pop(), schema_of)), schema)
        return _mixed(values, heads, schema, schema_of)
    except DecodeError as err:
        bad = decode_each(values, schema_of).bad
        where = f"@{int(pending.offsets[bad[0].index])}" if bad else ""
        raise Undecodable(
            f"{source}{where}: {bad[0].reason if bad else err}; nothing from here on is written until it can be read"
        ) from err


def decode_dead_letters(source: Source, pending: Pending, schema_of: SchemaOf) -> list[Mapping[str, Any]]:
    """One dict per dead letter: they carry bytes, which the columnar codec lacks, and are few."""
    letters: list[Mapping[str, Any]] = []
    for index, value in enumerate(pending.values):
        try:
            if value is None:
                raise DecodeError("a null value in a topic that has none")
            letters.append(decode_record(value, _schema(value[:FRAME_BYTES], schema_of)))
        except DecodeError as err:
            raise Undecodable(f"{source}@{int(pending.offsets[index])}: {err}") from err
    return letters


def _schema(head: bytes, schema_of: SchemaOf) -> Schema:
    schema_id = schema_id_of(head)
    if schema_id is None:
        raise DecodeError("not in the wire format (magic byte 0, schema id)")
    schema = schema_of(schema_id)
    if schema is None:
        raise DecodeError(f'schema id {schema_id} is not registered; run "telestream schemas register"')
    return schema


def _mixed(values: Sequence[bytes | None], heads: set[bytes], schema: Schema, schema_of: SchemaOf) -> pa.RecordBatch:
    """Values of several schema versions, back in their order."""
    tables, order = [], []
    for head in sorted(heads):
        indexes = [index for index, value in enumerate(values) if value is not None and value.startswith(head)]
        chosen = decode_arrow([values[index] for index in indexes], _schema(head, schema_of))
        tables.append(pa.Table.from_batches([_aligned(chosen, schema)]))
        order += indexes
    joined = pa.concat_tables(tables).take(np.argsort(np.array(order), kind="stable")).combine_chunks()
    return joined.to_batches()[0]


def _aligned(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """The columns of ``schema``: what an older writer lacked is its default, what a newer one added is left out."""
    wanted = arrow_schema(schema)
    if batch.schema.names == wanted.names:
        return batch
    defaults = {field["name"]: field.get("default") for field in schema["fields"]}
    columns = []
    for field in wanted:
        if field.name in batch.schema.names:
            columns.append(batch.column(field.name))
        elif field.nullable or defaults[field.name] is not None:
            columns.append(pa.array([defaults[field.name]] * batch.num_rows, field.type))
        else:
            raise DecodeError(f"{schema['name']}.{field.name} is missing and has no default")
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
