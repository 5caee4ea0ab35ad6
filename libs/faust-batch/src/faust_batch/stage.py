"""What a stage is: a function over batches plus one small value of state per partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from faust_batch.batch import Batch, Committed, Output
from faust_batch.source import Source

S = TypeVar("S")


class Stage(Protocol[S]):
    """All methods are called on the one thread that owns the Kafka clients; an exception ends the worker.

    What a method returns belongs to the open round: it becomes visible with the round's transaction or not at all.
    """

    @property
    def topics(self) -> Sequence[str]:
        """The topics to read."""
        ...

    def restore(self, source: Source, committed: Committed | None) -> S:
        """The state of a newly assigned partition, as of `committed`; None: nothing was ever committed.

        It follows from `committed` and from what this group has committed up to then: where nothing has been committed
        since, a state that is still at hand takes its place.
        """
        ...

    def before_round(self, batches: Sequence[Batch]) -> None:
        """Called after a fetch, before any of its batches is judged."""
        ...

    def on_batch(self, batch: Batch, state: S) -> tuple[Sequence[Output], S]:
        """Judge one batch: what it gives, and the state after it. Batches of a partition come in offset order."""
        ...

    def due(self, states: Mapping[Source, S], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, S]]:
        """What the clock asks for: called before every commit, and about every 100 ms when idle.

        Only changed states are returned; `((), {})` when nothing is due.
        """
        ...

    def metadata(self, source: Source, state: S) -> str:
        """A short text committed with the partition's offset and handed to `restore` (Kafka allows 4,096 bytes)."""
        ...

    def revoked(self, source: Source) -> None:
        """The partition's state is needed no more: it belongs to another worker, or is restored anew next.

        What was judged is committed. A rebalance that gives the partition back at once calls neither this nor
        `restore`: the state goes on.
        """
        ...


@runtime_checkable
class NeedsQuiet(Protocol):
    """What a stage has besides, if `before_round` may take longer than a transaction: it can ask for none to be open.

    A stage without it needs no quiet. Without an open transaction `before_round` may take as long as a restore.
    """

    def needs_quiet(self, batches: Sequence[Batch]) -> bool:
        """Whether these batches, just fetched, are such; asked before `before_round` if a transaction is open.

        True: what was judged up to now is committed first.
        """
        ...


class StatelessStage:
    """A stage that keeps nothing between batches: only `topics` and `judge` are left to write."""

    topics: Sequence[str] = ()

    def judge(self, batch: Batch) -> Sequence[Output]:
        """What one batch gives."""
        raise NotImplementedError

    def on_batch(self, batch: Batch, state: None) -> tuple[Sequence[Output], None]:
        return self.judge(batch), None

    def restore(self, source: Source, committed: Committed | None) -> None: ...

    def before_round(self, batches: Sequence[Batch]) -> None: ...

    def due(self, states: Mapping[Source, None], now_ms: int) -> tuple[Sequence[Output], Mapping[Source, None]]:
        return (), {}

    def metadata(self, source: Source, state: None) -> str:
        return ""

    def revoked(self, source: Source) -> None: ...
