"""One day of a small company's Asterisk as ``cdr_csv`` writes it to ``Master.csv``, with its own truth.

Eighteen columns, no header: accountcode, src, dst, dcontext, clid, channel, dstchannel, lastapp, lastdata, start,
answer, end, duration, billsec, disposition, amaflags, uniqueid, userfield. Texts are quoted, a quote inside is doubled,
the two durations are bare seconds, an answer that never came is an empty field. Times are UTC (``usegmtime=yes``),
ids and user fields are logged (``loguniqueid``, ``loguserfield``).

A row is a leg: one call that rang two telephones is two rows with the same ``uniqueid`` and another ``dstchannel``.
Both are records; a row that is in the file twice is one record and one duplicate.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from telestream_simulator.cdrs import day_shape
from telestream_simulator.columns import iso_date
from telestream_simulator.scenario import MS_PER_DAY
from telestream_simulator.truth import Truth

COLUMNS = (
    "accountcode",
    "src",
    "dst",
    "dcontext",
    "clid",
    "channel",
    "dstchannel",
    "lastapp",
    "lastdata",
    "start",
    "answer",
    "end",
    "duration",
    "billsec",
    "disposition",
    "amaflags",
    "uniqueid",
    "userfield",
)
_BARE = ("duration", "billsec")
_DISPOSITIONS = ("ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION")
_DISPOSITION_SHARES = (0.76, 0.13, 0.07, 0.03, 0.01)
_STATUSES = {
    "ANSWERED": "COMPLETED",
    "NO ANSWER": "NO_ANSWER",
    "BUSY": "BUSY",
    "FAILED": "FAILED",
    "CONGESTION": "CONGESTION",
}
_EXTENSIONS = range(201, 241)
_SALES = (201, 202, 203)
INTERNAL, OUTGOING, INCOMING, RING_GROUP = range(4)
_KIND_SHARES = (0.25, 0.4, 0.25, 0.1)


def write_asterisk(path: Path, rows: int, day: date, seed: int, unique: str = "") -> Truth:
    """Write about ``rows`` rows of that day and return what must be reported of them.

    Numbers outside are German, national (``0301234567``) or international (``0049…``, ``+44…``); ``unique`` goes into
    the ids, so that two files of one day do not repeat each other.
    """
    rng = np.random.default_rng([seed, 3])
    start_ms = (day - date(1970, 1, 1)).days * MS_PER_DAY
    starts = np.sort(day_shape(rng, rows, start_ms, start_ms + MS_PER_DAY)) // 1000
    legs: list[dict[str, Any]] = []
    for serial, start in enumerate(starts.tolist()):
        if len(legs) >= rows:
            break
        legs.extend(_call(rng, serial, start, unique))
    written = [_csv_line(leg) for leg in legs]
    again = sorted(rng.choice(len(legs), size=max(1, len(legs) // 100), replace=False).tolist())
    path.write_text("\n".join([*written, *(written[index] for index in again)]) + "\n", newline="")
    return _truth(path.name, legs, len(again))


def _call(rng: np.random.Generator, serial: int, start: int, unique: str) -> list[dict[str, Any]]:
    kind = int(rng.choice(4, p=_KIND_SHARES))
    extension = int(rng.choice(_EXTENSIONS))
    if kind == INTERNAL:
        step = int(rng.integers(1, len(_EXTENSIONS)))
        other = _EXTENSIONS[(extension - _EXTENSIONS[0] + step) % len(_EXTENSIONS)]
        parties = [(str(extension), str(other), "internal", f"PJSIP/{extension}", f"PJSIP/{other}")]
    elif kind == OUTGOING:
        parties = [(str(extension), _outside(rng), "from-internal", f"PJSIP/{extension}", "PJSIP/carrier")]
    elif kind == INCOMING:
        parties = [(_outside(rng), str(extension), "from-carrier", "PJSIP/carrier", f"PJSIP/{extension}")]
    else:
        caller = _outside(rng)
        parties = [(caller, "200", "from-carrier", "PJSIP/carrier", f"PJSIP/{member}") for member in _SALES]
    answered_by = int(rng.integers(0, len(parties)))
    outcome = str(rng.choice(_DISPOSITIONS, p=_DISPOSITION_SHARES))
    ring = int(rng.integers(1, 30))
    talk = int(np.clip(rng.lognormal(4.3, 1.2), 1, 7200)) if outcome == "ANSWERED" else 0
    legs = []
    for index, (src, dst, context, channel, dstchannel) in enumerate(parties):
        answered = outcome == "ANSWERED" and index == answered_by
        # The telephones that were not picked up stop ringing when another is.
        disposition = outcome if len(parties) == 1 or answered else "NO ANSWER"
        billsec = talk if answered else 0
        name = f'"Desk {src}"' if len(src) == 3 else f'"{src}"'
        legs.append(
            {
                "accountcode": "" if len(src) == 3 else "carrier",
                "src": src,
                "dst": dst,
                "dcontext": context,
                "clid": f"{name} <{src}>",
                "channel": f"{channel}-{serial:08x}",
                "dstchannel": f"{dstchannel}-{serial * 4 + index:08x}",
                "lastapp": "Dial",
                "lastdata": f"{dstchannel},30,tT",
                "start": _stamp(start),
                "answer": _stamp(start + ring) if answered else "",
                "end": _stamp(start + ring + billsec),
                "duration": ring + billsec,
                "billsec": billsec,
                "disposition": disposition,
                "amaflags": "DOCUMENTATION",
                "uniqueid": f"{unique}{start}.{serial}",
                "userfield": "",
                "at_s": start,
            }
        )
    return legs


def _outside(rng: np.random.Generator) -> str:
    """A number beyond the trunk, dialled as people dial: with a trunk prefix, with 00, or with +."""
    how = rng.random()
    if how < 0.6:
        return f"030{int(rng.integers(1_000_000, 9_999_999))}"
    if how < 0.75:
        return f"0151{int(rng.integers(10_000_000, 99_999_999))}"
    if how < 0.9:
        return f"004989{int(rng.integers(1_000_000, 9_999_999))}"
    return f"+447{int(rng.integers(100_000_000, 999_999_999))}"


def _stamp(at_s: int) -> str:
    return str(np.datetime64(at_s, "s")).replace("T", " ")


def _csv_line(leg: dict[str, Any]) -> str:
    fields = []
    for column in COLUMNS:
        value = leg[column]
        if column in _BARE:
            fields.append(str(value))
        elif column == "answer" and value == "":
            fields.append("")
        else:
            fields.append('"' + value.replace('"', '""') + '"')
    return ",".join(fields)


def _truth(name: str, legs: list[dict[str, Any]], again: int) -> Truth:
    by_day: dict[str, dict[str, int]] = {}
    for leg in legs:
        row = by_day.setdefault(iso_date(leg["at_s"] * 1000), {"records": 0, "duration_ms": 0, "holding_ms": 0})
        row["records"] += 1
        row["duration_ms"] += leg["billsec"] * 1000
        row["holding_ms"] += leg["duration"] * 1000
    return {
        "files": [{"name": name, "type": "cdr", "profile": "asterisk", "rows": len(legs) + again}],
        "cdr": {
            "rows": len(legs) + again,
            "accepted": len(legs) + again,
            "stored": len(legs),
            "duplicates": again,
            "conflicts": 0,
            "refused": {},
            "rejected": {},
            "warned": {},
            "sums": {
                "duration_ms": sum(row["duration_ms"] for row in by_day.values()),
                "holding_ms": sum(row["holding_ms"] for row in by_day.values()),
            },
            "statuses": dict(Counter(_STATUSES[leg["disposition"]] for leg in legs)),
            "subscriber_kinds": dict(Counter("LINE" if len(leg["src"]) == 3 else "MSISDN" for leg in legs)),
            # without the country of the exchange only +… is known to be a number
            "subscriber_kinds_without_country": dict(
                Counter("MSISDN" if leg["src"].startswith("+") else "LINE" for leg in legs)
            ),
            "peer_kinds": dict(Counter("EXTENSION" if len(leg["dst"]) == 3 else "E164" for leg in legs)),
        },
        "day": [{"date": day, **row} for day, row in sorted(by_day.items())],
    }
