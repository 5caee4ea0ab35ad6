"""What the gateway's tests share: fixed keys, profiles, and the two paths side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from ingest_gateway.domain.file_reader import FileReader, chunks
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import Profile, parse_profile
from ingest_gateway.encode import BatchHead, Encoder
from ingest_gateway.profiles import shipped
from telestream_contracts import encode_records

IDENTITY_KEY, PERMANENT_KEY = bytes(range(32)), bytes(range(32, 64))
HEAD = BatchHead("switch-1", 7, 1_790_000_000_000, 400)


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(IDENTITY_KEY, PERMANENT_KEY)


@pytest.fixture(scope="session")
def shipped_profile() -> Callable[[str], Profile]:
    return lambda name: parse_profile((shipped() / f"{name}.yaml").read_text("utf-8"), name)


@dataclass(frozen=True)
class Loaded:
    """A whole file judged: framed values, keys and shards in order of lines, and refusals as (line, code, field)."""

    values: list[bytes]
    keys: list[bytes]
    shards: list[int]
    lines: list[int]
    refusals: list[tuple[int, str, str | None]]
    rows: int
    by_columns: int
    shown: list[str]


def as_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str], delimiter: str = ",") -> bytes:
    """A header and the rows, quoted where needed."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([row.get(name, "") for name in names])
    return text.getvalue().encode()


@pytest.fixture(scope="session")
def load(identity: Identity) -> Callable[..., Loaded]:
    """Judge the bytes of a file by a profile, as the gateway does, without sending."""

    def run(
        data: bytes, profile: Profile, record_type: str = "cdr", block_bytes: int = 8 << 20, who: Identity = identity
    ) -> Loaded:
        reader = FileReader(profile, record_type, who, HEAD.source)
        encoder = Encoder(record_type, 41)
        found: list[tuple[int, bytes, bytes, int]] = []
        refusals, shown, rows, by_columns, bound = [], [], 0, 0, False
        for chunk in chunks(io.BytesIO(data), 0, 1, block_bytes):
            if not bound:
                reader.bind(chunk)
                bound = True
            block = reader.judge(chunk)
            rows += block.rows
            by_columns += len(block.columns)
            columns = encoder.columns(block.columns, HEAD)
            found += zip(
                block.columns.lines.tolist(), columns, block.columns.keys, block.columns.shards.tolist(), strict=True
            )
            direct = encoder.entries(block.entries, block.entry_lines, HEAD)
            found += [
                (line, value, entry.key, entry.shard)
                for line, value, entry in zip(block.entry_lines, direct, block.entries, strict=True)
            ]
            refusals += [(refusal.position, refusal.code, refusal.field) for refusal, _ in block.refusals]
            shown += [text for _, text in block.refusals]
        if not bound:
            reader.bind(next(chunks(io.BytesIO(b"\n"), 0, 1)))
        found.sort(key=lambda item: item[0])
        return Loaded(
            [value for _, value, _, _ in found],
            [key for _, _, key, _ in found],
            [shard for _, _, _, shard in found],
            [line for line, _, _, _ in found],
            refusals,
            rows,
            by_columns,
            shown,
        )

    return run


@pytest.fixture(scope="session")
def one_by_one(identity: Identity) -> Callable[..., Loaded]:
    """The plain reference: every row through the standard library's CSV reader, the direct path and fastavro."""

    def run(data: bytes, profile: Profile, record_type: str = "cdr", who: Identity = identity) -> Loaded:
        reader = FileReader(profile, record_type, who, HEAD.source)
        first = next(chunks(io.BytesIO(data), 0, 1))
        reader.bind(first)
        layout = reader._layout
        assert layout is not None
        encoder = Encoder(record_type, 41)
        values, keys, shards, lines, refusals = [], [], [], [], []
        rows = 0
        for number, text in enumerate(data.decode().split("\n"), 1):
            if (profile.header and number == 1) or not text:
                continue
            rows += 1
            fields = next(csv.reader([text], delimiter=profile.delimiter, strict=True))
            judged = layout.direct.judge(layout.record(fields), HEAD.source)
            if isinstance(judged, tuple):
                refusals.append((number, judged[0], judged[1]))
                continue
            for entry in judged:
                record = dict(zip(encoder_names(record_type), entry.row, strict=True))
                record |= common(record_type, number)
                if "ext" in record:
                    record["ext"] = dict(record["ext"])
                values += encode_records([record], encoder.schema, 41)
                keys.append(entry.key)
                shards.append(entry.shard)
                lines.append(number)
        return Loaded(values, keys, shards, lines, refusals, rows, 0, [])

    return run


def encoder_names(record_type: str) -> tuple[str, ...]:
    from ingest_gateway.domain.accepted import OUTPUT

    return OUTPUT[record_type]


def common(record_type: str, line: int) -> dict[str, Any]:
    """What the gateway adds to every record of a batch."""
    shared: dict[str, Any] = {
        "source": HEAD.source,
        "batch_id": HEAD.batch_id,
        "line": line,
        "ingested_at": HEAD.ingested_at_ms,
    }
    if record_type in ("cdr", "network"):
        shared |= {"reverses_offset": None, "max_age_days": HEAD.max_age_days, "origin_offset": None}
    return shared
