"""Whose workers shall run: every generation's row says it, and PostgreSQL is asked again and again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from telestream_devstack.errors import DevstackError

ASK_EVERY_SECONDS = 2.0

_log = logging.getLogger("supervisor")


@dataclass(frozen=True, slots=True)
class Wanted:
    """``running``: generation → whether it was ever activated, of those whose workers are wanted. ``dropped``: those of
    which nothing is left."""

    running: Mapping[int, bool]
    dropped: frozenset[int]


class WantedWatch:
    """Asks in a thread of its own, so that its caller never waits."""

    def __init__(self, dsn: str, topic_prefix: str) -> None:
        self._dsn, self._prefix = dsn, topic_prefix
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generations")
        self._asking: Future[Wanted] | None = None
        self._due_at = 0.0
        self._problem: str | None = None
        self.tried = False
        """Whether there was an outcome yet, be it that PostgreSQL does not answer."""

    def news(self, now: float) -> Wanted | None:
        """What the rows said, once each time they were read; None if there is nothing new or no answer."""
        if self._asking is None:
            if now >= self._due_at:
                self._asking = self._thread.submit(_read, self._dsn, self._prefix)
            return None
        if not self._asking.done():
            return None
        asked, self._asking, self._due_at, self.tried = self._asking, None, now + ASK_EVERY_SECONDS, True
        try:
            found = asked.result()
        except Exception as error:
            # Whatever it is, what runs goes on: no answer is not the answer that nothing is wanted.
            self._say(str(error) or type(error).__name__)
            return None
        self._say(None)
        return found

    def _say(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            _log.warning("generations: %s", problem) if problem else _log.info("generations are read again")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _read(dsn: str, topic_prefix: str) -> Wanted:
    try:
        from telestream_opstore import DerivationState, derivations
    except ImportError as error:
        raise DevstackError(f"no generation but the first is run: {error}") from None
    rows = derivations(dsn, topic_prefix)
    return Wanted(
        {row.generation: row.decided_at is not None for row in rows if row.wanted},
        frozenset(row.generation for row in rows if row.state is DerivationState.DROPPED),
    )
