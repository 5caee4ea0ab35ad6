"""Write the reference pages from the code: ``python -m telestream_cli.reference docs/reference``.

A test compares the pages with what this writes, so that every setting, metric, topic, rule and field is documented.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from telestream_cli.config import SETTINGS, settings_of
from telestream_contracts import load_schema, topic_table
from telestream_domain import REFERENCES, RULES, TYPES, Severity, Topics
from telestream_domain.kpis import KPIS
from telestream_runtime import DECLARED, ServiceSettings

MADE = "<!-- made by `make docs` from the code; do not edit -->"


def pages() -> dict[str, str]:
    """File name → text of every reference page."""
    return {
        "settings.md": _settings(),
        "metrics.md": _metrics(),
        "topics.md": _topics(),
        "rules.md": _rules(),
        "events.md": _events(),
        "kpis.md": _kpis(),
    }


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _setting_rows(settings: type[ServiceSettings], without: Iterable[str] = ()) -> list[list[str]]:
    skip = set(without)
    rows = []
    for name, field in settings.model_fields.items():
        if name in skip:
            continue
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        if "SecretStr" in str(field.annotation):
            default = "a secret, or its file by `…_FILE`"
        rows.append([f"`TELESTREAM_{name.upper()}`", default or "empty", field.description or ""])
    return rows


def _settings() -> str:
    parts = [
        "# Settings",
        MADE,
        "All from the environment, checked in full at start (`--check` stops there; `telestream config check` asks "
        "every service). Every name also works as `NAME_FILE`, a file that holds the value.",
        "## Every service",
        _table(("variable", "default", "what"), _setting_rows(ServiceSettings)),
    ]
    for service in SETTINGS:
        rows = _setting_rows(settings_of(service), ServiceSettings.model_fields)
        changed = [
            row
            for row in _setting_rows(settings_of(service))
            if row not in rows and row not in _setting_rows(ServiceSettings)
        ]
        parts += [f"## {service}", _table(("variable", "default", "what"), rows + changed)]
    return "\n\n".join(parts) + "\n"


def _import_all() -> None:
    for module, _ in SETTINGS.values():
        package = importlib.import_module(module.split(".", 1)[0])
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)


def _metrics() -> str:
    _import_all()
    rows = [
        [f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.help]
        for metric in sorted(DECLARED.values(), key=lambda metric: metric.name)
    ]
    return (
        "\n\n".join(
            (
                "# Metrics",
                MADE,
                "Prometheus, at `/metrics` on each service's admin port; base units.",
                _table(("name", "kind", "labels", "what"), rows),
            )
        )
        + "\n"
    )


def _topics() -> str:
    rows = [
        [
            f"`{spec.name}`",
            "as raw" if spec.partitioned else "1",
            spec.cleanup,
            "for ever"
            if spec.retention_ms < 0 or spec.cleanup == "compact"
            else f"{spec.retention_ms // 86_400_000} days",
            spec.help,
        ]
        for spec in topic_table(Topics())
    ]
    return (
        "\n\n".join(
            (
                "# Topics",
                MADE,
                "Derived topics carry the suffix of their generation, here `.g1`. Values are Avro in the "
                "Confluent wire format; timestamps are append time.",
                _table(("topic", "partitions", "cleanup", "kept", "what"), rows),
            )
        )
        + "\n"
    )


def _rules() -> str:
    parts = [
        "# Rules",
        MADE,
        "The first in the table counts. *Refused* is never accepted by the gateway; *rejected* is accepted, then a "
        "dead letter; *warn* is stored and counted.",
    ]
    for severity in Severity:
        parts += [
            f"## {severity.value}",
            _table(("code", "what"), [[f"`{r.code}`", r.help] for r in RULES if r.severity is severity]),
        ]
    return "\n\n".join(parts) + "\n"


def _events() -> str:
    parts = ["# Events", MADE, "The fields of the topics' values, from `schemas/avro`."]
    for name in (*TYPES, *REFERENCES, "cdr_enriched_head", "network_enriched_head", "dead_letter", "progress"):
        schema = load_schema(name)
        parts += [
            f"## {name}",
            schema["doc"],
            _table(
                ("field", "type", "what"),
                [[f"`{field['name']}`", _type(field["type"]), field.get("doc", "")] for field in schema["fields"]],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _kpis() -> str:
    parts = [
        "# KPIs",
        MADE,
        "Every KPI is a numerator over a denominator, both sums of measures of the aggregates. Values of additive ones "
        "may be summed over steps and groups; to read another over several of them, sum numerators and denominators, "
        "then divide (traffic in Erlang: over groups of one step, sum the values). Where its source is missing (no "
        "record of a type it needs, no event with the field) the denominator is 0 and the value null, never 0. "
        "Reversed records are subtracted everywhere, except from sketches.",
        "A clause number is given where the text of the standard was at hand; *none* says that no standard defines the "
        "figure. What a record counts for is decided by its event time, however late it arrives.",
        _table(
            ("KPI", "unit", "formula", "standard", "additive", "needs", "of"),
            [
                [
                    f"[`{kpi.name}`](#{kpi.name})",
                    kpi.unit,
                    kpi.formula,
                    kpi.standard,
                    "yes" if kpi.additive else "no",
                    ", ".join(sorted(kpi.needs)),
                    ", ".join(kpi.families),
                ]
                for kpi in KPIS
            ],
        ),
    ]
    for kpi in KPIS:
        parts += [
            f"## {kpi.name}",
            f"**{kpi.title}** ({kpi.unit}), from {kpi.basis.value}.",
            f"- numerator: {_terms(kpi.numerator)}\n- denominator: {_terms(kpi.denominator) or '1'}",
            kpi.note,
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _terms(terms: Iterable[tuple[str, Any]]) -> str:
    return " + ".join(f"`{name}`" if factor == 1 else f"{factor} × `{name}`" for name, factor in terms)


def _type(kind: Any) -> str:
    if isinstance(kind, list):
        return f"{_type(kind[1])} or null"
    if isinstance(kind, dict):
        if kind["type"] in ("array", "map"):
            return f"{kind['type']} of {_type(kind.get('items', kind.get('values')))}"
        logical = str(kind.get("logicalType", kind["type"]))
        return {"timestamp-millis": "instant"}.get(logical, logical)
    return str(kind)


def main(argv: list[str]) -> None:
    """Write the pages into a directory."""
    directory = Path(argv[0] if argv else "docs/reference")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
