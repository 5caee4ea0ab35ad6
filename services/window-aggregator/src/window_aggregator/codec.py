"""Framed Avro values ⇄ columns, for the two topics read and the five written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from telestream_contracts import (
    DecodeError,
    Schema,
    arrow_schema,
    decode,
    decode_each,
    encode,
    load_schema,
    prefix_schema,
    schema_id_of,
)
from telestream_contracts.codec import FRAME_BYTES
from window_aggregator.domain.measures import LAST_FIELD
from window_aggregator.errors import UnknownSchema


class Codec:
    """``schema_of`` gives the schema for a registered id, or None; ``ids`` the id for each family's upserts."""

    def __init__(self, schema_of: Callable[[int], Schema | None], ids: Mapping[str, int]) -> None:
        self._schema_of = schema_of
        self._ids = dict(ids)
        self._agg = {family: load_schema(f"agg_{family}") for family in ids}
        self._prefixes: dict[tuple[str, int], Schema] = {}

    def enriched(self, values: Sequence[bytes | None], record_type: str, where: str) -> pl.DataFrame:
        """Judged records in input order, decoded as far as needed. Raises DecodeError or UnknownSchema."""
        frames = {value[:FRAME_BYTES] for value in values if value is not None}
        try:
            if len(frames) == 1:
                return decode(values, self._prefix(schema_id_of(frames.pop()), record_type, where))
            found = decode_each(values, lambda schema_id: self._prefix(schema_id, record_type, where))
        except DecodeError as err:
            raise DecodeError(f"{where}: {err}; the enriched topic holds what its writer does not write") from err
        if found.bad:
            bad = found.bad[0]
            raise DecodeError(f"{where}: record {bad.index} of the batch: {bad.reason}")
        return found.frame

    def upserts(self, values: Sequence[bytes], where: str) -> pl.DataFrame:
        """Upserts of one family in input order, as this version's schema has them: what an older one lacked is its
        default. Raises DecodeError."""
        schemas = {value[:FRAME_BYTES] for value in values}
        known = [schema for head in schemas if (schema := self._schema_of(schema_id_of(head) or 0)) is not None]
        if len(schemas) == len(known) == 1:
            with contextlib.suppress(DecodeError):  # which of them is bad is found out below
                return self._as_of_now(decode(values, known[0]), known)
        found = decode_each(values, self._schema_of)
        if found.bad:
            raise DecodeError(f"{where}: an upsert cannot be decoded: {found.bad[0].reason}")
        return self._as_of_now(found.frame, known)

    def _as_of_now(self, found: pl.DataFrame, written: Sequence[Schema]) -> pl.DataFrame:
        own = next((schema for schema in self._agg.values() if schema["name"] == written[0]["name"]), None)
        if own is None or all(len(schema["fields"]) >= len(own["fields"]) for schema in written):
            return found
        dtypes = pl.from_arrow(arrow_schema(own).empty_table()).schema  # type: ignore[union-attr]
        defaults = {field["name"]: pl.lit(field.get("default"), dtypes[field["name"]]) for field in own["fields"]}
        return found.select(
            (pl.col(name).fill_null(default) if name in found.columns else default).alias(name)
            for name, default in defaults.items()
        )

    def encode(self, upserts: pl.DataFrame, family: str) -> list[bytes]:
        """Framed values, one per row."""
        return encode(upserts, self._agg[family], self._ids[family])

    def _prefix(self, schema_id: int | None, record_type: str, where: str) -> Schema:
        if schema_id is None:
            raise DecodeError("a value is not in the wire format (magic byte 0, schema id)")
        known = self._prefixes.get((record_type, schema_id))
        if known is None:
            schema = self._schema_of(schema_id)
            if schema is None:
                raise UnknownSchema(
                    f'{where}: schema id {schema_id} is not registered; run "telestream schemas register"'
                )
            known = prefix_schema(schema, LAST_FIELD[record_type])
            self._prefixes[record_type, schema_id] = known
        return known
