"""``telestream demo``: a simulated day through the whole embedded stack, every figure compared with its truth."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from telestream_cli.access import Access, StateDir, find_access
from telestream_cli.comparison import (
    PATIENCE_S,
    Report,
    Warehouse,
    array,
    compare_aggregates,
    compare_api,
    compare_counts,
    compare_days,
    compare_facts,
    misjudged_rows,
)
from telestream_cli.gauges import FreshnessGauge, StageGauge
from telestream_cli.reconcile import Books, books_table, wait_for_books
from telestream_cli.upload import FileToLoad, LoadedFile, load_file, notes_folder
from telestream_domain import TelestreamError
from telestream_simulator import Scenario, SimulationError, Written, write_files
from telestream_simulator.asterisk import write_asterisk
from telestream_simulator.live import LiveResult, send_live
from telestream_simulator.truth import Truth

BLOCK_SECONDS = 10  # runs that begin this far apart share no number, cell or customer
SETTLE_S = 120.0
AGGREGATES_S = 60.0  # a quarter hour is emitted once a minute, or at once when it is quiet
DIFFERENCES_SHOWN = 10
LIVE_TAIL_S = 5.0  # live events go on for so long after the files are through, to measure freshness without a backlog
FEW_RECORDS = 100  # at rest a stage may count markers of its own as waiting
BACKLOG_S = 10.0  # so much of the live events is behind without any files, counted at every stage
LIVE_AT_MOST_S = 120.0
CDR_FILES = 4


def register(app: typer.Typer) -> None:
    """Add ``demo`` to the command."""

    @app.command(epilog="Example: telestream demo --records 20000 --network-records 10000")
    def demo(
        records: Annotated[int, typer.Option(help="CDRs in the files.")] = 200_000,
        network_records: Annotated[int, typer.Option(help="Network events in the files.")] = 100_000,
        customers: Annotated[int, typer.Option(help="Customers.")] = 10_000,
        cells: Annotated[int, typer.Option(help="Radio cells.")] = 500,
        live_rate: Annotated[float, typer.Option("--live", help="Live CDRs a second meanwhile; 0: none.")] = 200.0,
        asterisk: Annotated[int, typer.Option(help="Rows of the Asterisk file; 0: none.")] = 2_000,
        state_dir: StateDir = Path(".telestream"),
        port_base: Annotated[int | None, typer.Option(help="Ports of the embedded stack begin here.")] = None,
    ) -> None:
        """Bring the stack up, send a simulated day through it, and compare every figure with what was simulated.

        Exit 0 only if everything adds up; if not, it says which record, rule and stage. The stack stays up, and another
        run beside the first one works: its sources carry its name.
        """
        from telestream_devstack import stack

        console = Console(highlight=False, width=None if Console().is_terminal else 120)
        begun = time.monotonic()
        console.print("[bold]1. the embedded stack[/bold]")
        stack.up(state_dir, port_base, say=lambda line: console.print(f"   {line}", markup=False))
        run = Run.named(
            datetime.now(UTC), records, network_records, customers, cells, live_rate, asterisk, state_dir / "demo"
        )
        good = Demo(console, run, find_access(state_dir), state_dir, begun).play()
        if not good:
            raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's name, sizes and folder."""

    name: str
    scenario: Scenario
    live_rate: float
    asterisk: int
    folder: Path

    @classmethod
    def named(
        cls,
        now: datetime,
        records: int,
        network_records: int,
        customers: int,
        cells: int,
        live_rate: float,
        asterisk: int,
        folder: Path,
    ) -> Run:
        """A run of its own: two that begin at different moments share nothing."""
        name = f"run-{now:%Y%m%d-%H%M}-{random.randrange(16**4):04x}"
        try:
            scenario = Scenario(
                start=now.date() - timedelta(days=1),
                records=records,
                network_records=network_records,
                customers=customers,
                cells=cells,
                seed=random.randrange(2**31),
                block=int(now.timestamp()) // BLOCK_SECONDS,
                source=name,
                files=CDR_FILES,
            )
        except SimulationError as err:
            raise typer.BadParameter(str(err)) from None
        return cls(name, scenario, live_rate, asterisk, folder / name)

    @property
    def live_source(self) -> str:
        return f"{self.name}-live"

    @property
    def asterisk_source(self) -> str:
        return f"{self.name}-pbx"


@dataclass(slots=True)
class _Live:
    """The sender of live events on its own thread."""

    thread: Thread
    stopping: Event
    result: list[LiveResult] = field(default_factory=list)
    error: list[Exception] = field(default_factory=list)

    def finish(self) -> LiveResult:
        self.stopping.set()
        self.thread.join()
        if self.error:
            raise self.error[0]
        return self.result[0]


class Demo:
    """One run, from files to the verdict."""

    def __init__(self, console: Console, run: Run, access: Access, state_dir: Path, begun: float) -> None:
        self._console, self._run, self._access, self._state_dir = console, run, access, state_dir
        self._begun = begun
        self._report = Report()
        self._notes: list[str] = []

    def play(self) -> bool:
        """Everything after the stack is up; whether every figure was right."""
        run, say = self._run, self._console.print
        self._step(f"2. a simulated day: {run.name}")
        started = time.monotonic()
        written = write_files(run.scenario, run.folder)
        truth = written.truth
        asterisk = self._asterisk()
        say(
            f"   {truth['cdr']['rows']:,} CDRs in {len(written.cdr)} files and {truth['network']['rows']:,} network "
            f"events, with their truth, in {run.folder} ({time.monotonic() - started:.1f} s)",
            markup=False,
        )
        with ExitStack() as stack:
            client = stack.enter_context(
                httpx.Client(headers=self._access.headers, timeout=httpx.Timeout(60, read=300))
            )
            stages = stack.enter_context(StageGauge(self._state_dir))
            self._step("3. loading through the gateway, while live events flow")
            for kind, path in written.reference.items():
                self._load(client, FileToLoad(path, kind, run.name))
            live = self._start_live(written) if run.live_rate > 0 else None
            if live is not None:
                stack.callback(live.stopping.set)
            freshness = stack.enter_context(FreshnessGauge(self._access))
            loading = time.monotonic()
            files = [(path, "cdr", run.name, "generic") for path in written.cdr]
            files += [(path, "network", run.name, "generic") for path in written.network]
            if asterisk is not None:
                path = run.folder / "asterisk_Master.csv"
                files.append((path, "cdr", run.asterisk_source, "asterisk"))
            loaded = {
                path.name: self._load(client, FileToLoad(path, kind, source, profile))
                for path, kind, source, profile in files
            }
            loaded_in = time.monotonic() - loading
            self._step("4. waiting until nothing is in flight")
            live_result = None
            if live is not None:
                stages.wait(max(1_000, run.live_rate * BACKLOG_S), SETTLE_S)
                through_in = time.monotonic() - loading
                freshness.mark()
                live.thread.join(LIVE_TAIL_S)
                live_result = live.finish()
            freshness.stop()
            stages.wait(FEW_RECORDS, SETTLE_S)
            books = self._wait_for_books(client, live_result is not None, asterisk is not None)
            if live is None:
                through_in = time.monotonic() - loading
            truths = [truth] + ([live_result.truth] if live_result else [])
            stages.stop()
            self._step("5. comparing figure by figure with truth.json")
            aggregates_in = self._compare(client, written, truths, live_result, asterisk, loaded, books, loading)
        self._show(books, stages, freshness, loaded, loaded_in, through_in, aggregates_in, live_result)
        return self._verdict(written, loaded)

    def _step(self, title: str) -> None:
        self._console.print(f"[bold]{title}[/bold] [dim]({time.monotonic() - self._begun:.0f} s)[/dim]")

    def _asterisk(self) -> Truth | None:
        run = self._run
        if not run.asterisk:
            return None
        truth = write_asterisk(
            run.folder / "asterisk_Master.csv", run.asterisk, run.scenario.start, run.scenario.seed, f"{run.name}-"
        )
        # the shipped profile names no country
        truth["cdr"]["subscriber_kinds"] = truth["cdr"].pop("subscriber_kinds_without_country")
        return truth

    def _load(self, client: httpx.Client, wanted: FileToLoad) -> LoadedFile:
        loaded = load_file(client, self._access, wanted, notes_folder(self._state_dir), patient=True)
        rate = f", {loaded.rows / loaded.seconds:,.0f} rows/s" if loaded.seconds > 0.2 else ""
        self._console.print(
            f"   {loaded.name:<20} {loaded.rows:>8,} rows, {loaded.refused:>5,} refused, {loaded.seconds:.1f} s{rate}",
            markup=False,
        )
        if loaded.problem:
            raise TelestreamError(f"{wanted.path} could not be loaded: {loaded.problem}")
        return loaded

    def _start_live(self, written: Written) -> _Live:
        stopping = Event()
        run, access = self._run, self._access

        def send() -> None:
            try:
                live.result.append(
                    send_live(
                        written.population,
                        access.gateway,
                        access.api_key,
                        run.live_rate,
                        LIVE_AT_MOST_S,
                        run.live_source,
                        stop=stopping.is_set,
                    )
                )
            except Exception as err:
                live.error.append(TelestreamError(str(err)) if isinstance(err, SimulationError) else err)

        live = _Live(Thread(target=send, name="live", daemon=True), stopping)
        live.thread.start()
        return live

    def _wait_for_books(self, client: httpx.Client, live: bool, asterisk: bool) -> dict[str, Books]:
        run = self._run
        wanted = [("cdr", run.name), ("network", run.name)]
        wanted += [("cdr", run.live_source)] if live else []
        wanted += [("cdr", run.asterisk_source)] if asterisk else []
        return {
            f"{kind} {source.removeprefix(run.name).removeprefix('-') or 'files'}": wait_for_books(
                client, self._access, kind, SETTLE_S, source=source, patience=PATIENCE_S
            )
            for kind, source in wanted
        }

    def _compare_aggregates(self, warehouse: Warehouse, truths: list[Truth], begun: float) -> float:
        """Compare until the aggregates are right or have had their time; seconds since ``begun`` that it took.

        They are emitted by their own clock, so that they are behind the facts for a while is no fault.
        """
        cells = array(sorted({row["cell_id"] for truth in truths for row in truth["cell_hour"]}))
        count = sum(row["records"] for truth in truths for row in truth["cell_hour"])
        sql = "SELECT sum(records) FROM fact_cell_kpi WHERE cell_id IN {cells:Array(String)}"
        deadline = time.monotonic() + AGGREGATES_S
        while time.monotonic() < deadline and int(warehouse.rows(sql, cells=cells)[0][0]) < count:
            time.sleep(0.5)
        while True:
            attempt = Report()
            compare_aggregates(warehouse, attempt, truths, self._run.scenario.block)
            if not attempt.differences or time.monotonic() > deadline:
                self._report.add(attempt)
                return time.monotonic() - begun
            time.sleep(1.0)

    def _compare(
        self,
        client: httpx.Client,
        written: Written,
        truths: list[Truth],
        live: LiveResult | None,
        asterisk: Truth | None,
        loaded: dict[str, LoadedFile],
        books: dict[str, Books],
        begun: float,
    ) -> float:
        run, report = self._run, self._report
        for part in written.truth["files"]:
            got = loaded[part["name"]]
            report.compare(
                "gateway, rows of a file",
                part["name"],
                {"rows": part["rows"], "accepted": part["accepted"]},
                {"rows": got.rows, "accepted": got.accepted},
            )
            report.compare("gateway, refused by code", part["name"], part["refused"], got.refused_by_code)
        sides: list[tuple[str, str, str, Truth]] = [
            ("cdr files", run.name, "cdr", written.truth["cdr"]),
            ("network files", run.name, "network", written.truth["network"]),
        ]
        if asterisk is not None:
            sides.append(("cdr pbx", run.asterisk_source, "cdr", asterisk["cdr"]))
        if live is not None:
            sides.append(("cdr live", run.live_source, "cdr", self._live_truth(live, books["cdr live"])))
            self._notes += live.surprises
        with Warehouse(self._access.clickhouse) as warehouse:
            for label, source, kind, truth in sides:
                self._compare_books(label, books[label], truth)
                compare_counts(warehouse, report, source, kind, truth)
            if asterisk is not None:
                compare_days(warehouse, report, run.asterisk_source, asterisk["day"])
            sources = [run.name] + ([run.live_source] if live else [])
            compare_facts(warehouse, report, sources, truths)
            aggregates_in = self._compare_aggregates(warehouse, truths, begun)
        try:
            compare_api(client, self._access, report, truths, run.scenario.start)
        except TelestreamError as err:
            self._notes.append(str(err))
        return aggregates_in

    def _live_truth(self, live: LiveResult, books: Books) -> Truth:
        """The truth of the live events, with the repeats that nobody can know of.

        A request whose answer was lost was sent again. What of it had been accepted is now a duplicate more; stored
        must be the same to the record.
        """
        truth: Truth = live.truth["cdr"]
        again = min(max(0, books["duplicates"] - truth["duplicates"]), live.unknown)
        if not again:
            return truth
        self._console.print(f"   {again} live records were accepted twice because an answer was lost", markup=False)
        return truth | {"accepted": truth["accepted"] + again, "duplicates": truth["duplicates"] + again}

    def _compare_books(self, label: str, books: Books, truth: Truth) -> None:
        names = ("accepted", "stored", "duplicates", "conflicts")
        self._report.compare(
            "reconciliation", label, {name: truth[name] for name in names}, {name: books[name] for name in names}
        )
        self._report.compare("reconciliation, rejected by rule", label, truth["rejected"], books["rejected"])
        self._report.compare(
            "reconciliation",
            label,
            {"in flight": 0, "balanced": 1},
            {"in flight": books["in_flight"], "balanced": int(books["balanced"])},
        )

    def _show(
        self,
        books: dict[str, Books],
        stages: StageGauge,
        freshness: FreshnessGauge,
        loaded: dict[str, LoadedFile],
        loaded_in: float,
        through_in: float,
        aggregates_in: float,
        live: LiveResult | None,
    ) -> None:
        say = self._console.print
        say(books_table(books))
        table = Table("stage", "records/s", title="throughput")
        table.columns[1].justify = "right"
        rows = sum(file.rows for file in loaded.values())
        accepted = sum(file.accepted for file in loaded.values())  # refused ones never left the gateway
        table.add_row("files through the gateway", f"{rows / loaded_in:,.0f}")
        for name, rate in stages.rates().items():
            table.add_row(name, f"{rate:,.0f}")
        table.add_row("file to ClickHouse, all together", f"{accepted / through_in:,.0f}")
        say(table)
        say(
            f"{accepted:,} accepted rows were in ClickHouse after {through_in:.1f} s, "
            f"in the aggregates after {aggregates_in:.1f} s"
        )
        if live is not None:
            for when, lag in freshness.summary().items():
                say(f"freshness of live events {when}: {lag}", markup=False)
            acks = sorted(live.ack_seconds)
            if acks:
                say(
                    f"{live.sent:,} live events acknowledged, median {acks[len(acks) // 2] * 1000:.0f} ms, "
                    f"95 % within {acks[len(acks) * 95 // 100] * 1000:.0f} ms"
                )

    def _verdict(self, written: Written, loaded: dict[str, LoadedFile]) -> bool:
        say, report = self._console.print, self._report
        figures = sum(report.figures.values())
        table = Table("check", "figures", "differ", title="compared with truth.json")
        table.columns[1].justify = table.columns[2].justify = "right"
        for check, count in report.figures.items():
            wrong = sum(difference.check == check for difference in report.differences)
            table.add_row(check, f"{count:,}", f"[bold red]{wrong:,}[/bold red]" if wrong else "0")
        say(table)
        good = not report.differences and not self._notes
        if good:
            say(f"[bold green]every one of {figures:,} figures is right[/bold green]")
        else:
            say(f"[bold red]{len(report.differences):,} of {figures:,} figures differ[/bold red]")
            for line in [str(difference) for difference in report.differences[:DIFFERENCES_SHOWN]]:
                say(f"   {line}", markup=False)
            for note in self._notes[:DIFFERENCES_SHOWN]:
                say(f"   {note}", markup=False)
            self._find_rows(written, loaded)
        say(
            f"query API {self._access.query_api}, its description {self._access.query_api}/docs\n"
            f"gateway {self._access.gateway}/docs, ClickHouse {self._access.clickhouse}\n"
            f"API key in {self._state_dir / 'api_key'}; the stack stays up, 'telestream down' ends it",
            markup=False,
        )
        say(f"{time.monotonic() - self._begun:.0f} s in all")
        return good

    def _find_rows(self, written: Written, loaded: dict[str, LoadedFile]) -> None:
        """Which rows of the files became something else than they should."""
        kinds = {part["name"]: part["type"] for part in written.truth["files"]}
        with Warehouse(self._access.clickhouse) as warehouse:
            for name, fates in written.fates.items():
                if (file_id := loaded[name].file_id) is None:
                    continue
                wrong = misjudged_rows(warehouse, self._run.name, kinds[name], file_id, FIRST_LINE, fates)
                for line in wrong[:DIFFERENCES_SHOWN]:
                    self._console.print(f"   {name} {line}", markup=False)
                if len(wrong) > DIFFERENCES_SHOWN:
                    self._console.print(f"   {name}: {len(wrong):,} rows in all", markup=False)


FIRST_LINE = 2
"""Line of a file's first record: the header stands in line 1."""
