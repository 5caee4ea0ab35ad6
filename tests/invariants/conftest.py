"""Corners of the session's parts. Every module of these tests works in one of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from telestream_devstack import Parts

from .corner import Corner


@pytest.fixture(scope="module")
def corner(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corner]:
    """One raw log of two partitions; services of any generation can be started over it."""
    made = Corner(parts, f"t{uuid.uuid4().hex[:12]}.", tmp_path_factory.mktemp("invariant"))
    yield made
    made.stop_all()
