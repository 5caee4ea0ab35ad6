"""The books: accepted = stored + withdrawn + duplicates + rejected + erased, counted at different places.

Accepted and all verdicts but STORED are counted from the judged records, stored from the rows people query. Everything
is booked at the original record: a reversal adds nothing of its own, it moves its original from stored to withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import FACTS, physical, source


@dataclass(frozen=True, slots=True)
class Sums:
    """``charge_micros`` is by currency ('' where none was given); currencies that sum to 0 are left out."""

    records: int = 0
    duration_ms: int = 0
    bytes: int = 0
    charge_micros: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Sums) -> Sums:
        currencies = sorted({*self.charge_micros, *other.charge_micros})
        charge = {c: self.charge_micros.get(c, 0) + other.charge_micros.get(c, 0) for c in currencies}
        return Sums(
            self.records + other.records,
            self.duration_ms + other.duration_ms,
            self.bytes + other.bytes,
            {currency: micros for currency, micros in charge.items() if micros},
        )


@dataclass(frozen=True, slots=True)
class Books:
    """One row of the reconciliation; ``hour`` (of arrival, ISO, UTC) only by hour. ``conflicts`` is part of
    ``duplicates``."""

    accepted: Sums
    stored: Sums
    withdrawn: Sums
    duplicates: Sums
    rejected: Sums
    erased: Sums
    conflicts: int
    rejected_by_code: Mapping[str, int]
    hour: str | None = None

    @property
    def balanced(self) -> bool:
        """Whether counts and all sums add up."""
        return self.accepted == self.stored + self.withdrawn + self.duplicates + self.rejected + self.erased


Arrived = tuple[datetime | None, datetime | None]
"""``since ≤ t < until``; None: not bounded on that side."""

_PRUNED = "\nSETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0"
"""Old parts are skipped by time of arrival. All versions of a row have the same one, so none is told from another."""

SIDES = ("accepted", "stored", "withdrawn", "duplicates", "rejected", "erased")


def books_of(row: Mapping[str, Any]) -> Books:
    """A row that the ``reconciliation`` query gave."""
    sides = {
        side: Sums(
            int(row[f"{side}_records"]),
            int(row[f"{side}_duration_ms"]),
            int(row[f"{side}_bytes"]),
            {currency: int(micros) for currency, micros in sorted(row[f"{side}_charge_micros"].items()) if int(micros)},
        )
        for side in SIDES
    }
    codes = {code: int(count) for code, count in sorted(row["rejected_by_code"].items()) if int(count)}
    return Books(**sides, conflicts=int(row["conflicts"]), rejected_by_code=codes, hour=row.get("hour"))


NO_BOOKS = Books(Sums(), Sums(), Sums(), Sums(), Sums(), Sums(), 0, {})
"""What a reconciliation that gave no row means."""


def reconciliation(
    record_type: str,
    src_next: Sequence[int],
    *,
    source_name: str | None = None,
    batch_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    spans: Sequence[Arrived] | None = None,
    by_hour: bool = False,
    generation: int | None = None,
) -> Query:
    """The books of what arrived in ``since ≤ t < until`` (or in any of ``spans``), one row, or one for each hour of
    arrival.

    ``src_next[partition]`` bounds them: only raw offsets below it count (``judged_positions``), so they balance under
    load. Read rows with ``books_of``. Without ``generation`` the active one is read, through the published views.
    """
    fact, judged = source(FACTS[record_type], generation), source("judgement", generation)
    params: dict[str, Parameter] = {"type": record_type, "src_next": [int(offset) for offset in src_next]}
    where = []
    if source_name is not None:
        where.append("source = {source:String}")
        params["source"] = source_name
    if batch_id is not None:
        where.append("batch_id = {batch:Int64}")
        params["batch"] = batch_id
    arrived, more = _arrived([(since, until)] if spans is None else spans)
    where += arrived
    params |= more
    chosen = "".join(f" AND {condition}" for condition in where)
    below = "{src_next:Array(UInt64)}[src_partition + 1]"
    hour = "toStartOfHour(appended_at) AS hour, " if by_hour else ""
    # a reversal carries its original's source, batch and time of arrival
    withdrawn_of = (
        "(SELECT src_partition, booked_offset FROM judgement_all "
        f"WHERE type = {{type:String}} AND generation = {_generation(record_type, generation)} "
        f"AND sign = -1 AND verdict = 'STORED' AND src_offset < {below}{chosen})"
    )
    fact_sums = _fact_sums(record_type)
    # A reversal above the bound has already taken its original out of the view: in these books that is still stored.
    early = (
        f"SELECT {hour}'stored' AS side, '' AS rule, {fact_sums} FROM (SELECT * FROM {physical(FACTS[record_type])} "
        f"WHERE generation = {_generation(record_type, generation)} AND withdrawn = 1 AND src_offset >= {below} "
        f"AND booked_offset < {below}{chosen} LIMIT 1 BY src_partition, booked_offset) GROUP BY ALL"
    )
    stored = (
        f"SELECT {hour}'stored' AS side, '' AS rule, {fact_sums} FROM {fact} "
        f"WHERE src_offset < {below}{chosen} GROUP BY ALL"
    )
    judged_sums = (
        "count() AS records, sum(duration_ms) AS duration_ms, sum(bytes) AS bytes, "
        "sumMap(map(toString(currency), charge_micros)) AS charge_micros"
    )
    books = (
        f"SELECT {hour}multiIf(verdict = 'DUPLICATE', 'duplicates', verdict = 'REJECTED', 'rejected', "
        f"verdict = 'ERASED', 'erased', (src_partition, booked_offset) IN {withdrawn_of}, 'withdrawn', 'stands') "
        "AS side, "
        f"toString(rule) AS rule, {judged_sums} FROM {judged} "
        f"WHERE type = {{type:String}} AND sign = 1 AND src_offset < {below}{chosen} GROUP BY ALL"
    )
    columns = [
        column
        for side in SIDES
        for column in _side(side, "side != 'stored'" if side == "accepted" else f"side = '{side}'")
    ]
    select = ",\n    ".join(
        [
            *(["hour"] if by_hour else []),
            *columns,
            "sumIf(records, side = 'duplicates' AND rule = 'conflict') AS conflicts",
            "sumMapIf(map(rule, records), side = 'rejected') AS rejected_by_code",
        ]
    )
    tail = "\nGROUP BY hour ORDER BY hour" if by_hour else ""
    sides = f"{books}\nUNION ALL\n{stored}\nUNION ALL\n{early}"
    return Query(f"SELECT\n    {select}\nFROM\n(\n{sides}\n){tail}{_PRUNED}", params)


def judged_between(
    record_type: str,
    first: Sequence[int],
    end: Sequence[int],
    generation: int,
    *,
    source_name: str | None = None,
) -> Query:
    """Per ``partition`` of raw offsets ``first[partition]`` ≤ offset < ``end[partition]``: ``rows``, judged records of
    every kind; ``accepted``, those that are no reversals (and of ``source_name``); ``hours``, those hours of arrival
    (ISO, UTC) to which a reversal among them goes back. Reads these offsets only."""
    params: dict[str, Parameter] = {"type": record_type, "generation": generation}
    of_source = ""
    if source_name is not None:
        of_source = " AND source = {source:String}"
        params["source"] = source_name
    ranges = " OR ".join(
        f"(src_partition = {number} AND src_offset >= {int(low)} AND src_offset < {int(high)})"
        for number, (low, high) in enumerate(zip(first, end, strict=True))
        if high > low
    )
    sql = f"""SELECT src_partition AS partition, count() AS rows, countIf(sign = 1{of_source}) AS accepted,
    groupUniqArrayIf(toStartOfHour(appended_at), sign = -1 AND verdict = 'STORED') AS hours
FROM {physical("judgement")} FINAL
WHERE generation = {{generation:UInt32}} AND type = {{type:String}} AND ({ranges or "0"})
GROUP BY partition ORDER BY partition"""
    return Query(sql, params)


def mutations(record_type: str) -> Query:
    """One row that changes when rows of the books' tables were deleted or updated by hand."""
    return Query(
        "SELECT toString(count()) || ' ' || toString(max(create_time)) AS mark FROM system.mutations "
        "WHERE database = currentDatabase() AND table IN {tables:Array(String)}",
        {"tables": [physical(FACTS[record_type]), physical("judgement")]},
    )


def _arrived(spans: Sequence[Arrived]) -> tuple[list[str], dict[str, Parameter]]:
    """A condition on ``appended_at``, none if a span has no bounds."""
    params: dict[str, Parameter] = {}
    either = []
    for number, (since, until) in enumerate(spans):
        bounds = []
        for name, sign, at in (("since", ">=", since), ("until", "<", until)):
            if at is not None:
                bounds.append(f"appended_at {sign} {{{name}_{number}:DateTime64(3, 'UTC')}}")
                params[f"{name}_{number}"] = at
        if not bounds:
            return [], {}
        either.append(" AND ".join(bounds))
    if not either:
        return ["0"], {}
    return [either[0] if len(either) == 1 else "(" + " OR ".join(f"({bounds})" for bounds in either) + ")"], params


def _side(side: str, condition: str) -> list[str]:
    return [
        f"sumIf(records, {condition}) AS {side}_records",
        f"sumIf(duration_ms, {condition}) AS {side}_duration_ms",
        f"sumIf(bytes, {condition}) AS {side}_bytes",
        f"sumMapIf(charge_micros, {condition}) AS {side}_charge_micros",
    ]


def _fact_sums(record_type: str) -> str:
    if record_type == "cdr":
        return (
            "count() AS records, sum(ifNull(duration_ms, 0)) AS duration_ms, "
            "sum(ifNull(bytes_up, 0) + ifNull(bytes_down, 0)) AS bytes, "
            "sumMap(map(toString(ifNull(currency, '')), ifNull(charge_micros, 0))) AS charge_micros"
        )
    return (
        "count() AS records, toInt64(0) AS duration_ms, toInt64(0) AS bytes, "
        "CAST(map('', 0), 'Map(String, Int64)') AS charge_micros"
    )


def _generation(record_type: str, generation: int | None) -> str:
    if generation is not None:
        return str(int(generation))
    return "(SELECT argMax(generations, version) FROM activation)[{type:String}]"
