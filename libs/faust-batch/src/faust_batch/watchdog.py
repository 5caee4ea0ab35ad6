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

_log = logging.getLogger(__name__)

TICK_S = 0.2
OVERDUE_LIMIT_S = 10.0


class Watchdog:
    """While entered, kills the process if it does not end in time, or hangs in a transactional call.

    `ending` tells that it is stopping or failing, for whatever reason; it then has `limit_s` left. `overdue_s` tells
    how long a call has overstayed its own timeout.
    """

    def __init__(self, ending: Callable[[], bool], overdue_s: Callable[[], float], limit_s: float) -> None:
        self._ending = ending
        self._overdue_s = overdue_s
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
            if self._overdue_s() > OVERDUE_LIMIT_S:
                _kill(f"a transactional call overstayed its timeout by {OVERDUE_LIMIT_S:.0f} s")
            if deadline is None and self._ending():
                deadline = time.monotonic() + self._limit_s
            if deadline is not None and time.monotonic() > deadline:
                _kill(f"not stopped within {self._limit_s:.0f} s")


def _kill(reason: str) -> None:
    _log.critical("%s: killed; the open round is judged again after a restart", reason)
    try:
        faulthandler.dump_traceback(file=sys.stderr)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
