"""What a plan includes in a bill cycle, and how much of it is used.

An allowance belongs to one subscription (a number, with the IMSI that the same reference event named) and plan. A day
counts for the plan that was held last on it; an allowance is its plan's share of the cycle: ``allowance × days held ÷
days of the cycle``, rounded up. A plan's terms are those in force when it was first held in the cycle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from query_api.domain.usage_cycles import Cycle, bill_cycle_day


@dataclass(frozen=True, slots=True)
class Service:
    """One allowance: the plan's field, the unit of the answer, and which usage counts against it."""

    name: str
    term: str
    unit: str
    measures: tuple[str, ...]
    unit_of_measures: int
    directions: frozenset[str] | None
    roamings: frozenset[str]
    reason: str


AT_HOME = frozenset({"HOME", "NATIONAL", "UNKNOWN"})
"""Abroad (OUTBOUND) is rated by other tariffs, INBOUND is another operator's subscriber. UNKNOWN counts: a feed without
networks says nothing of roaming, and left out its customers would seem to use nothing."""

CALLING = frozenset({"MO", "FORWARDED", ""})
"""The calling party pays, and who forwards pays the forwarded leg. Empty counts: a feed without directions reports what
its own customers did."""

SERVICES: tuple[Service, ...] = (
    Service(
        "voice",
        "voice_allowance_s",
        "s",
        ("duration_ms",),
        1_000,
        CALLING,
        AT_HOME,
        "chargeable time, answer to release, of voice and video calls that the subscriber made or forwarded",
    ),
    Service(
        "sms",
        "sms_allowance",
        "messages",
        ("sms_segments",),
        1,
        CALLING,
        AT_HOME,
        "segments that the subscriber sent: each goes over the air, and is billed, as one message",
    ),
    Service(
        "data",
        "data_allowance_bytes",
        "bytes",
        ("bytes_up", "bytes_down"),
        1,
        None,
        AT_HOME,
        "bytes of both ways and all record types: whoever opened a session, the subscriber pays for it",
    ),
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an identifier. ``mine``: held by who is asked about; ``event``: names what came in one event."""

    identifier: str
    kind: str
    valid_from: datetime
    valid_to: datetime
    mine: bool
    plan_id: str | None
    bill_cycle_day: int | None
    event: str


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of a plan; an allowance of None is unlimited."""

    plan_id: str
    valid_from: datetime
    valid_to: datetime
    name: str | None
    allowances: Mapping[str, int | None]


def day_in_force(versions: Iterable[Version], now: datetime) -> int:
    """The bill cycle day as of the newest version of each identifier that has begun."""
    newest: dict[str, Version] = {}
    for version in versions:
        if version.mine and version.valid_from <= now:
            held = newest.get(version.identifier)
            if held is None or held.valid_from < version.valid_from:
                newest[version.identifier] = version
    return bill_cycle_day(version.bill_cycle_day for version in newest.values())


def subscriptions(versions: Iterable[Version]) -> dict[str, str]:
    """Identifier → its subscription: an IMSI's is the number that an event named beside it, else each its own."""
    versions = list(versions)
    numbers = {version.event: version.identifier for version in versions if version.kind == "MSISDN"}
    found = {version.identifier: version.identifier for version in versions}
    for version in versions:
        if version.kind == "IMSI" and version.event in numbers:
            found[version.identifier] = numbers[version.event]
    return found


def days_held(versions: Iterable[Version], cycle: Cycle, zone: ZoneInfo) -> dict[tuple[str, str], list[date]]:
    """(subscription, plan) → the dates of the cycle on which it was the last to be held, ascending."""
    versions = list(versions)
    subscription_of = subscriptions(versions)
    plan_on: dict[tuple[str, date], str] = {}
    # of two identifiers of one subscription the number decides
    for version in sorted(versions, key=lambda one: (one.kind == "MSISDN", one.identifier, one.valid_from)):
        if not version.mine or version.plan_id is None:
            continue
        day = max(version.valid_from.astimezone(zone).date(), cycle.start)
        last = (version.valid_to - timedelta(milliseconds=1)).astimezone(zone).date()
        while day <= last and day < cycle.end:
            plan_on[subscription_of[version.identifier], day] = version.plan_id
            day += timedelta(days=1)
    held: dict[tuple[str, str], list[date]] = defaultdict(list)
    for (subscription, day), plan_id in sorted(plan_on.items()):
        held[subscription, plan_id].append(day)
    return dict(held)


def used(usage: pl.DataFrame, subscription_of: Mapping[str, str]) -> dict[tuple[str, str], dict[str, int]]:
    """(subscription, plan) → service → what counts against its allowance, in the unit of the measures.

    ``usage`` has ``subscriber_id``, ``plan_id``, ``roaming``, ``direction`` and the measures.
    """
    if usage.is_empty():
        return {}
    sums = (
        usage.with_columns(pl.col("subscriber_id").replace(dict(subscription_of)))
        .group_by("subscriber_id", "plan_id")
        .agg(_counted(service).alias(service.name) for service in SERVICES)
    )
    return {
        (row["subscriber_id"], row["plan_id"]): {service.name: row[service.name] for service in SERVICES}
        for row in sums.iter_rows(named=True)
    }


def allowances(
    usage: pl.DataFrame, versions: Sequence[Version], terms: Sequence[Terms], cycle: Cycle, zone: ZoneInfo
) -> list[dict[str, Any]]:
    """Per subscription and plan that was held or used in the cycle: allowances, used and left; as JSON values."""
    held = days_held(versions, cycle, zone)
    counted = used(usage, subscriptions(versions))
    shown = []
    for subscription, plan_id in sorted({*held, *counted}):
        days = held.get((subscription, plan_id), [])
        found = _terms_on(terms, plan_id, days[0] if days else cycle.start, zone)
        uses = counted.get((subscription, plan_id), {})
        shown.append(
            {
                "subscriber_id": subscription,
                "plan_id": plan_id,
                "plan_name": found.name if found else None,
                "days_held": len(days),
                "days_in_cycle": cycle.days,
                **{one.name: _left(one, found, uses.get(one.name, 0), len(days), cycle.days) for one in SERVICES},
            }
        )
    return shown


def share(allowance: int, days: int, of_days: int) -> int:
    """An allowance for some days of a cycle, rounded up to a whole unit."""
    return -(-allowance * days // of_days)


def counting(service: Service) -> dict[str, Any]:
    """A row of the table, as JSON."""
    return {
        "unit": service.unit,
        "allowance": service.term,
        "measures": list(service.measures),
        "directions": sorted(service.directions) if service.directions is not None else None,
        "roaming": sorted(service.roamings),
        "reason": service.reason,
    }


def _counted(service: Service) -> pl.Expr:
    counts = pl.col("roaming").is_in(list(service.roamings))
    if service.directions is not None:
        counts = counts & pl.col("direction").is_in(list(service.directions))
    total = pl.sum_horizontal(pl.col(name).cast(pl.Int64) for name in service.measures)
    return total.filter(counts).sum()


def _terms_on(terms: Sequence[Terms], plan_id: str, day: date, zone: ZoneInfo) -> Terms | None:
    """In force at the end of that day, so that a plan that came with its first customer has terms."""
    at = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone) - timedelta(milliseconds=1)
    return next((one for one in terms if one.plan_id == plan_id and one.valid_from <= at < one.valid_to), None)


def _left(service: Service, terms: Terms | None, uses: int, days: int, of_days: int) -> dict[str, Any]:
    whole, part = divmod(uses, service.unit_of_measures)
    amount = uses / service.unit_of_measures if part else whole
    included = terms.allowances.get(service.term) if terms is not None else None
    if included is None:
        # not known is not unlimited
        return {
            "used": amount,
            "allowance": None,
            "left": None,
            "over": None,
            "unlimited": terms is not None and days > 0,
        }
    allowance = share(included, days, of_days)
    return {
        "used": amount,
        "allowance": allowance,
        "left": max(round(allowance - amount, 3), 0),
        "over": max(round(amount - allowance, 3), 0),
        "unlimited": False,
    }
