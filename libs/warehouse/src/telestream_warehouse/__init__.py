"""ClickHouse tables, migrations, generations and query builders."""

from telestream_warehouse.books import NO_BOOKS, Books, Sums, books_of, reconciliation
from telestream_warehouse.client import ClickHouse
from telestream_warehouse.dead_letters import Cursor, dead_letters
from telestream_warehouse.errors import MigrationError, WarehouseError, WarehouseRefused, WarehouseUnavailable
from telestream_warehouse.generations import activate, active_generations
from telestream_warehouse.migrations import check, migrate
from telestream_warehouse.positions import judged_positions, judged_rows, positions
from telestream_warehouse.query import Query
from telestream_warehouse.tables import FACTS, PUBLISHED_VIEWS, measures, physical, source
from telestream_warehouse.usage import usage_per_day
from telestream_warehouse.windows import window_kpis

__all__ = [
    "FACTS",
    "NO_BOOKS",
    "PUBLISHED_VIEWS",
    "Books",
    "ClickHouse",
    "Cursor",
    "MigrationError",
    "Query",
    "Sums",
    "WarehouseError",
    "WarehouseRefused",
    "WarehouseUnavailable",
    "activate",
    "active_generations",
    "books_of",
    "check",
    "dead_letters",
    "judged_positions",
    "judged_rows",
    "measures",
    "migrate",
    "physical",
    "positions",
    "reconciliation",
    "source",
    "usage_per_day",
    "window_kpis",
]
