"""Take in, write, remember how far. Everything here runs on one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from telestream_contracts import Registry
from telestream_runtime import get_logger
from telestream_warehouse import ClickHouse, Query, WarehouseRefused
from warehouse_sink import metrics
from warehouse_sink.buffer import Buffer, Pending
from warehouse_sink.decoding import decode_columns, decode_dead_letters
from warehouse_sink.domain.places import Place, Source, check_dense
from warehouse_sink.domain.policy import FlushPolicy
from warehouse_sink.domain.routes import Route
from warehouse_sink.domain.rows import (
    POSITION,
    Rows,
    aggregate_rows,
    dead_letter_rows,
    judged_rows,
    merged,
    reference_rows,
)
from warehouse_sink.errors import BlockRefused, GapFound
from warehouse_sink.feed import Feed, wait_with
from warehouse_sink.health import Health
from warehouse_sink.patience import Abandoned, Patience

log = get_logger(__name__)

CHUNK = 10_000  # records of one poll: bounds how late an age or a stop is noticed under load
POLL_S = 0.2
REPORT_S = 1.0


class Sink:
    """The order is what makes it idempotent: all rows of a batch, then the positions that speak for them."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        generation: int,
        clickhouse: ClickHouse,
        registry: Registry,
        policy: FlushPolicy,
        patience: Patience,
        health: Health,
        stop: threading.Event,
    ) -> None:
        self._routes, self._generation = routes, generation
        self._clickhouse, self._registry = clickhouse, registry
        self._policy, self._patience, self._health, self._stop = policy, patience, health, stop
        self._buffer = Buffer(routes)
        self._places: dict[Source, Place] = {}
        self._ends: dict[Source, int] = {}
        self._reported_at = 0.0

    def run(self, feed: Feed) -> None:
        """Until ``stop``; then what was taken in is written, if ClickHouse is there."""
        try:
            while not self._stop.is_set():
                self._take_in(feed)
                if self._policy.due(self._buffer.rows, self._buffer.nbytes, self._buffer.age_s(time.monotonic())):
                    self._flush(feed)
                self._report(feed)
            self._flush(feed)
        except Abandoned as err:
            log.warning("stopped with records not written; Kafka holds them", at=str(err))

    # -- Owner of the feed's partitions

    def saved_places(self, topics: Sequence[str]) -> Mapping[Source, Place]:
        """What ClickHouse says of these topics; waits for it."""
        query = Query(
            "SELECT topic, partition, topic_id, next_offset, src_next FROM sink_position FINAL "
            "WHERE topic IN {topics:Array(String)} ORDER BY written_at",
            {"topics": list(topics)},
        )
        wait = wait_with(self._stop)
        rows = self._patience.until_done("reading positions", lambda: self._clickhouse.rows(query), wait)
        return {
            Source(row["topic"], row["partition"]): Place(row["topic_id"], row["next_offset"], row["src_next"])
            for row in rows
        }

    def assigned(self, places: Mapping[Source, Place]) -> None:
        self._places.update(places)

    def revoked(self, sources: Sequence[Source]) -> None:
        self._buffer.drop(sources)
        for source in sources:
            self._places.pop(source, None)
            self._ends.pop(source, None)

    # -- The loop's parts

    def _take_in(self, feed: Feed) -> None:
        wanted = max(1, min(CHUNK, self._policy.max_rows - self._buffer.rows))
        left_s = self._policy.max_age_s - self._buffer.age_s(time.monotonic())
        runs, ends = feed.poll(wanted, max(0.0, min(POLL_S, left_s)))
        now = time.monotonic()
        for source, messages in runs:
            self._buffer.add(source, messages, now)
            metrics.RECORDS.labels(topic=source.topic).inc(len(messages))
        self._health.beat()
        waiting = self._buffer.sources
        self._ends.update(ends)
        for source, end in self._ends.items():
            # behind the last record lie only control records: they are not lag
            place = self._places.get(source)
            if place is not None and source not in waiting and place.next_offset < end:
                self._places[source] = Place(place.topic_id, end, place.src_next)

    def _flush(self, feed: Feed) -> None:
        taken = self._buffer.take()
        if not taken:
            return
        started_at = time.monotonic()
        # partitions may come and go while we wait for ClickHouse: this batch is judged by where it began
        before = {source: self._places[source] for source in taken}
        parts: list[Rows] = []
        after: dict[Source, Place] = {}
        repeats = 0
        for source in list(taken):
            pending = taken.pop(source)
            decoding = partial(self._rows_of, source, before[source], pending)
            rows, after[source], again = self._patience.until_done(f"decoding {source}", decoding, feed.idle)
            parts.append(rows)
            repeats += again
            del pending, decoding, rows  # a batch is the largest thing in memory: let go of it once it is columns
        if repeats:
            metrics.REPEATS.inc(repeats)
            log.warning("judged records came again; written again, which changes nothing", records=repeats)
        blocks = merged(parts)
        parts.clear()
        for table in list(blocks):
            self._insert(feed, table, blocks.pop(table), after)
        self._insert(feed, POSITION, self._positions(after), after)
        kept = {source: place for source, place in after.items() if self._places.get(source) is before[source]}
        self._places.update(kept)
        feed.commit(kept)
        metrics.LAST_WRITE.set_to_current_time()
        log.debug("written", partitions=len(after), seconds=round(time.monotonic() - started_at, 3))

    def _rows_of(self, source: Source, place: Place, pending: Pending) -> tuple[Rows, Place, int]:
        """The rows of one partition, where it then stands, and how many records came again."""
        route, generation = pending.route, self._generation
        src_next, repeats = place.src_next, 0
        rows: Rows
        if route.kind == "rejected":
            letters = decode_dead_letters(source, pending, self._registry.schema)
            rows = dead_letter_rows(generation, letters, [field["name"] for field in route.schema["fields"]])
        else:
            columns = decode_columns(source, pending, self._registry.schema)
            if route.kind == "enriched":
                src_next, repeats = _checked(source, columns, src_next)
                rows = judged_rows(route.subject, generation, columns)
            elif route.kind == "agg":
                rows = aggregate_rows(route.subject, generation, columns)
            else:
                rows = reference_rows(route.subject, source.partition, pending.offsets, columns)
        return rows, Place(place.topic_id, pending.next_offset, src_next), repeats

    def _insert(self, feed: Feed, table: str, rows: pa.Table, after: Mapping[Source, Place]) -> None:
        def insert() -> None:
            with metrics.INSERT_SECONDS.labels(table=table).time():
                self._clickhouse.insert(table, rows)

        try:
            self._patience.until_done(
                f"inserting {rows.num_rows} rows into {table}",
                insert,
                feed.idle,
                metrics.INSERT_FAILURES.labels(table=table).inc,
            )
        except WarehouseRefused as err:
            places = ", ".join(f"{source} below {place.next_offset}" for source, place in sorted(after.items()))
            raise BlockRefused(
                f"{err}; nothing of this batch counts as written ({places}). If tables are missing or old, run "
                '"telestream warehouse migrate"'
            ) from err
        metrics.ROWS.labels(table=table).inc(rows.num_rows)

    def _positions(self, after: Mapping[Source, Place]) -> pa.Table:
        now_ms = int(time.time() * 1000)
        routes = [self._routes[source.topic] for source in after]
        columns = {
            "topic": pa.array([source.topic for source in after]),
            "partition": pa.array([source.partition for source in after], pa.uint32()),
            "topic_id": pa.array([place.topic_id for place in after.values()]),
            "generation": pa.array([self._generation if r.kind != "ref" else 0 for r in routes], pa.uint32()),
            "kind": pa.array([route.kind for route in routes]),
            "subject": pa.array([route.subject for route in routes]),
            "next_offset": pa.array([place.next_offset for place in after.values()], pa.uint64()),
            "src_next": pa.array([place.src_next for place in after.values()], pa.uint64()),
            "written_at": pa.array([now_ms] * len(after), pa.timestamp("ms", "UTC")),
        }
        return pa.table(columns)

    def _report(self, feed: Feed) -> None:
        now = time.monotonic()
        if now - self._reported_at < REPORT_S:
            return
        self._reported_at = now
        high = feed.high_watermarks()
        lag = sum(max(0, end - self._places[s].next_offset) for s, end in high.items() if s in self._places)
        metrics.LAG.set(lag)
        metrics.PARTITIONS.set(len(self._places))
        metrics.OLDEST_WAITING.set(self._buffer.age_s(now))


def _checked(source: Source, judged: pa.RecordBatch, expected: int | None) -> tuple[int, int]:
    """Where raw is judged to, and how many records came again. Raises GapFound."""
    wrong = np.flatnonzero(judged["src_partition"].to_numpy() != source.partition)
    if len(wrong):
        raise GapFound(f"{source}: holds a record of partition {judged['src_partition'][int(wrong[0])].as_py()}")
    density = check_dense(source, judged["src_offset"].to_numpy(), expected)
    return density.src_next, density.repeats
