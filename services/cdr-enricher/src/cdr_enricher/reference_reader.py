"""Follows ``ref.*``: cells whole, customers of the partitions a worker has."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import polars as pl

from cdr_enricher import metrics
from cdr_enricher.domain.references import CELL, CUSTOMER, HELD, References
from cdr_enricher.errors import JudgementBroken
from faust_batch import Batch, Source, TopicTail
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
_GIVE_BACK_EVERY = 16  # batches: sorting millions of versions leaves twice their size behind


class ReferenceReader:
    """Keeps ``references`` up with ``ref.*``."""

    def __init__(self, bootstrap: str, topics: Topics, registry: Registry) -> None:
        self._bootstrap, self._registry = bootstrap, registry
        self._entities = {topics.ref(entity): entity for entity in (CUSTOMER, CELL)}
        self._customers = topics.ref(CUSTOMER)
        self._cells = topics.ref(CELL)
        self._tail: TopicTail | None = None
        self._prefixes: dict[tuple[str, int], Schema] = {}
        self.references = References()
        self.positions: dict[str, int] = {}

    def catch_up(self) -> None:
        """Read all versions up to the ends seen at the call.

        Raises BatchError where Kafka does not answer, JudgementBroken on a version that cannot be read.
        """
        for number, batch in enumerate(self._followed().catching_up(), 1):
            self._add(batch)
            if number % _GIVE_BACK_EVERY == 0:
                give_back_memory()

    def hold_customers(self, partition: int) -> None:
        """Hold the customers of a partition too, and catch up."""
        self._followed().add([Source(self._customers, partition)])
        self.catch_up()
        self.references.customers(partition).settle()
        self._measure(CUSTOMER)

    def drop_customers(self, partition: int) -> None:
        """Hold the customers of a partition no longer."""
        self._followed().drop([Source(self._customers, partition)])
        self.references.drop_customers(partition)
        self.positions.pop(f"{self._customers}/{partition}", None)
        self._measure(CUSTOMER)

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()

    def _followed(self) -> TopicTail:
        if self._tail is None:
            self._tail = TopicTail(self._bootstrap, [self._cells], client_options=_QUIET)
        return self._tail

    def _add(self, batch: Batch) -> None:
        entity = self._entities[batch.source.topic]
        start = 0
        # nearly always one: schemas change a few times in a log's life
        for _, same in groupby(batch.values, lambda value: value and _FRAME_OF(value)):
            values = list(same)
            stop = start + len(values)
            self.references.add(
                entity, self._decoded(batch, entity, start, values), batch.offsets[start:stop], batch.source.partition
            )
            start = stop
        self.positions[f"{batch.source.topic}/{batch.source.partition}"] = batch.next_offset
        self._measure(entity)

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
