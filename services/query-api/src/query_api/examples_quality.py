"""Examples of the answers about quality, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from query_api.domain.quality import Tally, judged_shown, scored

_HOUR = {"from": "2026-09-01T09:00:00.000Z", "to": "2026-09-01T10:00:00.000Z"}
_TALLY = Tally(
    verdicts={"STORED": 19_480, "DUPLICATE": 400, "REJECTED": 100},
    warned=22,
    conflicts=12,
    rejected={"negative_value": 70, "too_old": 30},
    warnings={"data_without_bytes": 4, "duration_too_long": 18},
    latency=[0, 1_200, 9_800, 6_900, 1_200, 280, 80, 0, 0, 0, 20],
    numbers=(19_950, 19_980),
)
_JUDGED = judged_shown(_TALLY)
_SCORED = scored(_TALLY)

QUALITY: dict[str, Any] = {
    **_HOUR,
    "step": "hour",
    "tz": "UTC",
    "group_by": "source",
    "weights": {"completeness": 3, "uniqueness": 2, "validity": 3, "timeliness": 2},
    "rows": [{"step_start": _HOUR["from"], "source": "msc-1", **_SCORED, **_JUDGED}],
}
COMPLETENESS: dict[str, Any] = {
    **_HOUR,
    "nodes": [
        {
            "source": "msc-1",
            "node_id": "MSC01",
            "first": 880_001,
            "last": 899_980,
            "expected": 19_980,
            "present": 19_950,
            "missing": 30,
            "restarts": 0,
            "reused": 0,
        }
    ],
    "nodes_truncated": False,
    "missing": [
        {
            "source": "msc-1",
            "node_id": "MSC01",
            "first": 884_100,
            "last": 884_129,
            "numbers": 30,
            "noticed_at": "2026-09-01T09:12:20.410Z",
        }
    ],
    "truncated": False,
    "files": [
        {
            "source": "msc-1",
            "type": "cdr",
            "first": 410,
            "last": 415,
            "expected": 6,
            "present": 5,
            "missing": 1,
            "restarts": 0,
            "ranges": [{"first": 413, "last": 413}],
            "truncated": False,
        }
    ],
    "declared": [
        {
            "source": "msc-1",
            "type": "cdr",
            "total": "rows",
            "files": 5,
            "expected": 20_000,
            "loaded": 19_980,
            "difference": -20,
        }
    ],
    "mismatches": [
        {
            "file_id": 1017,
            "source": "msc-1",
            "type": "cdr",
            "name": "msc1-0414.csv",
            "state": "LOADED_MISMATCH",
            "finished_at": "2026-09-01T09:41:02.300Z",
            "expected": {"rows": 4_000},
            "loaded": {"rows": 3_980},
        }
    ],
}
SOURCES: list[dict[str, Any]] = [
    {
        "source": "msc-1",
        "types": {
            "cdr": {
                "first_hour": "2026-08-01T00:00:00.000Z",
                "last_hour": "2026-09-01T10:00:00.000Z",
                "records": 14_200_000,
            }
        },
    }
]
SOURCE: dict[str, Any] = {
    "source": "msc-1",
    **_HOUR,
    "last_arrival": "2026-09-01T10:14:58.120Z",
    "silent_since": None,
    "types": {
        "cdr": {
            "last_arrival": "2026-09-01T10:14:58.120Z",
            "freshest_event": "2026-09-01T10:14:51.000Z",
            **_JUDGED,
            **_SCORED,
            "rejected_samples": {
                "negative_value": [
                    {
                        "reason": "duration_ms is below 0",
                        "field": "duration_ms",
                        "batch_id": 1017,
                        "line": 812,
                        "appended_at": "2026-09-01T09:41:01.120Z",
                        "record": {
                            "started_at": "2026-09-01T09:38:10.000Z",
                            "record_type": "VOICE",
                            "status": "COMPLETED",
                            "subscriber_id": "***",
                            "duration_ms": -4_000,
                        },
                    }
                ]
            },
        }
    },
    "files": [
        {
            "type": "cdr",
            "state": "LOADED",
            "files": 4,
            "rows": 16_000,
            "accepted": 15_990,
            "refused": 10,
            "refused_by_code": {"bad_msisdn": 10},
            "last_at": "2026-09-01T09:52:40.000Z",
        }
    ],
}
AMENDMENTS: list[dict[str, Any]] = [
    {
        "family": "region",
        "type": "cdr",
        "region_id": "R01",
        "size_s": 900,
        "window_start": "2026-09-01T06:00:00.000Z",
        "windows": 1,
        "late_records": 42,
        "reversals": 0,
        "why": ["late"],
        "late_at": "2026-09-01T09:41:01.120Z",
    }
]
