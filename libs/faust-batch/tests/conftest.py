"""Helpers of these tests are plain modules beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telestream_devstack import Parts

sys.path.insert(0, str(Path(__file__).parent))

from faust_batch_corner import Corner


@pytest.fixture
def corner(parts: Parts, topic_prefix: str, tmp_path: Path) -> Iterator[Corner]:
    """An own corner of the session's Kafka; whatever runs in it is ended with the test."""
    corner = Corner(parts.kafka, topic_prefix, tmp_path)
    yield corner
    corner.close()
