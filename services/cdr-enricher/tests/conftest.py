"""Small records, and a judge to give them to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cdr_enricher.decode import RawDecoder
from cdr_enricher.domain.dedupe import Seen
from cdr_enricher.domain.kinds import KINDS
from cdr_enricher.domain.references import References
from cdr_enricher.stage import Judge, State, Target
from faust_batch import Batch, Source
from telestream_contracts import decode_record, encode_record, enriched_schema, load_schema

sys.path.insert(0, str(Path(__file__).parent))  # helpers of these tests are plain modules beside them

ARRIVED_MS = 1_790_000_000_000
RAW_ID, ENRICHED_ID, LETTER_ID = 11, 12, 13

CDR: dict[str, Any] = {
    "event_uid": "uid-0",
    "started_at": ARRIVED_MS - 60_000,
    "record_type": "VOICE",
    "status": "COMPLETED",
    "subscriber_id": "k1.alice",
    "subscriber_kind": "MSISDN",
    "cell_id": "208-01-7",
    "duration_ms": 30_000,
    "is_partial": False,
    "source": "switch",
    "batch_id": 4,
    "line": 1,
    "ingested_at": ARRIVED_MS - 50,
    "ext": {},
}
NETWORK: dict[str, Any] = {
    "event_uid": "uid-0",
    "occurred_at": ARRIVED_MS - 1_000,
    "event_type": "SAMPLE",
    "cell_id": "208-01-7",
    "source": "probe",
    "batch_id": 5,
    "line": 1,
    "ingested_at": ARRIVED_MS - 50,
    "ext": {},
}


_raw_schema = cache(load_schema)  # parsing one takes longer than encoding with it


def full(type_name: str, **changes: Any) -> dict[str, Any]:
    base = CDR if type_name == "cdr" else NETWORK
    names = [entry["name"] for entry in _raw_schema(type_name)["fields"]]
    assert not changes.keys() - set(names), changes.keys() - set(names)
    return dict.fromkeys(names) | base | changes


@dataclass
class Bench:
    """One partition of one type, judged batch after batch."""

    type_name: str
    judge: Judge
    references: References
    state: State = field(default_factory=lambda: State(None, 0, Seen()))

    def value(self, **changes: Any) -> bytes:
        return encode_record(full(self.type_name, **changes), _raw_schema(self.type_name), RAW_ID)

    def batch(self, values: Iterable[bytes | None], first: int | None = None, arrived_ms: int = ARRIVED_MS) -> Batch:
        held = list(values)
        start = (self.state.next_offset or 0) if first is None else first
        offsets = np.arange(start, start + len(held))
        return Batch(
            Source(f"t.{self.type_name}.raw", 3),
            offsets,
            np.full(len(held), arrived_ms),
            [f"key-{offset}".encode() for offset in offsets.tolist()],
            held,
            start + len(held),
            start + len(held),
            1,
            0,
        )

    def outputs(self, *values: bytes | None, **at: Any) -> dict[str, list[dict[str, bytes | None]]]:
        outputs, self.state = self.judge.on_batch(self.batch(values, **at), self.state, self.references)
        assert all(output.partition == 3 for output in outputs)
        return {output.topic: output.messages for output in outputs}

    def judged(self, *values: bytes | None, **at: Any) -> list[dict[str, Any]]:
        """The judged records, decoded by fastavro with the whole enriched schema."""
        schema = enriched_schema(self.type_name)
        messages = self.outputs(*values, **at)["enriched"]
        return [decode_record(message["value"] or b"", schema) for message in messages]


@pytest.fixture
def bench() -> Callable[..., Bench]:
    def make(
        type_name: str = "cdr",
        schemas: Callable[[int], Any] = lambda _: None,
        references: References | None = None,
        **options: Any,
    ) -> Bench:
        target = Target(f"t.{type_name}.raw", "enriched", "rejected", ENRICHED_ID, LETTER_ID)
        judge = Judge(KINDS[type_name], target, RawDecoder(type_name, RAW_ID, schemas), **options)
        return Bench(type_name, judge, references or References())

    return make


@pytest.fixture
def letters() -> Callable[[list[dict[str, bytes | None]]], list[dict[str, Any]]]:
    return lambda messages: [decode_record(m["value"] or b"", load_schema("dead_letter")) for m in messages]


@pytest.fixture
def versions() -> Callable[..., pl.DataFrame]:
    """Versions of an entity: rows of (id, valid_from in ms, body or None for a deletion)."""

    def make(id_field: str, *rows: tuple[str, int, Mapping[str, str] | None], body: Iterable[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                id_field: [row[0] for row in rows],
                "valid_from": pl.Series([row[1] for row in rows], dtype=pl.Int64).cast(pl.Datetime("ms")),
                "deleted": [row[2] is None for row in rows],
                **{name: pl.Series([(row[2] or {}).get(name) for row in rows], dtype=pl.String) for name in body},
            }
        )

    return make
