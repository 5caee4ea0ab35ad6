"""``GET /v1/completeness``: what switches and producers counted themselves, against what is there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models, models_quality
from query_api.domain.ranges import from_ms, iso, iso_ms, range_of, to_ms, zone_of
from query_api.http import answer, sources_of
from query_api.ledger import from_ledger
from query_api.parts import Parts
from query_api.point import Asked
from query_api.quality import said
from telestream_domain.gaps import gaps_of
from telestream_opstore import Declared, Numbered
from telestream_warehouse import missing_numbers, node_numbers

DEFAULT = timedelta(days=1)
LONGEST = timedelta(days=31)
MAX_RANGES = 100
MAX_NODES = 1_000
MAX_FILES = 100


def register(api: FastAPI, parts: Parts) -> None:
    @api.get(
        "/v1/completeness",
        tags=["quality"],
        summary="What is missing by the switches' and producers' own count",
        description="`nodes`: per source and switch, the numbers (`node_seq`) from the first to the last that arrived "
        "in `from` ≤ t < `to`, in records of every verdict; `missing` are those in between that are not there. A hole "
        "of more than 100,000 numbers, or of more than 1,000 whose lower side came 5 minutes after its upper one, is "
        "a counter that started anew: it counts in `restarts` and is no loss. `reused` are numbers that several "
        "records hold: the counter came round in this range, and a smaller one says more. `files`: the same of the "
        "producers' own file numbers (`sequence`). `declared`: totals that came with files against what was read.",
        response_model=models.Answer[models_quality.Completeness],
        responses=examples.responses(503),
    )
    async def completeness(
        request: Request,
        point: Asked,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        tz: Annotated[str, Query(max_length=64, examples=["Europe/Paris"])] = "UTC",
        source: Annotated[str | None, Query(max_length=64, examples=["msc-1"])] = None,
    ) -> Response:
        sources = sources_of(request, source)
        asked = range_of(start, to, zone_of(tz), from_ms(parts.now_ms()), DEFAULT, LONGEST)
        generations = await parts.generations(("cdr",), point)
        nodes, holes, numbered, declared = await asyncio.gather(
            parts.warehouse.rows(
                node_numbers(asked.start, asked.end, generations["cdr"], sources, limit=MAX_NODES + 1)
            ),
            parts.warehouse.rows(
                missing_numbers(asked.start, asked.end, generations["cdr"], sources, limit=MAX_RANGES + 1)
            ),
            from_ledger(parts.keys, lambda mirror: mirror.numbered(asked.start, asked.end, sources)),
            from_ledger(parts.keys, lambda mirror: mirror.declared(asked.start, asked.end, sources)),
        )
        data = {
            "from": iso(asked.start),
            "to": iso(asked.end),
            "nodes": [_node(row) for row in nodes[:MAX_NODES]],
            "nodes_truncated": len(nodes) > MAX_NODES,
            "missing": [{**row, "noticed_at": iso_ms(int(row["noticed_at"]))} for row in holes[:MAX_RANGES]],
            "truncated": len(holes) > MAX_RANGES,
            "files": _files(numbered),
            "declared": _totals(declared),
            "mismatches": [_mismatch(file) for file in declared if _differs(file)][:MAX_FILES],
        }
        return answer(request, data, **await said(parts, ["cdr"], generations))


def _node(row: dict[str, Any]) -> dict[str, Any]:
    present, missing = int(row["present"]), int(row["missing"])
    return {**row, "expected": present + missing, "present": present, "missing": missing}


def _files(numbered: list[Numbered]) -> list[dict[str, Any]]:
    by_source: dict[tuple[str, str], dict[int, int]] = {}
    for file in numbered:
        at = by_source.setdefault((file.source, file.type), {})
        arrived = to_ms(file.arrived_at)
        at[file.sequence] = min(at.get(file.sequence, arrived), arrived)
    rows = []
    for (source, record_type), at in sorted(by_source.items()):
        gaps = gaps_of(at)
        rows.append(
            {
                "source": source,
                "type": record_type,
                "first": gaps.first,
                "last": gaps.last,
                "expected": gaps.expected,
                "present": gaps.present,
                "missing": gaps.missing,
                "restarts": gaps.restarts,
                "ranges": [{"first": first, "last": last} for first, last in gaps.ranges[:MAX_RANGES]],
                "truncated": len(gaps.ranges) > MAX_RANGES,
            }
        )
    return rows


def _totals(declared: list[Declared]) -> list[dict[str, Any]]:
    """Per source, type and total: the sums over its files. A total that files of this type have not is left out."""
    sums: dict[tuple[str, str, str], tuple[int, int, int]] = {}
    for file in declared:
        for name, loaded in file.loaded.items():
            key = (file.source, file.type, name)
            files, there, wanted = sums.get(key, (0, 0, 0))
            sums[key] = (files + 1, there + loaded, wanted + file.expected[name])
    return [
        {
            "source": source,
            "type": record_type,
            "total": name,
            "files": files,
            "expected": wanted,
            "loaded": there,
            "difference": there - wanted,
        }
        for (source, record_type, name), (files, there, wanted) in sorted(sums.items())
    ]


def _differs(file: Declared) -> bool:
    return any(loaded != file.expected[name] for name, loaded in file.loaded.items())


def _mismatch(file: Declared) -> dict[str, Any]:
    return {
        "file_id": file.file_id,
        "source": file.source,
        "type": file.type,
        "name": file.name,
        "state": file.state,
        "finished_at": iso(file.finished_at),
        "expected": file.expected,
        "loaded": file.loaded,
    }
