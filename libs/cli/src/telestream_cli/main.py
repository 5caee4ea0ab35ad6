"""The ``telestream`` command: thin, calls the APIs and the libraries."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as package_version

import typer

from telestream_cli import (
    config,
    demo,
    ingest,
    keys,
    reconcile,
    replay,
    schemas,
    simulate,
    stack,
    topics,
    trace,
    warehouse,
)
from telestream_domain import TelestreamError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

MODULES = (stack, ingest, simulate, reconcile, trace, replay, demo, topics, schemas, warehouse, keys, config)


def build() -> typer.Typer:
    """The command with all its sub-commands."""
    app = typer.Typer(
        name="telestream",
        help="Call detail records and network events through Kafka: exact, fast, replayable.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in MODULES:
        module.register(app)

    @app.command(epilog="Example: telestream version")
    def version() -> None:
        """Print the version."""
        typer.echo(package_version("telestream-cli"))

    return app


def main() -> None:
    """Run the command; an error is one line on stderr, never a traceback."""
    try:
        build()()
    except TelestreamError as err:
        typer.echo(f"telestream: {err}", err=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has gone: not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
