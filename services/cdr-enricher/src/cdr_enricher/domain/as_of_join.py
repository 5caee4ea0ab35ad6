"""What was known of an entity at a time: all its versions, looked up for a whole batch at once.

A version is (valid_from, offset); it holds until the next one, and at equal valid_from the later offset wins. The
answer does not depend on the order in which versions came.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import Ints, TextKey, text_key
from cdr_enricher.domain.version_runs import Rows, Run, key_of

NOTHING = 0
"""The code of no body: of a deletion, and where there is no version."""

_SORT_AT = 1 << 17  # versions gathered before they are sorted, where nobody asks
_SHRINK = 8  # a run is at least so many times longer than the next: few to search, and each version seldom moved
_MAX_RUN = 1 << 24  # the texts of a run must stay below 2 GiB


class Combinations:
    """Numbers for the combinations of some columns that occur: plans and regions are few, customers are many.

    It only grows, and may serve several ``Versions``.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        self.rows = pl.DataFrame({field: [None] for field in self.fields}, dict.fromkeys(self.fields, pl.String))

    def codes(self, frame: pl.DataFrame) -> Ints:
        """The number of each row's combination, from 1; new ones are added."""
        wanted = frame.select(self.fields)
        found = self._find(wanted)
        if found.null_count():
            self.rows = self.rows.vstack(wanted.filter(found.is_null()).unique(maintain_order=True)).rechunk()
            found = self._find(wanted)
        return found.to_numpy()

    def _find(self, wanted: pl.DataFrame) -> pl.Series:
        known = self.rows.with_row_index("code").slice(1).cast({"code": pl.Int64})
        return wanted.join(known, on=self.fields, how="left", nulls_equal=True, maintain_order="left")["code"]


class Versions:
    """All versions of one kind of entity.

    Of the body, ``coded`` fields repeat and are numbered by combination, ``own`` ones are each entity's. ``add``
    changes the value in place, as ``Seen``: its holder is the only one.
    """

    def __init__(
        self, id_field: str, coded: Sequence[str], own: Sequence[str] = (), combinations: Combinations | None = None
    ) -> None:
        self.id_field, self.own = id_field, tuple(own)
        self._combinations = combinations or Combinations(coded)
        self._runs: list[Run] = []
        self._new: list[Rows] = []

    @property
    def count(self) -> int:
        """Versions held; of those with equal id and valid_from one is left."""
        return sum(map(len, self._runs)) + sum(map(len, self._new))

    @property
    def nbytes(self) -> int:
        return sum(run.nbytes for run in self._runs)

    def add(self, versions: pl.DataFrame, offsets: Ints) -> None:
        """Add versions with their offsets: columns of the id field, ``valid_from``, ``deleted`` and the body's."""
        if not versions.height:
            return
        deleted = versions["deleted"]
        codes = self._combinations.codes(versions)
        codes = np.where(deleted.to_numpy(), NOTHING, codes)
        key, check = key_of(text_key(versions[self.id_field]))
        valid_from = versions["valid_from"].to_physical().to_numpy()
        own = tuple(_texts(versions[field].set(deleted, None)) for field in self.own)
        self._new.append(Rows(key, check, valid_from, np.asarray(offsets, np.int64), codes, own))
        gathered = sum(map(len, self._new))
        if gathered >= max(_SORT_AT, sum(map(len, self._runs)) // _SHRINK):
            self.settle()

    def absorb(self, other: Versions) -> None:
        """Add all that another one holds, which has the same combinations; it is spent."""
        self._runs = sorted([*self._runs, *other._runs], key=len, reverse=True)
        self._new += other._new

    def settle(self) -> None:
        """Sort what was added. A lookup does it too; after much was added it is better done at once."""
        if not self._new:
            return
        parts: list[Rows | Run] = [*self._new]
        self._new = []
        size = sum(map(len, parts))
        while self._runs and len(self._runs[-1]) < size * _SHRINK and len(self._runs[-1]) + size <= _MAX_RUN:
            size += len(self._runs[-1])
            parts.append(self._runs.pop())
        self._runs.append(Run(parts))

    def as_of(self, key: TextKey, times_ms: Ints) -> tuple[pl.DataFrame, Bools]:
        """The body that held at each time (``key``: ``text_key`` of the ids), and whether there was one.

        Nulls where the entity was unknown or deleted. Columns: ``own``, then ``coded``.
        """
        self.settle()
        code = np.zeros(len(times_ms), np.int64)
        own = [pa.nulls(len(times_ms), pa.string())] * len(self.own)
        wanted = key_of(key)
        found = [run.latest(*wanted, times_ms) for run in self._runs]
        if len(found) == 1:
            (run,), (place,) = self._runs, found
            held = place >= 0
            code[held] = run.code.take(place[held])
            own = _own(run, place)
        elif found:
            chosen = _newest(self._runs, found)
            pieces = []
            for number, (run, place) in enumerate(zip(self._runs, found, strict=True)):
                mine = np.where(chosen == number, place, -1)
                held = mine >= 0
                code[held] = run.code.take(mine[held])
                pieces.append(_own(run, mine))
            own = [pc.coalesce(*columns) for columns in zip(*pieces, strict=True)]
        texts = [pl.Series(field, column) for field, column in zip(self.own, own, strict=True)]
        return pl.DataFrame([*texts, *self._combinations.rows[code].get_columns()]), code != NOTHING


def _newest(runs: Sequence[Run], found: Sequence[Ints]) -> Ints:
    """The number of the run whose version began last, at equal times that of the later offset; −1: there is none."""
    chosen = np.full(len(found[0]), -1, np.int64)
    valid_from, offset = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
    for number, (run, place) in enumerate(zip(runs, found, strict=True)):
        held = np.flatnonzero(place >= 0)
        if not len(held):
            continue
        began, at = run.valid_from.take(place[held]), run.offset.take(place[held])
        later = (began > valid_from[held]) | ((began == valid_from[held]) & (at > offset[held]))
        take = np.flatnonzero(later | (chosen[held] < 0))
        held = held[take]
        chosen[held], valid_from[held], offset[held] = number, began[take], at[take]
    return chosen


def _own(run: Run, place: Ints) -> list[pa.Array]:
    where = pa.array(place, mask=place < 0)
    return [column.take(where) for column in run.own]


def _texts(column: pl.Series) -> pa.Array:
    texts = column.cast(pl.String).to_arrow()
    return (texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts).cast(pa.string())
