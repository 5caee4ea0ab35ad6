"""How many upserts the rhythm makes of steady traffic, per record, and how far it stretches its beats for that.

    .venv/bin/python benchmarks/rhythm.py [--minutes 6] [--rate 10000] [--cells 2000] [--subscribers 10000]
        [--step-ms 500]

The real stage, four partitions, a simulated clock that strikes twice a second; CDRs with start times spread over 20 s.
Everything sent counts, markers and ends of segments too; the first half of the time is left for the stretch to settle.

    .venv/bin/python benchmarks/rhythm.py --days [--minutes 60] [--subscribers 1000000]

Subscriber-days alone, for an hour: which of them change is drawn (two for each subscriber, MO and MT), when they are
emitted decide the real beats, stretches and limits; nothing is encoded, so it takes seconds.
"""

from __future__ import annotations

import argparse
import os
from typing import Any
from zoneinfo import ZoneInfo

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import aggregator
import numpy as np
import psutil
from aggregator import AGG_IDS, PARTITIONS, NoLog, cdrs

from faust_batch import Source
from telestream_contracts import encode, enriched_schema, load_schema
from telestream_domain import FAMILIES, SEGMENT_BITS, SUBSCRIBER_DAY_SEGMENT_BITS, Topics
from window_aggregator.codec import Codec
from window_aggregator.domain.families import families
from window_aggregator.domain.pace import Paces
from window_aggregator.domain.rhythm import Rhythm, default_beats
from window_aggregator.stage import MAX_DIRTY, Aggregator


def run(minutes: int, rate: int, cells: int, subscribers: int, step_ms: int) -> None:
    """Print one line per family."""
    aggregator.CELLS = cells
    topics = Topics()
    schemas: dict[int, Any] = {7: enriched_schema("cdr")}
    schemas |= {number: load_schema(f"agg_{family}") for family, number in AGG_IDS.items()}
    codec = Codec(schemas.get, AGG_IDS)
    zone = ZoneInfo("UTC")
    stage = Aggregator(topics, families(zone=zone), Rhythm(default_beats(), 2_000), zone, codec, NoLog())
    sources = [Source(topics.enriched("cdr"), partition) for partition in range(PARTITIONS)]
    states = {source: stage.restore(source, None) for source in sources}
    per_batch = rate * step_ms // 1_000 // PARTITIONS
    begin_ms = now_ms = 1_790_000_000_000
    steps = minutes * 60_000 // step_ms
    counted = dict.fromkeys(FAMILIES, 0)
    records = 0
    for step in range(steps):
        outputs: list[Any] = []
        for source in sources:
            table = cdrs(
                step * per_batch,
                per_batch,
                source.partition,
                now_ms,
                step_ms,
                None,
                seed=step * PARTITIONS + source.partition,
                subscribers=subscribers,
            )
            batch = aggregator._batch(source, encode(table, schemas[7], 7), step * per_batch)
            found, states[source] = stage.on_batch(batch, states[source])
            outputs += found
        now_ms += step_ms
        found, changed = stage.due(states, now_ms)
        states |= changed
        outputs += found
        if now_ms - begin_ms > minutes * 30_000:
            records += PARTITIONS * per_batch
            for output in outputs:
                family = next(name for name in FAMILIES if topics.agg(name) == output.topic)
                counted[family] += len(output.messages)
    print(f"{cells:,} cells, {subscribers:,} subscribers, {rate:,} CDRs/s, {minutes // 2} of {minutes} minutes:")
    stretch = stage.paces.stretch()
    for family, upserts in counted.items():
        print(f"  {family:16} {upserts / records:7.4f} upserts a record   beat × {stretch.get(family, 1):.2f}")
    windows = sum(counted[family] for family in ("cell", "region", "plan")) / records
    print(f"  cells, regions and plans together {windows:.4f}; resident {psutil.Process().memory_info().rss >> 20} MiB")


def days(minutes: int, rate: int, subscribers: int) -> None:
    """Print one line per 15 minutes."""
    keys, per_second = 2 * subscribers // PARTITIONS, rate // PARTITIONS
    beat_ms = default_beats()["subscriber_day", 86_400].all_ms
    full = MAX_DIRTY << (SUBSCRIBER_DAY_SEGMENT_BITS - SEGMENT_BITS)
    rng = np.random.default_rng(1)
    changed = [np.zeros(keys, bool) for _ in range(PARTITIONS)]
    # partitions are never equally long
    taken = [partition * 100_000 for partition in range(PARTITIONS)]
    emitted_at = [0] * PARTITIONS
    paces = Paces()
    print(f"subscriber-days of {subscribers:,} subscribers, {rate:,} CDRs/s:")
    by_clock = by_size = 0

    def emit(partition: int) -> int:
        count = int(changed[partition].sum())
        changed[partition][:] = False
        return count

    for second in range(1, minutes * 60 + 1):
        rows = others = 0
        for partition in range(PARTITIONS):
            changed[partition][rng.integers(keys, size=per_second)] = True
            taken[partition] += per_second
            ended = taken[partition] % (1 << SUBSCRIBER_DAY_SEGMENT_BITS) < per_second
            if ended or changed[partition].sum() > full:
                others += emit(partition)
                emitted_at[partition] = second
        for partition in range(PARTITIONS):
            if (second - emitted_at[partition]) * 1_000 >= beat_ms * paces.stretch()["subscriber_day"]:
                rows += emit(partition)
                emitted_at[partition] = second
                break  # one call emits no more
        paces = paces.counted(second * 1_000, {"cdr": rate}, {"subscriber_day": rows}, {"subscriber_day": others})
        by_clock, by_size = by_clock + rows, by_size + others
        if second % 900 == 0:
            share, stretch = (by_clock + by_size) / (rate * 900), paces.stretch()["subscriber_day"]
            print(f"  minute {second // 60:3} {share:7.4f} upserts a record, {by_size / (rate * 900):.4f} of them")
            print(f"             because a segment ended or too many had gathered   beat × {stretch:.2f}")
            by_clock = by_size = 0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--days", action="store_true", help="subscriber-days alone, drawn")
    asked.add_argument("--minutes", type=int, help="of simulated time: 6, or 60 with --days")
    asked.add_argument("--rate", type=int, default=10_000)
    asked.add_argument("--cells", type=int, default=2_000)
    asked.add_argument("--subscribers", type=int, default=10_000)
    asked.add_argument("--step-ms", type=int, default=500, help="the clock; longer is cheaper, and misses short beats")
    options = asked.parse_args()
    if options.days:
        days(options.minutes or 60, options.rate, options.subscribers)
    else:
        run(options.minutes or 6, options.rate, options.cells, options.subscribers, options.step_ms)


if __name__ == "__main__":
    main()
