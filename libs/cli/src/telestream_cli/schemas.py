"""``telestream schemas register|check``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from telestream_cli.topics import AsJson, Generation, Prefix
from telestream_contracts import Registry
from telestream_domain import DEFAULT_PREFIX, Topics

RegistryUrl = Annotated[str, typer.Option("--registry", envvar="TELESTREAM_REGISTRY", help="Schema registry URL.")]

DEFAULT_REGISTRY = "http://127.0.0.1:18085/apis/ccompat/v7"


def register(app: typer.Typer) -> None:
    """Add ``schemas`` to the command."""
    group = typer.Typer(help="Register and check the Avro schemas.", no_args_is_help=True)
    app.add_typer(group, name="schemas")

    @group.command("register", epilog="Example: telestream schemas register --registry http://registry:8081")
    def register_all(
        registry: RegistryUrl = DEFAULT_REGISTRY,
        prefix: Prefix = DEFAULT_PREFIX,
        generation: Generation = 1,
        as_json: AsJson = False,
    ) -> None:
        """Register the schema of every topic; doing it again is harmless."""
        ids = Registry(registry).register_all(Topics(prefix, generation))
        if as_json:
            typer.echo(json.dumps(ids))
            return
        for topic, schema_id in ids.items():
            typer.echo(f"{schema_id:>6}  {topic}")

    @group.command(epilog="Example: telestream schemas check")
    def check(
        registry: RegistryUrl = DEFAULT_REGISTRY,
        prefix: Prefix = DEFAULT_PREFIX,
        generation: Generation = 1,
        as_json: AsJson = False,
    ) -> None:
        """Compare the registry with the schemas of this version; exit 1 if anything differs."""
        wrong = Registry(registry).check_all(Topics(prefix, generation))
        if as_json:
            typer.echo(json.dumps({"ok": not wrong, "differences": wrong}))
        else:
            for line in wrong:
                typer.echo(line, err=True)
            if not wrong:
                typer.echo("all schemas are registered as they should be")
        if wrong:
            raise typer.Exit(1)
