"""Helpers of these tests are plain modules beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telestream_devstack import Parts, reserve_base

sys.path.insert(0, str(Path(__file__).parent))

from faust_batch_broker import Broker, own_broker
from faust_batch_corner import Corner


@pytest.fixture
def corner(parts: Parts, topic_prefix: str, tmp_path: Path) -> Iterator[Corner]:
    """An own corner of the session's Kafka; whatever runs in it is ended with the test."""
    corner = Corner(parts.kafka, topic_prefix, tmp_path)
    yield corner
    corner.close()


@pytest.fixture(scope="session")
def lone_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with own_broker(tmp_path_factory.mktemp("broker"), reserve_base()) as broker:
        yield broker


@pytest.fixture
def broker(lone_broker: Broker) -> Iterator[Broker]:
    """A broker that may be stopped, killed and cut off: it is whole again for the next test."""
    yield lone_broker
    lone_broker.mend()


@pytest.fixture
def own_corner(broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Corner]:
    """A corner of that broker."""
    corner = Corner(broker.direct, topic_prefix, tmp_path)
    yield corner
    broker.mend()
    corner.close()
