"""``telestream up|down|status|logs|doctor``: the embedded stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_STATE_DIR = Path(".telestream")

StateDir = Annotated[
    Path,
    typer.Option(envvar="TELESTREAM_STATE_DIR", help="Where the stack keeps data, logs and keys.", file_okay=False),
]
PortBase = Annotated[
    int | None,
    typer.Option(help="Ports begin here: gateway +80, query API +81, Kafka +92 … (default 18000, or as last time)."),
]
Only = Annotated[list[str] | None, typer.Option(help="Start these only, comma-separated: kafka,registry,gateway …")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


def _note(line: str) -> None:
    typer.echo(line, err=True)


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size >> 20} MiB"


def register(app: typer.Typer) -> None:
    """Add the commands of the embedded stack."""

    @app.command(epilog="Example: telestream up --port-base 19000 --only kafka,registry,gateway")
    def up(
        state_dir: StateDir = DEFAULT_STATE_DIR,
        port_base: PortBase = None,
        only: Only = None,
        kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use this Kafka, start none.")] = None,
        registry: Annotated[str | None, typer.Option(metavar="URL", help="Use this schema registry.")] = None,
        clickhouse: Annotated[str | None, typer.Option(metavar="URL", help="Use this ClickHouse.")] = None,
        postgres: Annotated[str | None, typer.Option(metavar="URL", help="Use this PostgreSQL database.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Start Kafka, schema registry, ClickHouse, PostgreSQL and the five services, and wait until they are healthy.

        Doing it again is harmless; data of an earlier run is there again. What dies is started again in the background.
        """
        from telestream_devstack import stack

        own = {"kafka": kafka, "registry": registry, "clickhouse": clickhouse, "postgres": postgres}
        names = [name.strip() for entry in only or () for name in entry.split(",") if name.strip()]
        stack.up(
            state_dir,
            port_base,
            names,
            {name: address for name, address in own.items() if address},
            say=(lambda _line: None) if as_json else _note,
        )
        document = stack.status_document(state_dir)
        if as_json:
            typer.echo(json.dumps(document))
            return
        _table(document)

    @app.command(epilog="Example: telestream down --state-dir .telestream")
    def down(state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
        """Stop the stack in order; its data stays."""
        from telestream_devstack import stack

        stopped = stack.down(state_dir, say=(lambda _line: None) if as_json else _note)
        if as_json:
            typer.echo(json.dumps({"stopped": stopped}))
        else:
            typer.echo("stopped; data is kept" if stopped else f"nothing runs in {state_dir}")

    @app.command(epilog="Example: telestream status --json")
    def status(state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
        """Show every part and service: address, process, health, memory, records to catch up; exit 1 if one that the
        stack needs is not healthy. It does not need the workers of a replay that was never activated."""
        from telestream_devstack import stack

        document = stack.status_document(state_dir)
        if as_json:
            typer.echo(json.dumps(document))
        elif document["services"]:
            _table(document)
        else:
            typer.echo(f"nothing has run in {state_dir}: start it with `telestream up`")
        services = document["services"]
        assert isinstance(services, list)
        if not services or not all(service["healthy"] for service in services if service["required"]):
            raise typer.Exit(1)

    @app.command(epilog="Examples: telestream logs cdr-enricher -f; telestream logs g2 (the workers of generation 2)")
    def logs(
        services: Annotated[
            list[str] | None, typer.Argument(metavar="[SERVICE]...", help="All, with supervisor and setup, if none.")
        ] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
        lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many last lines of each.")] = 50,
        state_dir: StateDir = DEFAULT_STATE_DIR,
    ) -> None:
        """Show what parts and services have written."""
        from telestream_devstack import stack

        files = stack.log_files(state_dir, services)
        if not any(path.exists() for path in files.values()):
            typer.echo(f"telestream: no log in {state_dir / 'logs'}: nothing has run there", err=True)
            raise typer.Exit(1)
        width = max(map(len, files))

        def show(name: str, line: str) -> None:
            typer.echo(line if len(files) == 1 else f"{name:{width}} | {line}")

        for name, line in stack.last_lines(files, lines):
            show(name, line)
        if follow:
            for name, line in stack.follow(files):
                show(name, line)

    @app.command(epilog="Example: telestream doctor --port-base 19000")
    def doctor(state_dir: StateDir = DEFAULT_STATE_DIR, port_base: PortBase = None, as_json: AsJson = False) -> None:
        """Look at everything the stack needs, and say what to do about what is not right; exit 1 if anything is not."""
        from telestream_devstack.doctor import examine

        findings = []
        for finding in examine(state_dir, port_base):
            findings.append(finding)
            if not as_json:
                typer.echo(f"{'✓' if finding.ok else '✗'} {finding.check}: {finding.detail}")
                if not finding.ok and finding.remedy:
                    typer.echo(f"    → {finding.remedy}")
        good = all(finding.ok for finding in findings)
        if as_json:
            rows = [
                {"check": f.check, "ok": f.ok, "detail": f.detail, "remedy": None if f.ok else f.remedy}
                for f in findings
            ]
            typer.echo(json.dumps({"ok": good, "checks": rows}))
        if not good:
            raise typer.Exit(1)


def _table(document: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    services = document["services"]
    assert isinstance(services, list)
    table = Table(box=None, pad_edge=False)
    for title in ("", "name", "state", "pid", "memory", "lag", "restarts", "url"):
        table.add_column(title, justify="right" if title in ("pid", "memory", "lag", "restarts") else "left")
    for service in services:
        table.add_row(
            "[green]✓[/]" if service["healthy"] else "[red]✗[/]",
            service["name"],
            service["state"],
            str(service["pid"] or ""),
            _mebibytes(service["rss_bytes"]),
            "" if service["lag_records"] is None else str(service["lag_records"]),
            str(service["restarts"] or ""),
            service["url"],
        )
    # Not cut to a width of 80 where there is no terminal: the addresses are what is wanted.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for service in services:
        if not service["healthy"]:
            console.print(f"{service['name']}: {service['reason']}; {service['last_error'] or ''}", markup=False)
    if document["setup_error"]:
        console.print(f"setting up: {document['setup_error']}", markup=False)
    console.print(f"key for both APIs: {document['api_key_file']}", markup=False)
