"""Workers as processes of their own, and a supervisor that starts again what ended, as Kubernetes would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil

BACK_WITHIN_S = 120.0
_BACK_OFF_S, _LONGEST_BACK_OFF_S, _SETTLED_S = 1.0, 10.0, 20.0
_DRAIN_S = 30.0  # who has not ended so long after SIGTERM is killed, as Kubernetes does
_NOT_ALIVE_S = 30.0  # three probes, ten seconds apart
_PROBE_EVERY_S = 2.0


class Worker:
    """One instance of a service, through all its processes."""

    def __init__(self, name: str, package: str, environment: Mapping[str, str], folder: Path, wanted: bool) -> None:
        self.name, self.package, self.folder = name, package, folder
        self.environment = dict(environment)
        self.admin = f"http://127.0.0.1:{environment['TELESTREAM_ADMIN_PORT']}"
        self.log = folder / f"{name}.log"
        self.wanted = wanted
        self.process: subprocess.Popen[bytes] | None = None
        self.exits: Counter[str] = Counter()
        self.starts = 0
        self.peak_rss = 0
        self.failures: list[str] = []
        self._log_from = 0
        self._start_at = 0.0
        self._started_at = 0.0
        self._back_off_s = _BACK_OFF_S
        self._term_at: float | None = None
        self._continue_at: float | None = None
        self._well_at = time.monotonic()
        self._probed_at = 0.0
        self._dead_since: float | None = None
        self._ours: str | None = None

    # -- what is done to it -------------------------------------------------------------------------------------------

    def kill(self, why: str = "killed by the test") -> None:
        if self.process is not None:
            self._ours = why
            self._continue_at = None
            self._signal(signal.SIGKILL)

    def stop_and_continue(self, seconds: float) -> None:
        if self.process is not None and self._continue_at is None:
            self._signal(signal.SIGSTOP)
            self._continue_at = time.monotonic() + seconds

    def terminate(self) -> None:
        if self.process is not None and self._term_at is None:
            self._term_at = time.monotonic()
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    # -- what the supervisor does -------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.process is not None and self._continue_at is None

    def look(self, broker_well: bool) -> str | None:
        """Start, restart, continue, probe; returns how a process ended, if one did."""
        now = time.monotonic()
        ended = self._reap(now)
        if self.process is None:
            self._well_at = now if not self.wanted else self._well_at
            if self.wanted and now >= self._start_at:
                self._start(now)
            return ended
        if self._continue_at is not None:
            self._well_at = now
            if now >= self._continue_at:
                self._continue_at = None
                self._signal(signal.SIGCONT)
            return ended
        if self._term_at is not None and now - self._term_at > _DRAIN_S:
            self.failures.append(f"{self.name}: not ended {_DRAIN_S:.0f} s after SIGTERM; killed")
            self.kill("killed: did not drain")
            self._term_at = None
        if not broker_well:
            self._well_at = now
        if now - self._probed_at > _PROBE_EVERY_S:
            self._probed_at = now
            self._probe(now)
        if now - self._well_at > BACK_WITHIN_S:
            self.failures.append(
                f"{self.name}: not ready {BACK_WITHIN_S:.0f} s after it was left in peace; see {self.log}"
            )
            self._well_at = now
            self.kill("killed: did not come back")
        return ended

    def _reap(self, now: float) -> str | None:
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        said = self._ours if code == -signal.SIGKILL and self._ours else self.last_words()
        ended = f"{_named(code)}: {said}"
        self.exits[ended] += 1
        self.process, self._ours, self._term_at, self._continue_at, self._dead_since = None, None, None, None, None
        # a fault, ours or its own, begins the time that it has to come back
        self._back_off_s = (
            _BACK_OFF_S if now - self._started_at > _SETTLED_S else min(self._back_off_s * 2, _LONGEST_BACK_OFF_S)
        )
        self._start_at = now + self._back_off_s
        return ended

    def _start(self, now: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.package],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1
        self._started_at = now

    def _probe(self, now: float) -> None:
        assert self.process is not None
        with contextlib.suppress(psutil.Error):
            self.peak_rss = max(self.peak_rss, psutil.Process(self.process.pid).memory_info().rss)
        if _status(f"{self.admin}/readyz") == 200:
            self._well_at = now
        if _status(f"{self.admin}/livez") != 503:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = now
        elif now - self._dead_since > _NOT_ALIVE_S:
            self.kill("killed: /livez failed")

    def last_words(self) -> str:
        """The last line of this process in its log, without what differs from time to time."""
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            lines = [line for line in log.read()[-20_000:].decode("utf-8", "replace").splitlines() if line.strip()]
        for line in reversed(lines):
            # librdkafka's own lines may follow what the worker says at its end
            if line.startswith("{"):
                with contextlib.suppress(json.JSONDecodeError):
                    said = json.loads(line)
                    thrown = str(said.get("exception", "")).strip().split("\n")[-1]
                    return str(said.get("reason") or thrown or said.get("event", ""))
        return lines[-1][:300] if lines else "no output"


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=0.5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code
    except OSError:
        return 0


def environment(base: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's, without TeleStream's own settings, and those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TELESTREAM_")}
    return own | dict(base) | {f"TELESTREAM_{name.upper()}": value for name, value in settings.items()}
