"""The condition of a rule that an operator adds: SQL over one record's fields, checked before it judges anything.

Only words of a short list may stand in it, so it can neither look at other records nor at the clock: a replay judges
alike, and a condition that works on the worst values there are works on every record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

MAX_CONDITION = 1_000  # characters

FUNCTIONS = tuple(
    "abs ceil coalesce ends_with floor greatest least length lower round starts_with upper".split()  # noqa: SIM905
)
_WORDS = {
    *("and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false"),
    *("case", "when", "then", "else", "end"),
    *("timestamp", "date", "interval", "extract", "from"),
    *("year", "month", "day", "dow", "hour", "minute", "second"),
    *FUNCTIONS,
}
_TOKEN = re.compile(
    r"(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<comment>--|/\*)|(?P<sign><=|>=|<>|!=|\|\||[-+*/%()<>=,])|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)
_PLAIN = (pl.Int64, pl.Int32, pl.Float64, pl.Float32, pl.String, pl.Boolean, pl.Datetime)

_LEAST, _MOST = -(2**63), 2**63 - 1
_WORST_INTS = (None, _LEAST, _MOST, 0, -1, 7, 3_600_000)
_WORST_FLOATS = (None, float("nan"), float("inf"), float("-inf"), 0.0, -1.5, 1e300)
_WORST_TEXTS = (None, "", "x", "VOICE", "(%_\\", "1", "ü")
_WORST_BOOLEANS = (None, True, False)
_WORST_ROWS = 64


def condition_problems(when: str, fields: Mapping[str, pl.DataType]) -> list[str]:
    """Why ``when`` cannot tell of each record of these fields whether it breaks a rule; empty: it can."""
    if not when.strip():
        return ["is empty"]
    if len(when) > MAX_CONDITION:
        return [f"is {len(when)} characters long; at most {MAX_CONDITION}"]
    usable = {name: dtype for name, dtype in fields.items() if isinstance(dtype, _PLAIN)}
    problems = _word_problems(when, usable)
    return problems or _tried(when, usable)


def condition(when: str) -> pl.Expr:
    """A checked condition as an expression: true where the rule is broken; null counts as false."""
    return pl.sql_expr(when)


def _word_problems(when: str, usable: Mapping[str, pl.DataType]) -> list[str]:
    problems: list[str] = []
    named = False
    for token in _TOKEN.finditer(when):
        found, kind = token.group(), token.lastgroup
        if kind == "word":
            if found in usable:
                named = True
            elif found.lower() not in _WORDS:
                problems.append(f"{found!r} is neither a field with one value nor one of {', '.join(FUNCTIONS)}")
        elif kind == "comment":
            problems.append(f"{found!r} begins a comment; comments go beside the rule, after a #")
        elif kind == "other":
            problems.append(f"{found!r} cannot stand here; texts are written 'so', fields without quotes")
    if not named and not problems:
        problems.append("names no field of the record")
    return list(dict.fromkeys(problems))


def _tried(when: str, usable: Mapping[str, pl.DataType]) -> list[str]:
    worst = pl.DataFrame([_worst(name, dtype, place) for place, (name, dtype) in enumerate(usable.items())])
    try:
        answer = worst.lazy().select(pl.sql_expr(when).alias("broken")).collect()["broken"]
    except Exception as err:  # Polars raises a dozen kinds, and panics of its parser
        return [f"cannot be computed: {_first_line(err)}"]
    if answer.dtype != pl.Boolean:
        return [f"gives {answer.dtype}, not true or false"]
    if len(answer) != _WORST_ROWS:
        return ["does not give one answer per record"]
    return []


def _worst(name: str, dtype: pl.DataType, place: int) -> pl.Series:
    """Every bad value there is, against every other field's."""
    values: pl.Series
    if isinstance(dtype, pl.Boolean):
        values = pl.Series(name, _WORST_BOOLEANS, dtype=dtype)
    elif isinstance(dtype, pl.String):
        values = pl.Series(name, _WORST_TEXTS, dtype=dtype)
    elif isinstance(dtype, (pl.Float64, pl.Float32)):
        values = pl.Series(name, _WORST_FLOATS, dtype=dtype)
    elif isinstance(dtype, pl.Int32):
        values = pl.Series(name, (None, -(2**31), 2**31 - 1, 0, -1, 7), dtype=dtype)
    else:
        values = pl.Series(name, _WORST_INTS, dtype=pl.Int64).cast(dtype)
    # another order for each field
    return values.gather([(row * (place + 1) + row // len(values)) % len(values) for row in range(_WORST_ROWS)])


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
