"""``GET /v1/sources`` and ``/v1/sources/{source}``: the producer's own mirror."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response

from query_api import examples, models, models_quality
from query_api.domain.problems import Problem, unavailable
from query_api.domain.quality import Tally, judged_shown, scored, tallied, whole_hours
from query_api.domain.ranges import Range, from_ms, iso, iso_ms, range_of, zone_of
from query_api.domain.samples import masked
from query_api.http import answer, sources_of
from query_api.ledger import from_ledger
from query_api.parts import Parts
from query_api.point import Asked
from query_api.quality import said
from telestream_contracts import ContractError, decode_each
from telestream_domain import TYPES
from telestream_opstore import StateCount
from telestream_warehouse import freshness, judged_by_step, rejected_samples, source_hours

DEFAULT = timedelta(days=1)
LONGEST = timedelta(days=31)
SAMPLES = 5
SILENT_AFTER_MS = 15 * 60_000
"""A source that nothing came from for so long is called silent, since its last arrival."""


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/sources",
        tags=["quality"],
        summary="Who ever sent something",
        description="Every source of a judged record or a file, with the hours of arrival of its first and last "
        "record per type. A key that is bound to sources is told of these only.",
        response_model=models.Answer[list[models_quality.SourceListed]],
        responses=examples.responses(503),
    )
    async def listed(request: Request, point: Asked) -> Response:
        own = sources_of(request)
        generations = await parts.generations(tuple(TYPES), point)
        rows, of_files = await asyncio.gather(
            parts.warehouse.rows(source_hours(generations, own)),
            from_ledger(parts.keys, lambda mirror: mirror.sources(own)),
        )
        types: dict[str, dict[str, Any]] = {name: {} for name in of_files}
        for row in rows:
            types.setdefault(row["source"], {})[row["type"]] = _hours(row)
        data = [{"source": name, "types": types[name]} for name in sorted(types)]
        return answer(request, data, **await said(parts, list(TYPES), generations))

    @api.get(
        "/v1/sources/{source}",
        tags=["quality"],
        summary="What became of what a source sent",
        description="By type, of hours of arrival in `from` ≤ t < `to` (without them: the last day). "
        "`rejected_samples`: the newest five by rule, identities as `***`; `batch_id` and `line` find the record in "
        "what was sent. "
        "`last_arrival`, `freshest_event` and `silent_since` (no arrival for 15 minutes) are of all times. `files` "
        "began to arrive in the range. Exact books: `/v1/reconciliation?source=`.",
        response_model=models.Answer[models_quality.SourceMirror],
        responses=examples.responses(404, 503),
    )
    async def mirror(
        request: Request,
        point: Asked,
        source: Annotated[str, Path(max_length=64, examples=["msc-1"])],
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
    ) -> Response:
        own = sources_of(request, source)
        now = from_ms(parts.now_ms())
        asked = whole_hours(range_of(start, to, zone_of(tz), now, DEFAULT, LONGEST))
        generations = await parts.generations(tuple(TYPES), point)
        hours, judged, states, of_files = await asyncio.gather(
            parts.warehouse.rows(source_hours(generations, own)),
            parts.warehouse.rows(
                judged_by_step(asked.start, asked.end, generations, step="all", by_type=True, sources=own)
            ),
            from_ledger(parts.keys, lambda ledger: ledger.states(source, asked.start, asked.end)),
            from_ledger(parts.keys, lambda ledger: ledger.sources(own)),
        )
        if not hours and not of_files:
            raise Problem(404, "not_found", "nothing ever came from a source of this name", "source")
        tallies = {key[2]: tally for key, tally in tallied(judged).items()}
        known = {row["type"]: row for row in hours}
        types = await asyncio.gather(
            *(_of_type(parts, name, source, asked, generations[name], known[name], tallies) for name in sorted(known))
        )
        last = max((found["last_arrival_ms"] or 0 for found in types), default=0)
        data = {
            "source": source,
            "from": iso(asked.start),
            "to": iso(asked.end),
            "last_arrival": iso_ms(last or None),
            "silent_since": iso_ms(last) if last and parts.now_ms() - last > SILENT_AFTER_MS else None,
            "types": {found.pop("type"): _without(found, "last_arrival_ms") for found in types},
            "files": [_files(count) for count in states],
        }
        return answer(request, data, **await said(parts, list(TYPES), generations))


async def _of_type(
    parts: Parts,
    record_type: str,
    source: str,
    asked: Range,
    generation: int,
    hours: Mapping[str, Any],
    tallies: Mapping[str, Tally],
) -> dict[str, Any]:
    seen, samples = await asyncio.gather(
        parts.warehouse.rows(freshness(record_type, generation, source, from_ms(int(hours["last_hour"])))),
        parts.warehouse.rows(rejected_samples(record_type, generation, source, asked.start, asked.end, SAMPLES)),
    )
    last, freshest = seen[0]["last_arrival"], seen[0]["freshest_event_end"]
    tally = tallies.get(record_type, Tally())
    return {
        "type": record_type,
        "last_arrival_ms": last,
        "last_arrival": iso_ms(last),
        "freshest_event": iso_ms(freshest),
        **judged_shown(tally),
        **scored(tally),
        "rejected_samples": await asyncio.to_thread(_samples, parts, samples),
    }


def _samples(parts: Parts, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By rule; ``record`` is null where the original cannot be read."""
    originals = [base64.b64decode(row["original"]) for row in rows]
    records = _decoded(parts, originals)
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row, record in zip(rows, records, strict=True):
        by_rule.setdefault(row["rule"], []).append(
            {
                "reason": row["reason"],
                "field": row["field"],
                "batch_id": row["batch_id"],
                "line": row["line"],
                "appended_at": iso_ms(int(row["appended_at"])),
                "record": None if record is None else masked(record),
            }
        )
    return dict(sorted(by_rule.items()))


def _decoded(parts: Parts, originals: list[bytes]) -> list[dict[str, Any] | None]:
    records: list[dict[str, Any] | None] = [None] * len(originals)
    if not originals:
        return records
    try:
        found = decode_each(originals, parts.registry.schema)
    except ContractError as err:
        raise unavailable("the schema registry") from err
    for place, record in zip(found.good.tolist(), found.frame.iter_rows(named=True), strict=True):
        records[place] = record
    return records


def _hours(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "first_hour": iso_ms(int(row["first_hour"])),
        "last_hour": iso_ms(int(row["last_hour"])),
        "records": int(row["records"]),
    }


def _files(count: StateCount) -> dict[str, Any]:
    return {
        "type": count.type,
        "state": count.state,
        "files": count.files,
        "rows": count.rows,
        "accepted": count.accepted,
        "refused": count.refused,
        "refused_by_code": count.refused_by_code,
        "last_at": iso(count.last_at),
    }


def _without(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}
