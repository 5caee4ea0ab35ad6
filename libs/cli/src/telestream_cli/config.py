"""``telestream config check``."""

from __future__ import annotations

import importlib
import json
from typing import Annotated

import typer

from telestream_cli.topics import AsJson
from telestream_domain import TelestreamError
from telestream_runtime import ServiceSettings

SETTINGS: dict[str, tuple[str, str]] = {
    "ingest-gateway": ("ingest_gateway.settings", "GatewaySettings"),
    "cdr-enricher": ("cdr_enricher.settings", "EnricherSettings"),
    "window-aggregator": ("window_aggregator.settings", "AggregatorSettings"),
    "warehouse-sink": ("warehouse_sink.settings", "SinkSettings"),
    "query-api": ("query_api.settings", "QuerySettings"),
}


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings type of a service."""
    module, name = SETTINGS[service]
    found: type[ServiceSettings] = getattr(importlib.import_module(module), name)
    return found


def register(app: typer.Typer) -> None:
    """Add ``config`` to the command."""
    group = typer.Typer(help="Check the settings.", no_args_is_help=True)
    app.add_typer(group, name="config")

    @group.command(epilog="Example: TELESTREAM_GENERATION=2 telestream config check cdr-enricher")
    def check(
        services: Annotated[list[str] | None, typer.Argument(help="Services to check; all if none is named.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Read the TELESTREAM_* environment as each service would and report all mistakes; connects to nothing."""
        names = services or list(SETTINGS)
        unknown = [name for name in names if name not in SETTINGS]
        if unknown:
            raise typer.BadParameter(f"no service {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
        mistakes: dict[str, str] = {}
        for name in names:
            try:
                settings_of(name).from_env()
            except TelestreamError as err:
                mistakes[name] = str(err)
        if as_json:
            typer.echo(json.dumps({"ok": not mistakes, "mistakes": mistakes}))
        else:
            for name in names:
                typer.echo(f"{name}: {mistakes.get(name, 'settings are good')}", err=name in mistakes)
        if mistakes:
            raise typer.Exit(1)
