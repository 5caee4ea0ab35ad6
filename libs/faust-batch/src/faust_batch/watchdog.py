"""A process that has to end, ends: by itself, or by this."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from faust_batch.health import Condition, Health

_log = logging.getLogger(__name__)

TICK_S = 0.2


class Watchdog:
    """While entered, kills the process if it is wedged, or does not end in time.

    `ending` tells that it is stopping or failing, for whatever reason; it then has `limit_s` left. `look` is called
    every `TICK_S` on the watchdog's own thread.
    """

    def __init__(self, ending: Callable[[], bool], look: Callable[[], Health], limit_s: float) -> None:
        self._ending = ending
        self._look = look
        self._limit_s = limit_s
        self._done = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, name="faust-batch watchdog", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()

    def _watch(self) -> None:
        deadline: float | None = None
        while not self._done.wait(TICK_S):
            try:
                health = self._look()
            except Exception:
                _log.exception("the watchdog could not look")
                continue
            if health.condition is Condition.WEDGED and not self._done.is_set():
                _kill(f"wedged: {health.reason}")
            if deadline is None and self._ending():
                deadline = time.monotonic() + self._limit_s
            if deadline is not None and time.monotonic() > deadline and not self._done.is_set():
                _kill(f"not stopped within {self._limit_s:.0f} s")


def _kill(reason: str) -> None:
    """By signal: nothing that hangs in this process can hold it up."""
    try:
        faulthandler.dump_traceback(file=sys.stderr)
        _log.critical("%s: killed; the open round is judged again after a restart", reason)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
