"""I7: the same log with the same rules and reference data gives the same facts and aggregates."""

from __future__ import annotations

import pytest

from telestream_domain import FAMILIES

from .corner import Corner, Record, until
from .traffic import DAY_MS, NOW_MS, call, calls

pytestmark = pytest.mark.stack
PROCESSING_TIME: set[str] = set()
"""Fields that say when a stage worked. The derived topics have none: Kafka's own time of append is not in a value."""
LONG = 30 * 3_600_000


def derived(corner: Corner, generation: int) -> dict[str, list[Record] | dict[bytes, Record]]:
    """Judged records and dead letters in order, aggregates as compaction leaves them, field by field."""
    topics = corner.generation(generation)
    found: dict[str, list[Record] | dict[bytes, Record]] = {}
    for partition in range(corner.partitions):
        for kind in ("cdr", "network"):
            for name, topic in (("enriched", topics.enriched(kind)), ("rejected", topics.rejected(kind))):
                records = corner.records(topic, partition)
                found[f"{name} {kind} {partition}"] = [
                    {name: value for name, value in record.items() if name not in PROCESSING_TIME} for record in records
                ]
    for family in FAMILIES:
        found[family] = {
            key: value for key, value in corner.latest(topics.agg(family)).items() if value["marker_offset"] is None
        }
    return found


def check_same(corner: Corner, one: int, other: int, patience_s: float = 60) -> None:
    """Two generations are the same, record by record and window by window."""
    expected = derived(corner, one)
    assert expected["subscriber_day"]
    assert expected["rejected cdr 0"]

    def differences() -> list[str]:
        found = derived(corner, other)
        return [name for name, value in expected.items() if found[name] != value]

    try:
        # the last flush may be on its way
        until(lambda: not differences(), "", patience_s, 0.5)
    except AssertionError:
        raise AssertionError(f"generations {one} and {other} differ in {', '.join(differences())}") from None


def derive(corner: Corner, generation: int, **settings: str) -> None:
    """Derive the whole log as it stands now."""
    corner.generation(generation)
    for service in ("cdr-enricher", "window-aggregator"):
        corner.start(service, generation=generation, **settings)
    total = sum(corner.ends(corner.topics.raw("cdr")).values()) + sum(
        corner.ends(corner.topics.raw("network")).values()
    )
    quality = corner.generation(generation).agg("quality")

    def counted() -> int:
        return sum(window["records"] for window in corner.latest(quality).values())

    until(lambda: counted() == total, f"{total} records of generation {generation} aggregated", 120, 0.3)


@pytest.fixture(scope="module")
def log(corner: Corner) -> None:
    """Records that reference data, rules and late versions all have a say in."""
    at = NOW_MS - 500 * DAY_MS
    for partition in range(corner.partitions):
        customers = [
            {
                "identifier": f"k1.{n}",
                "identifier_kind": "MSISDN",
                "valid_from": at + version * 480 * DAY_MS,
                "deleted": False,
                "customer_id": f"c{n}",
                "plan_id": f"p{version}",
                "region_id": "R1",
            }
            for version in range(2)
            for n in range(8)
        ]
        corner.send("customer", partition, customers)
        corner.send("cdr", partition, calls(partition, 200))
        corner.send("cdr", partition, [call("long", duration_ms=LONG), call("unknown", subscriber_id="k1.nobody")])
    cells = [
        {"cell_id": f"208-01-{n}", "valid_from": at + v * 470 * DAY_MS, "deleted": v == 2, "region_id": f"R{v}"}
        for v in range(3)
        for n in range(4)
    ]
    corner.send("cell", 0, cells)
    samples = [
        {
            "event_uid": f"n{n}",
            "occurred_at": NOW_MS - n * 1_000_000,
            "event_type": "SAMPLE",
            "cell_id": f"208-01-{n % 5}",
            "latency_ms": n / 7,
        }
        for n in range(60)
    ]
    corner.send("network", 0, [*samples, *samples[:5]])
    derive(corner, 1)


def test_a_second_derivation_of_the_log_equals_the_first(corner: Corner, log: None) -> None:
    derive(corner, 2, max_batch_records="13", commit_interval_ms="30", runner="faust")
    check_same(corner, 1, 2)


def test_control_another_rule_makes_another_generation(corner: Corner, log: None) -> None:
    derive(corner, 3, severities="duration_too_long=rejected")
    with pytest.raises(AssertionError, match=r"differ in enriched cdr 0, rejected cdr 0, .*subscriber_day"):
        check_same(corner, 1, 3, patience_s=3)


def test_control_a_version_of_a_customer_that_came_later_makes_another_generation(corner: Corner, log: None) -> None:
    late = {"identifier": "k1.1", "identifier_kind": "MSISDN", "valid_from": NOW_MS - 50 * DAY_MS, "deleted": False}
    for partition in range(corner.partitions):
        corner.send("customer", partition, [late | {"customer_id": "c1", "plan_id": "p9", "region_id": "R1"}])
    derive(corner, 4)
    with pytest.raises(AssertionError, match=r"differ in enriched cdr 0, .*plan, subscriber_day"):
        check_same(corner, 1, 4, patience_s=3)
