"""How the first rows of a file would enter, judged by the gateway's own code, and what to change if it looks wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from ingest_gateway.domain.accepted import OUTPUT, from_entries
from ingest_gateway.domain.file_reader import FileReader, JudgedBlock, chunks
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import parse_profile
from ingest_gateway.domain.refusal import BodyRefused
from ingest_gateway.profiles import find_profile
from telestream_contracts import arrow_schema, load_schema
from telestream_domain import TelestreamError

ROWS_SHOWN = 10
LOOK_BYTES = 4 << 20
MOST = 0.5
"""A fault that more than this share of the rows have is one of the file, not of its rows."""
_FUTURE_MS = 10 * 60_000
_DAY_MS = 86_400_000
_OLD_DAYS = 400
_TIME_FIELD = {"cdr": "started_at", "network": "occurred_at"}
_HIDDEN = ("ext",)


@dataclass(frozen=True, slots=True)
class LookedRow:
    """``code`` is that of a refusal; ``shown`` the record as JSON, or the fault in words."""

    line: int
    code: str | None
    shown: str


@dataclass(frozen=True, slots=True)
class Look:
    """Of the beginning of a file. ``hints`` say what is wrong with it as a whole; none: it looks good."""

    judged: int = 0
    accepted: int = 0
    refused_by_code: dict[str, int] = field(default_factory=dict)
    rows: list[LookedRow] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def look_at(path: Path, record_type: str, profile: str, allow_age_days: int | None = None) -> Look:
    """Judge the beginning of a file; nothing is sent. Raises TelestreamError if the profile or file cannot be read.

    Pseudonyms are made with a key of the moment: those of the gateway's are its secret.
    """
    found = _profile(profile)
    identity = Identity(secrets.token_bytes(32), secrets.token_bytes(32))
    try:
        reader = FileReader(found, record_type, identity, "dry-run")
        with _open(path) as stream:
            first = next(chunks(io.BytesIO(stream.read(LOOK_BYTES)), 0, 1), None)
        if first is None:
            return Look(hints=["the file is empty"])
        reader.bind(first)
        block = reader.judge(first)
    except BodyRefused as err:
        return Look(hints=[str(err)])
    except (OSError, EOFError) as err:
        raise TelestreamError(f"cannot read {path}: {err}") from err
    if not block.rows:
        return Look(hints=["there is a header but no row"])
    return _looked(block, record_type, allow_age_days)


def _profile(name: str) -> Any:
    if not name.endswith((".yaml", ".yml")):
        folder = os.environ.get("TELESTREAM_PROFILES_DIR")
        return find_profile(name, Path(folder) if folder else None).profile
    path = Path(name)
    try:
        return parse_profile(path.read_text(encoding="utf-8"), path.stem)
    except OSError as err:
        raise TelestreamError(f"cannot read the profile {path}: {err.strerror}") from err


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import zstandard

        opened: IO[bytes] = zstandard.open(path, "rb")
        return opened
    return path.open("rb")


def _looked(block: JudgedBlock, record_type: str, allow_age_days: int | None) -> Look:
    codes = Counter(refusal.code for refusal, _ in block.refusals)
    records = _records(block, record_type)
    rows = [LookedRow(line, None, _shown(record)) for line, record in records[:ROWS_SHOWN]]
    rows += [
        LookedRow(refusal.position, refusal.code, f"{refusal.field or 'row'}: {refusal.message}")
        for refusal, _ in block.refusals[:ROWS_SHOWN]
    ]
    rows.sort(key=lambda row: row.line)
    hints = [
        f"{count / block.rows:.0%} of the rows are refused as {code}: "
        + next(f"{refusal.field or 'row'} {refusal.message}" for refusal, _ in block.refusals if refusal.code == code)
        for code, count in codes.items()
        if count > block.rows * MOST
    ]
    time_field = _TIME_FIELD.get(record_type)
    if time_field and records:
        hints += _about_times([record[time_field] for _, record in records], allow_age_days)
    return Look(block.rows, block.accepted, dict(codes), rows[:ROWS_SHOWN], hints)


def _records(block: JudgedBlock, record_type: str) -> list[tuple[int, dict[str, Any]]]:
    types = {entry.name: entry.type for entry in arrow_schema(load_schema(record_type))}
    found: list[tuple[int, dict[str, Any]]] = []
    for accepted in (block.columns, from_entries(record_type, block.entries, block.entry_lines, types)):
        if not len(accepted):
            continue
        columns = [accepted.columns[name].to_pylist() for name in OUTPUT[record_type]]
        found += [
            (line, dict(zip(OUTPUT[record_type], values, strict=True)))
            for line, values in zip(accepted.lines.tolist(), zip(*columns, strict=True), strict=True)
        ]
    return sorted(found, key=lambda item: item[0])


def _shown(record: dict[str, Any]) -> str:
    present = {name: value for name, value in record.items() if value is not None and name not in _HIDDEN}
    return json.dumps(present, default=str, ensure_ascii=False)


def _about_times(times: list[Any], allow_age_days: int | None) -> list[str]:
    now_ms = int(time.time() * 1000)
    found = sorted(int(at.timestamp() * 1000) if hasattr(at, "timestamp") else int(at) for at in times)
    ahead = [at for at in found if at > now_ms + _FUTURE_MS]
    if len(ahead) > len(found) * MOST:
        hours = (ahead[len(ahead) // 2] - now_ms) / 3_600_000
        return [
            f"{len(ahead) / len(found):.0%} of the rows lie in the future, half of them {hours:.1f} h or more: "
            "is the time zone of the profile right?"
        ]
    days = max(_OLD_DAYS, allow_age_days or 0)
    old = [at for at in found if at < now_ms - days * _DAY_MS]
    if len(old) > len(found) * MOST:
        return [
            f"{len(old) / len(found):.0%} of the rows are more than {days} days old: --allow-age accepts older ones"
        ]
    return []
