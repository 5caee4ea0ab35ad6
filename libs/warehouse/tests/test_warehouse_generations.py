"""Several generations in the tables, merges stopped: every view answers as if there were only the one it shows."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telestream_devstack import Parts
from telestream_domain import TYPES
from telestream_warehouse import (
    BY_GENERATION,
    FACTS,
    PUBLISHED_VIEWS,
    ClickHouse,
    Query,
    Span,
    activate,
    activations,
    active_generations,
    known_generations,
    migrate,
    physical,
    previous,
    source,
    spans,
)

DAY = datetime(2026, 3, 1, tzinfo=UTC)
SUBSCRIBERS = [f"s{number}" for number in range(6)]
CHOICES: Mapping[str, list[Any]] = {
    "size_s": [60, 900, 900, 3600, 86400],
    "subscriber_id": SUBSCRIBERS,
    "cell_id": ["208-01-1", "208-01-2"],
    "region_id": ["R1", "R2"],
    "plan_id": ["P1", "P2"],
    "record_type": ["VOICE", "SMS", "DATA"],
    "verdict": ["STORED", "DUPLICATE", "REJECTED"],
    "status": ["COMPLETED", "DROPPED", "FAILED"],
    "currency": ["EUR", "USD"],
    "sign": [1, 1, -1],
    "withdrawn": [0, 0, 0, 1],
    "event_uid": [f"uid-{number}" for number in range(9)],
    "booked_offset": list(range(8)),
    "src_partition": [0, 1],
    "partition": [0, 1],
    "segment": [0, 1],
}
PAIRED = {
    "charge_micros": ("charge_currencies", ["EUR", "USD"]),
    "warning_counts": ("warning_codes", ["late", "odd"]),
    "subscriber_ranks": ("subscriber_registers", [3, 9]),
}

pytestmark = pytest.mark.stack


@pytest.fixture
def alone(parts: Parts) -> Iterator[ClickHouse]:
    """A second database, in which there is only ever one generation of a type."""
    name = f"t{uuid.uuid4().hex[:12]}"
    migrate(parts.clickhouse, name)
    client = ClickHouse(parts.clickhouse, name)
    for view in BY_GENERATION:
        client.command(f"SYSTEM STOP MERGES {name}.{physical(view)}")
    yield client
    client.command(f"DROP DATABASE {name} SYNC", in_database=False)
    client.close()


def columns_of(warehouse: ClickHouse, table: str) -> dict[str, str]:
    """Those that are written, with their types."""
    rows = warehouse.rows(
        Query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
            "AND default_kind != 'MATERIALIZED'",
            {"table": table},
        )
    )
    return {row["name"]: row["type"] for row in rows}


def value_of(name: str, kind: str, chance: random.Random) -> Any:
    """Something that the column holds."""
    if name in CHOICES:
        return chance.choice(CHOICES[name])
    if kind.startswith(("Nullable(", "LowCardinality(")):
        inner = kind.split("(", 1)[1][:-1]
        return None if kind.startswith("Nullable(") and chance.random() < 0.2 else value_of(name, inner, chance)
    if kind.startswith("DateTime64"):
        return f"{DAY + timedelta(minutes=15 * chance.randrange(300)):%Y-%m-%d %H:%M:%S}"
    if kind.startswith("Date"):
        return (DAY + timedelta(days=chance.randrange(3))).date().isoformat()
    if kind.startswith("Array"):
        return [chance.randrange(9) for _ in range(3)] if "Int" in kind else []
    if kind.startswith("Map"):
        return {}
    if kind == "Bool":
        return chance.random() < 0.5
    if kind == "String":
        return f"t{chance.randrange(4)}"
    return chance.randrange(200 if kind in ("UInt8", "Int8") else 1_000_000)


def random_rows(columns: Mapping[str, str], record_type: str, generation: int, count: int) -> list[dict[str, Any]]:
    """Rows of one generation; another one's hold other content at the same keys and at others."""
    chance = random.Random(f"{sorted(columns)}{record_type}{generation}")
    rows = []
    for _ in range(count):
        row = {name: value_of(name, kind, chance) for name, kind in columns.items()}
        row |= {"generation": generation} | ({"type": record_type} if "type" in columns else {})
        for sums, (codes, names) in PAIRED.items():
            if codes in row:
                row[codes] = names[: chance.randrange(3)]
                row[sums] = [chance.randrange(1, 20) for _ in row[codes]]
        rows.append(row)
    return rows


def write(warehouse: ClickHouse, table: str, rows: list[dict[str, Any]]) -> None:
    """In several parts."""
    for first in range(0, len(rows), 20):
        lines = "\n".join(map(json.dumps, rows[first : first + 20]))
        settings = "SETTINGS max_partitions_per_insert_block = 0, date_time_input_format = 'basic'"
        warehouse.command(f"INSERT INTO {table} {settings} FORMAT JSONEachRow\n{lines}")


def everything(warehouse: ClickHouse, generations: Mapping[str, list[int]], count: int = 60) -> None:
    """Rows of every table, of these generations of each type."""
    for view in BY_GENERATION:
        columns = columns_of(warehouse, physical(view))
        for record_type, numbers in generations.items():
            if view in FACTS.values() and FACTS[record_type] != view:
                continue
            for generation in numbers:
                write(warehouse, physical(view), random_rows(columns, record_type, generation, count))


def references(warehouse: ClickHouse) -> None:
    chance = random.Random("references")
    for table in ("reference_customer", "reference_cell", "reference_region", "reference_plan"):
        columns = columns_of(warehouse, table)
        rows = [{name: value_of(name, kind, chance) for name, kind in columns.items()} for _ in range(12)]
        for number, row in enumerate(rows):
            row["deleted"] = False
            if table == "reference_customer":
                row |= {"identifier": SUBSCRIBERS[number % 6], "customer_id": f"C{number % 5}"}
        write(warehouse, table, rows)


def answers(warehouse: ClickHouse) -> dict[str, list[str]]:
    views = [view for view in PUBLISHED_VIEWS if view != "dim_time"]
    return {view: sorted(map(repr, warehouse.rows(Query(f"SELECT * FROM {view}")))) for view in views}


def test_with_two_full_generations_every_view_answers_as_with_the_active_one_alone(
    warehouse: ClickHouse, alone: ClickHouse
) -> None:
    everything(warehouse, {"cdr": [1, 2], "network": [1, 2]})
    references(warehouse)
    references(alone)
    seen: dict[str, set[str]] = {view: set() for view in BY_GENERATION}
    for active in ({"cdr": 1, "network": 1}, {"cdr": 2, "network": 1}, {"cdr": 2, "network": 2}):
        for view in BY_GENERATION:
            alone.command(f"TRUNCATE TABLE {physical(view)}")
        everything(alone, {record_type: [generation] for record_type, generation in active.items()})
        for client in (warehouse, alone):
            client.command(activate(active, "trial"))
        found, expected = answers(warehouse), answers(alone)
        assert {view for view in expected if not expected[view]} == set()
        assert [view for view in expected if found[view] != expected[view]] == []
        for view in BY_GENERATION:
            seen[view].add(str(expected[view]))
            named = warehouse.rows(Query(f"SELECT count() AS rows FROM {source(view, active)}"))
            one_by_one = [
                warehouse.rows(Query(f"SELECT count() AS rows FROM {source(view, number)}{only}"))[0]["rows"]
                for record_type, number in active.items()
                if (only := of_type(view, record_type)) is not None
            ]
            assert named[0]["rows"] == sum(one_by_one), view
    # else it would have been no trial
    assert {view for view, states in seen.items() if len(states) < 2} == set()


def of_type(view: str, record_type: str) -> str | None:
    """The condition for one type; None: nothing of it is there."""
    if view in FACTS.values():
        return "" if FACTS[record_type] == view else None
    return f" WHERE type = '{record_type}'"


_MARKS = {
    "fact_cdr": "sum(cityHash64(event_uid, src_offset, appended_at))",
    "fact_network_event": "sum(cityHash64(event_uid, src_offset, appended_at))",
    "judgement": "sum(cityHash64(type, src_offset, batch_id))",
    "duplicate": "sum(cityHash64(type, src_offset, batch_id))",
    "dead_letter": "sum(cityHash64(type, src_offset, batch_id))",
    "active_generation": "sum(cityHash64(type, generation))",
}


def mark(view: str) -> str:
    """One number that tells every state of a view from the others."""
    records = "sum(call_attempts_num + late_records)" if view.startswith("kpi_") else "sum(records)"
    return f"(SELECT toString({_MARKS.get(view, records)}) AS m FROM {view})"


_VIEWS = [*BY_GENERATION, "fact_customer_usage_daily", "fact_cell_kpi", "kpi_cell", "kpi_region", "kpi_plan"]
STATEMENTS = {
    "joined": "SELECT concat_ws('|', {marks}) AS m FROM "
    + " CROSS JOIN ".join(f"{mark(view)} AS v{number}" for number, view in enumerate([*_VIEWS, "active_generation"])),
    "one after another": "SELECT arrayStringConcat(arraySort(groupArray(concat(n, m))), '|') AS m FROM ("
    + " UNION ALL ".join(
        f"SELECT '{number:02d} ' AS n, m FROM {mark(view)}"
        for number, view in enumerate([*_VIEWS, "active_generation"])
    )
    + ")",
    "as values": "SELECT concat_ws('|', " + ", ".join(mark(view) for view in [*_VIEWS, "active_generation"]) + ") AS m",
}


def statement(name: str) -> str:
    marks = ", ".join(f"v{number}.m" for number in range(len(_VIEWS) + 1))
    return (
        STATEMENTS[name]
        .replace("concat_ws('|', {marks})", f"arrayStringConcat([{marks}], '|')")
        .replace("concat_ws('|', ", "concatWithSeparator('|', ")
    )


def test_no_statement_sees_two_activations_even_if_every_look_at_the_row_gave_another(warehouse: ClickHouse) -> None:
    everything(warehouse, {"cdr": [1, 2], "network": [1, 2]}, count=20)
    references(warehouse)
    allowed: dict[str, set[str]] = {name: set() for name in STATEMENTS}
    for active in ({"cdr": c, "network": n} for c in (1, 2) for n in (1, 2)):
        warehouse.command(activate(active, "trial"))
        for name in STATEMENTS:
            allowed[name].add(warehouse.rows(Query(statement(name)))[0]["m"])
    assert [len(found) for found in allowed.values()] == [4] * len(STATEMENTS)
    # from here on a look at the row is as if there had been an activation before each
    warehouse.command("RENAME TABLE activation TO activation_of_before")
    warehouse.command(
        "CREATE VIEW activation AS SELECT toUInt64(1) AS version, map('cdr', toUInt32(1 + rand(1) % 2), "
        "'network', toUInt32(1 + rand(2) % 2)) AS generations"
    )
    for name, states in allowed.items():
        seen = [warehouse.rows(Query(statement(name)))[0]["m"] for _ in range(8)]
        assert set(seen) - states == set(), name
        assert len(set(seen)) > 1, name
    # the trial can tell: a view that asks for the row in other words looks at it a second time
    definition = warehouse.rows(
        Query(
            "SELECT create_table_query AS sql FROM system.tables WHERE name = 'agg_cell' "
            "AND database = currentDatabase()"
        )
    )[0]["sql"]
    other = definition.replace("CREATE VIEW", "CREATE OR REPLACE VIEW").replace(
        "argMax(generations, version)", "argMax(generations, version + 1)"
    )
    assert other.count("version + 1") >= 1
    warehouse.command(other)
    mixed = [warehouse.rows(Query(statement("joined")))[0]["m"] for _ in range(8)]
    assert set(mixed) - allowed["joined"]


def test_who_saw_what_when_is_read_from_the_activations(warehouse: ClickHouse) -> None:
    assert warehouse.rows(active_generations()) == [
        {"type": record_type, "generation": 1} for record_type in sorted(TYPES)
    ]
    warehouse.command(activate({"cdr": 2}, "rules of March"))
    between = warehouse.rows(Query("SELECT now64(3, 'UTC') AS at"))[0]["at"]
    warehouse.command("SELECT sleep(0.01)")
    warehouse.command(activate({"cdr": 2}, "said twice"))
    warehouse.command(activate({"cdr": 1}, "back"))
    found = spans(warehouse.rows(activations()))
    assert [(span.type, span.generation, span.until is None) for span in found] == [
        ("cdr", 1, False),
        ("cdr", 2, False),
        ("cdr", 1, True),
        ("network", 1, True),
    ]
    assert [one.until for one in found[:2]] == [one.since for one in found[1:3]]
    assert (previous(found, "cdr"), previous(found, "network")) == (2, None)
    told = warehouse.rows(known_generations(datetime.fromisoformat(between)))
    assert {row["type"]: row["generation"] for row in told if row["what"] == "then"} == {"cdr": 2, "network": 1}
    assert {row["type"]: row["generation"] for row in told if row["what"] == "active"} == {"cdr": 1, "network": 1}
    before = warehouse.rows(known_generations(DAY - timedelta(days=9_000)))
    assert {row["what"] for row in before} == {"active"}


def test_spans_are_by_type_and_activations_of_the_same_generation_are_one() -> None:
    rows = [
        {"activated_at": f"2026-03-0{day}T00:00:00.000Z", "generations": generations}
        for day, generations in enumerate(({"cdr": 1}, {"cdr": 1, "network": 1}, {"cdr": 3, "network": 1}), start=1)
    ]
    day = [DAY + timedelta(days=number) for number in range(3)]
    assert spans(rows) == [
        Span("cdr", 1, day[0], day[2]),
        Span("cdr", 3, day[2], None),
        Span("network", 1, day[1], None),
    ]
