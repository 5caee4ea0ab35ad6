"""``telestream reconcile``: does everything that was accepted add up?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from telestream_cli.access import (
    Access,
    ApiKey,
    AsJson,
    QueryApi,
    StateDir,
    find_access,
    patiently,
    refused,
    unreachable,
)
from telestream_domain import TYPES

POLL_S = 0.5
Books = dict[str, Any]
"""Answer of ``/v1/reconciliation``."""


def register(app: typer.Typer) -> None:
    """Add ``reconcile`` to the command."""

    @app.command(epilog="Example: telestream reconcile --type cdr --source msc-berlin --wait 60")
    def reconcile(
        record_type: Annotated[str | None, typer.Option("--type", help="cdr or network; both by default.")] = None,
        source: Annotated[str | None, typer.Option(help="Only of this producer.")] = None,
        batch: Annotated[int | None, typer.Option(help="Only of this file.")] = None,
        wait: Annotated[float, typer.Option(help="Wait up to so many seconds until nothing is in flight.")] = 0.0,
        query_api: QueryApi = None,
        api_key: ApiKey = None,
        state_dir: StateDir = Path(".telestream"),
        as_json: AsJson = False,
    ) -> None:
        """Show accepted = stored + duplicates + rejected + in flight; exit 1 if it does not add up."""
        if record_type is not None and record_type not in TYPES:
            raise typer.BadParameter(f"--type is {' or '.join(TYPES)}, not {record_type!r}")
        access = find_access(state_dir, query_api=query_api, api_key=api_key)
        types = [record_type] if record_type else list(TYPES)
        with httpx.Client(headers=access.headers, timeout=30) as client:
            books = {name: wait_for_books(client, access, name, wait, source=source, batch=batch) for name in types}
        if as_json:
            typer.echo(json.dumps(books))
        else:
            Console().print(books_table(books))
        if not all(book["balanced"] for book in books.values()):
            raise typer.Exit(1)
        if wait and any(book["in_flight"] for book in books.values()):
            typer.echo(f"records are still in flight after {wait:.0f} s", err=True)
            raise typer.Exit(1)


def fetch_books(
    client: httpx.Client, access: Access, record_type: str, source: str | None = None, batch: int | None = None
) -> Books:
    """The reconciliation of one type. Raises ApiUnreachable or ApiRefused."""
    url = f"{access.query_api}/v1/reconciliation"
    params = {"type": record_type} | ({"source": source} if source else {}) | ({"batch": str(batch)} if batch else {})
    try:
        answer = client.get(url, params=params)
    except httpx.TransportError as err:
        raise unreachable("query API", access.query_api, err) from err
    if answer.status_code != 200:
        raise refused("query API", answer)
    body = answer.json()
    books: Books = body.get("data", body)
    return books


def wait_for_books(
    client: httpx.Client,
    access: Access,
    record_type: str,
    seconds: float,
    source: str | None = None,
    batch: int | None = None,
    patience: float = 0.0,
) -> Books:
    """The reconciliation once nothing is in flight, or after that many seconds, whichever comes first.

    An API that does not answer is asked again for ``patience`` seconds, or until the time is up if that is later.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = max(patience, deadline - time.monotonic())
        books = patiently(lambda: fetch_books(client, access, record_type, source, batch), left)
        if not books["in_flight"] or time.monotonic() + POLL_S > deadline:
            return books
        time.sleep(POLL_S)


def books_table(books: dict[str, Books]) -> Table:
    """What was accepted on top, what became of it below, and whether the two are the same."""
    table = Table("", *books, title="reconciliation")
    for column in table.columns[1:]:
        column.justify = "right"

    def row(label: str, values: list[int], style: str | None = None) -> None:
        table.add_row(label, *(f"{value:,}" for value in values), style=style)

    rows = list(books.values())
    row("accepted", [book["accepted"] for book in rows], "bold")
    table.add_section()
    row("= stored", [book["stored"] for book in rows])
    row("+ duplicates", [book["duplicates"] for book in rows])
    if any(book.get("conflicts") for book in rows):
        row("    of these with other content (conflict)", [book.get("conflicts", 0) for book in rows], "dim")
    row("+ rejected", [sum(book["rejected"].values()) for book in rows])
    for code in dict.fromkeys(code for book in rows for code in book["rejected"]):
        row(f"    {code}", [book["rejected"].get(code, 0) for book in rows], "dim")
    for name in ("withdrawn", "erased", "expired"):
        if any(book.get(name) for book in rows):
            row(f"+ {name}", [book.get(name, 0) for book in rows])
    row("+ in flight", [book["in_flight"] for book in rows])
    table.add_section()
    table.add_row(
        "balanced", *("[green]yes[/green]" if book["balanced"] else "[bold red]NO[/bold red]" for book in rows)
    )
    return table
