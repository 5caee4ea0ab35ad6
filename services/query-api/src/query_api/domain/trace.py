"""One record's story, from rows: which windows a stored record counts in, and words for what is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from telestream_domain import MINUTE_WINDOWS_MAX_AGE_MS, SEGMENT_BITS, SUBSCRIBER_DAY_SEGMENT_BITS, segment_of

Row = Mapping[str, Any]
MINUTE_S, QUARTER_S, DAY_S = 60, 900, 86_400
_CALLS = ("VOICE", "VIDEO")
_ANSWERED = ("COMPLETED", "DROPPED")
FIRST_REQUEST = 1 << 40
"""Batch ids of requests begin here; below it they are files."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one family that a record adds to; ``only_ends``: nothing but the end of a call that moved."""

    family: str
    size_s: int
    start_ms: int
    group: str
    only_ends: bool = False


def ms_of(instant: str) -> int:
    """Epoch milliseconds of ISO text."""
    return round(datetime.fromisoformat(instant).timestamp() * 1_000)


def windows_of(record_type: str, row: Row, zone: ZoneInfo) -> list[Window]:
    """The windows of cells, regions, plans and subscriber-days that a STORED record counts in."""
    event_ms, appended_ms = ms_of(row["event_at"]), ms_of(row["appended_at"])
    sizes = [QUARTER_S]
    if appended_ms - event_ms <= MINUTE_WINDOWS_MAX_AGE_MS:
        sizes.insert(0, MINUTE_S)
    groups = [("cell", row["cell_id"] or "", False), ("region", row["region_id"] or "", False)]
    if record_type == "cdr":
        groups.append(("plan", row["plan_id"] or "", False))
        last = row["last_cell_id"] or row["cell_id"] or ""
        if last != (row["cell_id"] or "") and row["kind"] in _CALLS and row["status"] in _ANSWERED:
            groups.insert(1, ("cell", last, True))
    found = [
        Window(family, size_s, event_ms // (size_s * 1_000) * size_s * 1_000, group, only_ends)
        for family, group, only_ends in groups
        for size_s in sizes
    ]
    if record_type == "cdr" and row["subscriber_kind"] != "NONE" and row["local_date"]:
        midnight = datetime.combine(date.fromisoformat(row["local_date"]), time.min, tzinfo=zone)
        start_ms = int(midnight.astimezone(UTC).timestamp()) * 1_000
        found.append(Window("subscriber_day", DAY_S, start_ms, row["subscriber_id"]))
    return found


def segment_in(family: str, src_offset: int) -> int:
    """The segment of the family's windows that a raw offset counts in."""
    return segment_of(src_offset, SUBSCRIBER_DAY_SEGMENT_BITS if family == "subscriber_day" else SEGMENT_BITS)


def included(window: Window, row: Row, src_offset: int, written: Sequence[Row]) -> int | None:
    """The last raw offset that the record's own part of the window includes; None: no such part is written."""
    segment = segment_in(window.family, src_offset)
    for found in written:
        if (found["size_s"], found["start_ms"], found["group"], found["segment"]) != (
            window.size_s,
            window.start_ms,
            window.group,
            segment,
        ):
            continue
        if window.family != "subscriber_day" or all(
            found[name] == (row[name] or "") for name in ("plan_id", "roaming", "direction", "currency")
        ):
            return int(found["src_to"])
    return None


def missing_window(window: Window, now_ms: int) -> str:
    """Why a window that should include a record is not there."""
    if window.size_s == MINUTE_S and now_ms - window.start_ms > timedelta(days=1) / timedelta(milliseconds=1):
        return "one-minute windows are for now and not kept"
    return "not written yet"


def origin_of(batch_id: int, line: int | None, name: str | None) -> dict[str, Any]:
    """The file and line, or the request and place in it, that a copy came with."""
    kind = "request" if batch_id >= FIRST_REQUEST else "file"
    return {"kind": kind, "batch_id": batch_id, "name": name, "line": line}


def not_found(types: Sequence[str], generations: Mapping[str, int], in_flight: Mapping[str, Any]) -> str:
    """What was looked at in vain, in words."""
    where = " and ".join(f"{name} (generation {generations[name]})" for name in types)
    words = f"no record of this source and event id among everything judged of {where}"
    if in_flight["looked_through"]:
        return f"{words}, nor among the {in_flight['records']} records in flight"
    if in_flight["records"] is None:
        return f"{words}; what is in flight could not be asked for: ask again"
    return f"{words}; {in_flight['records']} records are in flight, too many to look through: ask again when judged"
