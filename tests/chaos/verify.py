"""Reads what a run left in Kafka, one partition in a process of its own, and checks it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from faust_batch import Batch, Source, read_partition
from telestream_domain import Topics

from .aggregates import FAMILIES, Truth, all_differences
from .check import Found, Partition
from .traffic import Traffic

CHUNK = 50_000
_QUIET = {"log_level": "2"}


@dataclass(frozen=True, slots=True)
class Job:
    """One partition to verify; ``count``: records acknowledged in it."""

    kafka: str
    prefix: str
    traffic: Traffic
    partition: int
    count: int
    schema_id: int


def verify(jobs: Sequence[Job], processes: int = 2) -> list[Found]:
    """In the order of ``jobs``."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(verify_partition, jobs))


def verify_partition(job: Job) -> Found:
    """Everything of one partition; memory is bounded by its offsets and its open windows, not by its records."""
    topics, began_s = Topics(job.prefix), time.process_time()
    check, truth = Partition(job.traffic, job.partition, job.count, job.schema_id), Truth()
    for batch in _chunks(_read(job, topics.raw("cdr"))):
        truth.add(check.raw(batch.offsets, batch.timestamps_ms, batch.values))
    check.raw_end()
    for batch in _chunks(_read(job, topics.enriched("cdr"))):
        check.judged(batch.offsets, batch.keys, batch.values)
    check.judged_end()
    letters = [value for batch in _read(job, topics.rejected("cdr")) for value in batch.values if value is not None]
    check.dead_letters(letters)
    _aggregates(job, topics, truth, check.found)
    check.found.cpu_s = time.process_time() - began_s
    check.found.peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return check.found


def _aggregates(job: Job, topics: Topics, truth: Truth, found: Found) -> None:
    for topic in dict.fromkeys(family.topic for family in FAMILIES):
        upserts: dict[bytes | None, bytes | None] = {}
        for batch in _read(job, topics.agg(topic)):
            found.upserts += len(batch)
            upserts.update(zip(batch.keys, batch.values, strict=True))
        for family in (family for family in FAMILIES if family.topic == topic):
            head, marker = f"cdr|{family.size_s}|".encode(), f"cdr|{family.size_s}|marker|".encode()
            values = [v for k, v in upserts.items() if k and v and k.startswith(head) and not k.startswith(marker)]
            wrong, said = all_differences(truth.of(family), values, family)
            found.wrong_aggregates += wrong
            for one in said:
                found.say(f"partition {job.partition}: {one}")


def _read(job: Job, topic: str) -> Iterator[Batch]:
    return read_partition(job.kafka, Source(topic, job.partition), None, settled=True, client_options=_QUIET)


def _chunks(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of about CHUNK records: fixed costs would outweigh short ones."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= CHUNK:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[Batch]) -> Batch:
    last = held[-1]
    return Batch(
        last.source,
        np.concatenate([one.offsets for one in held]),
        np.concatenate([one.timestamps_ms for one in held]),
        [key for one in held for key in one.keys],
        [value for one in held for value in one.values],
        last.next_offset,
        last.high_watermark,
        last.epoch,
        sum(one.nbytes for one in held),
    )
