"""``telestream warehouse migrate|check``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from telestream_cli.topics import AsJson
from telestream_warehouse import check as check_warehouse
from telestream_warehouse import migrate as migrate_warehouse

ClickHouseUrl = Annotated[
    str, typer.Option("--clickhouse", envvar="TELESTREAM_CLICKHOUSE", help="ClickHouse HTTP URL, with user if needed.")
]
Database = Annotated[str, typer.Option(envvar="TELESTREAM_CLICKHOUSE_DATABASE", help="ClickHouse database.")]

DEFAULT_CLICKHOUSE = "http://127.0.0.1:18023"
DEFAULT_DATABASE = "telestream"


def register(app: typer.Typer) -> None:
    """Add ``warehouse`` to the command."""
    group = typer.Typer(help="Create and check the tables and views in ClickHouse.", no_args_is_help=True)
    app.add_typer(group, name="warehouse")

    @group.command(epilog="Example: telestream warehouse migrate --clickhouse http://clickhouse:8123")
    def migrate(
        clickhouse: ClickHouseUrl = DEFAULT_CLICKHOUSE, database: Database = DEFAULT_DATABASE, as_json: AsJson = False
    ) -> None:
        """Create the database and apply the migrations it lacks; running it again is harmless."""
        applied = migrate_warehouse(clickhouse, database)
        if as_json:
            typer.echo(json.dumps({"applied": applied}))
            return
        for name in applied:
            typer.echo(f"applied {name}")
        if not applied:
            typer.echo("nothing to apply")

    @group.command(epilog="Example: telestream warehouse check")
    def check(
        clickhouse: ClickHouseUrl = DEFAULT_CLICKHOUSE, database: Database = DEFAULT_DATABASE, as_json: AsJson = False
    ) -> None:
        """Say which migrations are missing or were changed, change nothing; exit 1 if any."""
        wrong = check_warehouse(clickhouse, database)
        if as_json:
            typer.echo(json.dumps({"ok": not wrong, "differences": wrong}))
        else:
            for line in wrong:
                typer.echo(line, err=True)
            if not wrong:
                typer.echo("all migrations are applied")
        if wrong:
            raise typer.Exit(1)
