"""Examples of the answers about generations, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from query_api.domain.replay_gate import Found, Limits, checks_of

_ROW: dict[str, Any] = {
    "generation": 2,
    "types": ["cdr"],
    "state": "RUNNING",
    "active": [],
    "compare_only": False,
    "reason": "customers of March came late",
    "actor": "billing-scheduler",
    "created_at": "2026-09-01T08:00:00.120Z",
    "caught_up_at": None,
    "decided_at": None,
    "dropped_at": None,
    "problem": None,
    "active_spans": [],
    "starts": {"cdr": {"0": 0, "1": 0}},
    "ends": {"cdr": {"0": 4_120_334, "1": 4_118_902}},
    "reference": {"telestream.ref.customer": {"0": 51_200, "1": 51_188}},
    "only_to_ends": False,
    "rules": {},
    "versions": {"code": "0.1.0", "rules": 1, "schema of telestream.cdr.raw": 1},
    "asked": {"types": "cdr"},
}
GENERATION = {**_ROW, "state": "PREPARING"}
DROPPING = {**_ROW, "state": "DROPPING", "caught_up_at": "2026-09-01T08:03:40.000Z"}
GENERATIONS = [
    {
        **_ROW,
        "generation": 1,
        "types": ["cdr", "network"],
        "active": ["cdr", "network"],
        "reason": "first installation",
        "actor": "installation",
        "created_at": "2026-01-01T00:00:00.000Z",
        "decided_at": "2026-01-01T00:00:00.000Z",
        "active_spans": [
            {"type": "cdr", "from": "2026-01-01T00:00:00.000Z", "to": None},
            {"type": "network", "from": "2026-01-01T00:00:00.000Z", "to": None},
        ],
        "starts": {},
        "ends": {},
        "reference": {},
        "versions": {},
        "asked": {},
    },
    _ROW,
]
PROGRESS = {
    **_ROW,
    "progress": {
        "partitions": [
            {
                "type": "cdr",
                "partition": 0,
                "start": 0,
                "end": 4_120_334,
                "raw_end": 4_121_020,
                "judged": 2_101_248,
                "aggregated": 2_097_152,
                "published": 1_835_008,
                "stored": 2_060_167,
                "lag": 2_060_853,
            }
        ],
        "done_ratio": 0.5,
        "records_per_second": 46_120.5,
        "seconds_left": 45,
        "caught_up": False,
        "costs": {
            "topic_bytes": None,
            "rows": 6_180_000,
            "bytes_on_disk": 240_000_000,
            "tables": {"fact_cdr_all": {"rows": 2_020_000, "bytes_on_disk": 150_000_000}},
        },
    },
}
_CHECKS = checks_of(Found("cdr", (820, 82_000), (820, 82_000), (800, 82_000), 0, 0, 120), Limits(0.05, 0.005, 50_000))
ACTIVATED = {"activated": {"cdr": 2}, "gate": [check.shown() for check in _CHECKS]}
ROLLED_BACK = {"activated": {"cdr": 1}, "gate": []}
