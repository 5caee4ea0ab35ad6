"""Shapes of the answers about quality, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class PartShown(BaseModel):
    value: float | None = Field(description="num / den; null: not known")
    num: int
    den: int


class Bucket(BaseModel):
    to_ms: int | None = Field(description="Inclusive; null: all that took longer")
    records: int


class Latency(BaseModel):
    """From event to arrival."""

    buckets: list[Bucket]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Judged(BaseModel):
    accepted: int
    stored: int = Field(description="Withdrawn ones taken out")
    withdrawn: int
    duplicates: int
    conflicts: int = Field(description="Part of duplicates")
    rejected: dict[str, int] = Field(description="By code")
    erased: int
    warned: int = Field(description="Stored records with a warning")
    warnings: dict[str, int] = Field(description="By code; a record may have several")
    latency: Latency
    score: float | None
    parts: dict[str, PartShown]


class QualityRow(Judged):
    step_start: str
    source: str | None = Field(None, description="Only if grouped by it; empty where it could not be read")
    type: str | None = Field(None, description="Only if grouped by it")


class Quality(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    tz: str
    group_by: str
    weights: dict[str, int]
    rows: list[QualityRow]


class Node(BaseModel):
    source: str
    node_id: str = Field(description="Empty where the record names none")
    first: int
    last: int
    expected: int
    present: int
    missing: int
    restarts: int
    reused: int


class MissingRange(BaseModel):
    source: str
    node_id: str
    first: int
    last: int
    numbers: int
    noticed_at: str = Field(description="When the number after it arrived")


class FirstLast(BaseModel):
    first: int
    last: int


class FileNumbers(BaseModel):
    source: str
    type: str
    first: int | None
    last: int | None
    expected: int
    present: int
    missing: int
    restarts: int
    ranges: list[FirstLast] = Field(description="The missing ones, at most 100")
    truncated: bool


class DeclaredTotal(BaseModel):
    source: str
    type: str
    total: str = Field(description="rows, duration_ms, bytes or charge_micros")
    files: int
    expected: int
    loaded: int
    difference: int = Field(description="loaded − expected")


class Mismatch(BaseModel):
    file_id: int
    source: str
    type: str
    name: str
    state: str
    finished_at: str
    expected: dict[str, int]
    loaded: dict[str, int]


class Completeness(BaseModel):
    start: str = Field(alias="from")
    to: str
    nodes: list[Node] = Field(description="Most missing first, at most 1,000")
    nodes_truncated: bool
    missing: list[MissingRange] = Field(description="Largest first, at most 100")
    truncated: bool = Field(description="There are more missing ranges than these")
    files: list[FileNumbers]
    declared: list[DeclaredTotal]
    mismatches: list[Mismatch] = Field(description="Files whose totals differ, newest first, at most 100")


class SourceHours(BaseModel):
    first_hour: str
    last_hour: str
    records: int


class SourceListed(BaseModel):
    source: str
    types: dict[str, SourceHours] = Field(description="Empty: only files, nothing judged yet")


class Sample(BaseModel):
    reason: str
    field: str | None
    batch_id: int | None
    line: int | None
    appended_at: str
    record: dict[str, Any] | None = Field(description="Its fields, identities masked; null: it cannot be read")


class SourceType(Judged):
    last_arrival: str | None
    freshest_event: str | None = Field(description="End of the freshest event stored, never past its arrival")
    rejected_samples: dict[str, list[Sample]] = Field(description="By code, at most five each")


class FilesOfState(BaseModel):
    type: str
    state: str
    files: int
    rows: int
    accepted: int
    refused: int
    refused_by_code: dict[str, int]
    last_at: str


class SourceMirror(BaseModel):
    source: str
    start: str = Field(alias="from")
    to: str
    last_arrival: str | None
    silent_since: str | None = Field(description="Its last arrival, if that is more than 15 minutes ago")
    types: dict[str, SourceType]
    files: list[FilesOfState]


class Amendment(BaseModel):
    family: str
    type: str
    cell_id: str | None = None
    region_id: str | None = None
    plan_id: str | None = None
    local_date: str | None = None
    size_s: int
    window_start: str
    windows: int = Field(description="1; of subscriber-days how many of that date")
    late_records: int
    reversals: int
    why: list[str] = Field(description="late, reversal, or both")
    late_at: str = Field(description="When the last of them came")
