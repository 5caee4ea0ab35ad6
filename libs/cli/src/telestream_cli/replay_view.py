"""How generations look on a terminal and in a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

_PLAIN_LINE_EVERY_S = 5.0
_STATES = {"RUNNING": "green", "PREPARING": "cyan", "FINISHED": "", "DROPPING": "yellow", "DROPPED": "dim"}
Generation = Mapping[str, Any]
Show = Callable[[Generation], None]


def generations_table(generations: Sequence[Generation]) -> Table:
    """One row each; those asked for alone show how far they are and what they cost."""
    table = Table("", "state", "types", "seen by all", "begun", "done", "rows", "on disk", "reason", box=None)
    for column in table.columns[5:8]:
        column.justify = "right"
    for found in generations:
        progress = found.get("progress") or {}
        costs = costs_of(found)
        table.add_row(
            str(found["generation"]),
            f"[{_STATES.get(found['state']) or 'default'}]{found['state'].lower()}[/]"
            + (" (rehearsal)" if found.get("compare_only") else ""),
            ", ".join(found["types"]),
            f"[bold]{', '.join(found['active'])}[/]" if found["active"] else "",
            moment(found["created_at"]),
            "" if progress.get("done_ratio") is None else share(progress["done_ratio"]),
            "" if costs.get("rows") is None else f"{costs['rows']:,}",
            size(costs.get("bytes_on_disk")),
            escape(found["reason"] or ""),
        )
    return table


def problems(generations: Sequence[Generation]) -> Iterator[str]:
    """Why one does not get on, a line each."""
    for found in generations:
        if found.get("problem"):
            yield f"generation {found['generation']}: {found['problem']}"


def story(found: Generation) -> Table:
    """One generation's facts, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    state = found["state"].lower() + (" (rehearsal: never activated)" if found.get("compare_only") else "")
    grid.add_row("generation", f"[bold]{found['generation']}[/], {state}, {', '.join(found['types'])}")
    grid.add_row("seen by all", ", ".join(found["active"]) or "no")
    grid.add_row("reason", escape(f"{found['reason']} ({found['actor']}, {moment(found['created_at'])})"))
    for span in found.get("active_spans") or ():
        grid.add_row(f"active for {span['type']}", f"{moment(span['from'])} to {moment(span['to']) or 'now'}")
    for label in ("starts", "ends", "reference"):
        if found.get(label):
            grid.add_row(label, escape(offsets(found[label])))
    if found.get("rules"):
        grid.add_row("rules", escape(json.dumps(found["rules"])))
    if found.get("versions"):
        grid.add_row("versions", escape(", ".join(f"{name} {value}" for name, value in found["versions"].items())))
    costs = costs_of(found)
    if costs:
        said = [f"{costs.get('rows') or 0:,} rows", f"{size(costs.get('bytes_on_disk') or 0)} on disk"]
        said += [] if costs.get("topic_bytes") is None else [f"{size(costs['topic_bytes'])} in topics"]
        grid.add_row("costs", ", ".join(said))
    if found.get("problem"):
        grid.add_row("[red]problem[/]", f"[red]{escape(found['problem'])}[/]")
    return grid


def gate_table(gate: Sequence[Mapping[str, Any]]) -> Table:
    """What the quality gate looked at."""
    table = Table("check", "type", "value", "limit", "", box=None)
    table.columns[2].justify = table.columns[3].justify = "right"
    for check in gate:
        passed = "[green]passed[/]" if check["passed"] else "[red]failed[/]"
        table.add_row(check["check"], check.get("type") or "", _figure(check["value"]), _figure(check["limit"]), passed)
    return table


def summary(found: Generation) -> str:
    """How far it is, in one line without markup."""
    progress = found.get("progress") or {}
    head = f"generation {found['generation']} {found['state'].lower()}"
    if progress.get("partitions") and progress.get("done_ratio") is None:
        lag = sum(row["lag"] or 0 for row in progress["partitions"])
        head += f": {lag:,} records to catch up" if lag else ": caught up"
        return head + (f", {found['problem']}" if found.get("problem") else "")
    if progress.get("done_ratio") is None:
        return head + (f": {found['problem']}" if found.get("problem") else "")
    parts = [f"{share(progress['done_ratio'])} of {wanted_of(progress):,} records"]
    if progress.get("records_per_second"):
        parts.append(f"{progress['records_per_second']:,.0f}/s")
    if is_done(found):
        parts.append("caught up" if found["state"] == "RUNNING" else "at its end")
    elif progress.get("seconds_left") is not None:
        parts.append(f"{duration(progress['seconds_left'])} left")
    if found.get("problem"):
        parts.append(found["problem"])
    return f"{head}: {', '.join(parts)}"


def is_done(found: Generation) -> bool:
    """Whether there is nothing more to wait for."""
    return bool((found.get("progress") or {}).get("caught_up")) or found["state"] in ("FINISHED", "DROPPING", "DROPPED")


@contextmanager
def watching(console: Console) -> Iterator[Show]:
    """Something to show a generation with, again and again: bars on a terminal, now and then a line elsewhere."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[note]}"),
        console=console,
        auto_refresh=False,
    )
    with bars:
        yield _Bars(bars).show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console, self._said, self._said_at = console, "", float("-inf")

    def show(self, found: Generation) -> None:
        line, now = summary(found), time.monotonic()
        if line == self._said or (now < self._said_at + _PLAIN_LINE_EVERY_S and not is_done(found)):
            return
        self._said, self._said_at = line, now
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars, self._tasks = bars, dict[str, TaskID]()

    def show(self, found: Generation) -> None:
        progress = found.get("progress") or {}
        rows = progress.get("partitions") or ()
        for row in rows:
            wanted, stored = _wanted(row), _stored(row)
            self._set(f"{row['type']}[{row['partition']}]", wanted, stored, f"{stored:,} of {wanted:,}")
        self._set("all", sum(map(_wanted, rows)), sum(map(_stored, rows)), summary(found))
        self._bars.refresh()

    def _set(self, name: str, total: int, completed: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1, note="")
        # An empty partition is done, not at nought.
        self._bars.update(self._tasks[name], total=max(1, total), completed=completed if total else 1, note=note)


def costs_of(found: Generation) -> Mapping[str, Any]:
    """What keeping it costs, {} if it was not asked for."""
    costs: Mapping[str, Any] = found.get("costs") or (found.get("progress") or {}).get("costs") or {}
    return costs


def _wanted(row: Mapping[str, Any]) -> int:
    # The first generation was never asked for up to anywhere: all there is counts.
    end = row["raw_end"] if row["end"] is None else row["end"]
    return max(0, int(end or 0) - int(row["start"] or 0))


def _stored(row: Mapping[str, Any]) -> int:
    return min(_wanted(row), max(0, int(row["stored"] or 0) - int(row["start"] or 0)))


def wanted_of(progress: Mapping[str, Any]) -> int:
    """Records that it is asked to derive."""
    return sum(_wanted(row) for row in progress.get("partitions") or ())


def offsets(found: Mapping[str, Mapping[str, int]]) -> str:
    """``cdr 0: 17, 1: 20; network 0: 3``."""
    return "; ".join(
        f"{name} {', '.join(f'{partition}: {offset:,}' for partition, offset in places.items())}"
        for name, places in found.items()
        if places
    )


def moment(text: str | None) -> str:
    """A time to the minute, in UTC."""
    return "" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"


def share(ratio: float) -> str:
    # Never 100.0 % before it is all.
    return "100 %" if ratio >= 1 else f"{min(99.9, 100 * ratio):.1f} %"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def size(number: int | None) -> str:
    """Bytes for people, "" for None."""
    if number is None:
        return ""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _figure(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
