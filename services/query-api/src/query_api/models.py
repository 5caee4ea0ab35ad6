"""Shapes of answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, create_model

from query_api.domain.measures import MEASURES

T = TypeVar("T")


class Ratio(BaseModel):
    """A ratio or mean is ``num / den``; sum both before dividing."""

    num: float
    den: int


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


_RATIOS_CDR = ("answer_seizure_ratio", "drop_ratio", "mean_duration_ms")
_RATIOS_NETWORK = (
    "setup_success_ratio",
    "latency_ms",
    "throughput_dl_mbps",
    "throughput_ul_mbps",
    "packet_loss_ratio",
)


def _fields(*names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names, (kind, ...))


_CDR = {
    **_fields(*MEASURES["cdr"].all, kind=int),
    "charges": (list[Charge], ...),
    **_fields(*_RATIOS_CDR, kind=Ratio),
}
_NETWORK = {
    **_fields(*(name for name in MEASURES["network"].counts if not name.endswith("_count")), kind=int),
    **_fields(*_RATIOS_NETWORK, kind=Ratio),
}
_OPTIONAL_NETWORK = {name: (kind | None, None) for name, (kind, _) in _NETWORK.items()}
_GROUPS: dict[str, Any] = {
    name: (str | None, Field(None, description="Only if grouped by it")) for name in ("cell_id", "region_id", "plan_id")
}

_MINUTE: dict[str, Any] = {
    "window_start": (str | None, Field(None, description="Start of the minute; only with step=1m"))
}
_USAGE_GROUPS: dict[str, Any] = {
    "local_date": (str, ...),
    "plan_id": (str | None, Field(None, description="Only if grouped by it; empty: unknown")),
    "roaming": (str | None, Field(None, description="Only if grouped by it")),
    "direction": (str | None, Field(None, description="Only if grouped by it; empty: unknown")),
}


def _model(name: str, fields: dict[str, Any]) -> Any:
    return create_model(name, **fields)


RealtimeRow: Any = _model("RealtimeRow", {**_MINUTE, **_GROUPS, **_CDR, **_OPTIONAL_NETWORK})
NetworkRow: Any = _model("NetworkRow", {"step_start": (str, ...), **_GROUPS, **_CDR, **_NETWORK})
UsageRow: Any = _model("UsageRow", {**_USAGE_GROUPS, **_CDR})


class Realtime(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    group_by: str
    rows: list[RealtimeRow]


class NetworkPerformance(BaseModel):
    start: str = Field(alias="from")
    to: str
    step: str
    tz: str
    group_by: str
    rows: list[NetworkRow]


class Usage(BaseModel):
    id: str
    start: str = Field(alias="from")
    to: str
    tz: str
    days: list[UsageRow]


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
