"""``POST /v1/events/trace``: what became of one record, by the id its producer gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request, Response

from query_api import examples, models
from query_api.books import derived
from query_api.domain import trace as story
from query_api.domain.problems import Problem, bad_parameter
from query_api.domain.ranges import from_ms, iso, iso_ms
from query_api.http import answer, json_object
from query_api.parts import Parts, known_type, shown_generation
from query_api.point import Asked
from query_api.raw import RawRecord
from telestream_contracts import decode_each
from telestream_domain import CONFLICT, TYPES, TelestreamError, shown_subscriber
from telestream_warehouse import (
    FACTS,
    booked_at,
    physical,
    reference_in_force,
    traced_dead_letters,
    traced_duplicates,
    traced_facts,
    windows_at,
)

MAX_COPIES = 100
MAX_TOLD = 20
"""Copies of which raw is read, and stored ones of which windows and references are looked up; the first of them."""

MAX_SCANNED = 50_000
"""Offsets in flight that are looked through; reading more would take seconds."""

FIELDS = {"source": 64, "event_id": 128, "type": 20}
Row = dict[str, Any]
Place = tuple[int, int]


def register(api: FastAPI, parts: Parts) -> None:
    @api.post(
        "/v1/events/trace",
        tags=["quality"],
        summary="One record's story",
        description="Every copy of a record, by arrival: file and line, raw position, verdict and why, reversals, "
        "reference data, windows it counts in, row in the warehouse. The producer's id travels in the body only, and "
        "the gateway, which alone holds the keys, makes the uid; so this needs a key with both roles, read and "
        "identity. Records that came without an event id have none to ask by.",
        response_model=models.Answer[models.Trace],
        responses=examples.responses(404, 413, 503),
        openapi_extra=examples.TRACE_BODY,
    )
    async def trace(request: Request, point: Asked) -> Response:
        asked = await _asked(request)
        key = request.headers["x-api-key"]
        held = await parts.keys.check(key)
        if held is None or not held.may("identity"):
            raise Problem(403, "not_allowed", "this needs a key with the roles read and identity")
        types = [known_type(asked["type"])] if "type" in asked else list(TYPES)
        uid = await parts.identity.event_uid(asked["source"], asked["event_id"], key)
        generations = await parts.generations(types, point)
        told = await asyncio.gather(*(_Story(parts, name, uid, generations[name]).told() for name in types))
        copies = [copy for found, _ in told for copy in found]
        in_flight = _summed([flying for _, flying in told])
        if not copies:
            raise Problem(404, "not_found", story.not_found(types, generations, in_flight), "event_id")
        copies.sort(key=lambda copy: (copy["appended_at"] or "", copy["raw"]["partition"], copy["raw"]["offset"]))
        data = {
            "event_uid": uid,
            "source": asked["source"],
            "copies": copies[:MAX_COPIES],
            "more_copies": len(copies) > MAX_COPIES,
            "in_flight": in_flight,
        }
        return answer(
            request,
            data,
            as_of_ms=None,
            complete_to_ms=None,
            generation=shown_generation(generations, types),
        )


async def _asked(request: Request) -> dict[str, str]:
    """Source, event id and perhaps type, as text. Nothing of the body is ever echoed."""
    asked = await json_object(request)
    for name in asked:
        if name not in FIELDS:
            raise Problem(422, "unknown_field", "send source, event_id and perhaps type", "event_id")
    for name, limit in FIELDS.items():
        if name not in asked and name != "type":
            raise Problem(422, "missing_field", f"{name}: must be given", name)
        if name in asked:
            value = asked[name]
            if not isinstance(value, str) or not 0 < len(value) <= limit or "\ud800" <= max(value) <= "\udfff":
                raise bad_parameter(name, f"text of 1 to {limit} characters")
    return asked


def _summed(flying: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = [entry["records"] for entry in flying]
    return {
        "records": None if None in counts else sum(counts),
        "looked_through": all(entry["looked_through"] for entry in flying),
    }


class _Story:
    """One type's part of a story: reads, and puts together."""

    def __init__(self, parts: Parts, record_type: str, uid: str, generation: int) -> None:
        self._parts, self._type, self._uid, self._generation = parts, record_type, uid, generation
        self._topic = parts.settings.topics.raw(record_type)

    async def told(self) -> tuple[list[Row], Row]:
        """Copies, and what was looked at of what is in flight."""
        ask = (self._type, self._uid, self._generation, MAX_COPIES)
        rows = self._parts.warehouse.rows
        # before the tables: what is judged meanwhile is then found there
        positions = await self._parts.positions(self._type, self._generation)
        facts, duplicates, letters = await asyncio.gather(
            rows(traced_facts(*ask)), rows(traced_duplicates(*ask)), rows(traced_dead_letters(*ask))
        )
        flying, in_flight = await self._in_flight(positions)
        places = {(row["src_partition"], row["booked_offset"]) for row in facts}
        for row in [*duplicates, *letters]:
            places.add((row["src_partition"], row["src_offset"]))
            if row.get("first_offset") is not None:
                places.add((row["src_partition"], row["first_offset"]))
        booked: list[Row] = []
        if places:
            partitions, offsets = zip(*places, strict=True)
            limit = 4 * MAX_COPIES
            booked = await rows(booked_at(self._type, partitions, offsets, self._generation, limit))
        reversals: dict[Place, list[Row]] = {}
        for row in booked:
            if row["sign"] < 0:
                reversals.setdefault((row["src_partition"], row["booked_offset"]), []).append(row)
        copies = self._stored(facts)
        copies |= {_place(row): self._duplicate(row) for row in duplicates}
        copies |= {_place(row): self._rejected(row) for row in letters}
        for row in booked:
            if row["sign"] > 0 and _place(row) in places and _place(row) not in copies:
                copies[_place(row)] = self._gone(row)
        for record in flying:
            if (record.partition, record.offset) not in copies:
                copies[record.partition, record.offset] = self._flying(record)
        raw = await self._raw([*sorted(copies)[:MAX_TOLD], *(_place(row) for one in reversals.values() for row in one)])
        for place, copy in copies.items():
            copy["raw"] = await self._shown_raw(place, raw.get(place))
            copy["reversals"] = [
                {
                    "offset": row["src_offset"],
                    "took_effect": row["verdict"] == "STORED",
                    "appended_at": iso_ms(raw[_place(row)].appended_ms) if _place(row) in raw else None,
                }
                for row in reversals.get(place, [])
            ]
        await self._deepened(copies, facts)
        await self._named(copies)
        return list(copies.values()), in_flight

    def _copy(self, row: Mapping[str, Any], verdict: str, **more: Any) -> Row:
        return {
            "type": self._type,
            "verdict": verdict,
            "rule": row.get("rule") or None,
            "reason": row.get("reason"),
            "field": row.get("field"),
            "conflict": row.get("rule") == CONFLICT,
            "duplicate_of": None,
            "source": row["source"],
            "origin": story.origin_of(row["batch_id"], row.get("line"), None),
            "appended_at": _iso(row["appended_at"]),
            "event_at": _iso(row.get("event_at")),
            "subscriber_id": shown_subscriber(row["subscriber_id"]) if row.get("subscriber_id") else None,
            "rules_version": row.get("rules_version"),
            "warnings": row.get("warnings") or [],
            "references": [],
            "windows": [],
            **more,
        }

    def _row_in(self, view: str | None, why: str) -> Row:
        return {"table": None if view is None else physical(view), "generation": self._generation, "why": why}

    def _stored(self, facts: Sequence[Row]) -> dict[Place, Row]:
        withdrawn = {(row["src_partition"], row["booked_offset"]) for row in facts if row["withdrawn"]}
        found = {}
        for row in facts:
            place = row["src_partition"], row["booked_offset"]
            if place in found:
                continue
            if place in withdrawn:
                where = self._row_in(None, "reversed: the row no longer counts and is in no view")
            else:
                where = self._row_in(FACTS[self._type], "stored")
            found[place] = self._copy(row, "STORED", warehouse=where)
        return found

    def _duplicate(self, row: Row) -> Row:
        first = row["first_offset"]
        of = None if first is None else {"partition": row["src_partition"], "offset": first}
        other = "other content" if row["rule"] == CONFLICT else "the same content"
        why = f"a duplicate with {other}: not among the facts"
        # subscriber and cell are those of the copy itself, and not what counts
        return self._copy(row, "DUPLICATE", duplicate_of=of, warehouse=self._row_in("duplicate", why))

    def _rejected(self, row: Row) -> Row:
        return self._copy(row, "REJECTED", warehouse=self._row_in("dead_letter", "rejected: not among the facts"))

    def _gone(self, row: Row) -> Row:
        why = "its row is no longer in the warehouse: expired by retention"
        return self._copy(row, row["verdict"], warehouse=self._row_in(None, why))

    def _flying(self, record: RawRecord) -> Row:
        decoded = decode_each([record.value], self._parts.registry.schema)
        row = decoded.frame.row(0, named=True) if decoded.frame.height else {}
        head = {
            "source": row.get("source"),
            "batch_id": row.get("batch_id", story.FIRST_REQUEST),
            "line": row.get("line"),
            "appended_at": iso_ms(record.appended_ms),
        }
        return self._copy(head, "IN_FLIGHT", warehouse=self._row_in(None, "in flight: accepted, not judged yet"))

    async def _in_flight(self, positions: Mapping[int, int]) -> tuple[list[RawRecord], Row]:
        try:
            ranges = await asyncio.to_thread(self._ranges, positions)
            records = sum(max(0, end - first) for first, end in ranges.values())
            if records > MAX_SCANNED:
                return [], {"records": records, "looked_through": False}
            found = await asyncio.to_thread(self._parts.records.containing, self._topic, ranges, self._uid)
        except Problem:
            return [], {"records": None, "looked_through": False}
        return found, {"records": records, "looked_through": True}

    def _ranges(self, positions: Mapping[int, int]) -> dict[int, Place]:
        raw = self._parts.raw
        count = raw.partitions(self._topic)
        starts, ends = raw.starts(self._topic, count), raw.ends(self._topic, count)
        derivation = self._parts.tails.derivation(self._generation)
        if derivation is not None:
            starts, ends = derived(self._type, derivation.plan, starts, ends)
        return {number: (max(positions.get(number, 0), starts[number]), ends[number]) for number in range(count)}

    async def _raw(self, places: Sequence[Place]) -> dict[Place, RawRecord]:
        try:
            return await asyncio.to_thread(self._parts.records.at, self._topic, places[: 2 * MAX_TOLD])
        except Problem:
            return {}

    async def _shown_raw(self, place: Place, record: RawRecord | None) -> Row:
        schema_id = None if record is None else record.schema_id
        version = None
        if schema_id is not None:
            try:
                version = await asyncio.to_thread(self._parts.registry.version, self._topic, schema_id)
            except TelestreamError:
                version = None
        return {
            "topic": self._topic,
            "partition": place[0],
            "offset": place[1],
            "in_log": record is not None,
            "schema_id": schema_id,
            "schema_version": version,
        }

    async def _named(self, copies: Mapping[Place, Row]) -> None:
        """Put in the names of files."""
        ids = {copy["origin"]["batch_id"] for copy in copies.values() if copy["origin"]["kind"] == "file"}
        names = await self._parts.keys.file_names(sorted(ids)) if ids else {}
        for copy in copies.values():
            copy["origin"]["name"] = names.get(copy["origin"]["batch_id"])

    async def _deepened(self, copies: Mapping[Place, Row], facts: Sequence[Row]) -> None:
        """Put in windows and references of stored copies."""
        by_place: dict[Place, list[Row]] = {}
        for row in facts:
            by_place.setdefault((row["src_partition"], row["booked_offset"]), []).append(row)
        told = list(by_place.items())[:MAX_TOLD]
        found = await asyncio.gather(*(self._windows(place, rows) for place, rows in told))
        references = await asyncio.gather(*(self._references(rows[0]) for _, rows in told))
        for (place, _), windows, known in zip(told, found, references, strict=True):
            copies[place] |= {"windows": windows, "references": known}

    async def _windows(self, place: Place, rows: Sequence[Row]) -> list[Row]:
        row = rows[0]
        wanted = story.windows_of(self._type, row, self._parts.settings.zone)
        # +1 where the record stood, and −1 where its reversal does
        effects = [(place[1], 1), *((entry["src_offset"], -1) for entry in rows if entry["withdrawn"])]
        families = list(dict.fromkeys(window.family for window in wanted))
        queries = []
        for family in families:
            own = [window for window in wanted if window.family == family]
            queries.append(
                windows_at(
                    family,
                    self._type,
                    sorted({window.group for window in own}),
                    [from_ms(start) for start in sorted({window.start_ms for window in own})],
                    place[0],
                    [story.segment_in(family, offset) for offset, _ in effects],
                    self._generation,
                )
            )
        answers = await asyncio.gather(*(self._parts.warehouse.rows(query) for query in queries))
        written = dict(zip(families, answers, strict=True))
        shown = []
        for offset, effect in effects:
            for window in wanted:
                src_to = story.included(window, row, offset, written[window.family])
                there = src_to is not None and src_to >= offset
                group = window.group
                shown.append(
                    {
                        "family": window.family,
                        "size_s": window.size_s,
                        "window_start": iso(from_ms(window.start_ms)),
                        "group": shown_subscriber(group) if window.family == "subscriber_day" else group,
                        "partition": place[0],
                        "segment": story.segment_in(window.family, offset),
                        "adds": effect,
                        "only_ends": window.only_ends,
                        "src_to": src_to,
                        "included": there,
                        "why": None if there else story.missing_window(window, self._parts.now_ms()),
                    }
                )
        return shown

    async def _references(self, row: Row) -> list[Row]:
        at = datetime.fromisoformat(row["event_at"])
        held: dict[str, tuple[str | None, Row]] = {
            "cell": (row["cell_id"], {name: row[name] for name in ("region_id", "technology", "vendor")}),
            "region": (row["region_id"], {"region_id": row["region_id"]}),
        }
        if self._type == "cdr":
            customer = {name: row[name] for name in ("customer_id", "plan_id", "segment")}
            who = row["subscriber_id"] if row["subscriber_kind"] != "NONE" else None
            held["customer"] = (who, customer | {"region_id": row["customer_region_id"]})
            held["plan"] = (row["plan_id"], {"plan_id": row["plan_id"]})
        asked = {entity: identifier for entity, (identifier, _) in held.items() if identifier}
        answers = await asyncio.gather(
            *(
                self._parts.warehouse.rows(reference_in_force(entity, identifier, at))
                for entity, identifier in asked.items()
            )
        )
        return [
            _reference(entity, held[entity][1], found[0] if found and not found[0]["deleted"] else None)
            for entity, found in zip(asked, answers, strict=True)
        ]


def _reference(entity: str, held: Row, version: Row | None) -> Row:
    if version is None:
        return {"entity": entity, "held": held, "valid_from": None, "in_force": None, "same": not any(held.values())}
    in_force = {name: value for name, value in version.items() if name not in ("valid_from", "deleted")}
    # plan and region are only named by a record
    same = all(in_force[name] == value for name, value in held.items() if name in in_force)
    return {
        "entity": entity,
        "held": held,
        "valid_from": _iso(version["valid_from"]),
        "in_force": in_force,
        "same": same,
    }


def _place(row: Mapping[str, Any]) -> Place:
    return row["src_partition"], row["src_offset"]


def _iso(text: str | None) -> str | None:
    return None if text is None else iso_ms(story.ms_of(text))
