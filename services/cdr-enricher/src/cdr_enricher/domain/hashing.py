"""Hashes that are kept: in the judged record and in the state rebuilt from it. Never change one; add a version.

All are xxh3 with fixed seeds and splitmix64, so that they are the same on every machine and after every upgrade.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
TextKey = tuple[U64, U64]
"""Two 64-bit hashes of each text; a null's are 0."""

HASHES = {"content_hash": 1, "identity_hash": 1}
"""Versions, which a generation fixes."""

# two halves of a 128-bit key: 64 bits would meet a collision at some hundred million ids
_SEEDS = (0x7E1E57, 0x0D3D0B)
_HALF = np.uint64(32)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_NULL_BITS = 0x5DEECE66D1CEB00B  # stands for a null number: no counter or instant comes near it
_PAIR = "\x1f"
_ZERO = pl.lit(0, pl.UInt64)


def mix64(values: U64) -> U64:
    """splitmix64's finaliser: every bit of the input reaches every bit of the output."""
    mixed: U64 = values + _GOLDEN
    mixed ^= mixed >> _S30
    mixed *= _MIX_1
    mixed ^= mixed >> _S27
    mixed *= _MIX_2
    mixed ^= mixed >> _S31
    return mixed


class TextKeys:
    """Hashes whole columns of texts, several at once."""

    __slots__ = ("_fields", "_hashes")

    def __init__(self, *fields: str) -> None:
        self._fields = fields
        self._hashes = [
            plh.col(name).nchash.xxh3_64(seed=seed).fill_null(_ZERO).alias(f"{name} {seed}")
            for name in fields
            for seed in _SEEDS
        ]

    def of(self, frame: pl.DataFrame) -> dict[str, TextKey]:
        """The key of each field's texts, one per row."""
        halves = [hashed.to_numpy() for hashed in frame.select(self._hashes).get_columns()]
        return {name: (halves[2 * place], halves[2 * place + 1]) for place, name in enumerate(self._fields)}


_ONE_COLUMN = TextKeys("text")


def text_key(texts: pl.Series) -> TextKey:
    """The key of each text of one column."""
    return _ONE_COLUMN.of(texts.alias("text").to_frame())["text"]


def identity_key(uid: TextKey, time_ms: Ints, holder: TextKey) -> TextKey:
    """A key of (event uid, event time, subscriber or cell), never 0 in the first half."""
    time = mix64(time_ms.view(np.uint64))
    first = mix64(uid[0] ^ mix64(time + holder[0]))
    second = mix64(uid[1] ^ mix64((time >> _HALF) ^ (time << _HALF) ^ holder[1]))
    first[first == 0] = 1
    return first, second


class ContentHash:
    """A 32-bit hash of some fields of each row, in 0 … 2³²−1.

    A null adds nothing, so a field that a later schema adds leaves older hashes as they are. Fields are told apart by
    name, not by position. 0.0 and −0.0 are one value, and so are all NaN; a map's entries count in any order.
    """

    def __init__(self, fields: Iterable[str], schema: Mapping[str, pl.DataType]) -> None:
        self._texts: dict[str, pl.Expr] = {}
        self._numbers: dict[str, pl.Expr] = {}
        self._maps: list[str] = []
        self._salts: dict[str, int] = {}
        for field in fields:
            self._salts[field] = salt = _salt(field)
            dtype = schema[field]
            if dtype == pl.String:
                self._texts[field] = plh.col(field).nchash.xxh3_64(seed=salt).fill_null(_ZERO)
            elif dtype == pl.Map:
                self._maps.append(field)
            elif dtype.is_float():
                number = pl.col(field).cast(pl.Float64)
                # both zeros and all NaN have many patterns of bits, and equal zeros replace −0.0
                canonical = pl.when(number == 0).then(0.0).when(number.is_nan()).then(float("nan")).otherwise(number)
                self._numbers[field] = canonical.reinterpret(dtype=pl.Int64).fill_null(_NULL_BITS).alias(field)
            else:
                self._numbers[field] = pl.col(field).cast(pl.Int64).fill_null(_NULL_BITS)

    def of(self, frame: pl.DataFrame) -> Ints:
        """The hash of each row."""
        count = frame.height
        filled = {column.name for column in frame.get_columns() if column.null_count() < count}
        texts = [hashed for name, hashed in self._texts.items() if name in filled]
        numbers = [name for name in self._numbers if name in filled]
        hashes = frame.select(*texts, *(self._numbers[name] for name in numbers)).get_columns()
        total = np.zeros(count, np.uint64)
        for hashed in hashes[: len(texts)]:
            total += hashed.to_numpy()
        if numbers:
            salts = np.array([self._salts[name] for name in numbers], np.uint64)[:, None]
            bits = np.stack([number.to_numpy() for number in hashes[len(texts) :]]).view(np.uint64)
            nulls = mix64(np.uint64(_NULL_BITS) ^ salts)
            total += (mix64(bits ^ salts) - nulls).sum(axis=0, dtype=np.uint64)
        for name in self._maps:
            _add_map(total, frame[name], self._salts[name])
        return (mix64(total) >> _HALF).astype(np.int64)


def _add_map(total: U64, column: pl.Series, salt: int) -> None:
    entries = column.to_arrow()
    begins = entries.offsets.to_numpy().astype(np.int64)
    begins = begins - begins[0]
    if not begins[-1]:
        return
    pairs = pl.DataFrame({"k": pl.Series(entries.keys), "v": pl.Series(entries.items)})
    joined = pairs.select(pl.concat_str("k", "v", separator=_PAIR).alias("e"))
    each = np.zeros(pairs.height + 1, np.uint64)
    each[1:] = mix64(joined.select(plh.col("e").nchash.xxh3_64(seed=salt))["e"].to_numpy())
    running = np.cumsum(each)
    total += running[begins[1:]] - running[begins[:-1]]


def _salt(field: str) -> int:
    return int(pl.DataFrame({"f": [field]}).select(plh.col("f").nchash.xxh3_64())["f"][0])
