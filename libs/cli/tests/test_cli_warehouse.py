from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from telestream_cli import warehouse
from telestream_devstack import Parts

pytestmark = pytest.mark.stack


def test_warehouse_is_checked_migrated_and_checked_again(parts: Parts, clickhouse_database: str) -> None:
    app = typer.Typer()
    warehouse.register(app)

    def run(*arguments: str) -> tuple[int, str]:
        where = ("--clickhouse", parts.clickhouse, "--database", clickhouse_database)
        result = CliRunner().invoke(app, ["warehouse", *arguments, *where])
        return result.exit_code, result.output

    assert run("check") == (1, f"{clickhouse_database}: no migration was ever applied\n")
    code, output = run("migrate", "--json")
    assert code == 0
    assert len(json.loads(output)["applied"]) >= 6
    assert run("migrate") == (0, "nothing to apply\n")
    assert run("check") == (0, "all migrations are applied\n")
    assert json.loads(run("check", "--json")[1]) == {"ok": True, "differences": []}
