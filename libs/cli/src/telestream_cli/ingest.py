"""``telestream ingest``: load files through the gateway; an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from telestream_cli.access import Access, ApiKey, AsJson, Gateway, StateDir, find_access
from telestream_cli.dry_run import Look, look_at
from telestream_cli.upload import FileToLoad, LoadedFile, load_file, notes_folder
from telestream_domain import REFERENCES, TYPES, TelestreamError

FILE_TYPES = (*TYPES, *REFERENCES)
DEFAULT_SOURCE = "default"
"""One source for whoever names none: duplicates are found within a source, so files of one producer must share it."""


def register(app: typer.Typer) -> None:
    """Add ``ingest`` to the command."""

    @app.command(epilog="Example: telestream ingest day/cdr.csv --type cdr --source msc-berlin")
    def ingest(
        files: Annotated[list[Path], typer.Argument(help="CSV files, plain, .gz or .zst; loaded in this order.")],
        record_type: Annotated[str, typer.Option("--type", help=f"What the rows are: {', '.join(FILE_TYPES)}.")],
        profile: Annotated[str, typer.Option(help="Layout of the file: the name of a profile, or a YAML file.")] = (
            "generic"
        ),
        source: Annotated[str, typer.Option(help="Name of the producer.")] = DEFAULT_SOURCE,
        dry: Annotated[bool, typer.Option("--dry-run", help="Show how the first rows would enter; load nothing.")] = (
            False
        ),
        max_refused: Annotated[float, typer.Option(help="Largest share of refused rows that is still a success.")] = (
            0.01
        ),
        allow_age: Annotated[int | None, typer.Option(help="Accept records up to so many days old.")] = None,
        backfill: Annotated[
            bool, typer.Option("--backfill", help="Give way to live records: only as fast as these do not wait for it.")
        ] = False,
        gateway: Gateway = None,
        api_key: ApiKey = None,
        state_dir: StateDir = Path(".telestream"),
        as_json: AsJson = False,
    ) -> None:
        """Load CSV files; the same content again changes nothing.

        Exit 0 if every file was read to its end and no more than --max-refused of its rows were refused.
        """
        if record_type not in FILE_TYPES:
            raise typer.BadParameter(f"--type is one of {', '.join(FILE_TYPES)}, not {record_type!r}")
        if not 0 <= max_refused <= 1:
            raise typer.BadParameter("--max-refused is a share from 0 to 1")
        _check_files(files)
        if dry:
            good = [_show_dry_run(path.name, look_at(path, record_type, profile, allow_age), as_json) for path in files]
            if not all(good):
                raise typer.Exit(1)
            return
        if profile.endswith((".yaml", ".yml")):
            raise TelestreamError(
                f"the gateway reads profiles itself: put {profile} into its TELESTREAM_PROFILES_DIR and give its name"
            )
        access = find_access(state_dir, gateway=gateway, api_key=api_key)
        failed = False
        with httpx.Client(headers=access.headers, timeout=httpx.Timeout(60, read=300)) as client:
            for number, path in enumerate(files):
                wanted = FileToLoad(path, record_type, source, profile, allow_age, backfill)
                loaded = _load(client, access, wanted, notes_folder(state_dir), quiet=as_json, patient=number > 0)
                failed |= not _show(loaded, max_refused, as_json)
        if failed:
            raise typer.Exit(1)


def _check_files(files: list[Path]) -> None:
    for path in files:
        if not path.exists():
            raise TelestreamError(f"{path} does not exist")
        if path.is_dir():
            raise TelestreamError(f"{path} is a folder; name its files, for example {path}/*.csv")
        try:
            path.open("rb").close()
        except OSError as err:
            raise TelestreamError(f"cannot read {path}: {err.strerror}") from err


def _load(
    client: httpx.Client, access: Access, wanted: FileToLoad, notes: Path, quiet: bool, patient: bool
) -> LoadedFile:
    try:
        with _progress(wanted.path.name, quiet) as tell:
            return load_file(client, access, wanted, notes, None if quiet else tell, patient)
    except KeyboardInterrupt:
        typer.echo(f"{wanted.path.name}: interrupted; the same command goes on where this one stopped", err=True)
        raise


LARGE_BYTES = 16 << 20
"""Below, a file is through before anybody could read a line about it."""


class _progress:
    """A bar on a terminal, a line for every tenth elsewhere, nothing if quiet."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name, self._quiet = name, quiet
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _tell(self, step: str, done: int, of: int) -> None:
        if self._bar is not None:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(f"{self._name}: {step}", total=of)
            self._bar.update(self._tasks[step], completed=done, total=of)
        elif not self._quiet and of > LARGE_BYTES:
            tenth = done * 10 // of
            if tenth > self._tenths.get(step, 0):
                self._tenths[step] = tenth
                typer.echo(f"{self._name}: {step} {tenth * 10} % of {of:,} bytes", err=True)


def _show(loaded: LoadedFile, max_refused: float, as_json: bool) -> bool:
    """Print the result; whether it is a success."""
    share = loaded.refused / loaded.rows if loaded.rows else 0.0
    good = loaded.problem is None and share <= max_refused
    if as_json:
        typer.echo(json.dumps(loaded.as_json()))
    elif loaded.file_id is not None:
        for line in _lines(loaded):
            typer.echo(line)
    if loaded.problem is not None:
        typer.echo(f"telestream: {loaded.name}: {loaded.problem}", err=True)
    elif not good:
        typer.echo(
            f"telestream: {loaded.name}: {share:.2%} of the rows were refused, more than --max-refused "
            f"{max_refused:.2%} allows; see /v1/files/{loaded.file_id}/refused",
            err=True,
        )
    return good


def _lines(loaded: LoadedFile) -> Iterator[str]:
    if loaded.duplicate_of is not None:
        yield f"{loaded.name}: already loaded as file {loaded.duplicate_of}; nothing was sent"
    rate = f", {loaded.rows / loaded.seconds:,.0f} rows/s" if loaded.rows and loaded.seconds > 0.05 else ""
    yield (
        f"{loaded.name}: file {loaded.file_id}, {loaded.rows:,} rows, {loaded.accepted:,} accepted, "
        f"{loaded.refused:,} refused in {loaded.seconds:.1f} s{rate}"
    )
    for code, count in sorted(loaded.refused_by_code.items(), key=lambda item: -item[1]):
        yield f"  refused {code}: {count:,}"


def _show_dry_run(name: str, look: Look, as_json: bool) -> bool:
    """Print what a dry run found; whether the file looks good."""
    if as_json:
        typer.echo(json.dumps({"name": name} | asdict(look)))
        return not look.hints
    table = Table("line", "verdict", "as it would enter", title=f"{name}: the first rows")
    for row in look.rows:
        table.add_row(str(row.line), "accepted" if row.code is None else f"refused: {row.code}", row.shown)
    if look.rows:
        Console().print(table)
    if look.judged:
        typer.echo(f"{name}: of the first {look.judged:,} rows {look.accepted:,} would be accepted")
    for code, count in sorted(look.refused_by_code.items(), key=lambda item: -item[1]):
        typer.echo(f"  refused {code}: {count:,}")
    for hint in look.hints:
        typer.echo(f"telestream: {name}: {hint}", err=True)
    return not look.hints
