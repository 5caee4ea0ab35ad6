"""Shapes of answers, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, create_model

from query_api.domain.measures import MEASURES, USAGE_MEASURES
from query_api.domain.present import USAGE_KPIS
from telestream_domain.kpis import KPIS, Basis, Kpi

T = TypeVar("T")


class Ratio(BaseModel):
    """A KPI is ``num / den``; sum both before dividing."""

    value: float | None = Field(description="num / den; null where den is 0: the source is missing")
    num: float
    den: float


class Charge(BaseModel):
    currency: str
    amount: str = Field(description="Exact decimal number as text")


class Answer(BaseModel, Generic[T]):
    data: T
    as_of: str | None = Field(description="Freshest event end included, never past its arrival; null: none")
    complete_to: str | None = Field(description="No event before this is expected any more; null: not known")
    generation: int | dict[str, int] = Field(description="The derivation that was read; by type where they differ")
    next_cursor: str | None = Field(description="Give it back as cursor for the next page; null: this is the last")
    request_id: str


class ProblemDetails(BaseModel):
    """``application/problem+json``"""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    request_id: str


def _fields(*names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names, (kind, ...))


def _kpis(rows: Iterable[Kpi]) -> dict[str, Any]:
    """Each with its words of the table; which of them a row has, the question says."""
    return {row.name: (Ratio | None, Field(None, description=_said(row))) for row in rows}


def _said(row: Kpi) -> str:
    sums = "Additive" if row.additive else "Not additive: sum num and den"
    return f"{row.title} in {row.unit} = {row.formula}. Standard: {row.standard}. {sums}. {row.note}".strip()


_CDR = {
    **_fields(*(name for name in MEASURES["cdr"].all if not name.endswith("_count")), kind=int),
    "charges": (list[Charge], ...),
}
_NETWORK = _fields(*(name for name in MEASURES["network"].counts if not name.endswith("_count")), kind=int)
_OPTIONAL_NETWORK = {name: (kind | None, None) for name, (kind, _) in _NETWORK.items()}
_LATE: dict[str, Any] = {
    "late_records": (int, Field(description="Records that arrived after their window was complete")),
    "reversals": (int, Field(description="Records that were taken back")),
}
_BESIDE: dict[str, Any] = {
    "busy_hour_start": (str | None, Field(None, description="With busy_hour_erlang: when it began; null: no traffic")),
    "distinct_is_upper_bound": (
        bool | None,
        Field(None, description="With distinct_subscribers, if records were reversed"),
    ),
}
_GROUPS: dict[str, Any] = {
    name: (str | None, Field(None, description="Only if grouped by it")) for name in ("cell_id", "region_id", "plan_id")
}

_MINUTE: dict[str, Any] = {
    "window_start": (str | None, Field(None, description="Start of the minute; only with step=1m"))
}
_USAGE_GROUPS: dict[str, Any] = {
    "local_date": (str, Field(description="First date of the step")),
    "subscriber_id": (str | None, Field(None, description="Only if grouped by it; a pseudonym, else masked")),
    "plan_id": (str | None, Field(None, description="Only if grouped by it; empty: unknown")),
    "roaming": (str | None, Field(None, description="Only if grouped by it")),
    "direction": (str | None, Field(None, description="Only if grouped by it; empty: unknown")),
}


def _model(name: str, fields: dict[str, Any]) -> Any:
    return create_model(name, **fields)


_WINDOW_KPIS = _kpis(row for row in KPIS if row.basis is Basis.WINDOWS)
_STEP: dict[str, Any] = {"step_start": (str, ...), **_GROUPS}
RealtimeRow: Any = _model("RealtimeRow", {**_MINUTE, **_GROUPS, **_CDR, **_OPTIONAL_NETWORK, **_WINDOW_KPIS})
NetworkRow: Any = _model("NetworkRow", {**_STEP, **_CDR, **_NETWORK, **_LATE, **_kpis(KPIS), **_BESIDE})
SeriesRow: Any = _model("SeriesRow", {**_STEP, **_LATE, **_kpis(KPIS), **_BESIDE})
UsageRow: Any = _model(
    "UsageRow",
    {
        **_USAGE_GROUPS,
        **_LATE,
        **{name: kind for name, kind in _CDR.items() if name in USAGE_MEASURES.all or name == "charges"},
        **_kpis(USAGE_KPIS),
    },
)


class TermShown(BaseModel):
    measure: str
    factor: str = Field(description="A whole number or a fraction")


class KpiExplained(BaseModel):
    title: str
    unit: str
    formula: str
    standard: str
    numerator: list[TermShown]
    denominator: list[TermShown] = Field(description="Empty: the value is the numerator")
    additive: bool
    basis: str
    note: str
    records: list[dict[str, Any]] | None = Field(
        description="Ten records that it counts; adds: measure to what the record adds; null: could not be asked"
    )


class Explained(BaseModel):
    records_from: str | None
    records_to: str | None
    kpis: dict[str, KpiExplained]


class NamedKpi(BaseModel):
    name: str
    title: str
    unit: str
    additive: bool = Field(description="Whether values of several groups and steps may be summed")


class SilentSource(BaseModel):
    type: str
    source: str
    last_arrival: str = Field(description="Nothing for 15 minutes and more; after two days it is gone")


class CellNow(BaseModel):
    name: str | None
    region_id: str | None
    latitude: float | None
    longitude: float | None
    technology: str | None
    vendor: str | None


class Realtime(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    group_by: str
    silent_sources: list[SilentSource] = Field(description="What these would have sent is in no answer")
    rows: list[RealtimeRow]
    explain: Explained | None = None


class NetworkPerformance(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    tz: str
    group_by: str
    silent_sources: list[SilentSource] = Field(description="What these would have sent is in no answer")
    rows: list[NetworkRow]
    explain: Explained | None = None


class Timeseries(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    tz: str
    family: str
    group_by: str
    kpis: list[NamedKpi]
    silent_sources: list[SilentSource] = Field(description="What these would have sent is in no answer")
    rows: list[SeriesRow]
    explain: Explained | None = None


class CellKpis(BaseModel):
    id: str
    cell: CellNow | None = Field(description="What is known of it now; null: no reference data")
    start: str = Field(alias="from")
    to: str
    step: str
    tz: str
    silent_sources: list[SilentSource]
    rows: list[NetworkRow]
    explain: Explained | None = None


class Allowance(BaseModel):
    used: float = Field(description="What counts against it: voice in seconds, SMS in segments, data in bytes")
    allowance: int | None = Field(description="The plan's share of the cycle; null: unlimited, or not known")
    left: float | None
    over: float | None
    unlimited: bool


class PlanUse(BaseModel):
    subscriber_id: str = Field(description="The subscription's number as a pseudonym, else masked")
    plan_id: str = Field(description="Usage is booked to the plan as of the event; empty: unknown")
    plan_name: str | None
    days_held: int
    days_in_cycle: int
    voice: Allowance
    sms: Allowance
    data: Allowance


class BillCycle(BaseModel):
    start: str = Field(alias="from")
    to: str
    bill_cycle_day: int
    is_over: bool
    allowances: list[PlanUse]


class UsageExplained(BaseModel):
    measures: dict[str, dict[str, str]] = Field(description="Number of a row: unit and formula over stored records")
    allowances: dict[str, dict[str, Any]] = Field(description="What counts against each, and why")
    records: list[dict[str, Any]] = Field(description="The ten earliest; adds: measure to what the record adds")


class Usage(BaseModel):
    id: str
    start: str = Field(alias="from")
    to: str
    tz: str
    step: str
    rows: list[UsageRow]
    cycles: list[BillCycle] | None = Field(None, description="Only with step=bill_cycle")
    explain: UsageExplained | None = None


class Customer(BaseModel):
    customer_ref: str = Field(description="Stands for the number; may be used as {id}")
    customer_id: str | None = Field(description="Who holds the number now; null: not known")


class BookSums(BaseModel):
    records: int
    duration_ms: int
    bytes: int
    charges: list[Charge]


class Sides(BaseModel):
    judged: BookSums
    stored: BookSums
    duplicates: BookSums
    rejected: BookSums
    withdrawn: BookSums
    erased: BookSums


class BooksShown(BaseModel):
    accepted: int
    stored: int
    duplicates: int
    conflicts: int = Field(description="Part of duplicates: same identity, other content")
    rejected: dict[str, int] = Field(description="By code")
    withdrawn: int
    erased: int
    expired: int
    in_flight: int
    balanced: bool
    sums: Sides


class HourShown(BooksShown):
    hour: str = Field(description="Hour of arrival, UTC")


class Hole(BaseModel):
    partition: int
    judged_offsets: int
    judged_rows: int


class Reconciliation(BooksShown):
    type: str
    in_flight_scope: str = Field(
        description="type: in_flight counts what is not judged yet of any source, so it is an upper bound here; "
        "else it is exact"
    )
    holes: list[Hole] = Field(description="Partitions where judged rows and raw's offset arithmetic differ")
    hours: list[HourShown] | None = Field(None, description="Only with by=hour")


class SourcePosition(BaseModel):
    topic: str
    partition: int
    offset: int


class DeadLetter(BaseModel):
    type: str
    rule: str
    reason: str
    field: str | None
    source: str | None
    batch_id: int | None
    line: int | None
    appended_at: str
    position: SourcePosition
    rules_version: int


class TraceOrigin(BaseModel):
    kind: str = Field(description="file or request")
    batch_id: int
    name: str | None = Field(description="The file's")
    line: int | None = Field(description="In the file, or place in the request; null: not kept with a rejection")


class TraceRaw(BaseModel):
    topic: str
    partition: int
    offset: int
    in_log: bool = Field(description="False: not read, or removed by retention")
    schema_id: int | None
    schema_version: int | None


class TracePosition(BaseModel):
    partition: int
    offset: int


class TraceReversal(BaseModel):
    offset: int = Field(description="Where the reversal stands, in the same partition")
    took_effect: bool
    appended_at: str | None


class TraceReference(BaseModel):
    entity: str = Field(description="customer, cell, region or plan")
    held: dict[str, Any] = Field(description="What the judged record says")
    valid_from: str | None = Field(description="Of the version in force at the event, as known now; null: none")
    in_force: dict[str, Any] | None
    same: bool = Field(description="False: a version came later than the record was judged")


class TraceWindow(BaseModel):
    family: str
    size_s: int
    window_start: str
    group: str
    partition: int
    segment: int
    adds: int = Field(description="1; -1: what a reversal takes back")
    only_ends: bool = Field(description="Only the end of a call that moved is counted here")
    src_to: int | None = Field(description="Last raw offset that this part of the window includes")
    included: bool
    why: str | None = Field(description="Why not included")


class TraceRow(BaseModel):
    table: str | None = Field(description="Null: in none")
    generation: int
    why: str


class TraceCopy(BaseModel):
    type: str
    verdict: str = Field(description="STORED, DUPLICATE, REJECTED, or IN_FLIGHT: not judged yet")
    rule: str | None
    reason: str | None
    field: str | None
    conflict: bool = Field(description="A duplicate with other content")
    duplicate_of: TracePosition | None
    source: str | None
    origin: TraceOrigin
    raw: TraceRaw
    appended_at: str | None
    event_at: str | None
    subscriber_id: str | None
    rules_version: int | None
    warnings: list[str]
    reversals: list[TraceReversal]
    references: list[TraceReference]
    windows: list[TraceWindow]
    warehouse: TraceRow


class TraceInFlight(BaseModel):
    records: int | None = Field(description="Accepted and not judged, of any source; null: could not be asked")
    looked_through: bool = Field(description="False: too many; a copy among them is not shown")


class Trace(BaseModel):
    event_uid: str
    source: str
    copies: list[TraceCopy] = Field(description="By arrival")
    more_copies: bool
    in_flight: TraceInFlight
