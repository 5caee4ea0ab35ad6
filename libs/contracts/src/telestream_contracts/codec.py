"""Avro payloads ⇄ columns, in the Confluent wire format (magic byte 0, four bytes of schema id, payload).

Hot paths go through pyruhvro, never a Python dict per record; fastavro is the twin that tests compare with and that
cold or ``bytes``-carrying values use.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyruhvro

from telestream_contracts.errors import DecodeError, EncodeError
from telestream_contracts.schemas import Schema, load_schema
from telestream_domain import TYPES

FRAME_BYTES = 5
_MAGIC = 0

_texts: dict[int, tuple[Schema, str]] = {}


def _text(schema: Schema) -> str:
    """JSON of a schema, kept by identity: schemas are made once and live as long as the process."""
    known = _texts.get(id(schema))
    if known is None or known[0] is not schema:
        known = (schema, json.dumps(schema))
        _texts[id(schema)] = known
    return known[1]


def frame(schema_id: int) -> bytes:
    """The five bytes before each payload."""
    return struct.pack(">bI", _MAGIC, schema_id)


def schema_id_of(value: bytes | None) -> int | None:
    """The schema id in a framed value, None if it is not one."""
    if value is None or len(value) < FRAME_BYTES or value[0] != _MAGIC:
        return None
    return int(struct.unpack_from(">I", value, 1)[0])


def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema that decoding gives and encoding wants."""
    return pyruhvro.avro_to_arrow_schema(_text(schema))


def to_arrow(table: pa.RecordBatch | pl.DataFrame, schema: Schema) -> pa.RecordBatch:
    """Columns in the schema's order and exact types.

    Raises EncodeError for a missing column, a null in a field that has none (the encoder would write 0 or ""), or a
    type that cannot be cast without loss.
    """
    wanted = arrow_schema(schema)
    arrow = table.to_arrow() if isinstance(table, pl.DataFrame) else table
    missing = [name for name in wanted.names if name not in arrow.schema.names]
    if missing:
        raise EncodeError(f"{schema['name']}: columns missing: {', '.join(missing)}")
    columns = []
    for field in wanted:
        column = arrow.column(field.name)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
                raise EncodeError(f"{schema['name']}.{field.name}: {column.type} is not {field.type}: {err}") from err
        if not field.nullable and column.null_count:
            raise EncodeError(f"{schema['name']}.{field.name}: {column.null_count} nulls in a field that has none")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def encode_payloads(table: pa.RecordBatch | pl.DataFrame, schema: Schema) -> list[bytes]:
    """One bare payload per row, without the frame. Raises EncodeError as ``to_arrow``."""
    batch = to_arrow(table, schema)
    if batch.num_rows == 0:
        return []
    payloads: list[bytes] = []
    for chunk in pyruhvro.serialize_record_batch(batch, _text(schema), 1):
        payloads.extend(chunk.to_pylist())
    return payloads


def encode(table: pa.RecordBatch | pl.DataFrame, schema: Schema, schema_id: int) -> list[bytes]:
    """One framed value per row. Raises EncodeError as ``to_arrow``."""
    head = frame(schema_id)
    return [head + payload for payload in encode_payloads(table, schema)]


def decode_arrow_payloads(payloads: list[bytes], schema: Schema) -> pa.RecordBatch:
    """Bare payloads to columns. Raises DecodeError as ``decode_payloads``.

    A payload may be longer than its schema says, and its texts are not checked to be UTF-8.
    """
    if not payloads:
        return pa.RecordBatch.from_pylist([], schema=arrow_schema(schema))
    try:
        return pyruhvro.deserialize_array(payloads, _text(schema))
    except BaseException as err:  # a Rust panic is a BaseException
        if isinstance(err, KeyboardInterrupt | SystemExit):
            raise
        raise DecodeError(f"{schema['name']}: {err}") from err


def decode_payloads(payloads: list[bytes], schema: Schema) -> pl.DataFrame:
    """Bare payloads to columns. Raises DecodeError if any is bad, without saying which (``decode_each`` does)."""
    return pl.from_arrow(decode_arrow_payloads(payloads, schema))  # type: ignore[return-value]


def raw_fields() -> dict[str, dict[str, pl.DataType]]:
    """Record type → the columns that decoding its raw records gives: what rules may speak of."""
    return {name: dict(decode_payloads([], load_schema(name)).schema) for name in TYPES}


def decode_arrow(values: Sequence[bytes | None], schema: Schema) -> pa.RecordBatch:
    """As ``decode``, without the way through Polars: for who passes columns on as they are (0.5 µs a wide record)."""
    if any(value is None for value in values):
        raise DecodeError(f"{schema['name']}: a null value")
    return decode_arrow_payloads([value[FRAME_BYTES:] for value in values if value is not None], schema)


def decode(values: Sequence[bytes | None], schema: Schema) -> pl.DataFrame:
    """Framed values, all of this schema, to columns.

    Raises DecodeError if any is null, not framed or not decodable. The schema id is the caller's to check.
    """
    if None in values:
        raise DecodeError(f"{schema['name']}: a null value")
    return decode_payloads([value[FRAME_BYTES:] for value in values if value is not None], schema)


@dataclass(frozen=True, slots=True)
class Bad:
    """A value that could not be decoded: its index in the input and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """``frame`` has the good rows in input order; ``good`` their indexes; ``bad`` the others."""

    frame: pl.DataFrame
    good: npt.NDArray[np.int64]
    bad: list[Bad]


def decode_each(
    values: Sequence[bytes | None], schemas: Mapping[int, Schema] | Callable[[int], Schema | None]
) -> Decoded:
    """Decode what can be decoded, grouped by schema id; bisect to the bad ones.

    ``schemas`` gives the schema for an id, or None. All schemas given must decode to the same columns; columns that an
    older one lacks are null.
    """
    lookup = schemas if callable(schemas) else schemas.get
    by_id: dict[int, list[int]] = {}
    bad: list[Bad] = []
    for index, value in enumerate(values):
        schema_id = schema_id_of(value)
        if schema_id is None:
            bad.append(
                Bad(index, "null value" if value is None else "not in the wire format (magic byte 0, schema id)")
            )
        else:
            by_id.setdefault(schema_id, []).append(index)
    frames: list[pl.DataFrame] = []
    good: list[int] = []
    for schema_id, indexes in by_id.items():
        schema = lookup(schema_id)
        if schema is None:
            bad.extend(Bad(index, f"schema id {schema_id} is not registered") for index in indexes)
            continue
        _bisect(values, indexes, schema, frames, good, bad)
    if not frames:
        return Decoded(pl.DataFrame(), np.empty(0, np.int64), sorted(bad, key=lambda entry: entry.index))
    order = np.array(good, np.int64)
    decoded = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    if len(order) > 1 and bool((np.diff(order) < 0).any()):
        by_input = np.argsort(order, kind="stable")
        decoded, order = decoded[by_input], order[by_input]
    return Decoded(decoded, order, sorted(bad, key=lambda entry: entry.index))


def _bisect(
    values: Sequence[bytes | None],
    indexes: list[int],
    schema: Schema,
    frames: list[pl.DataFrame],
    good: list[int],
    bad: list[Bad],
) -> None:
    try:
        frames.append(decode([values[index] for index in indexes], schema))
        good.extend(indexes)
    except DecodeError as err:
        if len(indexes) == 1:
            bad.append(Bad(indexes[0], str(err)))
            return
        middle = len(indexes) // 2
        _bisect(values, indexes[:middle], schema, frames, good, bad)
        _bisect(values, indexes[middle:], schema, frames, good, bad)


def encode_record(record: Mapping[str, Any], schema: Schema, schema_id: int) -> bytes:
    """One framed value through fastavro: for the small, the cold and ``bytes`` fields."""
    buffer = io.BytesIO()
    buffer.write(frame(schema_id))
    fastavro.schemaless_writer(buffer, _parsed(schema), record)
    return buffer.getvalue()


def encode_records(records: Sequence[Mapping[str, Any]], schema: Schema, schema_id: int) -> list[bytes]:
    """``encode_record`` for several."""
    return [encode_record(record, schema, schema_id) for record in records]


def decode_record(value: bytes, schema: Schema) -> dict[str, Any]:
    """One framed value through fastavro. Raises DecodeError."""
    if schema_id_of(value) is None:
        raise DecodeError(f"{schema['name']}: not in the wire format (magic byte 0, schema id)")
    try:
        decoded = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), _parsed(schema), None)
    except Exception as err:
        raise DecodeError(f"{schema['name']}: {err}") from err
    if not isinstance(decoded, dict):
        raise DecodeError(f"{schema['name']}: not a record")
    return decoded


_parsed_schemas: dict[int, tuple[Schema, Any]] = {}


def _parsed(schema: Schema) -> Any:
    known = _parsed_schemas.get(id(schema))
    if known is None or known[0] is not schema:
        known = (schema, fastavro.parse_schema(json.loads(json.dumps(schema)), _force=True))
        _parsed_schemas[id(schema)] = known
    return known[1]
