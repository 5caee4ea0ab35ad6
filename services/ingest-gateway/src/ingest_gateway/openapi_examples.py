"""What the OpenAPI document shows of bodies: made from the table of fields, with one example of each type."""

from __future__ import annotations

from typing import Any

from ingest_gateway.domain.fields import INPUT_FIELDS, InputField, Kind

EXAMPLES: dict[str, dict[str, Any]] = {
    "cdr": {
        "event_id": "msc-1-0001",
        "started_at": "2026-11-23T08:00:00Z",
        "record_type": "VOICE",
        "status": "COMPLETED",
        "msisdn": "+491701234567",
        "imsi": "262011234567890",
        "cell_id": "262-01-12345",
        "duration_ms": 61000,
        "charge_micros": 90000,
        "currency": "EUR",
        "direction": "MO",
        "peer": "+33612345678",
    },
    "network": {
        "event_id": "oss-1-0001",
        "occurred_at": "2026-11-23T08:00:00Z",
        "event_type": "SAMPLE",
        "cell_id": "262-01-12345",
        "latency_ms": 23.5,
        "throughput_dl_mbps": 88.0,
        "sample_count": 40,
    },
    "customer": {
        "msisdn": "+491701234567",
        "valid_from": "2026-01-01T00:00:00Z",
        "customer_id": "c-1",
        "plan_id": "flat-20",
        "region_id": "north",
    },
    "cell": {
        "cell_id": "262-01-12345",
        "valid_from": "2026-01-01T00:00:00Z",
        "name": "Harbour 3",
        "region_id": "north",
        "technology": "LTE",
    },
    "region": {"region_id": "north", "valid_from": "2026-01-01T00:00:00Z", "name": "North", "country": "DE"},
    "plan": {
        "plan_id": "flat-20",
        "valid_from": "2026-01-01T00:00:00Z",
        "name": "Flat 20",
        "payment": "POSTPAID",
        "currency": "EUR",
        "monthly_fee_micros": 20000000,
    },
}
_JSON_TYPES: dict[Kind, dict[str, Any]] = {
    Kind.LONG: {"type": "integer", "format": "int64"},
    Kind.DOUBLE: {"type": "number"},
    Kind.BOOL: {"type": "boolean"},
    Kind.EXT: {"type": "object", "additionalProperties": {"type": "string"}},
    Kind.INSTANT: {
        "oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "description": "epoch milliseconds"}]
    },
}


def _property(field: InputField) -> dict[str, Any]:
    known = _JSON_TYPES.get(field.kind)
    if known is not None:
        return {**known, "description": field.help}
    if field.kind is Kind.ENUM:
        return {"type": "string", "enum": list(field.values), "description": field.help}
    return {"type": "string", "maxLength": field.limit, "description": field.help}


def _schema(record_type: str) -> dict[str, Any]:
    fields = INPUT_FIELDS[record_type]
    return {
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }


def request_body(record_type: str) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes records of this type."""
    record, example = _schema(record_type), EXAMPLES[record_type]
    return {
        "requestBody": {
            "required": True,
            "description": "Content-Encoding: gzip or zstd is welcome; 16 MiB at most, packed and unpacked",
            "content": {
                "application/json": {
                    "schema": {"oneOf": [record, {"type": "array", "items": record}]},
                    "example": [example],
                },
                "application/x-ndjson": {"schema": {"type": "string"}, "example": "one JSON object per line"},
            },
        }
    }


def responses() -> dict[int | str, dict[str, Any]]:
    """Answers other than 202, for every route that takes records."""
    texts = {
        400: "The body cannot be parsed",
        401: "No key, or an unknown one",
        403: "The key lacks the role, or is not bound to the source",
        413: "More than 16 MiB",
        415: "Neither JSON nor NDJSON",
        422: "Every record was refused; `errors` says why",
        429: "Too much at once; see Retry-After",
        503: "Kafka did not acknowledge in time, or keys cannot be checked: unknown; send the same again",
    }
    return {
        status: {"description": text, "content": {"application/problem+json": {}}} for status, text in texts.items()
    }
