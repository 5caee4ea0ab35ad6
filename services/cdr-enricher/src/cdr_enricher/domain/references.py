"""Reference data as the enricher needs it: who a subscriber was and where a cell stood at an event's time."""

from __future__ import annotations

import polars as pl

from cdr_enricher.domain.as_of_join import Combinations, Versions
from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import Ints, TextKey

CUSTOMER, CELL = "customer", "cell"
_OWN = ("customer_id",)
_CUSTOMER_BODY, _CELL_BODY = ("plan_id", "segment", "region_id"), ("region_id", "technology", "vendor")
HELD = {
    CUSTOMER: ("identifier", "valid_from", "deleted", *_OWN, *_CUSTOMER_BODY),
    CELL: ("cell_id", "valid_from", "deleted", *_CELL_BODY),
}
"""The fields held of what is joined. A judged record says nothing of regions and plans but their ids, so their versions
are not."""


class References:
    """All versions of cells, and of some partitions' customers (by identifier: the pseudonym of an MSISDN or IMSI).

    Customers lie as their calls do: what is known of a subscriber stands in the partition of its records, and is looked
    for nowhere else, so that the answer is the same whatever other partitions a worker has.
    """

    def __init__(self) -> None:
        self.cells = Versions("cell_id", _CELL_BODY)
        self._customers: dict[int, Versions] = {}
        # plans and regions are the same everywhere, and few
        self._bodies = Combinations(_CUSTOMER_BODY)

    def with_other_cells(self) -> References:
        """The same customers, whichever are held, beside cells of its own: none yet."""
        other = References()
        other._customers, other._bodies = self._customers, self._bodies
        return other

    def customers(self, partition: int) -> Versions:
        """The customers of a partition; from the first call on they are held."""
        if partition not in self._customers:
            self._customers[partition] = self.no_customers()
        return self._customers[partition]

    def no_customers(self) -> Versions:
        """None yet; what is added may be absorbed by those that are held."""
        return Versions("identifier", _CUSTOMER_BODY, _OWN, self._bodies)

    def drop_customers(self, partition: int) -> None:
        """Hold the customers of a partition no longer."""
        self._customers.pop(partition, None)

    def of(self, entity: str, partition: int = 0) -> Versions:
        """The versions that ``ref.<entity>`` adds to. A partition counts for customers alone."""
        return self.customers(partition) if entity == CUSTOMER else self.cells

    def add(self, entity: str, versions: pl.DataFrame, offsets: Ints, partition: int = 0) -> None:
        """Add versions read from ``ref.<entity>``."""
        self.of(entity, partition).add(versions, offsets)

    def count(self, entity: str) -> int:
        """Versions held of all partitions."""
        return sum(versions.count for versions in self._all(entity))

    def nbytes(self, entity: str) -> int:
        """Memory of these versions."""
        return sum(versions.nbytes for versions in self._all(entity))

    def _all(self, entity: str) -> list[Versions]:
        return list(self._customers.values()) if entity == CUSTOMER else [self.cells]


def cells_at(cells: Versions, cell: TextKey, event_ms: Ints) -> tuple[pl.DataFrame, Bools]:
    """``region_id``, ``technology``, ``vendor`` as of each event, and whether the cell is known."""
    return cells.as_of(cell, event_ms)


def customers_at(customers: Versions, subscriber: TextKey, event_ms: Ints) -> tuple[pl.DataFrame, Bools]:
    """``customer_id``, ``plan_id``, ``segment``, ``customer_region_id`` as of each event, and whether it is known."""
    body, known = customers.as_of(subscriber, event_ms)
    return body.rename({"region_id": "customer_region_id"}), known
