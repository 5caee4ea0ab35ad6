"""``GET /v1/reconciliation``: accepted = stored + withdrawn + duplicates + rejected + erased + expired + in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response

from query_api import examples, models
from query_api.books import derived, holes, shown, spans, total
from query_api.closed_hours import Asked, Counter
from query_api.domain.problems import bad_parameter
from query_api.domain.progress import Reach, complete_to_ms, freshest_ms
from query_api.domain.ranges import from_ms, instant, iso, to_ms, zone_of
from query_api.http import answer
from query_api.parts import Parts, known_type
from query_api.point import Asked as Point
from telestream_opstore import Derivation
from telestream_warehouse import NO_BOOKS, Books, books_of, reconciliation

HOUR = timedelta(hours=1)
MAX_IN_FLIGHT_HOURS = 48
"""Hours of arrival that are told apart among what is in flight; older ones count in the oldest of these."""


def register(api: FastAPI, parts: Parts) -> None:
    counter = Counter(parts)

    @api.get(
        "/v1/reconciliation",
        tags=["quality"],
        summary="Where every accepted record is",
        description="Accepted, rejected and duplicates are counted from judged records, stored from the rows people "
        "query, and (for a whole type) the judged records against raw's offsets; so `balanced` can be false. `from` "
        "and `to` are times of arrival. Everything is booked at the original record: a reversal adds nothing. Hours of "
        "arrival that are closed are remembered for an hour, until a reversal goes back to them or rows are deleted; "
        "`recount=true` counts them anew. Of a replay that begins later only what it derives is accounted for.",
        response_model=models.Answer[models.Reconciliation],
        responses=examples.responses(503),
    )
    async def reconcile(
        request: Request,
        point: Point,
        record_type: Annotated[str, Query(alias="type", max_length=20, examples=["cdr"])] = "cdr",
        source: Annotated[str | None, Query(max_length=64, examples=["msc-1"])] = None,
        batch: Annotated[int | None, Query(ge=0, lt=2**63, examples=[17])] = None,
        start: Annotated[str | None, Query(alias="from", max_length=40, examples=["2026-09-01"])] = None,
        to: Annotated[str | None, Query(max_length=40, examples=["2026-09-02"])] = None,
        tz: Annotated[str, Query(max_length=64, examples=["UTC"])] = "UTC",
        by: Annotated[Literal["hour"] | None, Query(examples=["hour"])] = None,
        recount: Annotated[bool, Query(description="Count closed hours anew, too", examples=[False])] = False,
    ) -> Response:
        known_type(record_type)
        since, until = _bounds(start, to, tz)
        generations = await parts.generations((record_type,), point)
        generation = generations[record_type]
        raw = parts.settings.topics.raw(record_type)
        derivation = parts.tails.derivation(generation)
        # one at a time, so that positions only rise from one request to the next
        async with counter.lock(record_type):
            if recount:
                counter.forget(record_type, generation)
            # positions first, ends after: so nothing is in flight and stored at once
            positions = await parts.positions(record_type, generation)
            offsets = await asyncio.to_thread(_offsets, parts, raw, since, until, record_type, derivation)
            mark = await counter.mark(record_type) if batch is None else None
            asked = Asked(record_type, generation, source, since, until, by == "hour", positions, offsets.ends, raw)
            if source is None and batch is None and since is None and until is None:
                books = await counter.books(asked, mark)
                counted = await counter.judged(asked, offsets.starts, mark)
                missing = holes(spans(offsets.starts, positions, offsets.ends), counted)
            else:
                # only a whole type can be held against offsets
                books = await (counter.books(asked, mark) if batch is None else _of_batch(parts, asked, batch))
                missing = []
        flying = {
            partition: (max(positions.get(partition, 0), span.start), span.end)
            for partition, span in (
                (span.partition, span)
                for span in spans(offsets.starts, positions, offsets.ends, offsets.since, offsets.until)
            )
            if span.in_flight
        }
        in_flight = sum(end - first for first, end in flying.values())
        data: dict[str, Any] = {
            "type": record_type,
            **shown(total(books), in_flight, not missing),
            "in_flight_scope": "exact" if source is None and batch is None else "type",
            "holes": missing,
        }
        if by == "hour":
            hours = await asyncio.to_thread(_in_flight_by_hour, parts, raw, flying)
            data["hours"] = _by_hour(books, hours)
        progress = parts.progress(generations)
        partitions = parts.partitions_of((record_type,))
        reach = Reach(exact={(record_type, partition): offset for partition, offset in positions.items()})
        return answer(
            request,
            data,
            as_of_ms=freshest_ms(progress, partitions, reach),
            complete_to_ms=complete_to_ms(progress, partitions, reach),
            generation=generation,
        )


async def _of_batch(parts: Parts, asked: Asked, batch: int) -> list[Books]:
    query = reconciliation(
        asked.record_type,
        asked.src_next(),
        source_name=asked.source,
        batch_id=batch,
        since=asked.since,
        until=asked.until,
        by_hour=asked.hourly,
        generation=asked.generation,
    )
    return [books_of(row) for row in await parts.warehouse.rows(query)]


@dataclass(frozen=True, slots=True)
class Offsets:
    """Raw's offsets per partition; ``since`` and ``until`` only where time bounds the question."""

    starts: Mapping[int, int]
    ends: Mapping[int, int]
    since: Mapping[int, int | None] | None
    until: Mapping[int, int | None] | None


def _offsets(
    parts: Parts,
    raw: str,
    since: datetime | None,
    until: datetime | None,
    record_type: str,
    derivation: Derivation | None,
) -> Offsets:
    partitions = parts.raw.partitions(raw)
    starts, ends = parts.raw.starts(raw, partitions), parts.raw.ends(raw, partitions)
    if derivation is not None:
        starts, ends = derived(record_type, derivation.plan, starts, ends)
    return Offsets(
        starts=starts,
        ends=ends,
        since=None if since is None else parts.raw.at(raw, partitions, to_ms(since)),
        until=None if until is None else parts.raw.at(raw, partitions, to_ms(until)),
    )


def _bounds(start: str | None, to: str | None, tz: str) -> tuple[datetime | None, datetime | None]:
    zone = zone_of(tz)
    since = None if start is None else instant(start, zone, "from")
    until = None if to is None else instant(to, zone, "to")
    if since is not None and until is not None and since >= until:
        raise bad_parameter("to", "must lie after from")
    return since, until


def _in_flight_by_hour(parts: Parts, raw: str, flying: Mapping[int, tuple[int, int]]) -> dict[str, int]:
    """Hour of arrival → records in flight, from offsets by time; ``flying`` is first and end per partition."""
    left = dict(flying)
    counts: dict[str, int] = {}
    hour = from_ms(parts.now_ms()).replace(minute=0, second=0, microsecond=0)
    partitions = parts.raw.partitions(raw) if left else 0
    for number in range(MAX_IN_FLIGHT_HOURS):
        if not left:
            break
        begins = parts.raw.at(raw, partitions, to_ms(hour))
        for partition, (first, end) in list(left.items()):
            begin = begins.get(partition)
            cut = first if number == MAX_IN_FLIGHT_HOURS - 1 else min(max(first, end if begin is None else begin), end)
            if end > cut:
                counts[iso(hour)] = counts.get(iso(hour), 0) + end - cut
            if cut > first:
                left[partition] = (first, cut)
            else:
                del left[partition]
        hour -= HOUR
    return counts


def _by_hour(books: list[Books], in_flight: Mapping[str, int]) -> list[dict[str, Any]]:
    by_hour = {_hour(entry.hour): entry for entry in books}
    return [
        {"hour": hour, **shown(by_hour.get(hour, NO_BOOKS), in_flight.get(hour, 0), True)}
        for hour in sorted({*by_hour, *in_flight})
    ]


def _hour(text: str | None) -> str:
    at = datetime.fromisoformat(str(text))
    return iso(at if at.tzinfo else at.replace(tzinfo=UTC))
