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
from ingest_gateway.domain.fields import INPUT_FIELDS, Kind
from ingest_gateway.domain.identity import SEPARATOR, UID, Party
from ingest_gateway.domain.layout import Bound, Layout
from ingest_gateway.domain.profile import TIME_ISO
from ingest_gateway.domain.refusal import Refused, mask_numbers
from ingest_gateway.domain.resolve import Memo
from ingest_gateway.domain.values import checked_ext, memo_of

Bools = npt.NDArray[np.bool_]

_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,3})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
_EPOCH_MS = r"^[1-9][0-9]{12}$"
_LONG = r"^-?[0-9]{1,18}$"
_SCALABLE = r"^-?[0-9]{1,9}$"
_DOUBLE = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"
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
    """Judge what is surely good of a block's rows.

    Returns those records, their ``lines`` being row numbers in ``plain``, and which rows they are.
    """
    rows = plain.height
    sure = np.ones(rows, np.bool_)
    if layout.record_type not in BY_COLUMNS or not rows:
        return _nothing(layout.record_type), np.zeros(rows, np.bool_)
    scanned: dict[str, Any] = {}
    for bound in layout.bound:
        scanned[bound.field.name], good = _scan(bound, layout, plain, rows)
        if good is not None:
            sure &= good
    if layout.ext:
        sure &= _ext_is_plain(plain, layout)
    for field in INPUT_FIELDS[layout.record_type]:
        if field.required:
            sure &= _present(scanned.get(field.name), rows)
    if layout.record_type == "cdr":
        owned = np.zeros(rows, np.bool_)
        for name in ("msisdn", "imsi", "line", "subscriber", "route_in"):
            owned |= _present(scanned.get(name), rows)
        sure &= owned
    else:
        # what identifies a network event without an id is the direct path's to say
        sure &= _present(scanned.get("event_id"), rows)
    if not sure.any():
        return _nothing(layout.record_type), sure
    if not sure.all():
        mask = pa.array(sure)
        scanned = {name: column.filter(mask) for name, column in scanned.items()}
    scanned["ext"] = _ext(plain.filter(pl.Series(sure)) if not sure.all() else plain, layout)
    lines = np.flatnonzero(sure).astype(np.int64)
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


def _texts(bound: Bound, plain: pl.DataFrame, rows: int) -> pl.Series:
    """The field's text in every row, null where there is none."""
    if bound.constant is not None:
        texts = pl.Series([bound.constant], dtype=pl.String).new_from_index(0, rows)
    elif len(bound.columns) == 1:
        texts = plain.get_column(str(bound.columns[0]))
    else:
        parts = [pl.col(str(column)).fill_null("") for column in bound.columns]
        texts = plain.select(pl.concat_str(parts, separator=bound.join).alias("joined")).get_column("joined")
        empty = plain.select(pl.all_horizontal([part == "" for part in parts]).alias("empty")).get_column("empty")
        if empty.any():
            texts = texts.set(empty, None)
    if bound.transform is not None:
        encoded = _arrow(texts).dictionary_encode()
        changed = [bound.transform(value) if value else None for value in encoded.dictionary.to_pylist()]
        texts = pl.Series(pa.array(changed, pa.large_string()).take(encoded.indices))
    return texts.set(texts == "", None) if (texts == "").any() else texts


def _arrow(series: pl.Series) -> pa.Array:
    return series.to_arrow(compat_level=pl.CompatLevel.oldest())


def _scan(bound: Bound, layout: Layout, plain: pl.DataFrame, rows: int) -> tuple[Any, Bools | None]:
    """The field's column (or lookup), and which rows of it are surely right; None: all."""
    field = bound.field
    texts = _texts(bound, plain, rows)
    memo = memo_of(field, layout.resolver)
    if memo is not None:
        return _look_up(texts, memo)
    match field.kind:
        case Kind.INSTANT:
            values, good = _instants(texts, bound, layout)
            return values, good
        case Kind.ENUM:
            return _chosen(texts, {value: value for value in field.values})
        case Kind.BOOL:
            return _chosen(texts, {"true": True, "false": False, "1": True, "0": False}, pa.bool_())
        case Kind.LONG:
            pattern = _LONG if bound.factor == 1 else _SCALABLE
            matching = texts.str.contains(pattern)
            numbers = texts.set(~matching, None).cast(pl.Int64, strict=False)
            if bound.factor != 1:
                numbers = numbers * bound.factor
            good = _good(texts, matching & numbers.is_between(field.low, field.high))
            return _arrow(numbers), good
        case Kind.DOUBLE:
            matching = texts.str.contains(_DOUBLE)
            doubles = texts.set(~matching, None).cast(pl.Float64, strict=False)
            return _arrow(doubles), _good(texts, matching & doubles.is_not_null())
        case Kind.CURRENCY | Kind.COUNTRY:
            return _arrow(texts).cast(pa.string()), _good(texts, texts.str.contains(rf"^[A-Z]{{{field.limit}}}$"))
        case _:
            # lines with control characters are not among these rows
            good = None if len(bound.columns) > 1 else _good(texts, texts.str.len_chars() <= field.limit)
            array = _arrow(texts).cast(pa.string())
            if field.masked:
                encoded = array.dictionary_encode()
                masked = [mask_numbers(value) for value in encoded.dictionary.to_pylist()]
                array = pa.array(masked, pa.string()).take(encoded.indices)
            return array, good


def _good(texts: pl.Series, matching: pl.Series) -> Bools | None:
    """``matching`` with nulls as good; None if every row is."""
    good = matching if not texts.null_count() else (matching | texts.is_null())
    flags = good.fill_null(False)
    return None if flags.all() else flags.to_numpy()


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


def _instants(texts: pl.Series, bound: Bound, layout: Layout) -> tuple[pa.Array, Bools | None]:
    rules = layout.profile.time
    if rules.format in (TIME_ISO, "epoch_ms") or bound.constant is not None:
        iso = (
            texts.str.contains(_ISO) if rules.format != "epoch_ms" else pl.Series([False]).new_from_index(0, len(texts))
        )
        stamps = _ms(
            texts.set(~iso, None).str.to_datetime(
                "%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="ms", time_zone="UTC", strict=False
            )
        )
        if not iso.all():
            epoch = texts.str.contains(_EPOCH_MS)
            if epoch.any():
                stamps = stamps.fill_null(texts.set(~epoch, None).cast(pl.Int64, strict=False))
    elif rules.format == "epoch_s":
        whole = texts.str.contains(r"^[0-9]{1,10}$")
        stamps = texts.set(~whole, None).cast(pl.Int64, strict=False) * 1000
    else:
        shaped = texts.str.contains("^" + rules.pattern().replace(r"\d", "[0-9]") + "$")
        local = texts.set(~shaped, None).str.to_datetime(rules.format, time_unit="ms", strict=False)
        zoned = local.dt.replace_time_zone(
            rules.zone,
            ambiguous=_AMBIGUOUS[rules.ambiguous_time],
            non_existent="null",
        )
        stamps = _ms(zoned.dt.convert_time_zone("UTC"))
    # before 1970 the two paths might cut fractions differently: rare enough to ask the direct one
    good = _good(texts, stamps.is_not_null() & (stamps >= 0))
    return _arrow(stamps).cast(pa.timestamp("ms")), good


def _ms(stamps: pl.Series) -> pl.Series:
    return stamps.to_physical()


def _ext_is_plain(plain: pl.DataFrame, layout: Layout) -> Bools:
    """Rows whose kept columns are surely short enough."""
    good = np.ones(plain.height, np.bool_)
    for name, column in layout.ext:
        try:
            checked_ext({name: ""})
        except Refused:
            return np.zeros(plain.height, np.bool_)
        sizes = plain.get_column(str(column)).str.len_bytes().fill_null(0)
        good &= (sizes <= 256).to_numpy()
    return good


def _ext(plain: pl.DataFrame, layout: Layout) -> pa.Array:
    """Kept columns as one map for each row, in order of their names, empty ones left out."""
    rows = plain.height
    kind = pa.map_(pa.string(), pa.string())
    if not layout.ext:
        offsets = pa.array(np.zeros(rows + 1, np.int32))
        return pa.MapArray.from_arrays(offsets, pa.array([], pa.string()), pa.array([], pa.string())).cast(kind)
    places, names, values = [], [], []
    for name, column in layout.ext:
        texts = plain.get_column(str(column))
        texts = texts.set(texts == "", None)
        present = np.flatnonzero(texts.is_not_null().to_numpy())
        places.append(present)
        names.append(pa.array([mask_numbers(name)], pa.string()).take(pa.array(np.zeros(len(present), np.int64))))
        encoded = _arrow(texts.drop_nulls()).dictionary_encode()
        masked = [mask_numbers(value) for value in encoded.dictionary.to_pylist()]
        values.append(pa.array(masked, pa.string()).take(encoded.indices))
    where = np.concatenate(places)
    order = pa.array(np.argsort(where, kind="stable"))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=rows))]).astype(np.int32)
    return pa.MapArray.from_arrays(
        pa.array(offsets), pa.concat_arrays(names).take(order), pa.concat_arrays(values).take(order)
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
