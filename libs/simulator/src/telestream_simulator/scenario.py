"""What to simulate. The same scenario gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from telestream_simulator.errors import SimulationError

MS_PER_DAY = 86_400_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Sizes, shares of known faults, and the seed.

    ``records`` and ``network_records`` count the rows written, faults included. ``start`` is the first day (UTC).
    ``block`` chooses ids, numbers and cells: scenarios with different blocks share no customer, cell, region or plan,
    so their sums do not mix. ``source`` names the producer in ``truth.json`` and prefixes every event id.
    """

    start: date
    records: int = 20_000
    network_records: int = 10_000
    customers: int = 2_000
    cells: int = 120
    days: int = 1
    duplicates: float = 0.02
    invalid: float = 0.005
    late: float = 0.01
    seed: int = 1
    block: int = 1
    source: str = "sim"
    files: int = 1

    def __post_init__(self) -> None:
        mistakes = []
        for name, least in (("records", 0), ("network_records", 0), ("customers", 20), ("cells", 8), ("days", 1)):
            if getattr(self, name) < least:
                mistakes.append(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("duplicates", "invalid", "late"):
            if not 0 <= getattr(self, name) <= 0.3:
                mistakes.append(f"{name} is a share from 0 to 0.3, not {getattr(self, name)}")
        if self.customers > 5_000_000:
            mistakes.append("customers must be at most 5,000,000")
        if self.cells > 60_000:
            mistakes.append("cells must be at most 60,000")
        if not 1 <= self.files <= 100:
            mistakes.append(f"files must be 1 to 100, not {self.files}")
        if self.seed < 0 or self.block < 0:
            mistakes.append("seed and block must not be negative")
        if not self.source or len(self.source) > 64 or not all(c.isalnum() or c in "-_." for c in self.source):
            mistakes.append(f"source is 1 to 64 letters, digits, '-', '_' or '.', not {self.source!r}")
        if mistakes:
            raise SimulationError("; ".join(mistakes))

    @property
    def start_ms(self) -> int:
        return (self.start - _EPOCH).days * MS_PER_DAY

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.days * MS_PER_DAY
