"""The one broker, which the test may kill and stop."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from telestream_devstack.parts import make_parts
from telestream_devstack.process import spawn

_START_WITHIN_S = 120.0


class Broker:
    """Apache Kafka as the embedded stack runs it. Call from one thread: it ends with the thread that started it."""

    def __init__(self, state_dir: Path, port_base: int) -> None:
        self._part = make_parts(state_dir, port_base, ("kafka",))["kafka"]
        self.url = self._part.url
        self._process: subprocess.Popen[bytes] | None = None
        self._restart_at: float | None = None
        self._continue_at: float | None = None
        self._asked_at = 0.0
        self._began_at = 0.0
        self.well = False
        self.well_since = time.monotonic()
        self.outages_s: list[float] = []

    def start(self) -> None:
        """Blocks until it answers."""
        self._part.prepare()
        self._process = spawn(self._part.command())
        deadline = time.monotonic() + _START_WITHIN_S
        while (reason := self._part.ready()) is not None:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit(f"the broker did not start: {reason}")
            time.sleep(0.2)
        self.well = True

    def kill(self, down_s: float) -> None:
        if self._process is None or not self.well:
            return
        self._process.kill()
        self._process.wait()
        self._process, self._restart_at = None, time.monotonic() + down_s
        self._away()

    def stop_and_continue(self, seconds: float) -> None:
        if self._process is None or not self.well:
            return
        self._process.send_signal(signal.SIGSTOP)
        self._continue_at = time.monotonic() + seconds
        self._away()

    def _away(self) -> None:
        self.well, self._began_at = False, time.monotonic()

    def look(self) -> str | None:
        """Do what is due; returns a sentence once it is back, or that it failed."""
        now = time.monotonic()
        if self.well:
            if self._process is not None and self._process.poll() is not None:
                raise SystemExit(f"the broker ended by itself with {self._process.returncode}")
            return None
        if self._restart_at is not None:
            if now < self._restart_at:
                return None
            self._restart_at = None
            self._process = spawn(self._part.command())
        if self._continue_at is not None:
            if now < self._continue_at:
                return None
            self._continue_at = None
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)
        if now - self._asked_at > 1.0:
            self._asked_at = now
            if self._part.ready() is None:
                self.well, self.well_since = True, time.monotonic()
                self.outages_s.append(self.well_since - self._began_at)
                return f"the broker answers again after {self.outages_s[-1]:.0f} s"
        if now - self._began_at > _START_WITHIN_S:
            raise SystemExit(f"the broker is not back after {_START_WITHIN_S:.0f} s")
        return None

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
