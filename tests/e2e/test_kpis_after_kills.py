"""KPIs against an independent recomputation from the facts, with workers killed on the way, records of any age in any
order, and some of them withdrawn afterwards: also per minute and five minutes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from telestream_contracts import decode_record
from telestream_simulator import Scenario, write_files

from . import test_reversals as reversals
from .kpis_again import OF_CALLS, OF_EVENTS, Steps, kpis
from .test_kpis_recomputed import Traffic, same, sides
from .test_recomputed_aggregates import World, spread, until

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(600)]

KILLED = ("window-aggregator", "cdr-enricher", "warehouse-sink", "window-aggregator")
NAMES = (*OF_CALLS, *OF_EVENTS)
MINUTES_FOR = timedelta(hours=2)  # records that come later have no windows of a minute


def again(traffic: Traffic, group: str, steps: Steps) -> pl.DataFrame:
    """What the KPIs must be, from the facts as they are now."""
    cdrs, events = traffic.cdrs, traffic.events
    if steps.step in ("1m", "5m"):
        cdrs = cdrs.filter(pl.col("appended_at") - pl.col("started_at") <= MINUTES_FOR)
        events = events.filter(pl.col("appended_at") - pl.col("occurred_at") <= MINUTES_FOR)
    return kpis(cdrs, events, f"{group}_id", steps)


def series(traffic: Traffic, group: str, steps: Steps) -> pl.DataFrame:
    asked = {"from": steps.since.isoformat(), "to": steps.until.isoformat(), "step": steps.step, "tz": steps.zone}
    ids = {f"{group}_id": traffic.ids(f"{group}_id")}
    rows = traffic.get("/v1/metrics/timeseries", family=group, kpi=NAMES, **asked, **ids)
    return sides(rows, f"{group}_id", NAMES)


def compare(traffic: Traffic) -> None:
    """Steps of every size, for the last days and for all of the year."""
    now = datetime.now(UTC)
    today = now.date()
    tomorrow, begin = today + timedelta(days=1), today - timedelta(days=366)
    minutes = (now - MINUTES_FOR / 2).date()  # the day in which most windows of a minute lie; one may be asked for
    for group, steps in (
        ("region", Steps(minutes, minutes + timedelta(days=1), "1m")),
        ("cell", Steps(minutes, minutes + timedelta(days=1), "5m")),
        ("cell", Steps(today - timedelta(days=14), tomorrow, "1h", "Asia/Kathmandu")),
        ("region", Steps(begin, tomorrow, "1d", "Europe/Paris")),
    ):
        wanted = again(traffic, group, steps)
        eventually(lambda g=group, s=steps, w=wanted: same(series(traffic, g, s), w, NAMES))  # type: ignore[misc]


def eventually(check: Callable[[], None], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def withdraw(stack: Any, world: World, share: float) -> int:
    """Reversals of some of the source's stored records, put into the raw topic by hand; how many."""
    by_hand = reversals.World(stack)
    by_hand.name = world.name
    stored = set(world.facts("cdr")["event_uid"])
    records = [record for record in by_hand.raw() if decode_record(record[3], reversals.CDR)["event_uid"] in stored]
    first = {decode_record(record[3], reversals.CDR)["event_uid"]: record for record in reversed(records)}
    chosen = random.Random(3).sample(list(first.values()), round(len(first) * share))
    by_hand.reverse(chosen)
    return len(chosen)


def test_kpis_equal_the_facts_summed_again_after_kills_and_again_after_withdrawals(stack: Any, tmp_path: Path) -> None:
    world, seed = World(stack), 31
    scenario = Scenario(
        start=datetime.now(UTC).date() - timedelta(days=364),
        days=363,
        records=6_000,
        network_records=3_000,
        customers=300,
        cells=12,
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
    until(world.settled, "facts and books", 200)

    def traffic() -> Traffic:
        found = Traffic(world, scenario.start, scenario.start, world.facts("cdr"), world.facts("network"))
        recent = found.cdrs.filter(pl.col("appended_at") - pl.col("started_at") <= MINUTES_FOR)
        assert recent.height > 100
        return found

    before = traffic()
    compare(before)

    withdrawn = withdraw(stack, world, 0.2)
    world.kill("window-aggregator")
    until(lambda: world.facts("cdr").height == before.cdrs.height - withdrawn, "withdrawals", 200)
    until(world.settled, "facts and books", 200)
    compare(traffic())
