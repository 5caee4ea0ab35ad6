"""Where a worker reports what it does, so that a service can export it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from faust_batch.source import Source


class Observer(Protocol):
    """Called on the owning thread: cheap and non-blocking, please."""

    def on_round(self, records: int, nbytes: int, seconds: float) -> None:
        """A round was committed: records judged in it, their bytes, and how long the commit took."""
        ...

    def on_assigned(self, sources: Sequence[Source]) -> None:
        """These partitions were added and their states restored."""
        ...

    def on_revoked(self, sources: Sequence[Source]) -> None:
        """These partitions were taken away."""
        ...

    def on_lag(self, source: Source, lag_records: int) -> None:
        """Records between the committed position and the end of the log, reported with each round."""
        ...


class NullObserver:
    """Observes nothing; subclass it to observe a part."""

    def on_round(self, records: int, nbytes: int, seconds: float) -> None: ...

    def on_assigned(self, sources: Sequence[Source]) -> None: ...

    def on_revoked(self, sources: Sequence[Source]) -> None: ...

    def on_lag(self, source: Source, lag_records: int) -> None: ...
