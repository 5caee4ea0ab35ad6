"""``telestream trace``: one record's story."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from telestream_cli.access import Access, ApiKey, AsJson, QueryApi, StateDir, find_access, refused, unreachable
from telestream_domain import TYPES, TelestreamError

ASK = "-"
_STYLES = {"STORED": "green", "DUPLICATE": "yellow", "REJECTED": "red", "IN_FLIGHT": "cyan"}
Copy = Mapping[str, Any]
"""One entry of ``copies`` in the answer of ``/v1/events/trace``."""


class NotTraced(TelestreamError):
    """There is no such record, or it cannot be seen yet; the words say what was looked at."""


def register(app: typer.Typer) -> None:
    """Add ``trace`` to the command."""

    @app.command(epilog="Example: telestream trace msc-berlin 7f3a-000017 --type cdr")
    def trace(
        source: Annotated[str, typer.Argument(help="The producer that sent it.")],
        event_id: Annotated[str, typer.Argument(help="The producer's id; - asks for it, or reads it from stdin.")],
        record_type: Annotated[str | None, typer.Option("--type", help="cdr or network; both by default.")] = None,
        query_api: QueryApi = None,
        api_key: ApiKey = None,
        state_dir: StateDir = Path(".telestream"),
        as_json: AsJson = False,
    ) -> None:
        """Tell what became of one record: every copy, verdict, windows, row in the warehouse; exit 1 if not found.

        Ids that hold numbers of subscribers need not be in the shell's history: give - as EVENT_ID. The key needs the
        roles read and identity.
        """
        if record_type is not None and record_type not in TYPES:
            raise typer.BadParameter(f"--type is {' or '.join(TYPES)}, not {record_type!r}")
        access = find_access(state_dir, query_api=query_api, api_key=api_key)
        asked = {"source": source, "event_id": _given(event_id)} | ({"type": record_type} if record_type else {})
        found = fetch_story(access, asked)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            tell(found, Console())


def fetch_story(access: Access, asked: Mapping[str, str]) -> dict[str, Any]:
    """The story. Raises NotTraced, ApiUnreachable or ApiRefused; none of them names the event."""
    try:
        answer = httpx.post(f"{access.query_api}/v1/events/trace", json=dict(asked), headers=access.headers, timeout=60)
    except httpx.TransportError as err:
        raise unreachable("query API", access.query_api, err) from None
    if answer.status_code == 404 and answer.json().get("code") == "not_found":
        raise NotTraced(answer.json()["detail"])
    if answer.status_code != 200:
        raise refused("query API", answer)
    data: dict[str, Any] = answer.json()["data"]
    return data


def tell(story: Mapping[str, Any], console: Console) -> None:
    """Print every copy by arrival, and what it counts in."""
    copies = story["copies"]
    many = f"{len(copies)} copies" if len(copies) > 1 else "1 copy"
    console.print(f"[bold]{story['event_uid']}[/bold] of {story['source']}: {many}, by arrival", highlight=False)
    for number, copy in enumerate(copies, 1):
        console.print()
        head = Text(f"{number}. ", style="bold")
        head.append(copy["verdict"], style=f"bold {_STYLES.get(copy['verdict'], '')}")
        head.append(f" {copy['type']}")
        console.print(head)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(overflow="fold")
        for label, value in _lines(copy):
            grid.add_row(f"   {label}", escape(value))
        console.print(grid)
        if copy["windows"]:
            console.print(_windows(copy))
    if story["more_copies"]:
        console.print("\nmore copies are not shown")
    if not story["in_flight"]["looked_through"]:
        console.print("\nnot looked through: what is accepted and not judged yet; there may be one more copy")


def _given(event_id: str) -> str:
    if event_id != ASK:
        return event_id
    if sys.stdin.isatty():
        return str(typer.prompt("event id", hide_input=True))
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise TelestreamError("no event id came on stdin: give it as the first line, or as the second argument")
    return given


def _lines(copy: Copy) -> Iterator[tuple[str, str]]:
    origin, raw, row = copy["origin"], copy["raw"], copy["warehouse"]
    if copy["rule"]:
        reason = f": {copy['reason']}" if copy["reason"] else ""
        yield "rule", f"{copy['rule']}{reason}"
    name = origin["name"] or f"number {origin['batch_id']}"
    line = "" if origin["line"] is None else f", {'line' if origin['kind'] == 'file' else 'record'} {origin['line']}"
    yield "came with", f"{origin['kind']} {name}{line}"
    yield "arrived", copy["appended_at"] or "unknown"
    if copy["event_at"]:
        yield "event at", copy["event_at"]
    schema = f", schema id {raw['schema_id']}" if raw["schema_id"] is not None else ""
    schema += f" (version {raw['schema_version']})" if raw["schema_version"] is not None else ""
    gone = "" if raw["in_log"] else ", not read from the log"
    yield "raw", f"{raw['topic']}[{raw['partition']}] @ {raw['offset']}{schema}{gone}"
    if copy["duplicate_of"]:
        first = copy["duplicate_of"]
        other = " with other content" if copy["conflict"] else ""
        yield "repeats", f"[{first['partition']}] @ {first['offset']}{other}"
    for reversal in copy["reversals"]:
        effect = "reversed by" if reversal["took_effect"] else "named by a reversal without effect"
        yield effect, f"@ {reversal['offset']}, arrived {reversal['appended_at'] or 'unknown'}"
    if copy["subscriber_id"]:
        yield "subscriber", copy["subscriber_id"]
    if copy["warnings"]:
        yield "warnings", ", ".join(copy["warnings"])
    for entry in copy["references"]:
        yield entry["entity"], _reference(entry)
    table = row["table"] or "no table"
    yield "warehouse", f"{table}, generation {row['generation']}: {row['why']}"


def _reference(entry: Mapping[str, Any]) -> str:
    held = ", ".join(f"{name} {value}" for name, value in entry["held"].items() if value) or "unknown"
    if entry["valid_from"] is None:
        return f"{held}; no version in force then"
    same = "" if entry["same"] else "; that version came after the record was judged and differs"
    return f"{held}; version in force from {entry['valid_from']}{same}"


def _windows(copy: Copy) -> Table:
    table = Table("window", "group", "from", "segment", "adds", "included")
    for window in copy["windows"]:
        day = window["family"] == "subscriber_day"
        group = "" if day else escape(window["group"] or "unknown")  # the subscriber stands above
        table.add_row(
            "subscriber day" if day else f"{window['family']} {_size(window['size_s'])}",
            f"{group} (end of the call)" if window["only_ends"] else group,
            window["window_start"].replace("T", " ").removesuffix(":00.000Z"),
            f"{window['partition']}/{window['segment']}",
            f"{window['adds']:+d}",
            f"yes, up to {window['src_to']}" if window["included"] else window["why"],
        )
    return table


def _size(seconds: int) -> str:
    return {60: "1m", 900: "15m"}.get(seconds, f"{seconds} s")
