"""Names of what migrations make: ``<view>`` is published, ``<view>_all`` the table with every generation behind it."""

from __future__ import annotations

from collections.abc import Mapping

from telestream_contracts import load_schema
from telestream_domain import FAMILIES, TYPES

FACTS: dict[str, str] = {"cdr": "fact_cdr", "network": "fact_network_event"}
"""Record type → its fact view."""

BY_GENERATION: tuple[str, ...] = (
    *FACTS.values(),
    "judgement",
    "duplicate",
    "dead_letter",
    *(f"agg_{family}" for family in FAMILIES),
)
PUBLISHED_VIEWS: tuple[str, ...] = (
    *BY_GENERATION,
    "fact_customer_usage_daily",
    "fact_cell_kpi",
    "kpi_cell",
    "kpi_region",
    "kpi_plan",
    "dim_customer",
    "dim_customer_current",
    "dim_cell",
    "dim_cell_version",
    "dim_region",
    "dim_region_version",
    "dim_service_plan",
    "dim_service_plan_version",
    "dim_time",
    "active_generation",
)
"""What people may name in their own SQL."""


_MAPS = {"charge_currencies": "charge_micros", "warning_codes": "warning_counts"}
"""Two arrays in a table, one map in its view."""


def physical(view: str) -> str:
    """The table behind a view of ``BY_GENERATION``."""
    return f"{view}_all"


Generations = int | Mapping[str, int] | None
"""One for all types, or by type; None: what people see now, by the published views."""


def source(view: str, generation: Generations) -> str:
    """What to read ``view`` from in a FROM clause: the published view, or the same columns of named generations.

    An ``agg_*`` source may have several rows for a window (one for each partition and segment): sum them.
    """
    if view not in BY_GENERATION:
        raise KeyError(f"{view} does not depend on a generation")
    if generation is None:
        return view
    fields = _fields(view) if view.startswith("agg_") else []
    maps = {codes: sums for codes, sums in _MAPS.items() if codes in fields}
    columns = "*"
    if maps:
        columns = f"* EXCEPT ({', '.join(name for pair in maps.items() for name in pair)})"
        columns += "".join(f", mapFromArrays({codes}, {sums}) AS {sums}" for codes, sums in maps.items())
    return f"(SELECT {columns} FROM {physical(view)} FINAL WHERE {_of(view, generation)})"


def _of(view: str, generation: int | Mapping[str, int]) -> str:
    """The condition that chooses generations; by key, so that others are not read."""
    if isinstance(generation, int):
        return f"generation = {int(generation)}"
    for record_type, fact in FACTS.items():
        if view == fact:
            return f"generation = {int(generation[record_type])}"
    numbers = sorted({int(number) for number in generation.values()})
    if len(numbers) == 1:
        return f"generation = {numbers[0]}"
    pairs = ", ".join(f"('{TYPES[name].name}', {int(number)})" for name, number in sorted(generation.items()))
    return f"generation IN ({', '.join(map(str, numbers))}) AND (type, generation) IN ({pairs})"


def _fields(view: str) -> list[str]:
    return [field["name"] for field in load_schema(view)["fields"]]


_NOT_SUMS = {"type", "size_s", "partition", "segment", "src_to", "marker_offset", "charge_micros"}


def measures(family: str) -> list[str]:
    """The additive whole-number measures of a family of aggregates, in the schema's order, charge left out."""
    return [
        field["name"]
        for field in load_schema(f"agg_{family}")["fields"]
        if field["type"] == "long" and field["name"] not in _NOT_SUMS
    ]
