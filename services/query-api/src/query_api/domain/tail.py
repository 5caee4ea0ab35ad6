"""The newest minutes, from full-state upserts: the latest of each key, summed over partitions and segments (I5)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import polars as pl

from query_api.domain.measures import FAMILY_TYPES, GROUP_FIELDS, MEASURES, Measures

MINUTE_S = 60
MINUTE_MS = 60_000
KEEP_MS = 75 * MINUTE_MS
"""An hour is what may be asked for; the rest covers the open minute, an event ahead of its arrival, a slow start."""

AHEAD_MS = 11 * MINUTE_MS
"""An event may lie ten minutes past its arrival (rule ``from_the_future``); a window further ahead is a mistake."""

_MINUTE = str(MINUTE_S).encode()
_KEY = ("group", "partition", "segment")
_CHARGES = {
    "group": pl.Int32(),
    "partition": pl.Int16(),
    "segment": pl.Int32(),
    "currency": pl.Int32(),
    "charge_micros": pl.Int64(),
}


class Names:
    """Strings as small numbers: a name is stored once, not per row. Only appended to, so every reader may share it."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def encode(self, names: pl.Series) -> pl.Series:
        """Int32 codes; new names get the next ones."""
        unique = names.unique()
        for name in unique.to_list():
            if name not in self._codes:
                self._names.append(name)
                self._codes[name] = len(self._names) - 1
        codes = [self._codes[name] for name in unique.to_list()]
        return names.replace_strict(unique, pl.Series(codes, dtype=pl.Int32), return_dtype=pl.Int32)

    def decode(self, codes: pl.Series) -> pl.Series:
        """The names of codes that ``encode`` gave."""
        return pl.Series(self._names, dtype=pl.String).gather(codes)

    def codes_of(self, names: Iterable[str]) -> list[int]:
        """Codes of those names that are known."""
        return [self._codes[name] for name in names if name in self._codes]


@dataclass(frozen=True)
class Window:
    """One minute of one family and type: ``rows`` by (group, partition, segment), ``charges`` by currency besides."""

    rows: pl.DataFrame
    charges: pl.DataFrame

    def updated(self, rows: pl.DataFrame, charges: pl.DataFrame) -> Window:
        """With newer full states in place of those of the same key."""
        kept = self.charges.join(rows.select(_KEY), on=_KEY, how="anti") if self.charges.height else self.charges
        return Window(
            pl.concat([self.rows, rows]).unique(subset=_KEY, keep="last", maintain_order=False).rechunk(),
            pl.concat([kept, charges]).rechunk(),
        )

    @cached_property
    def sums(self) -> pl.DataFrame:
        """One row per group, over all partitions and segments; ``freshest_at`` in epoch ms.

        Counts stay at 32 bits: no minute holds two thousand million records.
        """
        measures = [name for name in self.rows.columns if name not in (*_KEY, "freshest_at")]
        return (
            self.rows.group_by("group")
            .agg([pl.col(name).sum() for name in measures] + [pl.col("freshest_at").max()])
            .rechunk()
        )

    @cached_property
    def charge_sums(self) -> pl.DataFrame:
        """One row per group and currency."""
        return self.charges.group_by("group", "currency").agg(pl.col("charge_micros").sum())


Key = tuple[str, str, int]
"""Family, type, start of the minute in epoch ms."""


@dataclass(frozen=True, slots=True)
class Tail:
    """All windows held. A new value is made for each batch, so that a reader holds one moment.

    ``included`` is, per (family, type, partition), the source offset below which all is in the windows.
    ``since_ms`` is the start of the first minute that is whole.
    """

    windows: Mapping[Key, Window] = field(default_factory=dict)
    included: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    since_ms: int = 0
    names: Names = field(default_factory=Names)

    @property
    def keys(self) -> int:
        """Rows held, over all windows."""
        return sum(window.rows.height for window in self.windows.values())


def merged(tail: Tail, family: str, upserts: pl.DataFrame, now_ms: int) -> Tail:
    """The tail with a batch of one family's upserts, in log order, taken in.

    ``upserts`` has the columns of ``agg_<family>``. Windows of another size, and those outside what is kept, are left
    out; markers only move ``included``.
    """
    if upserts.is_empty():
        return tail
    is_minute = upserts.filter(pl.col("size_s") == MINUTE_S)
    start_ms = pl.col("window_start").dt.epoch("ms")
    states = is_minute.filter(
        pl.col("marker_offset").is_null() & (start_ms >= now_ms - KEEP_MS) & (start_ms <= now_ms + AHEAD_MS)
    ).with_columns(start_ms.alias("window_ms"))
    states = states.with_columns(tail.names.encode(states[GROUP_FIELDS[family]]).alias("group"))
    windows = dict(tail.windows)
    for (record_type, window_ms), part in states.partition_by(
        ["type", "window_ms"], as_dict=True, maintain_order=True
    ).items():
        if record_type not in FAMILY_TYPES[family]:
            continue
        latest = part.unique(subset=_KEY, keep="last", maintain_order=True)
        window_key = (family, str(record_type), int(window_ms))
        held = windows.get(window_key)
        rows, charges = _rows(latest, MEASURES[str(record_type)]), _charges(latest, tail.names)
        windows[window_key] = Window(rows, charges) if held is None else held.updated(rows, charges)
    return replace(tail, windows=windows, included=reached(tail.included, family, is_minute))


def worth_decoding(keys: Iterable[bytes | None], now_ms: int) -> list[bytes | None]:
    """Those of the keys, in log order, whose values ``merged`` may use: minutes that are kept, and of each type and
    partition the last of all minutes, which says how far the aggregator is.

    A replay sends years through here of which an hour is kept; the key says so: type, size, start, groups, partition.
    """
    oldest = now_ms - KEEP_MS
    needed: dict[bytes | None, None] = {}
    last: dict[tuple[bytes, bytes], bytes] = {}
    for key in keys:
        head = [] if key is None else key.split(b"|", 3)
        if key is None or len(head) < 4:
            needed[key] = None
        elif head[1] == _MINUTE:
            tail = head[3].rsplit(b"|", 2)
            last[head[0], tail[-2] if len(tail) > 1 else tail[0]] = key
            if not head[2].isdigit() or int(head[2]) >= oldest:
                needed[key] = None
    return [*(needed | dict.fromkeys(last.values()))]


def reached(
    included: Mapping[tuple[str, str, int], int], family: str, upserts: pl.DataFrame
) -> dict[tuple[str, str, int], int]:
    """``included`` moved on: a flush holds every recent window up to its ``src_to``, which all of it carries."""
    moved = dict(included)
    for record_type, partition, src_to in upserts.group_by("type", "partition").agg(pl.col("src_to").max()).iter_rows():
        key = (family, record_type, partition)
        moved[key] = max(moved.get(key, 0), src_to + 1)
    return moved


def pruned(tail: Tail, now_ms: int, max_keys: int) -> Tail:
    """Without the minutes that are too old, and, should there be more than ``max_keys`` rows, without the oldest."""
    oldest = now_ms - KEEP_MS
    windows = {key: window for key, window in tail.windows.items() if key[2] >= oldest}
    since_ms = max(tail.since_ms, oldest)
    held = sum(window.rows.height for window in windows.values())
    for start in sorted({key[2] for key in windows}):
        if held <= max_keys:
            break
        for key in [key for key in windows if key[2] == start]:
            held -= windows.pop(key).rows.height
        since_ms = max(since_ms, start + MINUTE_MS)
    return replace(tail, windows=windows, since_ms=since_ms)


def warmed(tail: Tail) -> Tail:
    """The same tail with the sums of every window at hand, so that no reader waits for them."""
    for window in tail.windows.values():
        _ = window.sums, window.charge_sums
    return tail


@dataclass(frozen=True, slots=True)
class Question:
    """``from_ms`` ≤ window start < ``to_ms``; no ``ids``: all; ``grouped``: one row per group, else one in all."""

    family: str
    from_ms: int
    to_ms: int
    ids: Collection[str] = ()
    grouped: bool = True
    by_minute: bool = True


def totals(tail: Tail, question: Question) -> pl.DataFrame:
    """Measures of all types of the family: one row per minute (if asked) and group (if asked), ordered by them.

    Columns: ``window_ms`` and ``group`` as asked for, the measures, ``freshest_at`` (epoch ms or null), ``charges``
    (list of currency and micros, by currency).
    """
    keys = [name for name, asked in (("window_ms", question.by_minute), ("group", question.grouped)) if asked]
    codes = tail.names.codes_of(question.ids) if question.ids else None
    types = FAMILY_TYPES[question.family]
    parts: list[pl.DataFrame] = []
    money: list[pl.DataFrame] = []
    for record_type in types:
        windows = [
            (start, window)
            for (family, kind, start), window in tail.windows.items()
            if family == question.family and kind == record_type and question.from_ms <= start < question.to_ms
        ]
        sums = [_at(window.sums, start, question) for start, window in windows]
        money += [_at(window.charge_sums, start, question) for start, window in windows if window.charges.height]
        measures = MEASURES[record_type]
        if sums:
            added = [pl.col(name).cast(pl.Int64).sum() for name in measures.all] + [pl.col("freshest_at").max()]
            parts.append(_summed(_chosen(pl.concat(sums), codes), keys, added))
        else:
            parts.append(_no_rows(keys, measures))
    measured = parts[0] if len(parts) == 1 else _side_by_side(parts[0], parts[1], keys)
    listed = _money(_chosen(pl.concat(money), codes) if money else _no_charges(question), keys, tail.names)
    whole = measured.join(listed, on=keys, how="left") if keys else measured.join(listed, how="cross")
    counted = [name for record_type in types for name in MEASURES[record_type].all]
    whole = whole.with_columns(
        *(pl.col(name).fill_null(0) for name in counted),
        pl.col("charges").fill_null(pl.lit([], listed.schema["charges"])),
    )
    if question.grouped:
        whole = whole.with_columns(tail.names.decode(whole["group"]).alias("group"))
    return whole.sort(keys) if keys else whole


def _at(sums: pl.DataFrame, start: int, question: Question) -> pl.DataFrame:
    return sums.with_columns(pl.lit(start, pl.Int64).alias("window_ms")) if question.by_minute else sums


def _summed(frame: pl.DataFrame, keys: Sequence[str], sums: Sequence[pl.Expr]) -> pl.DataFrame:
    return frame.group_by(keys).agg(sums) if keys else frame.select(sums)


def _chosen(frame: pl.DataFrame, codes: Collection[int] | None) -> pl.DataFrame:
    return frame if codes is None else frame.filter(pl.col("group").is_in(list(codes)))


def _side_by_side(left: pl.DataFrame, right: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    right = right.rename({"freshest_at": "freshest_right"})
    both = left.join(right, on=keys, how="full", coalesce=True) if keys else left.join(right, how="cross")
    return both.with_columns(pl.max_horizontal("freshest_at", "freshest_right").alias("freshest_at")).drop(
        "freshest_right"
    )


def _money(charges: pl.DataFrame, keys: Sequence[str], names: Names) -> pl.DataFrame:
    """``charges`` as one list per key; for no keys, one row."""
    summed = charges.group_by([*keys, "currency"]).agg(pl.col("charge_micros").sum())
    summed = summed.with_columns(names.decode(summed["currency"]).alias("currency")).sort("currency")
    listed = pl.struct("currency", "charge_micros")
    if keys:
        return summed.group_by(keys, maintain_order=True).agg(listed.alias("charges"))
    return summed.select(listed.implode().alias("charges"))


def _no_charges(question: Question) -> pl.DataFrame:
    return _at(
        pl.DataFrame(schema={name: _CHARGES[name] for name in ("group", "currency", "charge_micros")}), 0, question
    )


def _no_rows(keys: Sequence[str], measures: Measures) -> pl.DataFrame:
    types = {"window_ms": pl.Int64(), "group": pl.Int32()}
    empty = pl.DataFrame(
        schema={
            **{key: types[key] for key in keys},
            **dict.fromkeys(measures.all, pl.Int64()),
            "freshest_at": pl.Int64(),
        }
    )
    return empty if keys else empty.clear(1)


def _rows(states: pl.DataFrame, measures: Measures) -> pl.DataFrame:
    return states.select(
        *(pl.col(name).cast(_CHARGES[name]) for name in _KEY),
        *(_measure(states, name, pl.Int32()) for name in measures.counts),
        *(_measure(states, name, pl.Int64()) for name in measures.sums),
        pl.col("freshest_event_end_at").dt.epoch("ms").alias("freshest_at"),
    )


def _measure(states: pl.DataFrame, name: str, kind: pl.DataType) -> pl.Expr:
    """0 where the upserts are of an aggregator that did not have the measure yet."""
    return pl.col(name).fill_null(0).cast(kind) if name in states.columns else pl.lit(0, kind).alias(name)


def _charges(states: pl.DataFrame, names: Names) -> pl.DataFrame:
    charged = states.filter(pl.col("charge_currencies").list.len() > 0)
    if charged.is_empty():
        return pl.DataFrame(schema=_CHARGES)
    flat = charged.select(
        *(pl.col(name).cast(_CHARGES[name]) for name in _KEY),
        pl.col("charge_currencies").alias("currency"),
        pl.col("charge_micros"),
    ).explode("currency", "charge_micros")
    return flat.with_columns(names.encode(flat["currency"]).alias("currency"))
