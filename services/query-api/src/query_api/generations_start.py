"""Beginning a replay: from what is asked for to a row with a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from query_api.domain.problems import Problem, unavailable
from query_api.domain.ranges import to_ms
from query_api.domain.replay_request import Raw, Wanted, require_anything, starts_of, within
from query_api.generations_control import Control, opstore_answers, unknown
from telestream_contracts import RegistryError, raw_fields
from telestream_domain import REFERENCES, RULES_VERSION, RuleChanges, RuleChangesError, Topics
from telestream_opstore import Derivation, Plan, ReplayInWork, create_derivation_async

Offsets = dict[int, int]


async def begin(control: Control, wanted: Wanted, actor: str, code_version: str) -> Derivation:
    """The new generation's row, PREPARING. Raises Problem, and then nothing has changed."""
    rules = await asyncio.to_thread(_rules, wanted.rules)
    other = None if wanted.reference_of is None else _pin_of(wanted, await control.rows())
    versions = await asyncio.to_thread(_versions, control, wanted, code_version)
    reference = other.plan.reference if other else await asyncio.to_thread(_reference_ends, control)
    starts, ends = await asyncio.to_thread(_from_to, control, wanted)
    if other is not None:
        ends = {name: other.plan.ends[name] for name in wanted.types}
        for name in wanted.types:
            within(starts[name], ends[name], name, other.generation)
    plan = Plan(
        starts=starts,
        ends=ends,
        reference=reference,
        only_to_ends=wanted.compare_only,
        rules=rules,
        versions=versions,
        asked=wanted.words(),
    )
    try:
        async with opstore_answers(ReplayInWork):
            made = await create_derivation_async(
                control.dsn,
                control.prefix,
                wanted.types,
                plan,
                reason=wanted.reason,
                actor=actor,
                compare_only=wanted.compare_only,
            )
    except ReplayInWork as err:
        raise Problem(409, "replay_in_work", str(err), "types") from err
    control.wake.set()
    return made


def _rules(text: str | None) -> dict[str, Any]:
    """As the row has them; none: {}."""
    if text is None:
        return {}
    try:
        return RuleChanges.parse(text, raw_fields()).to_json()
    except RuleChangesError as err:
        raise Problem(422, "bad_rules", "; ".join(str(err).split("\n")), "rules") from err


def _pin_of(wanted: Wanted, rows: list[Derivation]) -> Derivation:
    """The generation whose ends and reference positions are taken over."""
    number = wanted.reference_of
    found = next((row for row in rows if row.generation == number), None)
    if number is None or found is None:
        raise unknown(number or 0, rows)
    missing = [name for name in wanted.types if name not in found.plan.ends]
    if missing:
        raise Problem(
            422,
            "bad_reference_of",
            f"reference_of: generation {number} is not pinned for {', '.join(missing)}: name a replay of these types",
            "reference_of",
        )
    return found


def _versions(control: Control, wanted: Wanted, code_version: str) -> dict[str, str | int]:
    """Of code, rules, and the schemas that are read."""
    topics, registry = control.topics(1), control.parts.registry
    found: dict[str, str | int] = {"code": code_version, "rules": RULES_VERSION}
    try:
        for topic in (*map(topics.raw, wanted.types), *map(topics.ref, REFERENCES)):
            found[f"schema of {topic}"] = registry.id_for(topic)
    except RegistryError as err:
        raise unavailable("the schema registry") from err
    return found


def _reference_ends(control: Control) -> dict[str, Offsets]:
    """Reference topic → partition → the offset after its last version."""
    raw, topics = control.parts.raw, control.topics(1)
    return {topic: _known(raw.ends(topic, raw.partitions(topic))) for topic in map(topics.ref, REFERENCES)}


def _from_to(control: Control, wanted: Wanted) -> tuple[dict[str, Offsets], dict[str, Offsets]]:
    """Type → where it begins, and where raw ends now."""
    topics, starts, ends = control.topics(1), {}, {}
    at = None if wanted.from_time is None else to_ms(wanted.from_time)
    if wanted.sample is not None:
        at = control.parts.now_ms() - wanted.sample // timedelta(milliseconds=1)
    found = {}
    for name in wanted.types:
        raw, first_at_ms = _raw(control, topics, name, at, wanted)
        starts[name] = starts_of(wanted, name, raw, first_at_ms)
        ends[name], found[name] = dict(raw.end), raw
    require_anything(wanted, found)
    return starts, ends


def _raw(
    control: Control, topics: Topics, record_type: str, at_ms: int | None, wanted: Wanted
) -> tuple[Raw, dict[int, int | None]]:
    """The topic as it stands; and when its first records arrived, where retention has removed some and it matters."""
    edge, topic = control.parts.raw, topics.raw(record_type)
    count = edge.partitions(topic)
    low = _known(edge.starts(topic, count))
    at = {} if at_ms is None else edge.at(topic, count, at_ms)
    raw = Raw(low, _known(edge.ends(topic, count)), at)
    first: dict[int, int | None] = {}
    if wanted.from_offset is not None or wanted.from_time is not None:
        removed = [(partition, offset) for partition, offset in low.items() if 0 < offset < raw.end[partition]]
        for record in control.parts.records.at(topic, removed).values():
            first[record.partition] = record.appended_ms
    return raw, first


def _known(offsets: Mapping[int, int]) -> Offsets:
    """Kafka may say that it does not know an offset yet."""
    if any(offset < 0 for offset in offsets.values()):
        raise unavailable("Kafka")
    return dict(offsets)
