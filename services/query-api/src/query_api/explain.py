"""``?explain=1``: what a KPI is, and records that it counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import Request, Response

from query_api import examples
from query_api.domain.problems import Problem
from query_api.domain.ranges import iso
from query_api.domain.series import Series
from query_api.http import answer
from query_api.parts import Parts
from query_api.series import Found
from telestream_domain.kpis import Kpi, Term
from telestream_warehouse import contributing

RECORDS = 10


async def answered(
    request: Request, parts: Parts, question: Series, result: Found, head: dict[str, Any], explain: bool
) -> Response:
    """A series as an answer: ``head``, the silent sources, the rows, and if asked for what each KPI is."""
    body = examples.with_rows({**head, "silent_sources": result.silent}, "rows", result.table.rows)
    if explain:
        told = await explained(parts, question.kpis, question.family, question.ids, result.newest, result.generations)
        body = examples.with_member(body, "explain", told)
    return answer(request, body, **result.said)


async def explained(
    parts: Parts,
    kpis: Sequence[Kpi],
    family: str,
    ids: Sequence[str],
    span: tuple[datetime, datetime] | None,
    generations: dict[str, int],
) -> bytes:
    """Member ``explain`` as JSON text. Records are the earliest of ``span``; null where nothing can be asked."""
    records: dict[str, list[dict[str, Any]]] = {}
    asked = {kind: [row for row in kpis if kind in row.needs] for kind in ("cdr", "network")}
    try:
        for kind, rows in asked.items():
            if rows and span is not None:
                question = contributing(
                    rows, family, *span, groups=ids or None, generation=generations[kind], limit=RECORDS
                )
                answer = await parts.warehouse.rows(question.query)
                records |= question.records(answer[0])
    except Problem as err:
        # the KPIs themselves were answered without ClickHouse
        if err.status != 503:
            raise
    shown = {
        "records_from": iso(span[0]) if span else None,
        "records_to": iso(span[1]) if span else None,
        "kpis": {row.name: {**words(row), "records": records.get(row.name)} for row in kpis},
    }
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()


def words(row: Kpi) -> dict[str, Any]:
    """The row of the table, as JSON."""
    return {
        "title": row.title,
        "unit": row.unit,
        "formula": row.formula,
        "standard": row.standard,
        "numerator": _terms(row.numerator),
        "denominator": _terms(row.denominator),
        "additive": row.additive,
        "basis": row.basis.value,
        "note": row.note,
    }


def _terms(terms: Sequence[Term]) -> list[dict[str, str]]:
    return [{"measure": name, "factor": str(factor)} for name, factor in terms]
