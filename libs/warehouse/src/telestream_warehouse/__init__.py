"""ClickHouse tables, migrations, generations and query builders."""

from telestream_warehouse.amendments import AMENDED_FAMILIES, amendments
from telestream_warehouse.availability import cell_availability
from telestream_warehouse.books import (
    NO_BOOKS,
    Arrived,
    Books,
    Sums,
    books_of,
    judged_between,
    mutations,
    reconciliation,
)
from telestream_warehouse.client import ClickHouse
from telestream_warehouse.completeness import missing_numbers, node_numbers, numbers_by_step
from telestream_warehouse.contributions import contributing
from telestream_warehouse.dead_letters import Cursor, dead_letters
from telestream_warehouse.errors import MigrationError, WarehouseError, WarehouseRefused, WarehouseUnavailable
from telestream_warehouse.generation_rows import (
    costs,
    derived_positions,
    drop_partitions,
    drop_positions,
    first_judged,
    held_partitions,
    held_positions,
    verdicts_between,
)
from telestream_warehouse.generations import (
    Span,
    activate,
    activations,
    active_generations,
    known_generations,
    previous,
    spans,
)
from telestream_warehouse.migrations import check, migrate
from telestream_warehouse.positions import judged_positions, judged_rows, positions
from telestream_warehouse.quality import freshness, judged_by_step, rejected_samples, source_hours, step_of
from telestream_warehouse.query import Query
from telestream_warehouse.tables import BY_GENERATION, FACTS, PUBLISHED_VIEWS, Generations, measures, physical, source
from telestream_warehouse.trace import (
    booked_at,
    reference_in_force,
    traced_dead_letters,
    traced_duplicates,
    traced_facts,
    windows_at,
)
from telestream_warehouse.usage import Holder, holdings, plan_terms, usage, usage_per_day, usage_records
from telestream_warehouse.windows import busy_hours, distinct_subscribers, window_kpis

__all__ = [
    "AMENDED_FAMILIES",
    "BY_GENERATION",
    "FACTS",
    "NO_BOOKS",
    "PUBLISHED_VIEWS",
    "Arrived",
    "Books",
    "ClickHouse",
    "Cursor",
    "Generations",
    "Holder",
    "MigrationError",
    "Query",
    "Span",
    "Sums",
    "WarehouseError",
    "WarehouseRefused",
    "WarehouseUnavailable",
    "activate",
    "activations",
    "active_generations",
    "amendments",
    "booked_at",
    "books_of",
    "busy_hours",
    "cell_availability",
    "check",
    "contributing",
    "costs",
    "dead_letters",
    "derived_positions",
    "distinct_subscribers",
    "drop_partitions",
    "drop_positions",
    "first_judged",
    "freshness",
    "held_partitions",
    "held_positions",
    "holdings",
    "judged_between",
    "judged_by_step",
    "judged_positions",
    "judged_rows",
    "known_generations",
    "measures",
    "migrate",
    "missing_numbers",
    "mutations",
    "node_numbers",
    "numbers_by_step",
    "physical",
    "plan_terms",
    "positions",
    "previous",
    "reconciliation",
    "reference_in_force",
    "rejected_samples",
    "source",
    "source_hours",
    "spans",
    "step_of",
    "traced_dead_letters",
    "traced_duplicates",
    "traced_facts",
    "usage",
    "usage_per_day",
    "usage_records",
    "verdicts_between",
    "window_kpis",
    "windows_at",
]
