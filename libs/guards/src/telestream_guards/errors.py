"""TelestreamError
└── GuardError
    ├── GenerationNotWanted  nobody began this generation, or it is gone
    ├── GenerationPreparing  its topics are being made: wait
    ├── SettingsDiffer       this worker is set otherwise than the generation it belongs to
    ├── TopicMadeAnew        a topic is not the one the generation began with
    ├── PartitionsChanged    a topic has another partition count than raw, or than it had
    ├── TopicsMissing        a topic is not there
    └── TopicsUnknown        Kafka does not answer
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class GuardError(TelestreamError):
    pass


class GenerationNotWanted(GuardError):
    pass


class GenerationPreparing(GuardError):
    pass


class SettingsDiffer(GuardError):
    pass


class TopicMadeAnew(GuardError):
    pass


class PartitionsChanged(GuardError):
    pass


class TopicsMissing(GuardError):
    pass


class TopicsUnknown(GuardError):
    pass
