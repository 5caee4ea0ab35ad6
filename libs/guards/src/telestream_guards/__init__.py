"""What a worker checks before it begins."""

from telestream_guards.errors import GenerationNotWanted, GuardError, PartitionsChanged, SettingsDiffer, TopicMadeAnew
from telestream_guards.start import guard_installation, guard_start
from telestream_guards.topics import TopicFacts, topic_facts
from telestream_opstore import Derivation, Plan

__all__ = [
    "Derivation",
    "GenerationNotWanted",
    "GuardError",
    "PartitionsChanged",
    "Plan",
    "SettingsDiffer",
    "TopicFacts",
    "TopicMadeAnew",
    "guard_installation",
    "guard_start",
    "topic_facts",
]
