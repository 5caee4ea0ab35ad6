"""``telestream replay compare`` on a terminal: what the API's comparison says, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Compared = dict[str, Any]
"""The answer's entry for one type."""

CAUSES: Mapping[str, str] = {
    "rule_changed": "rule changed",
    "reference_arrived": "reference data arrived",
    "original_before_start": "its original lies before the start",
    "follows_from": "follows from another difference",
    "reversal": "a reversal took effect in one only",
    "unexplained": "not explained",
}
_COUNTS = ("stored", "withdrawn", "duplicates", "conflicts", "rejected_records", "erased", "without_effect", "warned")
_WORDS = {
    "rejected_records": "rejected",
    "without_effect": "reversals without effect",
    "conflicts": "  of these conflicts",
}
_MOST_SHOWN = 3


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the API's comparison (``data``) of all its types."""
    for entry in found["types"]:
        console.print(_head(found, entry))
        if not entry["records"]:
            continue
        console.print(summary_table(found, entry))
        if entry["causes"]:
            console.print(causes_table(entry))
            for line in _samples(entry):
                console.print(line, style="dim", highlight=False)
        if entry["groups"]:
            console.print(groups_table(found, entry))
        if entry["kpis"]:
            console.print(kpis_table(found, entry))
        if entry["truncated"]:
            console.print("there is more than is shown; --json has up to the API's limit", style="dim")
        for line in _windows(entry):
            console.print(line, highlight=False)


def summary_table(found: Mapping[str, Any], entry: Compared) -> Table:
    """Verdicts and sums of both, and what the one has more than the other."""
    table = _sides(found, entry, "")
    table.add_row("judged records", *_numbers(entry, lambda side: side["records"]))
    for name in _COUNTS:
        numbers = [entry[side][name] for side in ("this", "other")]
        if any(numbers):
            table.add_row(_WORDS.get(name, name), *_numbers(entry, lambda side, name=name: side[name]))
    codes = dict.fromkeys(code for side in ("this", "other") for code in entry[side]["rejected"])
    for code in codes:
        table.add_row(f"  {code}", *_numbers(entry, lambda side, code=code: side["rejected"].get(code, 0)), style="dim")
    table.add_section()
    table.add_row("stands stored", *_numbers(entry, lambda side: side["sums"]["records"]))
    table.add_row("duration (s)", *_numbers(entry, lambda side: side["sums"]["duration_ms"] / 1000))
    table.add_row("bytes", *_numbers(entry, lambda side: side["sums"]["bytes"]))
    for currency in _currencies(entry[side]["sums"] for side in ("this", "other", "difference")):
        amounts = (_amount(entry[side]["sums"], currency) for side in ("this", "other", "difference"))
        table.add_row(f"charge ({currency})", *amounts)
    return table


def causes_table(entry: Compared) -> Table:
    """One row per cause, and rule; with where most of its records are."""
    table = Table("why", "rule", "records", "share", "this · other", "where", title="differences", title_justify="left")
    for column in (2, 3):
        table.columns[column].justify = "right"
    for cause in entry["causes"]:
        verdicts = [f"{_verdict(pair['this'])} · {_verdict(pair['other'])}" for pair in cause["verdicts"]]
        places = [(place["source"], place["records"]) for place in cause["by_source"]]
        regions = [(place["region_id"] or "no region", place["records"]) for place in cause["by_region"]]
        table.add_row(
            CAUSES.get(cause["cause"], cause["cause"]),
            cause["rule"] or "",
            f"{cause['records']:,}",
            f"{cause['share']:.3%}",
            "\n".join(_shortened(verdicts)),
            "\n".join([*_most(places), *_most(regions)]),
            style="red" if cause["cause"] == "unexplained" else None,
        )
    return table


def groups_table(found: Mapping[str, Any], entry: Compared) -> Table:
    """Stored and rejected of both, by group."""
    by = found["by"]
    table = Table(by, "stands stored", "", "difference", *([] if by == "region" else ["rejected", "", "difference"]))
    for column in table.columns[1:]:
        column.justify = "right"
    for group in entry["groups"]:
        sides = [group[side] for side in ("this", "other", "difference")]
        stored = [_plain(side["sums"]["records"] if "sums" in side else side["records"]) for side in sides]
        rejected = [] if by == "region" else [_plain(side["rejected_records"]) for side in sides]
        empty = "stored" if by == "rule" else "none"
        table.add_row(group["key"] or f"({empty})", *stored, *rejected)
    return table


def kpis_table(found: Mapping[str, Any], entry: Compared) -> Table:
    """KPIs of both by day of events."""
    table = Table("day", "KPI", f"generation {found['this']}", f"generation {entry['with']}", "difference")
    for column in table.columns[2:]:
        column.justify = "right"
    for day in entry["kpis"]:
        for number, (name, kpi) in enumerate(day["kpis"].items()):
            values = (kpi["this"]["value"], kpi["other"]["value"], kpi["difference"])
            table.add_row("" if number else day["day"], name, *map(_value, values))
    return table


def _head(found: Mapping[str, Any], entry: Compared) -> str:
    this, other = found["this"], entry["with"]
    words = [f"[bold]{entry['type']}[/bold]: generation {this} against {other}: {entry['records']:,} records of both"]
    words.append(f"[bold]{entry['differing']:,} differ[/bold]" if entry["differing"] else "[green]none differs[/green]")
    for name, said in (("before_start", "before the start of"), ("not_yet", "not reached yet by")):
        for side, own, missing in (("this", this, other), ("other", other, this)):
            if entry[name][side]:
                words.append(f"{entry[name][side]:,} of {own} {said} {missing}")
    return "; ".join(words)


def _sides(found: Mapping[str, Any], entry: Compared, title: str) -> Table:
    table = Table(title, f"generation {found['this']}", f"generation {entry['with']}", "difference")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _numbers(entry: Compared, of: Any) -> list[str]:
    return [_plain(of(entry[side])) for side in ("this", "other", "difference")]


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.3f}"


def _value(number: float | None) -> str:
    return "–" if number is None else f"{number:,.6g}"


def _currencies(sums: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({charge["currency"] for side in sums for charge in side["charges"]})


def _amount(sums: Mapping[str, Any], currency: str) -> str:
    return next((charge["amount"] for charge in sums["charges"] if charge["currency"] == currency), "0")


def _verdict(side: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (side["verdict"] or "missing", side["rule"])))


def _most(places: list[tuple[str, int]]) -> list[str]:
    return _shortened([f"{place} {count:,}" for place, count in places])


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - _MOST_SHOWN
    return [*lines[:_MOST_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]


def _samples(entry: Compared) -> list[str]:
    lines = []
    for cause in entry["causes"]:
        places = [f"{sample['partition']}@{sample['offset']}" for sample in cause["samples"][:_MOST_SHOWN]]
        name = " ".join(filter(None, (CAUSES.get(cause["cause"], cause["cause"]), cause["rule"])))
        lines.append(f"{name}: for example {', '.join(places)} ({', '.join(cause['columns'])})")
    return lines


def _windows(entry: Compared) -> list[str]:
    lines = []
    for held in entry["windows"]:
        what = f"windows by {held['family']} of generation {held['generation']}"
        more = f"{held['difference']['records']:+,} records"
        if held["agree"] is None:
            lines.append(f"{what}: the newest are not written yet ({more})")
        elif not held["agree"]:
            lines.append(f"[red]{what} do not hold what its books say is stored ({more})[/red]")
    if entry["windows"] and all(held["agree"] for held in entry["windows"]):
        lines.append(
            "[green]windows of both hold what their books say is stored: they differ as the records do[/green]"
        )
    return lines
