"""When to write, and how long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Enough rows, enough bytes, or old enough."""

    max_rows: int
    max_bytes: int
    max_age_s: float

    def due(self, rows: int, nbytes: int, age_s: float) -> bool:
        return rows > 0 and (rows >= self.max_rows or nbytes >= self.max_bytes or age_s >= self.max_age_s)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling from ``first_s``, never more than ``max_s``."""

    first_s: float
    max_s: float

    def delay_s(self, failures: int) -> float:
        """The wait after so many failures in a row (1 is the first)."""
        return float(min(self.max_s, self.first_s * 2 ** min(failures - 1, 30)))
