"""When a round is committed: decided here, done by the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from faust_batch.source import Source


@dataclass(slots=True)
class Round:
    """What was judged since the last commit. `touched`: partitions whose position or state has to be committed."""

    opened_at: float | None = None
    records: int = 0
    nbytes: int = 0
    touched: set[Source] = field(default_factory=set)

    def start(self, now: float) -> None:
        if self.opened_at is None:
            self.opened_at = now

    def touch(self, source: Source, now: float) -> None:
        self.touched.add(source)
        self.start(now)

    def add(self, source: Source, records: int, nbytes: int, now: float) -> None:
        self.touch(source, now)
        self.records += records
        self.nbytes += nbytes

    @property
    def open(self) -> bool:
        return self.opened_at is not None


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """Large rounds under load, an immediate commit after a quiet spell, and never more commits than 1/interval."""

    interval_s: float
    max_records: int
    max_bytes: int

    def full(self, round_: Round, now: float) -> bool:
        """Commit although more is waiting."""
        return round_.opened_at is not None and (
            now - round_.opened_at >= self.interval_s
            or round_.records >= self.max_records
            or round_.nbytes >= self.max_bytes
        )

    def due_when_idle(self, round_: Round, now: float, last_commit_at: float) -> bool:
        """Commit because nothing more is waiting."""
        return round_.open and now - last_commit_at >= self.interval_s
