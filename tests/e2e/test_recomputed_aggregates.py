"""The aggregates against an independent recomputation from the facts: per cell and hour, region and day, plan and day,
subscriber and day."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from telestream_simulator import Scenario, Written, write_files
from telestream_warehouse import ClickHouse, Query

from .recomputed import FAMILIES, Family, compared, published_sql, recomputed

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(300)]

FILES = 6
KILLED = ("cdr-enricher", "window-aggregator", "warehouse-sink", "window-aggregator", "cdr-enricher")


class World:
    """A source of the running stack whose customers, cells, regions and plans are its own."""

    def __init__(self, stack: Any) -> None:
        self.stack, self.name = stack, f"again-{uuid.uuid4().hex[:8]}"
        self.url = {entry["name"]: str(entry["url"]) for entry in stack.status()["services"]}
        self.http = httpx.Client(headers={"X-API-Key": stack.api_key}, timeout=120)
        self.clickhouse = ClickHouse(self.url["clickhouse"], "telestream")

    def put(self, path: Path, kind: str) -> None:
        answer = self.http.put(
            f"{self.url['ingest-gateway']}/v1/files/{self.name}/{path.name}",
            params={"type": kind, "profile": "generic"},
            content=path.read_bytes(),
        )
        assert answer.status_code in (200, 201, 202), answer.text

    def kill(self, service: str) -> None:
        pid = self.stack.service(service)["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def settled(self) -> bool:
        """Whether everything sent is judged and stored, and the books balance."""
        for kind in ("cdr", "network"):
            url = f"{self.url['query-api']}/v1/reconciliation"
            answer = self.http.get(url, params={"type": kind, "source": self.name})
            if answer.status_code != 200:
                return False
            books = answer.json()["data"]
            if not books["balanced"] or books["in_flight"]:
                return False
        return True

    def facts(self, record_type: str) -> pl.DataFrame:
        view = {"cdr": "fact_cdr", "network": "fact_network_event"}[record_type]
        sql = f"SELECT * EXCEPT (warnings, ext) FROM {view} WHERE source = {{source:String}}"
        return self.clickhouse.frame(Query(sql, {"source": self.name}))


def spread(written: Written, out: Path, seed: int) -> list[tuple[Path, str]]:
    """The simulator's year of traffic, a third of it moved to the last days and minutes, in any order, in files."""
    rng, now = random.Random(seed), datetime.now(UTC)
    parts = []
    for kind, path in (("cdr", written.cdr[0]), ("network", written.network[0])):
        header, *lines = path.read_text().splitlines()
        fields = header.split(",")
        at = fields.index("started_at" if kind == "cdr" else "occurred_at")
        for number, line in enumerate(lines):
            values = line.split(",")
            if len(values) == len(fields) and rng.random() < 1 / 3:
                age_s = 60 * (14 * 24 * 60) ** rng.random()
                values[at] = (now - timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
                if kind == "cdr":
                    values[fields.index("answered_at")] = ""
                lines[number] = ",".join(values)
        rng.shuffle(lines)
        for number in range(FILES):
            part = out / f"{kind}-{number}.csv"
            part.write_text("\n".join([header, *lines[number::FILES]]) + "\n")
            parts.append((part, kind))
    rng.shuffle(parts)
    return parts


def ours(frame: pl.DataFrame, wanted: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Only groups of this source: other tests feed the same stack, and '' (not known) is shared by all of them."""
    group = family.groups[0]
    return frame.filter(pl.col(group).is_in(wanted[group].unique().to_list()) & (pl.col(group) != ""))


def until(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(1)


def test_late_records_of_any_age_and_killed_workers_leave_aggregates_equal_to_the_facts_summed_again(
    stack: Any, tmp_path: Path
) -> None:
    world, seed = World(stack), 20
    scenario = Scenario(
        start=datetime.now(UTC).date() - timedelta(days=364),
        days=363,
        records=9_000,
        network_records=4_000,
        customers=300,
        cells=24,
        late=0.1,
        block=int(time.time()),
        seed=seed,
        source=world.name,
    )
    written = write_files(scenario, tmp_path)
    for kind, path in written.reference.items():
        world.put(path, kind)
    kills = list(KILLED)
    for number, (path, kind) in enumerate(spread(written, tmp_path, seed)):
        world.put(path, kind)
        if number % 2 and kills:
            world.kill(kills.pop(0))
            time.sleep(1.5)
    assert not kills
    until(world.settled, "facts and books")

    facts = {kind: world.facts(kind) for kind in ("cdr", "network")}
    ages = facts["cdr"].select((pl.col("appended_at") - pl.col("started_at")).dt.total_minutes().alias("minutes"))
    youngest, oldest = ages["minutes"].min(), ages["minutes"].max()
    assert youngest < 10, youngest
    assert oldest > 300 * 24 * 60, oldest
    for family in FAMILIES:
        wanted = recomputed(facts[family.type], family)
        wanted = ours(wanted, wanted, family)
        assert wanted.height > 20, family

        def found(family: Family = family, wanted: pl.DataFrame = wanted) -> pl.DataFrame:
            return ours(compared(world.clickhouse.frame(Query(published_sql(family))), family), wanted, family)

        try:
            until(lambda: found().equals(wanted), str(family), 60)  # noqa: B023
        except AssertionError:
            assert_frame_equal(found(), wanted)
            raise
