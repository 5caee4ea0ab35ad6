"""A process that was told to stop, stops: by itself, or by this."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from typing import NoReturn

_log = logging.getLogger(__name__)

TICK_S = 0.2


class Watchdog:
    """Kills the process if it is still there `limit_s` after `ending` was set."""

    def __init__(self, ending: threading.Event, limit_s: float) -> None:
        self._ending = ending
        self._limit_s = limit_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="faust-batch-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def done(self) -> None:
        """The process has nothing more to wait for."""
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(TICK_S):
            if self._ending.is_set():
                deadline = time.monotonic() + self._limit_s
                while time.monotonic() < deadline:
                    if self._done.wait(TICK_S):
                        return
                self._kill()

    def _kill(self) -> NoReturn:
        _log.critical(
            "not stopped within %.0f s: killed; the open round is judged again after a restart", self._limit_s
        )
        try:
            faulthandler.dump_traceback(file=sys.stderr)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")
