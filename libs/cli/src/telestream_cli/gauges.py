"""What a run measures of itself: records a second by stage, and how old the freshest event is."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import httpx

from telestream_cli.access import Access
from telestream_devstack.state import load

_STAGES = {
    "ingest-gateway": ("telestream_gateway_records_accepted_total", ""),
    "cdr-enricher": ("telestream_enricher_records_total", ""),
    "window-aggregator": ("telestream_aggregator_records_total", ""),
    "warehouse-sink": ("telestream_sink_records_total", "enriched"),
}
"""Service → the counter of its records, and what a label must contain."""
_LAGS = {
    "cdr-enricher": "telestream_enricher_lag_records",
    "window-aggregator": "telestream_aggregator_lag_records",
    "warehouse-sink": "telestream_sink_lag_records",
}
_STAGE_INTERVAL_S = 0.5
_QUIET_LOOKS = 3
_FRESHNESS_INTERVAL_S = 0.5


class _Gauge:
    """Samples on a thread between ``with`` and ``stop``."""

    _interval_s = 1.0

    def __init__(self) -> None:
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._client = httpx.Client(timeout=5)

    def stop(self) -> None:
        """End sampling; harmless if it has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        raise NotImplementedError


class StageGauge(_Gauge):
    """Rates of the services of the embedded stack, from their metrics."""

    _interval_s = _STAGE_INTERVAL_S

    def __init__(self, state_dir: Path) -> None:
        super().__init__()
        stack = load(state_dir)
        members = {} if stack is None else stack.members
        self._urls = {
            name: f"{member.admin_url}/metrics"
            for name, member in members.items()
            if name in _STAGES and member.admin_url
        }
        self._seen: dict[str, list[tuple[float, float]]] = {name: [] for name in self._urls}

    def __enter__(self) -> StageGauge:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _sample(self) -> None:
        for name, url in self._urls.items():
            try:
                text = self._client.get(url).text
            except httpx.TransportError:
                continue  # a service that is being started again has no figures just now
            self._seen[name].append((time.monotonic(), _sum_of(text, *_STAGES[name])))

    def wait(self, lag: float, seconds: float) -> None:
        """Wait until no more than ``lag`` records are behind at all stages together, or the time is up.

        Two looks in a row must say so: a stage that has just handed on is behind nothing for a moment.
        """
        deadline, quiet = time.monotonic() + seconds, 0
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
            found = self._lag()
            quiet = quiet + 1 if found is not None and found <= lag else 0
            time.sleep(_STAGE_INTERVAL_S)

    def _lag(self) -> float | None:
        """Records that wait, or None while a stage does not answer."""
        total = 0.0
        for name, metric in _LAGS.items():
            if name not in self._urls:
                continue
            try:
                text = self._client.get(self._urls[name]).text
            except httpx.TransportError:
                return None
            total += _sum_of(text, metric, "")
        return total

    def rates(self) -> dict[str, float]:
        """Records a second of each stage while it was at work: between a twentieth and all but one of its records."""
        rates = {}
        for name, seen in self._seen.items():
            if len(seen) < 2:
                continue
            first, last = seen[0][1], seen[-1][1]
            low, high = first + (last - first) * 0.05, first + (last - first) * 0.95
            busy = [(at, count) for at, count in seen if low <= count <= high]
            # A stage faster than the sampling is as fast as one interval says at least.
            before = max((s for s in seen if s[1] < low), default=seen[0])
            after = min((s for s in seen if s[1] > high), default=seen[-1])
            begin, end = (busy[0], busy[-1]) if len(busy) > 2 else (before, after)
            if end[0] > begin[0] and end[1] > begin[1]:
                rates[name] = (end[1] - begin[1]) / (end[0] - begin[0])
        return rates


class FreshnessGauge(_Gauge):
    """Age of the freshest event in ``/v1/metrics/realtime``."""

    _interval_s = _FRESHNESS_INTERVAL_S

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._url = f"{access.query_api}/v1/metrics/realtime"
        self._headers = access.headers
        self._ages: list[list[float]] = [[]]

    def __enter__(self) -> FreshnessGauge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def mark(self) -> None:
        """What comes now is measured without a backlog of files."""
        self._ages.append([])

    def _sample(self) -> None:
        try:
            answer = self._client.get(self._url, headers=self._headers)
        except httpx.TransportError:
            return
        if answer.status_code != 200 or not answer.json().get("as_of"):
            return
        as_of = datetime.fromisoformat(answer.json()["as_of"].replace("Z", "+00:00"))
        self._ages[-1].append(time.time() - as_of.timestamp())

    def summary(self) -> dict[str, str]:
        """``median 0.4 s, 95 % within 1.1 s`` while files were loading, and after."""
        summary = {}
        for when, unsorted in zip(("while files were loading", "with the files through"), self._ages, strict=False):
            if ages := sorted(unsorted):
                median, most = ages[len(ages) // 2], ages[len(ages) * 95 // 100]
                summary[when] = f"median {median:.1f} s, 95 % within {most:.1f} s"
        return summary


def _sum_of(metrics: str, name: str, label: str) -> float:
    """Sum of a counter over its labels, only of lines that contain ``label``."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and label in line
    )
