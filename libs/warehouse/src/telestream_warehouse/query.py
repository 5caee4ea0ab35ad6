"""SQL as a value: text and parameters. ClickHouse binds the parameters; no value is ever pasted into the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

Parameter = None | bool | int | float | str | datetime | date | Sequence[Any] | Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """``sql`` names its parameters as ``{name:Type}``; ``params`` holds the Python values."""

    sql: str
    params: Mapping[str, Parameter] = field(default_factory=dict)

    def http_params(self) -> dict[str, str]:
        """The parameters as ClickHouse's HTTP interface wants them: ``param_<name>``."""
        return {f"param_{name}": _text(value) for name, value in self.params.items()}


def _text(value: Parameter) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return _escaped(value)
    return _literal(value, top=True)


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )


def _literal(value: Any, top: bool = False) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "1" if value else "0"
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"{value!r} has no time zone")
            in_utc = value.astimezone(UTC)
            text = in_utc.strftime("%Y-%m-%d %H:%M:%S.") + f"{in_utc.microsecond // 1000:03d}"
            return text if top else f"'{text}'"
        case date():
            return value.isoformat() if top else f"'{value.isoformat()}'"
        case int() | float():
            return str(value)
        case str():
            return "'" + _escaped(value).replace("'", "\\'") + "'"
        case Mapping():
            return "{" + ",".join(f"{_literal(key)}:{_literal(entry)}" for key, entry in value.items()) + "}"
        case Sequence():
            return "[" + ",".join(_literal(entry) for entry in value) + "]"
    raise TypeError(f"{type(value).__name__} is not a parameter of ClickHouse")
