"""Shapes of answers and bodies about generations, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

Offsets = dict[str, dict[str, int]]
"""Type or topic → partition → offset."""


class ActiveSpan(BaseModel):
    type: str
    from_: str = Field(alias="from")
    to: str | None = Field(description="null: it is so now")


class Generation(BaseModel):
    generation: int
    types: list[str]
    state: str = Field(description="PREPARING, RUNNING, FINISHED, DROPPING or DROPPED")
    active: list[str] = Field(description="The types for which people see it")
    compare_only: bool = Field(description="A rehearsal: it is compared, never activated")
    reason: str
    actor: str = Field(description="Name of the key that began it")
    created_at: str
    caught_up_at: str | None
    decided_at: str | None = Field(description="First activation")
    dropped_at: str | None
    problem: str | None = Field(description="Why it does not get on; it is tried again")
    active_spans: list[ActiveSpan]
    starts: Offsets = Field(description="First raw offsets derived; none: from where the log began")
    ends: Offsets = Field(description="Where raw ended as the replay was asked for")
    reference: Offsets = Field(description="Below `ends`, records are judged with reference versions below these")
    only_to_ends: bool
    rules: dict[str, Any]
    versions: dict[str, str | int] = Field(description="Of code, rules and the schemas that are read")
    asked: dict[str, str] = Field(description="The request in its own words")


class PartitionProgress(BaseModel):
    type: str
    partition: int
    start: int
    end: int | None
    raw_end: int
    judged: int
    aggregated: int
    published: int = Field(description="Below it, records are in every published window")
    stored: int
    lag: int


class TableCosts(BaseModel):
    rows: int
    bytes_on_disk: int


class Costs(BaseModel):
    topic_bytes: int | None = Field(description="null: Kafka does not tell its clients")
    rows: int
    bytes_on_disk: int
    tables: dict[str, TableCosts]


class Progress(BaseModel):
    partitions: list[PartitionProgress]
    done_ratio: float | None
    records_per_second: float | None
    seconds_left: int | None
    caught_up: bool
    costs: Costs


class GenerationProgress(Generation):
    progress: Progress


class GateCheck(BaseModel):
    check: str = Field(description="rejected_share, rejected_rise, books_unbalanced, records_missing, lag_records")
    type: str
    value: float | None
    limit: float
    passed: bool = Field(description="value ≤ limit")


class Activated(BaseModel):
    activated: dict[str, int] = Field(description="Type → the generation that people see from now on")
    gate: list[GateCheck]


_TYPES = {"type": "array", "items": {"enum": ["cdr", "network"]}, "minItems": 1}
_REASON = {"type": "string", "minLength": 1, "maxLength": 500}
_TOML = '[severity]\nduration_too_long = "rejected"\n'


def _body(required: list[str], properties: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": False, "required": required, "properties": properties}
    content = {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


START_BODY = _body(
    ["reason"],
    {
        "types": _TYPES,
        "from": {"type": "string", "description": "An offset, or a time of arrival"},
        "rules": {"type": "string", "description": "Rule changes as TOML"},
        "sample": {"type": "string", "pattern": "^[1-9][0-9]{0,4}[mhd]$"},
        "compare_only": {"type": "boolean"},
        "reference_of": {"type": "integer", "minimum": 1},
        "reason": _REASON,
    },
    {
        "everything": {"reason": "customers of March came late"},
        "a rehearsal": {
            "types": ["cdr"],
            "sample": "1d",
            "compare_only": True,
            "rules": _TOML,
            "reason": "what would the stricter rule reject?",
        },
        "since a time": {"types": ["cdr"], "from": "2026-09-01T00:00:00Z", "reason": "roaming was wrong since then"},
    },
)
ACTIVATE_BODY = _body(
    ["reason"],
    {"types": _TYPES, "force": {"type": "boolean"}, "keep_before": {"type": "boolean"}, "reason": _REASON},
    {
        "all its types": {"reason": "compared, all differences are late customers"},
        "in spite of the gate": {"types": ["cdr"], "force": True, "reason": "1 % more rejected is what we want"},
    },
)
ROLLBACK_BODY = _body(
    ["reason"], {"types": _TYPES, "reason": _REASON}, {"what was switched last": {"reason": "bills look wrong"}}
)
