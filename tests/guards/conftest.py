"""All chosen situations are met side by side, each under a prefix of its own; the tests then look at what was said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from installation import Installation, Stopped
from situations import GATEWAY, SITUATIONS, Situation

from telestream_devstack import Parts
from telestream_devstack.postgres import create_database
from telestream_warehouse import migrate

AT_ONCE = 3
DATABASE = "guards"


@pytest.fixture(scope="session")
def warehouse(parts: Parts) -> str:
    httpx.post(parts.clickhouse, content=f"CREATE DATABASE IF NOT EXISTS {DATABASE}", timeout=30).raise_for_status()
    migrate(parts.clickhouse, DATABASE)
    return DATABASE


def _meet(parts: Parts, warehouse: str, folder: Path, chosen: Situation, number: int) -> Stopped:
    postgres = parts.postgres
    if chosen.service == GATEWAY:
        # keys are an installation's, and an installation has a database
        create_database(parts.postgres, f"guards_{number}")
        postgres = parts.postgres.rsplit("/", 1)[0] + f"/guards_{number}"
    return chosen.meet(Installation(parts, warehouse, postgres, folder))


@pytest.fixture(scope="session")
def met(
    parts: Parts, warehouse: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[Stopped]]]:
    """What became of each situation whose test was chosen."""
    folder = tmp_path_factory.mktemp("guards")
    wanted = {
        item.callspec.params["situation"].name
        for item in request.session.items
        if "situation" in getattr(getattr(item, "callspec", None), "params", {})
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            chosen.name: pool.submit(_meet, parts, warehouse, folder, chosen, number)
            for number, chosen in enumerate(SITUATIONS)
            if chosen.name in wanted
        }


@pytest.fixture
def installation(parts: Parts, warehouse: str, tmp_path: Path) -> Installation:
    return Installation(parts, warehouse, parts.postgres, tmp_path)
