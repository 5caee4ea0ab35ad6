"""``telestream topics apply|check``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from telestream_contracts import apply_topics, check_topics
from telestream_domain import DEFAULT_PREFIX, Topics

Kafka = Annotated[str, typer.Option(envvar="TELESTREAM_KAFKA", help="Kafka bootstrap servers.")]
Prefix = Annotated[str, typer.Option(envvar="TELESTREAM_TOPIC_PREFIX", help="What every topic name starts with.")]
Generation = Annotated[int, typer.Option(envvar="TELESTREAM_GENERATION", help="Generation of the derived topics.")]
Partitions = Annotated[int, typer.Option(help="Partitions of raw topics and what follows them; never changes later.")]
Replication = Annotated[int, typer.Option(help="Copies of each partition; 3 or more asks for 2 in sync.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]

DEFAULT_KAFKA = "127.0.0.1:18092"


def register(app: typer.Typer) -> None:
    """Add ``topics`` to the command."""
    group = typer.Typer(help="Create and check the Kafka topics.", no_args_is_help=True)
    app.add_typer(group, name="topics")

    @group.command(epilog="Example: telestream topics apply --kafka broker:9092 --partitions 32 --replication 3")
    def apply(
        kafka: Kafka = DEFAULT_KAFKA,
        prefix: Prefix = DEFAULT_PREFIX,
        generation: Generation = 1,
        partitions: Partitions = 4,
        replication: Replication = 1,
        as_json: AsJson = False,
    ) -> None:
        """Create what is missing and set what differs; nothing is deleted, no partition count changes."""
        report = apply_topics(kafka, Topics(prefix, generation), partitions, replication)
        if as_json:
            typer.echo(
                json.dumps({"created": report.created, "changed": report.changed, "unchanged": report.unchanged})
            )
            return
        for verb, names in (("created", report.created), ("changed", report.changed)):
            for name in names:
                typer.echo(f"{verb} {name}")
        typer.echo(f"{len(report.unchanged)} topics were as they should be")

    @group.command(epilog="Example: telestream topics check --partitions 32 --replication 3")
    def check(
        kafka: Kafka = DEFAULT_KAFKA,
        prefix: Prefix = DEFAULT_PREFIX,
        generation: Generation = 1,
        partitions: Partitions = 4,
        replication: Replication = 1,
        as_json: AsJson = False,
    ) -> None:
        """Say what differs from the table, change nothing; exit 1 if anything does."""
        wrong = check_topics(kafka, Topics(prefix, generation), partitions, replication)
        if as_json:
            typer.echo(json.dumps({"ok": not wrong, "differences": wrong}))
        else:
            for line in wrong:
                typer.echo(line, err=True)
            if not wrong:
                typer.echo("all topics are as they should be")
        if wrong:
            raise typer.Exit(1)
