"""What dedup by segment costs: identities held, lookups of live traffic, and a worker's start.

    python benchmarks/dedup.py                       all of it; about ten minutes, 3 GB of disk
    python benchmarks/dedup.py --held 5000000 --start 2000000     smaller

Every figure is taken in a process of its own. CPU is that process's, all threads. One partition of one type holds all
identities, which arrived evenly over 35 days; lookups are of live traffic: events of the last minutes, 1 % up to two
days late, 2 % sent twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
from confluent_kafka import Producer

from cdr_enricher.decode import RawDecoder
from cdr_enricher.dedup_log import DedupLog, Position
from cdr_enricher.dedup_store import DedupStore
from cdr_enricher.domain.hashing import mix64
from cdr_enricher.domain.kinds import KINDS
from cdr_enricher.domain.references import References
from cdr_enricher.judged_log import JudgedLog
from cdr_enricher.kafka import MAX_TOUCHED_BYTES, EnricherStage, TypeStage
from cdr_enricher.reference_reader import ReferenceReader
from cdr_enricher.restore import Restorer, metadata_of
from cdr_enricher.stage import Judge, State, Target
from faust_batch import Batch, Committed, Source
from telestream_contracts import Registry, apply_topics
from telestream_domain import SEGMENT_BITS, Topics

SEGMENT = 1 << SEGMENT_BITS
DAYS = 35
DAY_MS = 86_400_000
END_MS = 1_790_000_000_000
BATCH = 20_000
PARTITION = 0


class Live:
    """Live traffic of one partition: ``total`` records up to END_MS, and as many more as are asked for."""

    def __init__(self, total: int) -> None:
        self._step_ms = DAYS * DAY_MS / max(total, 1)
        self._begin_ms = END_MS - DAYS * DAY_MS
        self._rng = np.random.default_rng(5)

    def batch(self, first: int, count: int) -> tuple[Any, ...]:
        """Arguments of ``Seen.judge``."""
        rng, offsets = self._rng, np.arange(first, first + count)
        who = offsets.copy()
        again = np.flatnonzero(rng.random(count) < 0.02)
        who[again] = np.maximum(who[again] - rng.integers(1, 20_000, len(again)), 0)
        arrived = (self._begin_ms + who * self._step_ms).astype(np.int64)
        late = mix64(who.astype(np.uint64) ^ np.uint64(0xABCDEF))
        lag = np.where(late % 100 == 0, late // 100 % (2 * DAY_MS), late // 100 % 180_000).astype(np.int64)
        key = mix64(who.astype(np.uint64)) | np.uint64(1), mix64(who.astype(np.uint64) + np.uint64(1 << 50))
        now = (self._begin_ms + offsets * self._step_ms).astype(np.int64)
        return key, arrived - lag, offsets, np.ones(count, np.int64), now


def store(folder: Path | None, schema_id: int = 1, topic: str = "state.dedup") -> DedupStore:
    return DedupStore(topic, DedupLog(schema_id, lambda _: None), folder)


def held(total: int, folder: Path, schema_id: int = 1) -> Iterator[tuple[list[Any], Position, float]]:
    """Judge ``total`` records; per close what it leaves behind, the position, and the seconds of CPU it took."""
    kept, position, live = store(folder, schema_id), Position(), Live(total)
    seen = kept.empty()
    for first in range(0, total // SEGMENT * SEGMENT, BATCH):
        count = min(BATCH, total // SEGMENT * SEGMENT - first)
        seen.judge(*live.batch(first, count))
        before = time.process_time()
        seen.advance(first + count)
        outputs, position = kept.close("cdr", PARTITION, seen, position, lambda: 0)
        for output in outputs:
            yield output.messages, position, time.process_time() - before


def memory() -> dict[str, float]:
    """MB: mapped identities, and what is resident of all."""
    mapped = resident = 0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name = line.split()
        if "-" in name[0] and ":" not in name[0]:
            ours = line.endswith(".ids") or ".ids " in line
        elif name[0] == "Size:" and ours:
            mapped += int(name[1])
        elif name[0] == "Rss:":
            resident += int(name[1])
    return {"mapped_mb": mapped / 1024, "resident_mb": resident / 1024}


def fill(total: int, folder: Path) -> dict[str, Any]:
    closes, position = [], Position()
    began = time.process_time()
    for _, after, seconds in held(total, folder):
        position = after
        closes.append(seconds * 1e3)
    return {
        "chain": position.chain,
        "close_ms": float(np.median(closes)),
        "close_max_ms": max(closes),
        "us": (time.process_time() - began) / total * 1e6,
    }


def look_up(total: int, folder: Path, chain: str, batch: int, records: int) -> dict[str, Any]:
    before = memory()
    whole = total // SEGMENT * SEGMENT
    began, began_cpu = time.perf_counter(), time.process_time()
    seen, _ = store(folder).restore(
        Source("raw", PARTITION), "cdr", Position(0, chain), "", 0, whole, lambda: _refuse()
    )
    result = {
        "restore_s": time.perf_counter() - began,
        "restore_cpu_s": time.process_time() - began_cpu,
        "ids": len(seen),
        "before_mb": before["resident_mb"],
    }
    live = Live(total)
    cpu = repeats = 0.0
    peak = 0.0
    warm_up = range(whole, whole + records // 10, batch)
    for first in warm_up:
        seen.judge(*live.batch(first, batch))
    whole += len(warm_up) * batch
    for first in range(whole, whole + records, batch):
        arguments = live.batch(first, batch)
        started = time.process_time()
        found = seen.judge(*arguments)
        if seen.closed.touched_bytes > MAX_TOUCHED_BYTES:
            seen.closed.release()
        cpu += time.process_time() - started
        repeats += found.duplicate.sum()
        if (first - whole) // batch % 10 == 0:
            peak = max(peak, memory()["resident_mb"])
    return result | memory() | {"us": cpu / records * 1e6, "repeats": repeats / records, "peak_mb": peak}


def _refuse() -> Any:
    raise SystemExit("the cache lacks something")


def prepare_start(total: int, folder: Path, kafka: str, registry_url: str) -> dict[str, Any]:
    """Fill ``state.dedup`` and the judged records of an open segment, as a worker would have left them."""
    sys.path.insert(0, str(Path(__file__).parent))
    from enricher import Traffic

    topics = Topics(f"bench{uuid.uuid4().hex[:8]}.")
    registry = Registry(registry_url)
    apply_topics(kafka, topics, partitions=1)
    ids = registry.register_all(topics)
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 20, "queue.buffering.max.kbytes": 262_144})

    def send(topic: str, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            while len(producer) > 50_000:
                producer.poll(0.01)
            producer.produce(topic, message["value"], message["key"], PARTITION)
        producer.poll(0)

    position = Position()
    for messages, after, _ in held(total, folder, ids[topics.state_dedup]):
        position = after
        send(topics.state_dedup, messages)
    producer.flush()
    whole = total // SEGMENT * SEGMENT
    kept = store(folder, ids[topics.state_dedup], topics.state_dedup)
    seen, _ = kept.restore(Source("raw", PARTITION), "cdr", Position(0, position.chain), "", 0, whole, _refuse)
    traffic, tail = Traffic(), SEGMENT // BATCH * BATCH - BATCH
    raw_id = ids[topics.raw("cdr")]
    judge = Judge(
        KINDS["cdr"],
        Target(topics.raw("cdr"), topics.enriched("cdr"), topics.rejected("cdr"), ids[topics.enriched("cdr")], 1),
        RawDecoder("cdr", raw_id, registry.schema),
    )
    state = State(whole, 0, seen, began_at=0, dedup=position)
    for first in range(whole, whole + tail, BATCH):
        count = min(BATCH, whole + tail - first)
        offsets = np.arange(first, first + count)
        values: list[bytes | None] = list(traffic.values(count, raw_id))
        end = first + count
        source, arrived = Source(topics.raw("cdr"), PARTITION), np.full(count, int(time.time() * 1000))
        batch = Batch(source, offsets, arrived, [b"k"] * count, values, end, end, 1, 0)
        outputs, state = judge.on_batch(batch, state, References())
        send(topics.enriched("cdr"), outputs[0].messages)
    producer.flush()
    return {"prefix": topics.prefix, "metadata": metadata_of(state), "offset": whole + tail}


def start(folder: Path, kafka: str, registry_url: str, prefix: str, metadata: str, offset: int) -> dict[str, Any]:
    """Restore the partition as a worker does when it is assigned."""
    topics, registry = Topics(prefix), Registry(registry_url)
    judge: Any = None
    by_topic = {
        topics.raw("cdr"): TypeStage(
            "cdr", judge, Restorer(KINDS["cdr"], "bench", registry.schema), topics.enriched("cdr"), True
        )
    }
    kept = store(folder, registry.id_for(topics.state_dedup), topics.state_dedup)
    stage = EnricherStage(
        kafka,
        by_topic,
        ReferenceReader(kafka, topics, registry),
        JudgedLog(kafka, registry.schema),
        kept,
        progress_topic=topics.progress,
        progress_id=1,
        lateness_ms=0,
    )
    began, began_cpu = time.perf_counter(), time.process_time()
    state = stage.restore(Source(topics.raw("cdr"), PARTITION), Committed(offset, metadata))
    return {
        "s": time.perf_counter() - began,
        "cpu_s": time.process_time() - began_cpu,
        "ids": len(state.seen),
        **memory(),
    }


STEPS = {"fill": fill, "look_up": look_up, "prepare_start": prepare_start, "start": start}


def fresh(step: str, **arguments: Any) -> dict[str, Any]:
    """One step in a process of its own."""
    given = json.dumps(arguments, default=str)
    done = subprocess.run([sys.executable, __file__, "--step", step, given], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=50_000_000)
    parser.add_argument("--start", type=int, default=10_000_000)
    parser.add_argument("--dir", type=Path, help="where the files lie; a temporary directory by default")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, given = options.step[0], json.loads(options.step[1])
        if "folder" in given:
            given["folder"] = Path(given["folder"])
        print(json.dumps(STEPS[step](**given)))
        return
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        report(options.held, options.start, Path(directory))


def report(total: int, started: int, directory: Path) -> None:
    if total:
        folder = directory / "held"
        filled = fresh("fill", total=total, folder=folder)
        print(f"judge {total:,} records, closes included: {filled['us']:.2f} µs CPU a record")
        print(f"close a segment: {filled['close_ms']:.0f} ms CPU (at most {filled['close_max_ms']:.0f})")
        for batch, records in ((BATCH, 200_000), (1_000, 100_000)):
            found = fresh("look_up", total=total, folder=folder, chain=filled["chain"], batch=batch, records=records)
            print(
                f"{found['ids']:,} ids held, live traffic in batches of {batch:,}: {found['us']:.2f} µs CPU a record "
                f"({found['repeats']:.1%} repeats); mapped {found['mapped_mb']:,.0f} MB, process resident "
                f"{found['peak_mb']:,.0f} MB ({found['before_mb']:,.0f} before); brought back from files in "
                f"{found['restore_s']:.1f} s, {found['restore_cpu_s']:.1f} s CPU"
            )
        shutil.rmtree(folder)
    if started:
        from telestream_devstack import reserve_base, start_parts

        with start_parts(directory / "stack", reserve_base(), ("kafka", "registry")) as parts:
            where = {"kafka": parts.kafka, "registry_url": parts.registry}
            folder = directory / "start"
            left = fresh("prepare_start", total=started, folder=folder, **where)
            for name in ("warm", "cold", "warm again"):
                if name == "cold":
                    shutil.rmtree(folder)
                took = fresh("start", folder=folder, **where, **left)
                print(
                    f"start with {took['ids']:,} ids, cache {name}: {took['s']:.1f} s, {took['cpu_s']:.1f} s CPU, "
                    f"resident {took['resident_mb']:,.0f} MB"
                )


if __name__ == "__main__":
    main()
