"""What a worker checks before it begins."""

from telestream_guards.errors import GuardError, PartitionsChanged, SettingsDiffer, TopicMadeAnew
from telestream_guards.start import guard_installation, guard_start
from telestream_guards.topics import TopicFacts, topic_facts

__all__ = [
    "GuardError",
    "PartitionsChanged",
    "SettingsDiffer",
    "TopicFacts",
    "TopicMadeAnew",
    "guard_installation",
    "guard_start",
    "topic_facts",
]
