"""Examples for the OpenAPI document, and the small pieces of JSON that routes share."""

from __future__ import annotations

import json
from typing import Any

from query_api import models
from query_api.domain.measures import MEASURES
from query_api.domain.problems import Problem

_TIMES = {"as_of": "2026-09-01T10:14:58.120Z", "complete_to": "2026-09-01T10:09:57.000Z"}
_REQUEST = "6f1f2c7a0f1e4f0f9c1d2b3a4c5d6e7f"
_WORDS = {
    401: ("key_missing", "send your key as X-API-Key"),
    403: ("not_allowed", "this needs a key with the role read"),
    404: ("not_found", "no customer or reference of this id"),
    413: ("too_large", "the body has more than 4096 bytes"),
    422: ("bad_parameter", "from: not a time"),
    503: ("unavailable", "ClickHouse does not answer right now; ask again"),
}


def responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may give, beside 401, 403 and 422."""
    found: dict[int | str, dict[str, Any]] = {200: {"description": "The answer"}}
    for status in sorted({401, 403, 422, *more}):
        code, detail = _WORDS[status]
        found[status] = {
            "model": models.ProblemDetails,
            "description": detail,
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                    "example": {
                        "type": "about:blank",
                        "title": "…",
                        "status": status,
                        "code": code,
                        "detail": detail,
                        "request_id": _REQUEST,
                    },
                }
            },
        }
    return found


def with_rows(head: dict[str, Any], name: str, rows: bytes) -> bytes:
    """``head`` as a JSON object with one more member, given as JSON text."""
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    return b"".join((text[:-1], b"," if head else b"", json.dumps(name).encode(), b":", rows, b"}"))


def json_object(body: bytes) -> dict[str, Any]:
    """The body as an object; raises Problem, which quotes nothing of it."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "not_json", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Problem(422, "wrong_type", "the body must be an object")
    return found


def _answer(data: Any, **more: Any) -> dict[str, Any]:
    return {"data": data, **_TIMES, "generation": 1, "next_cursor": None, "request_id": _REQUEST, **more}


def _ratio(num: float, den: int) -> dict[str, float]:
    return {"num": num, "den": den}


_CDR: dict[str, Any] = {
    **dict.fromkeys(MEASURES["cdr"].all, 0),
    "records": 1200,
    "sms": 300,
    "data_records": 500,
    "attempts": 400,
    "completed": 270,
    "no_answer": 90,
    "busy": 34,
    "dropped": 6,
    "duration_ms": 41_400_000,
    "holding_ms": 44_100_000,
    "bytes_up": 210_000_000,
    "bytes_down": 1_900_000_000,
    "charges": [{"currency": "EUR", "amount": "96.350000"}],
    "answer_seizure_ratio": _ratio(276, 400),
    "drop_ratio": _ratio(6, 276),
    "mean_duration_ms": _ratio(41_400_000, 276),
}
_NETWORK: dict[str, Any] = {
    **{name: 0 for name in MEASURES["network"].counts if not name.endswith("_count")},
    "events": 640,
    "samples": 600,
    "handovers": 40,
    "success_known": 40,
    "successes": 39,
    "setup_success_ratio": _ratio(39, 40),
    "latency_ms": _ratio(24_960.5, 600),
    "throughput_dl_mbps": _ratio(21_000.25, 600),
    "throughput_ul_mbps": _ratio(4_100.5, 600),
    "packet_loss_ratio": _ratio(1.25, 600),
}
REALTIME = _answer(
    {
        "from": "2026-09-01T10:00:00.000Z",
        "to": "2026-09-01T10:15:00.000Z",
        "step": "all",
        "group_by": "region",
        "rows": [{"region_id": "R01", **_CDR, **_NETWORK}],
    }
)
NETWORK = _answer(
    {
        "from": "2026-09-01T00:00:00.000Z",
        "to": "2026-09-02T00:00:00.000Z",
        "step": "1h",
        "tz": "Europe/Paris",
        "group_by": "cell",
        "rows": [{"step_start": "2026-09-01T08:00:00.000Z", "cell_id": "208-01-10001", **_CDR, **_NETWORK}],
    }
)
USAGE = _answer(
    {
        "id": "C00042",
        "from": "2026-09-01",
        "to": "2026-10-01",
        "tz": "Europe/Paris",
        "days": [{"local_date": "2026-09-01", **_CDR}],
    }
)
LOOKUP = _answer({"customer_ref": "k1.q0Yw3hVnXbYxk2v5n8s7Ag", "customer_id": "C00042"}, as_of=None, complete_to=None)
LOOKUP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": False,
                    "properties": {"msisdn": {"type": "string"}, "imsi": {"type": "string"}},
                },
                "examples": {
                    "msisdn": {"value": {"msisdn": "+33612345678"}},
                    "imsi": {"value": {"imsi": "208011234567890"}},
                },
            }
        },
    }
}
_SUMS = {"records": 0, "duration_ms": 0, "bytes": 0, "charges": []}
_STORED = {
    "records": 19_480,
    "duration_ms": 702_000_000,
    "bytes": 91_000_000_000,
    "charges": [{"currency": "EUR", "amount": "1523.250000"}],
}
RECONCILIATION = _answer(
    {
        "type": "cdr",
        "accepted": 20_000,
        "stored": 19_480,
        "duplicates": 400,
        "conflicts": 12,
        "rejected": {"negative_value": 70, "too_old": 30},
        "withdrawn": 0,
        "erased": 0,
        "expired": 0,
        "in_flight": 20,
        "balanced": True,
        "sums": {
            "judged": {**_STORED, "records": 19_980},
            "stored": _STORED,
            "duplicates": {**_SUMS, "records": 400},
            "rejected": {**_SUMS, "records": 100},
            "withdrawn": _SUMS,
            "erased": _SUMS,
        },
        "in_flight_scope": "exact",
        "holes": [],
    }
)
DEAD_LETTERS = _answer(
    [
        {
            "type": "cdr",
            "rule": "negative_value",
            "reason": "duration_ms is below 0",
            "field": "duration_ms",
            "source": "msc-1",
            "batch_id": 17,
            "line": 812,
            "appended_at": "2026-09-01T10:14:58.120Z",
            "position": {"topic": "telestream.cdr.raw", "partition": 3, "offset": 41_812},
            "rules_version": 1,
        }
    ],
    next_cursor="WzEsMTc4ODI1NzY5ODEyMCwwLDMsNDE4MTJd",
)

ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/v1/metrics/realtime"): REALTIME,
    ("GET", "/v1/network/performance"): NETWORK,
    ("GET", "/v1/customers/{id}/usage"): USAGE,
    ("POST", "/v1/customers/lookup"): LOOKUP,
    ("GET", "/v1/reconciliation"): RECONCILIATION,
    ("GET", "/v1/dead-letters"): DEAD_LETTERS,
}
"""What the answer of each route looks like."""
