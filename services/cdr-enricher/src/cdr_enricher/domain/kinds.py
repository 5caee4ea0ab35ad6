"""What the enricher needs to know of a record type: one row each. Adding a type adds a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from cdr_enricher.domain.rules import CDR_CHECKS, NETWORK_CHECKS, Check
from telestream_domain import CDR, NETWORK, RecordType

INGESTION_FIELDS = frozenset(
    {
        "event_uid",
        "source",
        "batch_id",
        "line",
        "ingested_at",
        "max_age_days",
        "origin_offset",
        "reverses_offset",
    }
)
"""How a record came, not what it says: left out of the content hash, so that a record sent again is no conflict."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``event_length_ms`` is added to the event's time to find its end; ``has_customer``: enriched with a customer,
    local date and roaming."""

    record_type: RecordType
    checks: tuple[Check, ...]
    event_length_ms: Callable[[], pl.Expr]
    has_customer: bool

    @property
    def name(self) -> str:
        return self.record_type.name


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(CDR, CDR_CHECKS, lambda: pl.coalesce("holding_ms", "duration_ms", 0), True),
        Kind(NETWORK, NETWORK_CHECKS, lambda: pl.lit(0, pl.Int64), False),
    )
}
