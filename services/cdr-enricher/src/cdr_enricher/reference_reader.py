"""Follows ``ref.*``: cells whole, customers of the partitions a worker has."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

import polars as pl

from cdr_enricher import metrics
from cdr_enricher.domain.as_of_join import Versions
from cdr_enricher.domain.references import CELL, CUSTOMER, HELD, References
from cdr_enricher.errors import JudgementBroken
from cdr_enricher.pin import Pin
from faust_batch import Batch, Source, TopicTail, read_partition
from telestream_contracts import (
    FRAME_BYTES,
    DecodeError,
    Registry,
    Schema,
    decode_payloads,
    prefix_schema,
    schema_id_of,
)
from telestream_domain import Topics
from telestream_runtime.lean import give_back_memory

_FRAME_OF = itemgetter(slice(0, FRAME_BYTES))
_QUIET = {"log_level": "4"}
_BATCH_BYTES = 2 << 20  # of millions of versions at the start: larger ones take more memory, and not less time
_GIVE_BACK_EVERY = 4  # batches: sorting millions of versions leaves twice their size behind


class ReferenceReader:
    """Keeps ``references`` up with ``ref.*``; but the customers of a partition that is pinned as they were then.

    What came since is held apart, so that the partition can be unpinned inside a transaction. Cells are everybody's:
    those that are pinned are held beside the others, for as long as anybody needs them.
    """

    def __init__(self, bootstrap: str, topics: Topics, registry: Registry, pin: Pin | None = None) -> None:
        self._bootstrap, self._registry = bootstrap, registry
        self._pin = pin or Pin()
        self._entities = {topics.ref(entity): entity for entity in (CUSTOMER, CELL)}
        self._customers = topics.ref(CUSTOMER)
        self._cells = topics.ref(CELL)
        self._tail: TopicTail | None = None
        self._prefixes: dict[tuple[str, int], Schema] = {}
        self.references = References()
        self._pinned: References | None = None
        self._later: dict[int, Versions] = {}  # of customers, by partition that is pinned
        self._positions: dict[str, int] = {}

    def catch_up(self) -> None:
        """Read all versions up to the ends seen at the call.

        Raises BatchError where Kafka does not answer, JudgementBroken on a version that cannot be read.
        """
        self._read(self._followed().catching_up(), self.references)

    def hold_customers(self, partition: int, *, pinned: bool = False) -> None:
        """Hold the customers of a partition too, and catch up: with all of them, or with those that are pinned."""
        source = Source(self._customers, partition)
        if pinned:
            self._read_pinned(source, self.references)
            self._later[partition] = self.references.no_customers()
        since = self._pin.reference_end(source.topic, partition) if pinned else None
        self._followed().add([source], since)
        self.catch_up()
        self.references.customers(partition).settle()
        self._measure(CUSTOMER)

    def unpin_customers(self, partition: int) -> None:
        """From now on a partition's customers are all there are, as of the last ``catch_up``."""
        self.references.customers(partition).absorb(self._later.pop(partition))
        self._measure(CUSTOMER)

    def pinned(self) -> References:
        """The customers that are held, and the cells that are pinned."""
        if self._pinned is None:
            self._pinned = self.references.with_other_cells()
            self._read_pinned(Source(self._cells, 0), self._pinned)
        return self._pinned

    def drop_pinned(self) -> None:
        """Hold pinned cells no longer."""
        self._pinned = None

    def positions(self, *, pinned: bool) -> dict[str, int]:
        """How far each partition of ``ref.*`` is known to records that are pinned, or to others."""
        if not pinned:
            return dict(self._positions)
        found = {}
        for place, position in self._positions.items():
            topic, _, partition = place.rpartition("/")
            found[place] = min(position, self._pin.reference_end(topic, int(partition)))
        return found

    def drop_customers(self, partition: int) -> None:
        """Hold the customers of a partition no longer."""
        self._followed().drop([Source(self._customers, partition)])
        self.references.drop_customers(partition)
        self._later.pop(partition, None)
        self._positions.pop(f"{self._customers}/{partition}", None)
        self._measure(CUSTOMER)

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()

    def _followed(self) -> TopicTail:
        if self._tail is None:
            self._tail = TopicTail(self._bootstrap, [self._cells], max_bytes=_BATCH_BYTES, client_options=_QUIET)
        return self._tail

    def _read_pinned(self, source: Source, into: References) -> None:
        end = self._pin.reference_end(source.topic, source.partition)
        if end:
            pinned = read_partition(self._bootstrap, source, None, end, max_bytes=_BATCH_BYTES, client_options=_QUIET)
            self._read(pinned, into)

    def _read(self, batches: Iterable[Batch], into: References) -> None:
        for number, batch in enumerate(batches, 1):
            self._add(batch, into)
            if number % _GIVE_BACK_EVERY == 0:
                give_back_memory()

    def _add(self, batch: Batch, into: References) -> None:
        entity = self._entities[batch.source.topic]
        versions = self._of(batch, into)
        start = 0
        # nearly always one: schemas change a few times in a log's life
        for _, same in groupby(batch.values, lambda value: value and _FRAME_OF(value)):
            values = list(same)
            stop = start + len(values)
            versions.add(self._decoded(batch, entity, start, values), batch.offsets[start:stop])
            start = stop
        if into is self.references:
            self._positions[f"{batch.source.topic}/{batch.source.partition}"] = batch.next_offset
        self._measure(entity)

    def _of(self, batch: Batch, into: References) -> Versions:
        """What the batch's versions are added to."""
        entity, partition = self._entities[batch.source.topic], batch.source.partition
        if entity == CUSTOMER and partition in self._later:
            return self._later[partition]
        return into.of(entity, partition)

    def _decoded(self, batch: Batch, entity: str, start: int, values: list[bytes | None]) -> pl.DataFrame:
        """The columns that are held, of values that begin alike."""
        at = start
        try:
            schema = self._prefix(entity, schema_id_of(values[0]))
            payloads = [(value or b"")[FRAME_BYTES:] for value in values]
            try:
                return decode_payloads(payloads, schema)
            except DecodeError:
                for payload in payloads:
                    decode_payloads([payload], schema)
                    at += 1
                raise
        except DecodeError as err:
            raise JudgementBroken(
                f"{batch.source}@{int(batch.offsets[at])}: reference data that cannot be read ({err}); it was not "
                "written by the gateway"
            ) from err

    def _prefix(self, entity: str, schema_id: int | None) -> Schema:
        """The schema of an id, cut after the last field that is held: the rest is not read."""
        if schema_id is None:
            raise DecodeError("a null, or not in the wire format")
        if (entity, schema_id) not in self._prefixes:
            schema = self._registry.schema(schema_id)
            if schema is None:
                raise DecodeError(f"schema id {schema_id} is not registered")
            names = [field["name"] for field in schema["fields"]]
            wanted = HELD[entity]
            if missing := [name for name in wanted if name not in names]:
                raise DecodeError(f"not a {entity}, {missing[0]} is missing")
            self._prefixes[entity, schema_id] = prefix_schema(schema, max(wanted, key=names.index))
        return self._prefixes[entity, schema_id]

    def _measure(self, entity: str) -> None:
        metrics.REFERENCE_VERSIONS.labels(entity=entity).set(self.references.count(entity))
        metrics.REFERENCE_BYTES.labels(entity=entity).set(self.references.nbytes(entity))
