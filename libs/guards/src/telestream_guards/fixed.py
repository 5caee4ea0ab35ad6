"""What a generation's state depends on, by name; and what it means if a worker's own differs.

Not here, because what was judged stays judged and nothing is kept of it: rules and their severities, reference data,
home networks, lateness, rhythm of flushes.
"""

from __future__ import annotations

from collections.abc import Mapping

from telestream_domain import MINUTE_WINDOWS_MAX_AGE_MS, SEGMENT_BITS, SUBSCRIBER_DAY_SEGMENT_BITS, Topics
from telestream_guards.errors import GuardError, PartitionsChanged, SettingsDiffer, TopicMadeAnew
from telestream_guards.topics import TopicFacts, listed, topics_of
from telestream_opstore import Fixed

THIS_INSTALLATION = "this installation"
_PARTITIONS = "partitions of "
_TOPIC_ID = "topic id of "
_SET_BY_USERS = {"business_timezone", "identity", "dedup_horizon_days", "dedup_segment_bits"}
"""The rest belongs to the version of the code."""


def fixed_by_code(business_timezone: str) -> dict[str, str | int]:
    """What every worker's state depends on."""
    return {
        "segment_bits": SEGMENT_BITS,
        "subscriber_day_segment_bits": SUBSCRIBER_DAY_SEGMENT_BITS,
        "minute_windows_max_age_ms": MINUTE_WINDOWS_MAX_AGE_MS,
        "business_timezone": business_timezone,
    }


def fixed_by_topics(facts: Mapping[str, TopicFacts], topics: Topics, record_type: str) -> dict[str, str | int]:
    """The topics that a generation began with."""
    found: dict[str, str | int] = {}
    for topic in topics_of(topics, record_type):
        found[_PARTITIONS + topic] = facts[topic].partitions
        found[_TOPIC_ID + topic] = facts[topic].topic_id
    return found


def fixed_partitions(partitions: Mapping[str, int]) -> dict[str, str | int]:
    return {_PARTITIONS + topic: count for topic, count in partitions.items()}


def compare(whose: str, kept: Mapping[str, Fixed], own: Mapping[str, Fixed]) -> None:
    """Raises the GuardError that says how ``own`` departs from what is ``kept``, by type; settings fixed by others
    only do not matter. ``whose``: "generation 1", "this installation"."""
    differing = {
        name: (kept[record_type][name], value)
        for record_type, settings in own.items()
        for name, value in settings.items()
        if kept[record_type].get(name, value) != value
    }
    if differing:
        raise _error(whose, differing)


def _error(whose: str, differing: Mapping[str, tuple[str | int, str | int]]) -> GuardError:
    remade = [
        f"{name.removeprefix(_TOPIC_ID)} (topic id {kept} before, {own} now)"
        for name, (kept, own) in differing.items()
        if name.startswith(_TOPIC_ID)
    ]
    if remade:
        return TopicMadeAnew(
            f"made anew since {whose} began: {listed(remade)}; offsets mean other records now: bring the old topic "
            "back, or derive a new generation"
        )
    grown = [
        f"{name.removeprefix(_PARTITIONS)} from {kept} to {own}"
        for name, (kept, own) in differing.items()
        if name.startswith(_PARTITIONS)
    ]
    if grown:
        return PartitionsChanged(
            f"partition counts changed since {whose} began: {listed(grown)}; a partition count never changes, "
            "duplicates would slip between partitions: bring the old topic back"
        )
    named = [f"{_name(name)} is {own} here and {kept} there" for name, (kept, own) in sorted(differing.items())]
    return SettingsDiffer(
        f"{whose} was begun with other settings: {', '.join(named)}; what is kept depends on them: set them back"
        + ("" if whose == THIS_INSTALLATION else ", or derive a new generation")
    )


def _name(setting: str) -> str:
    return f"TELESTREAM_{setting.upper()}" if setting in _SET_BY_USERS else setting
