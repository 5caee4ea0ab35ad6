"""Real Kafka, schema registry, ClickHouse and PostgreSQL without Docker, under one supervisor."""

from telestream_devstack.errors import DevstackError, DownloadFailed, PartFailed, PortTaken, StackConflict
from telestream_devstack.parts import PART_NAMES, Parts, start_parts
from telestream_devstack.ports import DEFAULT_PORT_BASE, reserve_base

__all__ = [
    "DEFAULT_PORT_BASE",
    "PART_NAMES",
    "DevstackError",
    "DownloadFailed",
    "PartFailed",
    "Parts",
    "PortTaken",
    "StackConflict",
    "reserve_base",
    "start_parts",
]
