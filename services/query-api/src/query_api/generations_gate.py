"""Counting for the gate, from what lies in ClickHouse and Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from query_api.domain.replay_gate import Check, Found, Limits, checks_of
from query_api.domain.replay_progress import Part
from query_api.generations_control import Control
from query_api.queries import judged_below
from telestream_opstore import Derivation
from telestream_warehouse import NO_BOOKS, books_of, first_judged, judged_positions, reconciliation, verdicts_between

Offsets = dict[int, int]


async def gate(
    control: Control, row: Derivation, types: Sequence[str], active: Mapping[str, int], parts: Sequence[Part]
) -> list[Check]:
    """Every check of every type. Reads all judged records of the generation."""
    settings = control.settings
    limits = Limits(settings.gate_max_rejected_share, settings.gate_max_rejected_rise, settings.gate_max_lag_records)
    found = []
    for name in types:
        own = [part for part in parts if part.type == name]
        found += checks_of(await _found(control, row.generation, name, active.get(name), own), limits)
    return found


async def first_of(control: Control, row: Derivation, record_type: str) -> Offsets:
    """Partition → the first raw offset that this generation answers for."""
    planned = row.plan.starts.get(record_type)
    if planned is not None:
        return dict(planned)
    judged = await control.ask(first_judged(record_type, row.generation))
    return {int(entry["partition"]): int(entry["first"]) for entry in judged}


async def _found(control: Control, generation: int, name: str, other: int | None, parts: Sequence[Part]) -> Found:
    starts = {part.partition: part.start for part in parts}
    stored = {part.partition: part.stored for part in parts}
    books, judged, alone, ours, theirs = await asyncio.gather(
        control.ask(reconciliation(name, _below(stored), generation=generation)),
        control.ask(judged_below(name, starts, stored, generation)),
        _verdicts(control, name, starts, stored, generation),
        *(await _both(control, name, generation, other, starts, stored)),
    )
    whole = books_of(books[0]) if books else NO_BOOKS
    rows = {int(entry["partition"]): int(entry["rows"]) for entry in judged}
    missing = sum(abs(stored[part] - starts[part] - rows.get(part, 0)) for part in stored)
    return Found(
        type=name,
        all=alone,
        ours=ours,
        theirs=theirs,
        unbalanced=int(not whole.balanced),
        missing=missing,
        lag=sum(part.lag(False) for part in parts),
    )


async def _both(
    control: Control, name: str, generation: int, other: int | None, starts: Offsets, stored: Offsets
) -> list[asyncio.Task[tuple[int, int]]]:
    """Verdicts of both generations over the raw offsets that both have."""
    if other is None or other == generation:
        return [asyncio.create_task(_nothing()), asyncio.create_task(_nothing())]
    theirs = {
        int(entry["partition"]): int(entry["src_next"]) for entry in await control.ask(judged_positions(name, other))
    }
    judged = await control.ask(first_judged(name, other))
    first = {int(entry["partition"]): int(entry["first"]) for entry in judged}
    since = {part: max(start, first.get(part, start)) for part, start in starts.items()}
    until = {part: min(end, theirs.get(part, 0)) for part, end in stored.items()}
    return [asyncio.create_task(_verdicts(control, name, since, until, number)) for number in (generation, other)]


async def _verdicts(control: Control, name: str, since: Offsets, until: Offsets, generation: int) -> tuple[int, int]:
    """Rejected and accepted records."""
    (entry,) = await control.ask(verdicts_between(name, _below(since, until), _below(until), generation))
    return int(entry["rejected"]), int(entry["accepted"])


async def _nothing() -> tuple[int, int]:
    return 0, 0


def _below(offsets: Offsets, also: Offsets | None = None) -> list[int]:
    """By partition number, 0 where there is none."""
    return [offsets.get(number, 0) for number in range(max([*offsets, *(also or {}), -1]) + 1)]
