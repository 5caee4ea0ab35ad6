"""What must come out, in plain Python: no segments, no batches, no state but what the rules speak of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

MINUTE_MS, QUARTER_MS, RECENT_MS = 60_000, 900_000, 7_200_000
Record = dict[str, Any] | bytes
Verdict = tuple[str, str | None, int | None]
"""Verdict, rule, and the offset of the record that a duplicate repeats."""


def judge(log: Sequence[Record]) -> list[Verdict]:
    """One raw partition in order; bytes are junk. Content is ``duration_ms`` and ``charge_micros``."""
    verdicts: list[Verdict] = []
    stored: dict[Any, tuple[int, Any]] = {}
    standing: set[int] = set()
    for offset, record in enumerate(log):
        verdict: Verdict = ("STORED", None, None)
        if isinstance(record, bytes):
            verdicts.append(("REJECTED", "undecodable", None))
            continue
        identity = record["event_uid"], record["started_at"], record["subscriber_id"]
        content = record["duration_ms"], record["charge_micros"]
        undone = record.get("reverses_offset")
        if undone is not None:
            original = log[undone] if undone in standing else b""
            if isinstance(original, dict) and original["event_uid"] == record["event_uid"]:
                standing.remove(undone)
                if stored.get(identity, (None,))[0] == undone:
                    del stored[identity]
            else:
                verdict = ("DUPLICATE", None, None)
        elif record["charge_micros"] < 0:
            verdict = ("REJECTED", "negative_value", None)
        elif identity in stored:
            first, known = stored[identity]
            verdict = ("DUPLICATE", None if known == content else "conflict", first)
        else:
            stored[identity] = offset, content
            standing.add(offset)
        verdicts.append(verdict)
    return verdicts


def counting(log: Sequence[Record]) -> Iterator[tuple[dict[str, Any], int]]:
    """The records that aggregates are made of, with 1, or -1 for those that a reversal takes back."""
    for record, (verdict, _, _) in zip(log, judge(log), strict=True):
        if verdict == "STORED" and isinstance(record, dict):
            undone = record.get("reverses_offset")
            original = record if undone is None else log[undone]
            if isinstance(original, dict):
                yield original, 1 if undone is None else -1


def cells(log: Sequence[Record]) -> dict[Any, tuple[int, int, int]]:
    """(window's start in ms, cell) → records, duration and charge by quarter hour of what is stored and stands."""
    sums: dict[Any, tuple[int, int, int]] = {}
    for record, sign in counting(log):
        key = record["started_at"] // QUARTER_MS * QUARTER_MS, record["cell_id"]
        n, duration, charge = sums.get(key, (0, 0, 0))
        sums[key] = n + sign, duration + sign * record["duration_ms"], charge + sign * record["charge_micros"]
    return {key: value for key, value in sums.items() if any(value)}


def recent(log: Sequence[Record], arrived_ms: int) -> int:
    """How many records count in one-minute windows too; for logs without reversals."""
    return sum(arrived_ms - record["started_at"] <= RECENT_MS for record, _ in counting(log))
