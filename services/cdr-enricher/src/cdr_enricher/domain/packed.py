"""Columns of integers in few bytes: reference data is millions of rows that are read seldom and one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cdr_enricher.domain.hashing import Ints

_CODES = (np.uint8, np.uint16, np.uint32)


@dataclass(frozen=True, slots=True)
class Packed:
    """Integers as ``base + step * code``, the code as narrow as their range allows.

    Midnights, whole seconds and offsets that lie near one another take four bytes or less; anything takes eight.
    """

    base: int
    step: int
    codes: npt.NDArray[np.generic]

    @classmethod
    def of(cls, values: Ints) -> Packed:
        if not len(values):
            return cls(0, 1, np.zeros(0, np.uint8))
        base, top = int(values.min()), int(values.max())
        if base == top:
            return cls(base, 1, np.zeros(len(values), np.uint8))
        if top - base > np.iinfo(np.int64).max:
            return cls(0, 1, values)
        distance = values - base
        step = int(np.gcd.reduce(distance))
        narrow = next((dtype for dtype in _CODES if (top - base) // step <= np.iinfo(dtype).max), None)
        return cls(0, 1, values) if narrow is None else cls(base, step, (distance // step).astype(narrow))

    def take(self, where: Ints) -> Ints:
        """The values at these places; places are clipped to what there is."""
        return self._values(self.codes.take(where, mode="clip"))

    def all(self) -> Ints:
        return self._values(self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes

    def _values(self, codes: npt.NDArray[np.generic]) -> Ints:
        values: Ints = codes.astype(np.int64)
        if self.step != 1:
            values *= self.step
        if self.base:
            values += self.base
        return values
