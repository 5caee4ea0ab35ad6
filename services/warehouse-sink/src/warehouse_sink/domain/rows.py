"""From decoded columns to rows of tables. Column in, column out; nothing here looks at one record at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telestream_domain import TYPES
from telestream_warehouse import FACTS, physical

JUDGEMENT = physical("judgement")
DUPLICATE = physical("duplicate")
DEAD_LETTER = physical("dead_letter")
POSITION = "sink_position"

Rows = Mapping[str, pa.RecordBatch]
"""Table → rows."""

# of the judged record, what a stored fact need not repeat
_NOT_IN_FACTS = frozenset({"verdict", "sign", "rule", "first_offset", "content_hash"})
_DUPLICATE_COLUMNS: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("src_partition", "src_offset"), pa.int64()),
    "appended_at": pa.timestamp("ms"),
    "sign": pa.int64(),
    "rule": pa.string(),
    "first_offset": pa.int64(),
    **dict.fromkeys(("event_uid", "subscriber_id", "cell_id", "source"), pa.string()),
    **dict.fromkeys(("batch_id", "line", "duration_ms", "bytes_up", "bytes_down", "charge_micros"), pa.int64()),
    "currency": pa.string(),
}


def judged_rows(record_type: str, generation: int, judged: pa.RecordBatch) -> Rows:
    """Every judged record into the books; STORED ones into the facts, DUPLICATE ones among the duplicates.

    A reversal goes where its original did and takes its place; one without effect stands in the books alone.
    """
    booked = pc.coalesce(judged["reverses_offset"], judged["origin_offset"], judged["src_offset"])
    tables = {JUDGEMENT: _judgements(record_type, generation, judged, booked)}
    verdict = judged["verdict"]
    stored = pc.equal(verdict, "STORED")
    count = pc.sum(stored).as_py() or 0
    if count:
        facts = _with(
            judged, {"booked_offset": booked, "withdrawn": _withdrawn(judged), **_generation(judged, generation)}
        )
        facts = facts.select([name for name in facts.schema.names if name not in _NOT_IN_FACTS])
        tables[physical(FACTS[record_type])] = facts if count == judged.num_rows else facts.filter(stored)
    duplicates = judged.slice(0, 0)
    if count < judged.num_rows:
        duplicates = judged.filter(pc.and_(pc.equal(verdict, "DUPLICATE"), pc.greater(judged["sign"], 0)))
    if duplicates.num_rows:
        # both types lie in one table: what one has not is null, or their blocks could not be put together
        columns = {name: _column(duplicates, name, kind) for name, kind in _DUPLICATE_COLUMNS.items()}
        tables[DUPLICATE] = _with(
            pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)),
            {
                "type": _constant(duplicates, record_type),
                "event_at": duplicates[TYPES[record_type].time_field],
                **_generation(duplicates, generation),
            },
        )
    return tables


def dead_letter_rows(generation: int, letters: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Rows:
    """Decoded dead letters, each a dict with the fields ``columns``."""
    arrays = [pa.array([letter[name] for letter in letters]) for name in columns]
    arrays = [_text_if_null(array) for array in arrays]
    rows = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    return {DEAD_LETTER: _with(rows, _generation(rows, generation))}


def aggregate_rows(family: str, generation: int, upserts: pa.RecordBatch) -> Rows:
    """Full-state upserts; the aggregator's markers are left out."""
    rows = upserts.filter(pc.is_null(upserts["marker_offset"]))
    if not rows.num_rows:
        return {}
    rows = rows.select([name for name in rows.schema.names if name != "marker_offset"])
    return {physical(f"agg_{family}"): _with(rows, _generation(rows, generation))}


def reference_rows(entity: str, partition: int, offsets: npt.NDArray[np.int64], versions: pa.RecordBatch) -> Rows:
    """Versions with their place in the log: of two with one ``valid_from`` the later offset holds."""
    place = {"src_partition": _constant(versions, partition), "src_offset": pa.array(offsets)}
    return {f"reference_{entity}": _with(versions, place)}


def merged(parts: Sequence[Rows]) -> dict[str, pa.Table]:
    """Rows of several partitions as one block per table, their order kept within each."""
    batches: dict[str, list[pa.RecordBatch]] = {}
    for part in parts:
        for table, rows in part.items():
            batches.setdefault(table, []).append(rows)
    return {table: pa.Table.from_batches(found) for table, found in batches.items()}


def _judgements(record_type: str, generation: int, judged: pa.RecordBatch, booked: pa.Array) -> pa.RecordBatch:
    columns = {
        **_generation(judged, generation),
        "type": _constant(judged, record_type),
        "src_partition": judged["src_partition"],
        "src_offset": judged["src_offset"],
        "booked_offset": booked,
        "verdict": judged["verdict"],
        "sign": judged["sign"],
        "rule": pc.fill_null(judged["rule"], ""),
        "warned": pc.greater(pc.list_value_length(judged["warnings"]), 0).cast(pa.uint8()),
        "source": judged["source"],
        "batch_id": judged["batch_id"],
        "appended_at": judged["appended_at"],
        "duration_ms": _number(judged, "duration_ms"),
        "bytes": pc.add(_number(judged, "bytes_up"), _number(judged, "bytes_down")),
        "charge_micros": _number(judged, "charge_micros"),
        "currency": pc.fill_null(judged["currency"], "")
        if "currency" in judged.schema.names
        else _constant(judged, ""),
        "node_id": _column(judged, "node_id", pa.string()),
        "node_seq": _column(judged, "node_seq", pa.int64()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _withdrawn(judged: pa.RecordBatch) -> pa.Array:
    return pc.less(judged["sign"], 0).cast(pa.uint8())


def _generation(rows: pa.RecordBatch, generation: int) -> dict[str, pa.Array]:
    return {"generation": pa.array(np.full(rows.num_rows, generation, np.uint32))}


def _constant(rows: pa.RecordBatch, value: str | int) -> pa.Array:
    return pa.repeat(pa.scalar(value), rows.num_rows)


def _number(rows: pa.RecordBatch, name: str) -> pa.Array:
    if name not in rows.schema.names:
        return _constant(rows, 0)
    return pc.fill_null(rows[name], 0)


def _column(rows: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    return rows[name].cast(kind) if name in rows.schema.names else pa.nulls(rows.num_rows, kind)


def _with(rows: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*rows.columns, *columns.values()], names=[*rows.schema.names, *columns])


def _text_if_null(array: pa.Array) -> pa.Array:
    """A column of nulls alone has no type that Arrow's stream could carry to ClickHouse."""
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array
