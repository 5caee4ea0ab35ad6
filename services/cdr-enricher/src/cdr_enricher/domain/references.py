"""Reference data as the enricher needs it: who a subscriber was and where a cell stood at an event's time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from cdr_enricher.domain.as_of_join import NO_VERSION, Versions
from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import Ints, TextKey

CUSTOMER, CELL = "customer", "cell"
ENTITIES = (CUSTOMER, CELL)
"""What is joined. A judged record says nothing of regions and plans but their ids, so their versions are not held."""


@dataclass(frozen=True, slots=True)
class References:
    """All versions of customers (by identifier: the pseudonym of an MSISDN or IMSI) and cells."""

    customers: Versions = field(
        default_factory=lambda: Versions("identifier", ("customer_id", "plan_id", "segment", "region_id"))
    )
    cells: Versions = field(default_factory=lambda: Versions("cell_id", ("region_id", "technology", "vendor")))

    def add(self, entity: str, versions: pl.DataFrame, offsets: Ints) -> None:
        """Add versions read from ``ref.<entity>``."""
        self.of(entity).add(versions, offsets)

    def of(self, entity: str) -> Versions:
        return {CUSTOMER: self.customers, CELL: self.cells}[entity]


def cells_at(cells: Versions, cell: TextKey, event_ms: Ints) -> tuple[pl.DataFrame, Bools]:
    """``region_id``, ``technology``, ``vendor`` as of each event, and whether the cell is known."""
    version = cells.at(cell, event_ms)
    return cells.bodies(version), _known(cells, version)


def customers_at(
    customers: Versions, subscriber: TextKey, imsi: TextKey, event_ms: Ints
) -> tuple[pl.DataFrame, Bools]:
    """``customer_id``, ``plan_id``, ``segment``, ``customer_region_id`` as of each event, and whether it is known.

    A subscriber without a version at that time is looked for by IMSI; one that was deleted is not.
    """
    version = customers.at(subscriber, event_ms)
    where = np.flatnonzero((version == NO_VERSION) & (imsi[0] != 0))
    if len(where):
        version[where] = customers.at((imsi[0].take(where), imsi[1].take(where)), event_ms.take(where))
    return customers.bodies(version).rename({"region_id": "customer_region_id"}), _known(customers, version)


def _known(versions: Versions, version: Ints) -> Bools:
    known: Bools = (version != NO_VERSION) & ~versions.deleted(version)
    return known
