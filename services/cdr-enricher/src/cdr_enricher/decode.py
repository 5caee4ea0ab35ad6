"""Raw values to columns, one row per value whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import polars as pl

from cdr_enricher.domain.rules import UNDECODABLE
from cdr_enricher.errors import Unsupported
from cdr_enricher.exact_payloads import ExactPayloads
from telestream_contracts import (
    FRAME_BYTES,
    Schema,
    decode_payloads,
    encode_payloads,
    encode_record,
    frame,
    load_schema,
    schema_id_of,
)

_FRAME_OF, _PAYLOAD_OF = itemgetter(slice(0, FRAME_BYTES)), itemgetter(slice(FRAME_BYTES, None))
_NULL = "the value is null"
_NO_FRAME = "the value is not in the wire format (magic byte 0, schema id)"
_NO_SCHEMA = "the value names a schema that is not registered for this type"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One row of the current schema and one bare payload of it per value; index → reason of what could not be read.

    Those carry the type's constant empty record.
    """

    records: pl.DataFrame
    payloads: list[bytes]
    undecodable: Mapping[int, str]


class RawDecoder:
    """Decodes one type's raw topic. ``schema_id`` is the current raw schema's; ``schema_of`` finds others by id."""

    def __init__(self, type_name: str, schema_id: int, schema_of: Callable[[int], Schema | None]) -> None:
        self._type = type_name
        self._schema = load_schema(type_name)
        self._frame = frame(schema_id)
        self._schema_id = schema_id
        self.schema_of = schema_of
        self._exacts: dict[int, ExactPayloads] = {}
        self.empty_payload = empty_payload(self._schema)
        self.columns: dict[str, pl.DataType] = dict(decode_payloads([], self._schema).schema)

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode a batch. Raises Unsupported for a raw schema that is newer than this code."""
        try:
            if set(map(_FRAME_OF, values)) == {self._frame}:  # type: ignore[arg-type]
                payloads: list[bytes] = list(map(_PAYLOAD_OF, values))  # type: ignore[arg-type]
                columns = self._exact(self._schema_id, self._schema).columns(payloads)
                if columns is not None:
                    return Decoded(pl.DataFrame(columns), payloads, {})
        except TypeError:
            pass  # a null
        return self._decode_each(values)

    def _decode_each(self, values: Sequence[bytes | None]) -> Decoded:
        payloads = [self.empty_payload] * len(values)
        reasons: dict[int, str] = {}
        by_id: dict[int, list[int]] = {}
        for index, value in enumerate(values):
            schema_id = schema_id_of(value)
            if schema_id is None:
                reasons[index] = _NULL if value is None else _NO_FRAME
            else:
                by_id.setdefault(schema_id, []).append(index)
        for schema_id, indexes in by_id.items():
            schema = self._raw_schema(schema_id)
            if schema is None:
                reasons.update(dict.fromkeys(indexes, _NO_SCHEMA))
                continue
            given = [(values[index] or b"")[FRAME_BYTES:] for index in indexes]
            bad = self._exact(schema_id, schema).bad(given)
            reasons.update((indexes[place], reason) for place, reason in bad.items())
            good = [place for place in range(len(given)) if place not in bad]
            if good and schema_id != self._schema_id:
                given = self._as_current(decode_payloads([given[place] for place in good], schema))
                good, indexes = list(range(len(given))), [indexes[place] for place in good]
            for place in good:
                payloads[indexes[place]] = given[place]
        return Decoded(decode_payloads(payloads, self._schema), payloads, reasons)

    def _exact(self, schema_id: int, schema: Schema) -> ExactPayloads:
        if schema_id not in self._exacts:
            self._exacts[schema_id] = ExactPayloads(schema)
        return self._exacts[schema_id]

    def _raw_schema(self, schema_id: int) -> Schema | None:
        if schema_id == self._schema_id:
            return self._schema
        schema = self.schema_of(schema_id)
        if schema is None or schema.get("name") != self._type:
            return None
        unknown = {field["name"] for field in schema["fields"]} - {field["name"] for field in self._schema["fields"]}
        if unknown:
            raise Unsupported(
                f"{self._type}.raw: schema id {schema_id} has fields this version does not know "
                f"({', '.join(sorted(unknown))}); upgrade the enricher before the gateway"
            )
        return schema

    def _as_current(self, older: pl.DataFrame) -> list[bytes]:
        """Payloads of the current schema: what an enriched record carries must have all its fields."""
        missing = [
            pl.lit(None).cast(dtype).alias(name) for name, dtype in self.columns.items() if name not in older.columns
        ]
        return encode_payloads(older.with_columns(missing), self._schema)


def empty_payload(schema: Schema) -> bytes:
    """The constant raw record in place of one that cannot be read: empty texts, zeros, nulls."""
    record = {field["name"]: _empty_value(field["type"]) for field in schema["fields"]}
    return encode_record(record, schema, 0)[FRAME_BYTES:]


def _empty_value(avro_type: Any) -> Any:
    if isinstance(avro_type, list):
        return None
    kind = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    return {"string": "", "boolean": False, "map": {}, "double": 0.0}.get(kind, 0)


def undecodable_reason(detail: str) -> str:
    """What a dead letter says: never the bytes themselves."""
    return f"{UNDECODABLE}: {detail}"
