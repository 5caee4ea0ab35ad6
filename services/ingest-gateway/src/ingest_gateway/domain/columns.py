"""Whole blocks of a file by columns.

Only rows that are surely good are judged here, by expressions that take no more than the direct path does; every other
row goes to the direct path, which finds what is wrong with it, or that nothing is. So the two agree on refusals by
construction, and on values by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest_gateway.domain.accepted import OUTPUT, Accepted
from ingest_gateway.domain.fields import EXT_VALUE_BYTES, INPUT_FIELDS, InputField, Kind
from ingest_gateway.domain.identity import SEPARATOR, UID, Party
from ingest_gateway.domain.layout import Bound, Layout
from ingest_gateway.domain.profile import TIME_ISO
from ingest_gateway.domain.refusal import Refused, mask_numbers
from ingest_gateway.domain.resolve import Memo
from ingest_gateway.domain.values import BOOLS, checked_ext, memo_of

Bools = npt.NDArray[np.bool_]

_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,3})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
_EPOCH_MS = r"^[1-9][0-9]{12}$"
_LONG = r"^-?[0-9]{1,18}$"
_SCALABLE = r"^-?[0-9]{1,9}$"
_DOUBLE = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"
_SURE = "sure?"  # no field is called so
_AMBIGUOUS: dict[str, Literal["earliest", "latest", "null"]] = {
    "first": "earliest",
    "second": "latest",
    "reject": "null",
}
BY_COLUMNS = ("cdr", "network")
"""Types that come in millions. Reference data goes by the direct path alone."""


@dataclass(slots=True)
class _Lookup:
    """A column by its different values: ``indices`` into ``attributes``, null where the field is empty.

    ``attributes`` are Party's, each a tuple over the different values.
    """

    indices: pa.Array
    attributes: list[tuple[Any, ...]]

    def take(self, name: str, kind: pa.DataType | None = None) -> pa.Array:
        if not self.attributes:
            return pa.nulls(len(self.indices), kind or pa.string())
        return pa.array(self.attributes[_ATTRIBUTE[name]], kind or pa.string()).take(self.indices)

    def filter(self, mask: pa.Array) -> _Lookup:
        return _Lookup(self.indices.filter(mask), self.attributes)


_ATTRIBUTE = {name: place for place, name in enumerate(Party._fields)}
_NOBODY = Party(*[None] * len(Party._fields))  # type: ignore[arg-type]


def judge_columns(layout: Layout, plain: pl.DataFrame, source: str) -> tuple[Accepted, Bools]:
    """Judge what is surely good of a block's rows; empty fields in ``plain`` are null.

    Returns those records, their ``lines`` being row numbers in ``plain``, and which rows they are.
    """
    rows = plain.height
    if layout.record_type not in BY_COLUMNS or not rows:
        return _nothing(layout.record_type), np.zeros(rows, np.bool_)
    scanned, sure = _scan(layout, plain)
    for field in INPUT_FIELDS[layout.record_type]:
        if field.required:
            sure &= _present(scanned.get(field.name), rows)
    if layout.record_type == "cdr":
        owned = np.zeros(rows, np.bool_)
        for name in ("msisdn", "imsi", "line", "subscriber", "route_in"):
            if name in scanned:
                owned |= _present(scanned[name], rows)
        sure &= owned
    else:
        # what identifies a network event without an id is the direct path's to say
        sure &= _present(scanned.get("event_id"), rows)
    if not sure.any():
        return _nothing(layout.record_type), sure
    if not sure.all():
        mask = pa.array(sure)
        scanned = {name: column.filter(mask) for name, column in scanned.items()}
        plain = plain.filter(pl.Series(sure)) if layout.ext else plain
    lines = np.flatnonzero(sure).astype(np.int64)
    scanned["ext"] = _ext(plain, layout, len(lines))
    assemble = _cdr if layout.record_type == "cdr" else _network
    return assemble(layout, scanned, lines, source), sure


def _nothing(record_type: str) -> Accepted:
    return Accepted(
        {name: pa.nulls(0) for name in OUTPUT[record_type]}, np.empty(0, np.int64), np.empty(0, np.int64), []
    )


def _present(column: Any, rows: int) -> Bools:
    if column is None:
        return np.zeros(rows, np.bool_)
    array = column.indices if isinstance(column, _Lookup) else column
    if not array.null_count:
        return np.ones(rows, np.bool_)
    present: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    return present


def _arrow(series: pl.Series) -> pa.Array:
    return series.to_arrow(compat_level=pl.CompatLevel.oldest())


def _prepared(layout: Layout, plain: pl.DataFrame) -> pl.DataFrame:
    """One column of text for each field, named after it: what is joined or changed is so already."""
    changes: list[pl.Expr] = []
    for bound in layout.bound:
        if bound.constant is not None:
            text = pl.lit(bound.constant, pl.String)
        elif len(bound.columns) == 1:
            text = pl.col(str(bound.columns[0]))
        else:
            parts = [pl.col(str(column)).fill_null("") for column in bound.columns]
            text = pl.when(pl.any_horizontal([part != "" for part in parts])).then(
                pl.concat_str(parts, separator=bound.join)
            )
        changes.append(text.alias(bound.field.name))
    # ext columns come along under names that no field has
    kept = [pl.col(str(column)).alias(_kept(name)) for name, column in layout.ext]
    frame = plain.select(*changes, *kept)
    transformed = []
    for bound in layout.bound:
        if bound.transform is not None:
            encoded = _arrow(frame.get_column(bound.field.name)).dictionary_encode()
            words = [bound.transform(word) or None for word in encoded.dictionary.to_pylist()]
            texts = pa.array(words, pa.large_string()).take(encoded.indices)
            transformed.append(pl.Series(bound.field.name, texts, pl.String))
    return frame.with_columns(transformed) if transformed else frame


def _kept(name: str) -> str:
    return "ext." + name


def _scan(layout: Layout, plain: pl.DataFrame) -> tuple[dict[str, Any], Bools]:
    """Columns (or lookups) of the fields that any row has, and the rows in which all of them are surely right."""
    frame = _prepared(layout, plain)
    rows = frame.height
    scanned: dict[str, Any] = {}
    values: list[pl.Expr] = []
    goods: list[pl.Expr] = []
    sure = np.ones(rows, np.bool_)
    for bound in layout.bound:
        field = bound.field
        texts = frame.get_column(field.name)
        if texts.null_count() == rows:
            continue
        good: Bools | None = None
        memo = memo_of(field, layout.resolver)
        if memo is not None:
            scanned[field.name], good = _look_up(texts, memo)
        elif field.kind is Kind.ENUM:
            scanned[field.name], good = _chosen(texts, {value: value for value in field.values})
        elif field.kind is Kind.BOOL:
            scanned[field.name], good = _chosen(texts, BOOLS, pa.bool_())
        else:
            scanned[field.name] = None
            value, right = _expressions(bound, layout)
            values.append(value.alias(field.name))
            if right is not None:
                goods.append(right.fill_null(False) | pl.col(field.name).is_null())
        if good is not None:
            sure &= good
    goods += [pl.col(_kept(name)).str.len_bytes().fill_null(0) <= EXT_VALUE_BYTES for name, _ in layout.ext]
    if goods:
        values.append(pl.all_horizontal(goods).alias(_SURE))
    if values:
        worked = frame.select(values)
        for bound in layout.bound:
            name = bound.field.name
            if name in scanned and scanned[name] is None:
                scanned[name] = _typed(bound.field, worked.get_column(name))
        if goods:
            sure &= worked.get_column(_SURE).to_numpy()
    if any(not _is_ext_name(name) for name, _ in layout.ext):
        sure[:] = False
    return scanned, sure


def _is_ext_name(name: str) -> bool:
    try:
        checked_ext({name: ""})
    except Refused:
        return False
    return True


def _expressions(bound: Bound, layout: Layout) -> tuple[pl.Expr, pl.Expr | None]:
    """The field's value, null where it is not right, and where it is right (None: wherever it is)."""
    field, text = bound.field, pl.col(bound.field.name)
    match field.kind:
        case Kind.INSTANT:
            stamp = _instant(text, bound, layout)
            # before 1970 the two paths might cut fractions differently: rare enough to ask the direct one
            return stamp, stamp >= 0
        case Kind.LONG:
            number = _where(text, _LONG if bound.factor == 1 else _SCALABLE).cast(pl.Int64, strict=False)
            number = number * bound.factor if bound.factor != 1 else number
            return number, number.is_between(field.low, field.high)
        case Kind.DOUBLE:
            double = _where(text, _DOUBLE).cast(pl.Float64, strict=False)
            return double, double.is_not_null()
        case Kind.CURRENCY | Kind.COUNTRY:
            return text, text.str.contains(rf"^[A-Z]{{{field.limit}}}$")
        case _:
            # rows with control characters are not among these
            return text, None if len(bound.columns) > 1 else text.str.len_chars() <= field.limit


def _where(text: pl.Expr, pattern: str) -> pl.Expr:
    return pl.when(text.str.contains(pattern)).then(text)


def _typed(field: InputField, values: pl.Series) -> pa.Array:
    array = _arrow(values)
    if field.kind is Kind.INSTANT:
        return array.cast(pa.timestamp("ms"))
    if pa.types.is_large_string(array.type):
        array = array.cast(pa.string())
    if field.masked:
        encoded = array.dictionary_encode()
        masked = [mask_numbers(value) for value in encoded.dictionary.to_pylist()]
        array = pa.array(masked, pa.string()).take(encoded.indices)
    return array


def _look_up(texts: pl.Series, memo: Memo[Party]) -> tuple[_Lookup, Bools | None]:
    encoded = _arrow(texts).dictionary_encode()
    answers = list(map(memo.__getitem__, encoded.dictionary.to_pylist()))
    bad = [place for place, answer in enumerate(answers) if answer.__class__ is Refused]
    for place in bad:
        answers[place] = _NOBODY
    lookup = _Lookup(encoded.indices, list(zip(*answers, strict=True)))
    if not bad:
        return lookup, None
    wrong = np.zeros(len(answers) + 1, np.bool_)  # the last is for null, which is not wrong
    wrong[bad] = True
    return lookup, ~wrong[encoded.indices.fill_null(-1).to_numpy()]


def _chosen(
    texts: pl.Series, allowed: dict[str, Any], kind: pa.DataType | None = None
) -> tuple[pa.Array, Bools | None]:
    encoded = _arrow(texts).dictionary_encode()
    words = encoded.dictionary.to_pylist()
    array = pa.array([allowed.get(word) for word in words], kind or pa.string()).take(encoded.indices)
    if all(word in allowed for word in words):
        return array, None
    indices = encoded.indices.fill_null(-1).to_numpy()
    known = np.array([word in allowed for word in words], np.bool_)
    return array, (indices < 0) | known[indices]


def _instant(text: pl.Expr, bound: Bound, layout: Layout) -> pl.Expr:
    """Epoch milliseconds, null where the text is not surely a time."""
    rules = layout.profile.time
    if rules.format == "epoch_s" and bound.constant is None:
        return _where(text, r"^[0-9]{1,10}$").cast(pl.Int64, strict=False) * 1000
    epoch = _where(text, _EPOCH_MS).cast(pl.Int64, strict=False)
    if rules.format == "epoch_ms" and bound.constant is None:
        return epoch
    if rules.format == TIME_ISO or bound.constant is not None:
        moment = _where(text, _ISO).str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="ms", time_zone="UTC", strict=False
        )
        return pl.coalesce(moment.to_physical(), epoch)
    shaped = _where(text, "^" + rules.pattern().replace(r"\d", "[0-9]") + "$")
    local = shaped.str.to_datetime(rules.format, time_unit="ms", strict=False)
    zoned = local.dt.replace_time_zone(rules.zone, ambiguous=_AMBIGUOUS[rules.ambiguous_time], non_existent="null")
    return zoned.dt.convert_time_zone("UTC").to_physical()


def _ext(plain: pl.DataFrame, layout: Layout, rows: int) -> pa.Array:
    """Kept columns as one map for each row, in order of their names, empty ones left out."""
    kind = pa.map_(pa.string(), pa.string())
    places, names, values = [], [], []
    for name, column in layout.ext:
        texts = plain.get_column(str(column))
        present = np.flatnonzero(texts.is_not_null().to_numpy())
        if not len(present):
            continue
        places.append(present)
        names.append(pa.array([mask_numbers(name)], pa.string()).take(pa.array(np.zeros(len(present), np.int64))))
        encoded = _arrow(texts.drop_nulls()).dictionary_encode()
        masked = [mask_numbers(value) for value in encoded.dictionary.to_pylist()]
        values.append(pa.array(masked, pa.string()).take(encoded.indices))
    if not places:
        offsets = pa.array(np.zeros(rows + 1, np.int32))
        return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), pa.array([], pa.string())).cast(kind)
    where = np.concatenate(places)
    order = pa.array(np.argsort(where, kind="stable"))
    starts = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=rows))]).astype(np.int32)
    return pa.MapArray.from_arrays(
        pa.array(starts), pa.concat_arrays(names).take(order), pa.concat_arrays(values).take(order)
    ).cast(kind)


def _coalesce(arrays: list[pa.Array]) -> pa.Array:
    result = arrays[0]
    for array in arrays[1:]:
        if not result.null_count:
            break
        result = pc.coalesce(result, array)
    return result


def _attribute(scanned: dict[str, Any], field: str, name: str, rows: int, kind: pa.DataType | None = None) -> pa.Array:
    lookup = scanned.get(field)
    return lookup.take(name, kind) if lookup is not None else pa.nulls(rows, kind or pa.string())


def _uids(layout: Layout, scanned: dict[str, Any], source: str, rows: int) -> pa.Array:
    identity = layout.resolver.identity
    ids = scanned.get("event_id")
    if ids is None:
        return identity.uids_by_fields(_identifying(layout, scanned, source, None, rows))
    if not ids.null_count:
        return identity.uids_by_id(source, ids.to_pylist())
    named = ids.is_valid()
    by_id = identity.uids_by_id(source, ids.drop_null().to_pylist())
    unnamed = pc.invert(named)
    by_fields = identity.uids_by_fields(_identifying(layout, scanned, source, unnamed, rows))
    place = np.empty(rows, np.int64)
    flags = named.to_numpy(zero_copy_only=False)
    place[flags] = np.arange(len(by_id))
    place[~flags] = np.arange(len(by_id), rows)
    return pa.concat_arrays([by_id, by_fields]).take(pa.array(place))


def _identifying(layout: Layout, scanned: dict[str, Any], source: str, mask: pa.Array | None, rows: int) -> list[str]:
    """The identifying fields of CDRs without an id, as the direct path joins them."""

    def column(name: str) -> pa.Array:
        values = scanned.get(name)
        if values is None:
            return pa.nulls(rows, pa.string())
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        return values.cast(pa.string())

    subscriber = _coalesce(
        [_attribute(scanned, name, "plain", rows) for name in ("msisdn", "imsi", "line", "subscriber")]
        + [column("route_in")]
    )
    parts = [subscriber, _attribute(scanned, "peer", "plain", rows)]
    parts += [column(name) for name in ("started_at", "duration_ms", "record_type", "session_id")]
    parts += [column(name) for name in ("record_seq", "node_id", "node_seq")]
    parts += [_attribute(scanned, "cell_id", "id", rows), column("bytes_up"), column("bytes_down")]
    if mask is not None:
        parts = [part.filter(mask) for part in parts]
    joined = pc.binary_join_element_wise(
        pa.scalar(source), *[part.fill_null("") for part in parts], SEPARATOR
    ).to_pylist()
    if layout.profile.identical_rows == "keep":
        return [layout.direct.occurrence(text) for text in joined]
    return joined  # type: ignore[no-any-return]


def _sessions(layout: Layout, scanned: dict[str, Any], rows: int) -> pa.Array:
    texts = scanned.get("session_id")
    if texts is None or texts.null_count == rows:
        return pa.nulls(rows, pa.string())
    encoded = texts.dictionary_encode()
    return layout.resolver.identity.sessions(encoded.dictionary.to_pylist()).take(encoded.indices)


def _cdr(layout: Layout, scanned: dict[str, Any], lines: npt.NDArray[np.int64], source: str) -> Accepted:
    rows = len(lines)
    uids = _uids(layout, scanned, source, rows)
    owners = [scanned[name] for name in ("msisdn", "imsi", "line", "subscriber") if name in scanned]
    ids = _coalesce([owner.take("id") for owner in owners] or [pa.nulls(rows, pa.string())])
    kinds = _coalesce([owner.take("kind") for owner in owners] or [pa.nulls(rows, pa.string())])
    shards = _coalesce([owner.take("shard", pa.int64()) for owner in owners] or [pa.nulls(rows, pa.int64())])
    if ids.null_count:
        nobody = ids.is_null()
        ids = pc.coalesce(ids, uids)
        kinds = kinds.fill_null("NONE")
        numbers = shards.fill_null(0).to_numpy().copy()
        numbers[nobody.to_numpy(zero_copy_only=False)] = layout.resolver.identity.shards(
            UID, uids.filter(nobody).to_pylist()
        )
    else:
        numbers = shards.to_numpy()
    partial = scanned.get("is_partial")
    made = {
        "event_uid": uids,
        "subscriber_id": ids,
        "subscriber_kind": kinds,
        "cell_id": _attribute(scanned, "cell_id", "id", rows),
        "peer_id": _attribute(scanned, "peer", "id", rows),
        "peer_kind": _attribute(scanned, "peer", "kind", rows),
        "peer_country": _attribute(scanned, "peer", "country", rows),
        "peer_prefix": _attribute(scanned, "peer", "prefix", rows),
        "home_plmn": _attribute(scanned, "imsi", "plmn", rows),
        "serving_plmn": _coalesce(
            [_attribute(scanned, "serving_plmn", "id", rows), _attribute(scanned, "cell_id", "plmn", rows)]
        ),
        "is_partial": partial.fill_null(False) if partial is not None else pa.array(np.zeros(rows, np.bool_)),
        "last_cell_id": _attribute(scanned, "last_cell_id", "id", rows),
        "session_id": _sessions(layout, scanned, rows),
        "imsi": _attribute(scanned, "imsi", "id", rows),
        "imei": _attribute(scanned, "imei", "id", rows),
        "device_tac": _attribute(scanned, "imei", "prefix", rows),
    }
    return _accepted("cdr", scanned, made, lines, numbers, ids)


def _network(layout: Layout, scanned: dict[str, Any], lines: npt.NDArray[np.int64], source: str) -> Accepted:
    rows = len(lines)
    cells = scanned["cell_id"]
    ids = cells.take("id")
    made = {
        "event_uid": layout.resolver.identity.uids_by_id(source, scanned["event_id"].to_pylist()),
        "cell_id": ids,
        "imsi": _attribute(scanned, "imsi", "id", rows),
        "target_cell_id": _attribute(scanned, "target_cell_id", "id", rows),
        "session_id": _sessions(layout, scanned, rows),
    }
    return _accepted("network", scanned, made, lines, cells.take("shard", pa.int64()).to_numpy(), ids)


def _accepted(
    record_type: str,
    scanned: dict[str, Any],
    made: dict[str, pa.Array],
    lines: npt.NDArray[np.int64],
    shards: npt.NDArray[np.int64],
    keys: pa.Array,
) -> Accepted:
    rows = len(lines)
    columns = {}
    for name in OUTPUT[record_type]:
        column = made.get(name)
        if column is None:
            column = scanned.get(name)
        columns[name] = column if column is not None else pa.nulls(rows)
    return Accepted(columns, lines, shards, keys.cast(pa.binary()).to_pylist())
