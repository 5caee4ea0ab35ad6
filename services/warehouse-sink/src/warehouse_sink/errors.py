"""TelestreamError
└── SinkError
    ├── GapFound        a judged record is missing, or stands on the wrong partition: the log is not what it must be
    ├── PositionLost    the topic was cut short or overtaken by retention: no way on from where we stand
    │   └── TopicMadeAnew   it is another topic under the old name
    ├── Undecodable     a value in one of our own topics is not what its schema says
    ├── BlockRefused    ClickHouse will never take these rows
    ├── NotMigrated     the tables are not there
    └── KafkaFailed     the consumer cannot go on
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class SinkError(TelestreamError):
    pass


class GapFound(SinkError):
    pass


class PositionLost(SinkError):
    pass


class TopicMadeAnew(PositionLost):
    pass


class Undecodable(SinkError):
    pass


class BlockRefused(SinkError):
    pass


class NotMigrated(SinkError):
    pass


class KafkaFailed(SinkError):
    pass
