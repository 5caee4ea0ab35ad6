"""CDRs sent to the gateway while they happen, in small requests, with the truth of what was sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from telestream_simulator import cdrs, faults
from telestream_simulator.cdrs import Columns, count_of
from telestream_simulator.columns import NULL, is_set
from telestream_simulator.errors import SimulationError
from telestream_simulator.population import Population
from telestream_simulator.truth import Truth, cdr_truth

REQUEST_INTERVAL_S = 0.1
PATIENCE_S = 90.0
"""How long one request is repeated while the gateway does not answer or says that it cannot."""
_MAX_PAUSE_S = 5.0
_TIMES = ("started_at", "answered_at")
_WHOLE = frozenset(
    (
        "duration_ms",
        "bytes_up",
        "bytes_down",
        "charge_micros",
        "holding_ms",
        "pdd_ms",
        "cause_code",
        "record_seq",
        "node_seq",
        "segments",
        "rating_group",
    )
)


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What was sent and how the gateway answered.

    ``truth`` has the shape of ``truth.json``. ``unknown`` counts records of requests whose fate the gateway left open
    (503, a broken connection) and that were sent again: as many more duplicates may have been accepted.
    ``surprises`` are answers that differ from the truth, a sentence each.
    """

    truth: Truth
    sent: int
    unknown: int
    seconds: float
    ack_seconds: list[float] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)


def send_live(
    population: Population,
    gateway: str,
    api_key: str,
    rate: float,
    seconds: float,
    source: str,
    on_progress: Callable[[int, int], None] = lambda sent, of: None,
    stop: Callable[[], bool] = lambda: False,
) -> LiveResult:
    """Send ``rate`` CDRs a second for ``seconds`` and return the truth of them.

    A 429, a 503 and a broken connection are waited out and the request repeated with the same ids. Raises
    SimulationError if the gateway stays away, or refuses the key. ``stop`` ends early, after a whole request.
    """
    records = max(1, round(rate * seconds))
    scenario = population.scenario
    # Every live run draws anew; its ids carry the moment, so that runs of one source do not repeat each other.
    begun = time.time()
    rng = np.random.default_rng([scenario.seed, scenario.block, 5, int(begun * 1000)])
    shares = faults.Shares(
        sound=max(1, records - round(records * scenario.duplicates) - round(records * scenario.invalid)),
        invalid=round(records * scenario.invalid),
        duplicates=round(records * scenario.duplicates),
        late=0,
    )
    table, bodies = _prepared(population, rng, shares, seconds, f"{source}-{int(begun * 1000):x}")
    total = count_of(table)
    per_request = max(1, round(rate * REQUEST_INTERVAL_S))
    sender = _Sender(gateway.rstrip("/") + "/v1/events/cdr", api_key, source)
    origin = np.full(shares.sound, NULL, dtype=np.int64)
    held = np.where(is_set(table["holding_ms"]), table["holding_ms"], table["duration_ms"])
    held = np.clip(held, 0, None)
    started = time.monotonic()
    sent = 0
    with sender.client:
        while sent < total and not stop():
            rows = np.arange(sent, min(sent + per_request, total))
            due = started + sent / rate
            time.sleep(max(0.0, due - time.monotonic()))
            now_ms = int(time.time() * 1000)
            # A call is reported when it has ended.
            fresh = rows[origin[table["row"][rows]] == NULL]
            origin[table["row"][fresh]] = now_ms - held[fresh] - rng.integers(0, 50, size=len(fresh))
            for column in _TIMES:
                known = rows[is_set(table[column][rows])]
                table[column][known] += origin[table["row"][known]]
            events = [_with_times(bodies[row], table, row) for row in rows.tolist()]
            sender.send(events, table["fate"][rows].tolist())
            sent += len(rows)
            on_progress(sent, total)
    elapsed = time.monotonic() - started
    truth = cdr_truth(population, cdrs.take(table, np.arange(sent)))
    return LiveResult(truth, sent, sender.unknown, elapsed, sender.ack_seconds, sender.surprises)


def _prepared(
    population: Population, rng: np.random.Generator, shares: faults.Shares, seconds: float, prefix: str
) -> tuple[Columns, list[dict[str, Any]]]:
    """The stream with instants relative to each record's own start, and its events but for these."""
    sound = cdrs.cdr_traffic(population, rng, shares.sound, population.scenario.start_ms, population.scenario.end_ms)
    sound["answered_at"] = np.where(is_set(sound["answered_at"]), sound["answered_at"] - sound["started_at"], NULL)
    sound["started_at"][:] = 0
    table = faults.faulty_live_cdrs(population, sound, shares, rng, seconds)
    peers, _ = cdrs.peer_words(population)
    texts = cdrs.as_text(population, table, peers)
    for name in _TIMES:
        texts[name] = [""] * count_of(table)
    faults.break_cdr_texts(table, texts, faults.LIVE_FAULTS)
    unknown_field = faults.refused("unknown_field")
    bodies = []
    for number, fate, *fields in zip(
        table["event"].tolist(), table["fate"].tolist(), *(texts[name] for name in cdrs.HEADER), strict=True
    ):
        body = {name: _typed(name, text) for name, text in zip(cdrs.HEADER, fields, strict=True) if text}
        if len(body["event_id"]) <= 128:
            body["event_id"] = f"{prefix}-{number}"
        if fate == unknown_field:
            body["colour"] = "blue"
        bodies.append(body)
    return table, bodies


def _typed(name: str, text: str) -> Any:
    if name in _WHOLE and text.lstrip("-").isdigit():
        return int(text)
    if name == "is_partial" and text in ("true", "false"):
        return text == "true"
    return text


def _with_times(body: dict[str, Any], table: Columns, row: int) -> dict[str, Any]:
    """The event with its instants, but for those that a fault has taken."""
    fault = table["fault"][row]
    code = None if fault == NULL else faults.LIVE_FAULTS[int(fault)]
    event = dict(body)
    takes_time = code == "missing_field" and "record_type" in event and "status" in event
    if "started_at" not in event and not takes_time:
        event["started_at"] = int(table["started_at"][row])
    if "answered_at" not in event and table["answered_at"][row] != NULL:
        event["answered_at"] = int(table["answered_at"][row])
    return event


class _Sender:
    def __init__(self, url: str, api_key: str, source: str) -> None:
        self.client = httpx.Client(timeout=30)
        self.unknown = 0
        self.ack_seconds: list[float] = []
        self.surprises: list[str] = []
        self._url = url
        self._headers = {"X-API-Key": api_key}
        self._params = {"source": source}
        self._requests = 0

    def send(self, events: list[dict[str, Any]], fates: list[int]) -> None:
        """Send until there is an answer, then compare it with the fates."""
        self._requests += 1
        headers = dict(self._headers)
        if self._requests % 2:
            headers["Content-Type"] = "application/json"
            body = json.dumps(events).encode()
        else:
            headers["Content-Type"] = "application/x-ndjson"
            body = b"\n".join(json.dumps(event).encode() for event in events)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            begun = time.monotonic()
            try:
                answer = self.client.post(self._url, params=self._params, headers=headers, content=body)
            except httpx.TransportError as err:
                if not isinstance(err, httpx.ConnectError):
                    self.unknown += len(events)
                self._pause(deadline, 0.5, f"{type(err).__name__}: {err}")
                continue
            if answer.status_code in (429, 503):
                if answer.status_code == 503:
                    self.unknown += len(events)
                self._pause(deadline, _retry_after(answer.headers), f"status {answer.status_code}")
                continue
            self.ack_seconds.append(time.monotonic() - begun)
            if answer.status_code not in (202, 422):
                raise SimulationError(
                    f"{self._url} answered {answer.status_code} to live events: {answer.text[:300]}; "
                    "is the API key right and the gateway of this version?"
                )
            self._compare(answer.json(), events, fates)
            return

    def _pause(self, deadline: float, seconds: float, why: str) -> None:
        if time.monotonic() + seconds > deadline:
            raise SimulationError(
                f"{self._url} did not accept live events for {PATIENCE_S:.0f} s ({why}); run 'telestream status'"
            )
        time.sleep(seconds)

    def _compare(self, answer: Mapping[str, Any], events: list[dict[str, Any]], fates: list[int]) -> None:
        last = faults.FIRST_REFUSED + len(faults.REFUSED_CODES)
        expected = {
            index: faults.REFUSED_CODES[fate - faults.FIRST_REFUSED]
            for index, fate in enumerate(fates)
            if faults.FIRST_REFUSED <= fate < last
        }
        got = {error["index"]: error["code"] for error in answer.get("errors", [])}
        if answer.get("accepted") != len(events) - len(expected) or answer.get("refused") != len(expected):
            self.surprises.append(
                f"of {len(events)} live events {answer.get('accepted')} were accepted and {answer.get('refused')} "
                f"refused, not {len(events) - len(expected)} and {len(expected)}"
            )
        for index in sorted(expected.keys() | got.keys()):
            if expected.get(index) != got.get(index):
                self.surprises.append(
                    f"live event {events[index].get('event_id', '?')[:60]} was refused as {got.get(index)}, "
                    f"not {expected.get(index)}"
                )


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(_MAX_PAUSE_S, max(0.05, float(headers.get("retry-after", "1"))))
    except ValueError:
        return 1.0
