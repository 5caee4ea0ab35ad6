"""I7: replays that are pinned to one reference position are equal byte for byte, whatever happens meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from telestream_contracts import FRAME_BYTES
from telestream_domain import FAMILIES, TYPES
from telestream_opstore import Plan

from .corner import Corner, Record, Worker, until
from .traffic import DAY_MS, NOW_MS, Call, call, calls

pytestmark = pytest.mark.stack
SMALL = {"max_batch_records": "40", "commit_interval_ms": "10"}
LATE = "k1.late"
START = 60
CALM, UNPINNED, STRUCK, REHEARSAL, UNMOVED, MOVED = 2, 3, 4, 5, 6, 7
Derived = dict[str, list[bytes] | dict[bytes, bytes]]


def customer(identifier: str, plan: str, age_days: int) -> Record:
    return {
        "identifier": identifier,
        "identifier_kind": "MSISDN",
        "valid_from": NOW_MS - age_days * DAY_MS,
        "deleted": False,
        "customer_id": f"of {identifier}",
        "plan_id": plan,
        "region_id": "R1",
    }


def cell(cell_id: str, region: str, age_days: int) -> Record:
    return {"cell_id": cell_id, "valid_from": NOW_MS - age_days * DAY_MS, "deleted": False, "region_id": region}


def sample(number: int, cell_id: str) -> Record:
    at = NOW_MS - number * 1_000_000
    return {"event_uid": f"n{number}", "occurred_at": at, "event_type": "SAMPLE", "cell_id": cell_id, "latency_ms": 3.5}


def reversal(log: Sequence[Call | bytes], at: int) -> Call:
    original = log[at]
    assert isinstance(original, dict)
    return original | {"reverses_offset": at}


def new_versions(corner: Corner, plan: str) -> None:
    """Other plans and regions for nearly everything in the log, as of long ago."""
    for partition in range(corner.partitions):
        corner.send("customer", partition, [customer(f"k1.{n}", plan, 399) for n in range(12)])
    corner.send("cell", 0, [cell(f"208-01-{n}", plan.upper(), 399) for n in range(3)])


def plan_as_of_now(corner: Corner) -> Plan:
    return Plan(
        ends={kind: corner.ends(corner.topics.raw(kind)) for kind in TYPES},
        reference={
            corner.topics.ref("customer"): corner.ends(corner.topics.ref("customer")),
            corner.topics.ref("cell"): {0: corner.end(corner.topics.ref("cell"), 0)},
        },
    )


@pytest.fixture(scope="module")
def plan(corner: Corner) -> Plan:
    """Of a replay that was asked for when a part of the log was there: raw records and versions came since."""
    for partition in range(corner.partitions):
        corner.send("customer", partition, [customer(f"k1.{n}", "first", 450) for n in range(8)])
        log = [*calls(partition, 200), call("early", subscriber_id=LATE, cell_id="late")]
        first, last = (next(at for at in range(since, 200) if isinstance(log[at], dict)) for since in (5, START + 9))
        log.insert(START, reversal(log, first))
        corner.send("cdr", partition, [*log, reversal(log, last)])
    corner.send("cell", 0, [cell(f"208-01-{n}", "R0", 450) for n in range(3)])
    corner.send("network", 0, [sample(n, f"208-01-{n % 5}") for n in range(60)])
    asked = plan_as_of_now(corner)
    new_versions(corner, "second")
    corner.send("cell", 0, [cell("late", "R9", 300)])
    for partition in range(corner.partitions):
        corner.send("customer", partition, [customer(LATE, "p9", 300)])
        corner.send("cdr", partition, [call(f"after {n}", subscriber_id=LATE, cell_id="late") for n in range(5)])
    corner.send("network", 0, [sample(100 + n, "late") for n in range(5)])
    for generation, of_it in ((CALM, asked), (UNPINNED, Plan())):
        corner.generation(generation, of_it)
        start(corner, generation, "cdr-enricher", "window-aggregator", max_batch_records="999")
    return asked


def derived(corner: Corner, generation: int) -> Derived:
    """The bytes of all that a generation wrote, schema ids left out: records in order, windows as they stand."""
    topics = corner.generation(generation)
    found: Derived = {}
    for partition in range(corner.partitions):
        for kind in TYPES:
            for name, topic in (("enriched", topics.enriched(kind)), ("rejected", topics.rejected(kind))):
                values = corner.messages(topic, partition)
                found[f"{name} {kind} {partition}"] = [(value or b"")[FRAME_BYTES:] for _, value in values]
    for family in FAMILIES:
        topic = topics.agg(family)
        latest: dict[bytes, bytes] = {}
        for partition in range(corner.partitions):
            latest |= {key or b"": value or b"" for key, value in corner.messages(topic, partition)}
        windows = {key: corner.decoded(value) for key, value in latest.items()}
        found[family] = {
            key: value[FRAME_BYTES:] for key, value in latest.items() if windows[key]["marker_offset"] is None
        }
        for key, window in windows.items():
            # when a reversal was judged is the one processing time there is (ADR 10): all else of such a window
            if window.get("late_at") and window["reversals"]:
                found[family][key] = repr(window | {"late_at": None}).encode()
    return found


def differences(corner: Corner, one: int, other: int) -> list[str]:
    expected, found = derived(corner, one), derived(corner, other)
    assert expected["subscriber_day"]
    assert expected["rejected cdr 0"]
    return [name for name, value in expected.items() if found[name] != value]


def until_equal(corner: Corner, one: int, other: int) -> None:
    """Wait: the last flush may be on its way."""
    differing: list[str] = []

    def same() -> bool:
        differing[:] = differences(corner, one, other)
        return not differing

    try:
        until(same, "", 60, 0.5)
    except AssertionError:
        raise AssertionError(f"they differ in {', '.join(differing)}") from None


def aggregated(corner: Corner, generation: int, wanted: int, within_s: float = 120) -> None:
    quality = corner.generation(generation).agg("quality")

    def counted() -> bool:
        windows = corner.latest(quality).values()
        return sum(window["records"] + window["reversals"] for window in windows) == wanted

    until(counted, f"{wanted} records of generation {generation} aggregated", within_s, 0.3)


def total(corner: Corner) -> int:
    return sum(sum(corner.ends(corner.topics.raw(kind)).values()) for kind in TYPES)


def start(corner: Corner, generation: int, *services: str, **settings: str) -> list[Worker]:
    return [corner.start(service, generation=generation, **settings) for service in services]


def judged(corner: Corner, generation: int, partition: int, kind: str = "cdr") -> Sequence[Record]:
    return corner.records(corner.generation(generation).enriched(kind), partition)


def test_replays_pinned_alike_are_equal_though_workers_are_killed_and_versions_arrive(
    corner: Corner, plan: Plan
) -> None:
    corner.generation(STRUCK, plan)
    for number, step in enumerate(("produced:3", "committed:2", "offsets:1")):
        service = "window-aggregator" if number == 2 else "cdr-enricher"
        dying = corner.start(service, "small-rounds", f"killed-in-commit={step}", generation=STRUCK, **SMALL)
        assert dying.wait() == -9, dying.said()[-1500:]
        new_versions(corner, f"late{number}")
    start(corner, STRUCK, "cdr-enricher", "window-aggregator", **SMALL)
    for generation in (CALM, STRUCK):
        aggregated(corner, generation, total(corner))
    until_equal(corner, CALM, STRUCK)
    for partition in range(corner.partitions):
        records = judged(corner, CALM, partition)
        end = plan.ends["cdr"][partition]
        assert [record["src_offset"] for record in records] == list(range(end + 5))
        assert {record["plan_id"] for record in records[:end]} == {"first", None}
        assert {record["region_id"] for record in records[:end]} == {"R0", None}
        # behind the end with what is there then, as live
        assert [(record["plan_id"], record["region_id"]) for record in records[end:]] == [("p9", "R9")] * 5
    samples = judged(corner, CALM, 0, "network")
    assert {record["region_id"] for record in samples[:60]} == {"R0", None}
    assert {record["region_id"] for record in samples[60:]} == {"R9"}


def test_control_without_the_pin_versions_that_came_meanwhile_make_another_generation(
    corner: Corner, plan: Plan
) -> None:
    aggregated(corner, UNPINNED, total(corner))
    # whoever was unknown at first is known now, as of the time of the call
    assert [judged(corner, number, 0)[201]["customer_id"] for number in (CALM, UNPINNED)] == [None, f"of {LATE}"]
    found = differences(corner, CALM, UNPINNED)
    assert {"enriched cdr 0", "enriched cdr 1", "enriched network 0", "region", "plan", "subscriber_day"} <= set(found)


@pytest.mark.faults
def test_a_rehearsal_begins_at_its_starts_rests_at_its_ends_and_leaves_the_other_type_alone(
    corner: Corner, plan: Plan
) -> None:
    corner.make_warehouse()
    ends = plan.ends["cdr"]
    asked = Plan(starts={"cdr": {0: START}}, ends=plan.ends, reference=plan.reference, only_to_ends=True)
    corner.generation(REHEARSAL, asked, ("cdr",))
    small = {**SMALL, "dedup_segment_bits": "5", "generation": REHEARSAL}
    for service in ("cdr-enricher", "window-aggregator"):
        dying = corner.start(service, "small-rounds", "segment-bits=5", "killed-in-commit=committed:1", **small)
        assert dying.wait() == -9, dying.said()[-1500:]
    services = ("cdr-enricher", "window-aggregator", "warehouse-sink")
    workers = [corner.start(service, "segment-bits=5", **small) for service in services]
    aggregated(corner, REHEARSAL, sum(ends.values()) - START)
    topics = corner.generation(REHEARSAL)

    def stored() -> dict[int, int]:
        sql = f"SELECT partition, max(src_next) AS next FROM sink_position WHERE topic = '{topics.enriched('cdr')}'"
        return {int(row["partition"]): int(row["next"] or 0) for row in corner.rows(f"{sql} GROUP BY partition")}

    until(lambda: stored() == ends, f"stored up to {ends}")
    assert corner.committed("cdr-enricher", "cdr", REHEARSAL) == ends
    # all that came since lies there, and is not asked for
    corner.send("cdr", 0, [call("later still")])
    until(lambda: workers[0].until_ready() is not None, "at rest")
    for partition, begin in ((0, START), (1, 0)):
        found = judged(corner, REHEARSAL, partition)
        whole = judged(corner, CALM, partition)
        assert [record["src_offset"] for record in found] == list(range(begin, ends[partition]))
        # what repeats or reverses a record from before the start is the first of its kind here
        known = [i for i, one in enumerate(whole) if begin <= i < ends[partition] and not _before(one, begin)]
        assert len(known) > 100
        assert [whole[i] for i in known] == [found[i - begin] for i in known]
    assert not any(corner.messages(topics.enriched("network"), p) for p in range(corner.partitions))
    records = [record for p in range(corner.partitions) for record in judged(corner, REHEARSAL, p)]
    calls_of_cells = sum(record["sign"] for record in records if record["verdict"] == "STORED" and record["cell_id"])
    cells = [window for window in corner.latest(topics.agg("cell")).values() if window["size_s"] == 900]
    assert sum(window["records"] for window in cells) == calls_of_cells
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    assert corner.committed("cdr-enricher", "cdr", REHEARSAL) == ends


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_replays_pinned_alike_are_equal_though_partitions_move_between_workers_again_and_again(
    corner: Corner, plan: Plan
) -> None:
    for partition in range(corner.partitions):
        corner.send("cdr", partition, calls(900 + partition, 12_000))
    asked = plan_as_of_now(corner)
    for generation in (UNMOVED, MOVED):
        corner.generation(generation, asked)
    new_versions(corner, "third")
    start(corner, UNMOVED, "cdr-enricher", "window-aggregator")
    rng = random.Random(14)
    services = ("cdr-enricher", "window-aggregator")
    small = {"max_batch_records": "50", "commit_interval_ms": "50"}

    def begin(service: str, instance: int) -> Worker:
        return corner.start(service, "small-rounds", generation=MOVED, instance=instance, **small)

    places = [(service, instance) for service in services for instance in range(2)]
    workers = {place: begin(*place) for place in places}
    for number in range(10):
        time.sleep(rng.uniform(0.5, 3))
        struck = rng.choice(places)
        workers[struck].kill()
        new_versions(corner, f"strike{number}")
        workers[struck] = begin(*struck)
    for generation in (UNMOVED, MOVED):
        aggregated(corner, generation, total(corner), 300)
    until_equal(corner, UNMOVED, MOVED)


def _before(record: Record, begin: int) -> bool:
    return any(record[name] is not None and record[name] < begin for name in ("first_offset", "reverses_offset"))
