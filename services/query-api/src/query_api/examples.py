"""Examples for the OpenAPI document, and the small pieces of JSON that routes share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from query_api import examples_compare, examples_generations, examples_quality, models
from query_api.domain.measures import MEASURES, USAGE_MEASURES
from query_api.domain.present import USAGE_KPIS
from telestream_domain.kpis import KPI, WINDOW_MS, Basis, Kpi, kpis_of, shown

_TIMES = {"as_of": "2026-09-01T10:14:58.120Z", "complete_to": "2026-09-01T10:09:57.000Z"}
_REQUEST = "6f1f2c7a0f1e4f0f9c1d2b3a4c5d6e7f"
_WORDS = {
    401: ("key_missing", "send your key as X-API-Key"),
    403: ("not_allowed", "this needs a key with the role read"),
    404: ("not_found", "no customer or reference of this id"),
    409: ("dropped", "generation 2 is DROPPED: nothing of it is left"),
    413: ("too_large", "the body has more than 4096 bytes"),
    422: ("bad_parameter", "from: not a time"),
    503: ("unavailable", "ClickHouse does not answer right now; ask again"),
}


def responses(*more: int, success: int = 200) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may give, beside 401, 403 and 422."""
    found: dict[int | str, dict[str, Any]] = {success: {"description": "The answer"}}
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


def with_member(data: bytes, name: str, value: bytes) -> bytes:
    """A JSON object, as text, with one more member."""
    return b"".join((data[:-1], b",", json.dumps(name).encode(), b":", value, b"}"))


def _answer(data: Any, **more: Any) -> dict[str, Any]:
    return {"data": data, **_TIMES, "generation": 1, "next_cursor": None, "request_id": _REQUEST, **more}


def _shown(kpis: Iterable[Kpi], window_ms: int = 3_600_000) -> dict[str, Any]:
    sums = {**_SUMMED, WINDOW_MS: window_ms}
    return {row.name: asdict(shown(row, sums)) for row in kpis}


def _allowance(used: float, allowance: int | None) -> dict[str, Any]:
    left, over = (None, None) if allowance is None else (max(allowance - used, 0), max(used - allowance, 0))
    return {"used": used, "allowance": allowance, "left": left, "over": over, "unlimited": allowance is None}


_CDR: dict[str, Any] = {
    **{name: 0 for name in MEASURES["cdr"].all if not name.endswith("_count")},
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
    "ended_answered": 275,
    "ended_dropped": 5,
    "pdd_ms": 1_120_000,
    "sessions": 410,
    "data_duration_ms": 90_000_000,
    "data_bytes": 2_110_000_000,
    "sms_segments": 320,
    "charges": [{"currency": "EUR", "amount": "96.350000"}],
}
_NETWORK: dict[str, Any] = {
    **{name: 0 for name in MEASURES["network"].counts if not name.endswith("_count")},
    "events": 640,
    "samples": 600,
    "handovers": 40,
    "success_known": 40,
    "successes": 39,
    "handover_known": 40,
    "handover_successes": 39,
}
_LATE = {"late_records": 3, "reversals": 0}
_SUMMED: dict[str, Any] = {
    **{name: value for name, value in {**_CDR, **_NETWORK}.items() if name != "charges"},
    "pdd_ms_count": 400,
    "latency_us": 24_960_500,
    "latency_us_count": 600,
    "throughput_dl_kbps": 21_000_250,
    "throughput_dl_kbps_count": 600,
    "throughput_ul_kbps": 4_100_500,
    "throughput_ul_kbps_count": 600,
    "packet_loss_ppm": 1_250_000,
    "packet_loss_ppm_count": 600,
}
_USAGE: dict[str, Any] = {
    **{name: value for name, value in _CDR.items() if name in USAGE_MEASURES.all or name == "charges"},
    **_shown(USAGE_KPIS),
}
REALTIME = _answer(
    {
        "from": "2026-09-01T10:00:00.000Z",
        "to": "2026-09-01T10:15:00.000Z",
        "step": "all",
        "group_by": "region",
        "silent_sources": [],
        "rows": [{"region_id": "R01", **_CDR, **_NETWORK, **_shown(kpis_of("region", Basis.WINDOWS), 900_000)}],
    }
)
NETWORK = _answer(
    {
        "from": "2026-09-01T00:00:00.000Z",
        "to": "2026-09-02T00:00:00.000Z",
        "step": "1h",
        "tz": "Europe/Paris",
        "group_by": "cell",
        "silent_sources": [],
        "rows": [
            {
                "step_start": "2026-09-01T08:00:00.000Z",
                "cell_id": "208-01-10001",
                **_CDR,
                **_NETWORK,
                **_LATE,
                **_shown(kpis_of("cell", Basis.WINDOWS)),
            }
        ],
    }
)
TIMESERIES = _answer(
    {
        "from": "2026-08-31T18:30:00.000Z",
        "to": "2026-09-01T18:30:00.000Z",
        "step": "1h",
        "tz": "Asia/Kolkata",
        "family": "region",
        "group_by": "region",
        "kpis": [
            {
                "name": "answer_seizure_ratio",
                "title": "Answer-seizure ratio (ASR)",
                "unit": "ratio",
                "additive": False,
            }
        ],
        "silent_sources": [{"type": "cdr", "source": "msc-2", "last_arrival": "2026-09-01T09:40:11.000Z"}],
        "rows": [
            {
                "step_start": "2026-09-01T07:30:00.000Z",
                "region_id": "R01",
                **_LATE,
                **_shown([KPI["answer_seizure_ratio"]]),
            }
        ],
    }
)
CELL = _answer(
    {
        "id": "208-01-10001",
        "cell": {
            "name": "Gare du Nord 1",
            "region_id": "R01",
            "latitude": 48.88,
            "longitude": 2.355,
            "technology": "LTE",
            "vendor": "Ericsson",
        },
        "from": "2026-09-01T00:00:00.000Z",
        "to": "2026-09-02T00:00:00.000Z",
        "step": "1h",
        "tz": "UTC",
        "silent_sources": [],
        "rows": [
            {
                "step_start": "2026-09-01T08:00:00.000Z",
                "cell_id": "208-01-10001",
                **_CDR,
                **_NETWORK,
                **_LATE,
                **_shown(kpis_of("cell", Basis.WINDOWS)),
                "distinct_subscribers": {"value": 212.0, "num": 212, "den": 1},
                "distinct_is_upper_bound": False,
                "cell_availability": {"value": 0.95, "num": 3420.0, "den": 3600.0},
            }
        ],
    }
)
USAGE = _answer(
    {
        "id": "C00042",
        "from": "2026-09-01",
        "to": "2026-10-01",
        "tz": "Europe/Paris",
        "step": "bill_cycle",
        "rows": [{"local_date": "2026-09-01", **_LATE, **_USAGE}],
        "cycles": [
            {
                "from": "2026-09-01",
                "to": "2026-10-01",
                "bill_cycle_day": 1,
                "is_over": False,
                "allowances": [
                    {
                        "subscriber_id": "k1.q0Yw3hVnXbYxk2v5n8s7Ag",
                        "plan_id": "P-MAX",
                        "plan_name": "Max",
                        "days_held": 18,
                        "days_in_cycle": 30,
                        "voice": _allowance(600, None),
                        "sms": _allowance(0, None),
                        "data": _allowance(1_200_000_000, 30_000_000_000),
                    },
                    {
                        "subscriber_id": "k1.q0Yw3hVnXbYxk2v5n8s7Ag",
                        "plan_id": "P-START",
                        "plan_name": "Start",
                        "days_held": 12,
                        "days_in_cycle": 30,
                        "voice": _allowance(1_830.5, 1_200),
                        "sms": _allowance(3, 40),
                        "data": _allowance(410_000_000, 2_000_000_000),
                    },
                ],
            }
        ],
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

TRACE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["source", "event_id"],
                    "properties": {
                        "source": {"type": "string"},
                        "event_id": {"type": "string", "maxLength": 128},
                        "type": {"enum": ["cdr", "network"]},
                    },
                },
                "examples": {
                    "one type": {"value": {"source": "msc-1", "event_id": "msc-1-0001", "type": "cdr"}},
                    "all types": {"value": {"source": "msc-1", "event_id": "msc-1-0001"}},
                },
            }
        },
    }
}
TRACE = _answer(
    {
        "event_uid": "q0Yw3hVnXbYxk2v5n8s7Ag",
        "source": "msc-1",
        "copies": [
            {
                "type": "cdr",
                "verdict": "STORED",
                "rule": None,
                "reason": None,
                "field": None,
                "conflict": False,
                "duplicate_of": None,
                "source": "msc-1",
                "origin": {"kind": "file", "batch_id": 17, "name": "day-244.csv", "line": 812},
                "raw": {
                    "topic": "telestream.cdr.raw",
                    "partition": 3,
                    "offset": 41_812,
                    "in_log": True,
                    "schema_id": 5,
                    "schema_version": 1,
                },
                "appended_at": "2026-09-01T10:14:58.120Z",
                "event_at": "2026-09-01T10:12:30.000Z",
                "subscriber_id": "k1.q0Yw3hVnXbYxk2v5n8s7Ag",
                "rules_version": 1,
                "warnings": [],
                "reversals": [],
                "references": [
                    {
                        "entity": "cell",
                        "held": {"region_id": "R01", "technology": "LTE", "vendor": "Ericsson"},
                        "valid_from": "2026-01-01T00:00:00.000Z",
                        "in_force": {
                            "name": "Gare du Nord 1",
                            "region_id": "R01",
                            "technology": "LTE",
                            "vendor": "Ericsson",
                        },
                        "same": True,
                    }
                ],
                "windows": [
                    {
                        "family": "cell",
                        "size_s": 900,
                        "window_start": "2026-09-01T10:00:00.000Z",
                        "group": "208-01-10001",
                        "partition": 3,
                        "segment": 0,
                        "adds": 1,
                        "only_ends": False,
                        "src_to": 41_990,
                        "included": True,
                        "why": None,
                    }
                ],
                "warehouse": {"table": "fact_cdr_all", "generation": 1, "why": "stored"},
            }
        ],
        "more_copies": False,
        "in_flight": {"records": 0, "looked_through": True},
    },
    as_of=None,
    complete_to=None,
)

_UNTIMED = {"as_of": None, "complete_to": None}
ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/v1/metrics/realtime"): REALTIME,
    ("GET", "/v1/network/performance"): NETWORK,
    ("GET", "/v1/metrics/timeseries"): TIMESERIES,
    ("GET", "/v1/cells/{id}/kpis"): CELL,
    ("GET", "/v1/customers/{id}/usage"): USAGE,
    ("POST", "/v1/customers/lookup"): LOOKUP,
    ("GET", "/v1/reconciliation"): RECONCILIATION,
    ("GET", "/v1/dead-letters"): DEAD_LETTERS,
    ("GET", "/v1/quality"): _answer(examples_quality.QUALITY),
    ("GET", "/v1/completeness"): _answer(examples_quality.COMPLETENESS),
    ("GET", "/v1/sources"): _answer(examples_quality.SOURCES),
    ("GET", "/v1/sources/{source}"): _answer(examples_quality.SOURCE),
    ("GET", "/v1/amendments"): _answer(examples_quality.AMENDMENTS),
    ("POST", "/v1/events/trace"): TRACE,
    ("GET", "/v1/generations"): _answer(examples_generations.GENERATIONS, **_UNTIMED),
    ("POST", "/v1/generations"): _answer(examples_generations.GENERATION, **_UNTIMED),
    ("GET", "/v1/generations/{n}"): _answer(examples_generations.PROGRESS, **_UNTIMED),
    ("POST", "/v1/generations/{n}/activate"): _answer(
        examples_generations.ACTIVATED, **_UNTIMED, generation={"cdr": 2, "network": 1}
    ),
    ("POST", "/v1/generations/rollback"): _answer(examples_generations.ROLLED_BACK, **_UNTIMED),
    ("DELETE", "/v1/generations/{n}"): _answer(examples_generations.DROPPING, **_UNTIMED),
    ("GET", "/v1/generations/{n}/compare"): _answer(
        examples_compare.COMPARISON, as_of=None, complete_to=None, generation=2
    ),
}
"""What the answer of each route looks like."""
