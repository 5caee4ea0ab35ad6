"""The quality gate: what a generation must be like before people see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest shares of rejected records, and largest lag."""

    rejected_share: float
    rejected_rise: float
    lag_records: int


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the gate; ``value`` None: it cannot be told, which does not pass. Passed: not above ``limit``."""

    check: str
    type: str
    value: float | None
    limit: float

    @property
    def passed(self) -> bool:
        return self.value is not None and self.value <= self.limit

    def shown(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "type": self.type,
            "value": self.value,
            "limit": self.limit,
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What was counted of one type. Pairs are rejected and accepted records; ``ours`` and ``theirs`` of the raw offsets
    that both generations have. ``unbalanced``: 1 if the books do not add up; ``missing``: offsets without a judged
    record."""

    type: str
    all: tuple[int, int]
    ours: tuple[int, int]
    theirs: tuple[int, int]
    unbalanced: int
    missing: int
    lag: int


def checks_of(found: Found, limits: Limits) -> list[Check]:
    """All of one type, the failed ones too."""
    rise = round(max(0.0, _share(found.ours) - _share(found.theirs)), 6)
    return [
        Check("rejected_share", found.type, round(_share(found.all), 6), limits.rejected_share),
        Check("rejected_rise", found.type, rise, limits.rejected_rise),
        Check("books_unbalanced", found.type, found.unbalanced, 0),
        Check("records_missing", found.type, found.missing, 0),
        Check("lag_records", found.type, found.lag, limits.lag_records),
    ]


def failed_words(checks: list[Check]) -> str:
    """The failed checks in a sentence."""
    return ", ".join(
        f"{check.check} of {check.type} is {check.value if check.value is not None else 'unknown'} (limit "
        f"{check.limit:g})"
        for check in checks
        if not check.passed
    )


def _share(pair: tuple[int, int]) -> float:
    rejected, accepted = pair
    return rejected / accepted if accepted else 0.0
