"""``telestream simulate``: traffic with known faults and its own truth, as files or live."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from telestream_cli.access import ApiKey, AsJson, Gateway, StateDir, find_access
from telestream_domain import TelestreamError
from telestream_simulator import Scenario, SimulationError, populate, write_files
from telestream_simulator.asterisk import write_asterisk
from telestream_simulator.live import LiveResult, send_live

LATEST_START_DAYS = 1
OLDEST_START_DAYS = 390  # the rule too_old begins at 400


def register(app: typer.Typer) -> None:
    """Add ``simulate`` to the command."""

    @app.command(
        epilog="Example: telestream simulate --out day --records 200000 --customers 20000 --cells 500 --seed 7"
    )
    def simulate(
        out: Annotated[Path | None, typer.Option(help="Folder to write the files and truth.json into.")] = None,
        records: Annotated[int, typer.Option(help="CDR rows, faults included.")] = 20_000,
        network_records: Annotated[
            int | None, typer.Option(help="Network event rows, faults included; half of --records by default.")
        ] = None,
        customers: Annotated[int, typer.Option(help="Customers.")] = 2_000,
        cells: Annotated[int, typer.Option(help="Radio cells.")] = 120,
        days: Annotated[int, typer.Option(help="Days of traffic.")] = 1,
        duplicates: Annotated[float, typer.Option(help="Share of rows that repeat another.")] = 0.02,
        invalid: Annotated[float, typer.Option(help="Share of rows that break a rule.")] = 0.005,
        late: Annotated[float, typer.Option(help="Share of rows that come hours or days late.")] = 0.01,
        seed: Annotated[int, typer.Option(help="Same seed and start: same bytes.")] = 1,
        block: Annotated[
            int | None, typer.Option(help="Block of ids, numbers and cells; other blocks share none. The seed's own.")
        ] = None,
        start: Annotated[
            str | None, typer.Option(help="First day, YYYY-MM-DD (UTC); by default so that the last is yesterday.")
        ] = None,
        source: Annotated[str, typer.Option(help="Name of the producer; prefixes the event ids.")] = "sim",
        files: Annotated[int, typer.Option(help="Split the CDRs: cdr-01.csv … in order of arrival.")] = 1,
        asterisk: Annotated[int, typer.Option(help="Also write an Asterisk Master.csv of that many rows.")] = 0,
        live: Annotated[
            float | None, typer.Option(help="Send that many CDRs a second to the gateway instead of writing files.")
        ] = None,
        seconds: Annotated[float, typer.Option(help="How long to send with --live.")] = 10.0,
        gateway: Gateway = None,
        api_key: ApiKey = None,
        state_dir: StateDir = Path(".telestream"),
        as_json: AsJson = False,
    ) -> None:
        """Write plausible traffic with known faults, and what a correct pipeline must report of it.

        --out writes cdr.csv, network.csv, the four reference files and truth.json. --live sends CDRs to the gateway as
        they happen and prints the truth of what was sent; load that block's reference files first if the records are to
        find their customers.
        """
        if (out is None) == (live is None):
            raise typer.BadParameter("give either --out DIR to write files or --live RATE to send events")
        first = date.fromisoformat(start) if start and _is_date(start) else None
        if start and first is None:
            raise typer.BadParameter(f"--start is a day such as 2026-11-23, not {start!r}")
        try:
            scenario = Scenario(
                start=_checked_start(first, days),
                records=records,
                network_records=records // 2 if network_records is None else network_records,
                customers=customers,
                cells=cells,
                days=days,
                duplicates=duplicates,
                invalid=invalid,
                late=late,
                seed=seed,
                block=seed if block is None else block,
                source=source,
                files=files,
            )
        except SimulationError as err:
            raise typer.BadParameter(str(err)) from None
        if out is not None:
            _write(scenario, out, asterisk, as_json)
            return
        assert live is not None
        if not (math.isfinite(live) and live > 0 and math.isfinite(seconds) and seconds > 0):
            raise typer.BadParameter("--live and --seconds must be above 0")
        access = find_access(state_dir, gateway=gateway, api_key=api_key)
        result = _send(scenario, access.gateway, access.api_key, live, seconds, as_json)
        if result.surprises:
            raise typer.Exit(1)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _checked_start(first: date | None, days: int) -> date:
    today = datetime.now(UTC).date()
    if first is None:
        return today - timedelta(days=days)
    if first + timedelta(days=days) > today:
        raise typer.BadParameter(
            f"--start {first} and --days {days} reach past yesterday: records of the future would be rejected"
        )
    if (today - first).days > OLDEST_START_DAYS:
        raise typer.BadParameter(f"--start {first} is more than {OLDEST_START_DAYS} days ago: its records are too old")
    return first


def _write(scenario: Scenario, out: Path, asterisk: int, as_json: bool) -> None:
    console = Console(stderr=as_json)
    try:
        with console.status("simulating") as status:
            written = write_files(scenario, out, lambda step: status.update(f"simulating: {step}"))
            truth = written.truth
            paths = [*written.reference.values(), *written.cdr, *written.network]
            if asterisk:
                path = out / "asterisk_Master.csv"
                truth["asterisk"] = write_asterisk(path, asterisk, scenario.start, scenario.seed)
                (out / "truth.json").write_text(json.dumps(truth, separators=(",", ":")) + "\n")
                paths.append(path)
    except OSError as err:
        raise TelestreamError(f"cannot write to {out}: {err.strerror}; choose another --out") from err
    if as_json:
        summary = {"out": str(out), "files": [str(path) for path in paths], "truth": str(out / "truth.json")}
        typer.echo(json.dumps(summary | {kind: truth[kind] for kind in ("cdr", "network")}))
        return
    console.print(_counts_table({kind: truth[kind] for kind in ("cdr", "network", "asterisk") if kind in truth}))
    typer.echo(f"written to {out}: {', '.join(path.name for path in paths)}, truth.json")


def _send(scenario: Scenario, gateway: str, api_key: str, rate: float, seconds: float, as_json: bool) -> LiveResult:
    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("sending", total=None)
            result = send_live(
                populate(scenario),
                gateway,
                api_key,
                rate,
                seconds,
                scenario.source,
                on_progress=lambda sent, of: progress.update(task, completed=sent, total=of),
            )
    except SimulationError as err:
        raise TelestreamError(str(err)) from err
    if as_json:
        typer.echo(
            json.dumps(
                {"sent": result.sent, "unknown": result.unknown, "seconds": round(result.seconds, 3)}
                | {"surprises": result.surprises, "truth": result.truth}
            )
        )
    else:
        Console().print(_counts_table({"cdr": result.truth["cdr"]}))
        typer.echo(f"sent {result.sent} events in {result.seconds:.1f} s")
        for surprise in result.surprises[:10]:
            typer.echo(surprise, err=True)
    return result


def _counts_table(parts: dict[str, Any]) -> Table:
    table = Table("", *parts, title="what a correct pipeline must report")
    for column in table.columns[1:]:
        column.justify = "right"
    parts = {kind: part.get("cdr", part) for kind, part in parts.items()}
    for name in ("rows", "accepted", "stored", "duplicates", "conflicts"):
        table.add_row(name, *(f"{part[name]:,}" for part in parts.values()))
    for group in ("refused", "rejected", "warned"):
        codes = list(dict.fromkeys(code for part in parts.values() for code in part[group]))
        for code in codes:
            table.add_row(f"{group} {code}", *(f"{part[group].get(code, 0):,}" for part in parts.values()))
    return table
