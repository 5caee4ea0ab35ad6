"""What an operator changes about the rules: other severities, and rules of their own. A file of it goes into a replay.

[severity]
duration_too_long = "rejected"

[[rule]]
code = "call_over_four_hours"
type = "cdr"
field = "duration_ms"
severity = "rejected"
when = "duration_ms > 14400000"
help = "A call of more than four hours."
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from telestream_domain.errors import TelestreamError
from telestream_domain.rules import CONFLICT, OVERRIDABLE, RULES, Severity

if TYPE_CHECKING:  # Polars takes half a second and 60 MB, and most who name these types judge nothing
    import polars as pl

Fields = Mapping[str, Mapping[str, "pl.DataType"]]
"""Record type → the fields of its raw records. ``telestream_contracts.raw_fields()`` knows them."""

MAX_RULES = 50
MAX_FILE = 65_536  # characters
MAX_HELP = 200
_CODE = re.compile(r"[a-z][a-z0-9_]{2,40}")
_TAKEN = frozenset(rule.code for rule in RULES) | {CONFLICT}
_CHOICES = {severity.value: severity for severity in (Severity.REJECTED, Severity.WARN)}
_KEYS = ("code", "type", "field", "severity", "when", "help")
_EXAMPLES = {
    "code": 'code = "call_over_four_hours"',
    "type": 'type = "cdr"',
    "field": 'field = "duration_ms"',
    "severity": 'severity = "warn"',
    "when": 'when = "duration_ms > 14400000"',
    "help": 'help = "A call of more than four hours."',
}


class RuleChangesError(TelestreamError):
    """All mistakes in a rule file, one per line."""


@dataclass(frozen=True, slots=True)
class AddedRule:
    """``when`` is SQL over the fields of a ``type`` record, true where it breaks the rule in ``field``."""

    code: str
    type: str
    field: str
    severity: Severity
    when: str
    help: str

    def breaks(self) -> pl.Expr:
        """True where a record breaks the rule; null counts as false."""
        from telestream_domain.rule_conditions import condition

        return condition(self.when)


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """``severities``: of built-in codes, before every other setting. ``added``: in precedence, after the built-in."""

    severities: Mapping[str, Severity] = field(default_factory=dict)
    added: tuple[AddedRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.severities or self.added)

    @classmethod
    def none(cls) -> RuleChanges:
        """The rules as they are built in."""
        return cls()

    @classmethod
    def parse(cls, text: str, fields: Fields) -> RuleChanges:
        """Read a rule file (TOML) and check it against the fields there are. Raises RuleChangesError."""
        if len(text) > MAX_FILE:
            raise RuleChangesError(f"rules: {len(text)} characters; a rule file has at most {MAX_FILE}")
        try:
            given = tomllib.loads(text)
        except tomllib.TOMLDecodeError as err:
            raise RuleChangesError(f"rules: not TOML: {err}; a text stands in quotes: {_EXAMPLES['severity']}") from err
        problems = [
            f"{name!r}: a rule file has [severity] and [[rule]] only"
            for name in given
            if name not in ("severity", "rule")
        ]
        changes, found = _read(given.get("severity", {}), given.get("rule", []))
        problems += found
        if not given:
            problems.append(
                f'changes nothing; write [severity] with too_old = "warn", or [[rule]] with {_EXAMPLES["code"]}'
            )
        _raise_all([*problems, *changes.problems(fields)])
        return changes

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RuleChanges:
        """What ``to_json`` wrote. Raises RuleChangesError on anything else."""
        changes, problems = _read(stored.get("severities", {}), stored.get("added", []))
        _raise_all(problems)
        return changes

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and texts; empty for no changes."""
        written: dict[str, Any] = {}
        if self.severities:
            written["severities"] = {code: str(severity) for code, severity in sorted(self.severities.items())}
        if self.added:
            written["added"] = [asdict(rule) | {"severity": str(rule.severity)} for rule in self.added]
        return written

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal changes."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def of_type(self, record_type: str) -> tuple[AddedRule, ...]:
        """The added rules of one type, in the order of the file."""
        return tuple(rule for rule in self.added if rule.type == record_type)

    def check(self, fields: Fields) -> None:
        """Raises RuleChangesError if a rule cannot judge records of these fields."""
        _raise_all(self.problems(fields))

    def problems(self, fields: Fields) -> list[str]:
        """Why rules cannot judge records of these fields, each with an example."""
        return [problem for rule in self.added for problem in _against(rule, fields)]


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise RuleChangesError("\n".join(f"rules: {problem}" for problem in problems))


def _read(severities: object, rules: object) -> tuple[RuleChanges, list[str]]:
    """What can be read, and what is wrong with the rest."""
    problems: list[str] = []
    chosen: dict[str, Severity] = {}
    if not isinstance(severities, Mapping):
        problems.append('severity: is a table; write [severity], below it too_old = "warn"')
        severities = {}
    for code, severity in severities.items():
        if code not in OVERRIDABLE:
            problems.append(f"severity of {code!r}: is none of {', '.join(sorted(OVERRIDABLE))}")
        elif severity not in _CHOICES:
            problems.append(f'severity of {code}: {severity!r} is none of {", ".join(_CHOICES)}; e.g. {code} = "warn"')
        else:
            chosen[code] = _CHOICES[severity]
    if (
        not isinstance(rules, Sequence)
        or isinstance(rules, str)
        or not all(isinstance(rule, Mapping) for rule in rules)
    ):
        problems.append("rule: is a list of tables; begin each with [[rule]]")
        rules = []
    if len(rules) > MAX_RULES:
        problems.append(f"{len(rules)} rules; at most {MAX_RULES} at once")
    added: list[AddedRule] = []
    for number, rule in enumerate(rules[:MAX_RULES], 1):
        wrong = _shape_problems(rule)
        code = rule.get("code")
        if any(code == other.code for other in added):
            wrong.append(f"code {code!r} is given twice; each rule has its own, such as {code}_2")
        problems += [f"rule {number} ({code}): {problem}" for problem in wrong]
        if not wrong:
            added.append(AddedRule(**{**{key: rule[key] for key in _KEYS}, "severity": _CHOICES[rule["severity"]]}))
    return RuleChanges(chosen, tuple(added)), problems


def _shape_problems(rule: Mapping[str, Any]) -> list[str]:
    problems = [f"{name!r} is none of {', '.join(_KEYS)}" for name in rule if name not in _KEYS]
    texts = {key: rule[key] for key in _KEYS if isinstance(rule.get(key), str) and rule[key].strip()}
    problems += [f"{key} is missing or no text; e.g. {_EXAMPLES[key]}" for key in _KEYS if key not in texts]
    code, severity, help_text = (texts.get(key) for key in ("code", "severity", "help"))
    if code is not None and not _CODE.fullmatch(code):
        problems.append(f"code {code!r} is not 3 to 41 of a-z 0-9 _, a letter first; e.g. {_EXAMPLES['code']}")
    if code in _TAKEN:
        problems.append(f"code {code!r} is a built-in rule's; its severity is changed below [severity]")
    if severity is not None and severity not in _CHOICES:
        problems.append(f"severity {severity!r} is none of {', '.join(_CHOICES)}; e.g. {_EXAMPLES['severity']}")
    if help_text is not None and (len(help_text) > MAX_HELP or not help_text.isprintable()):
        problems.append(f"help is one line of at most {MAX_HELP} characters; e.g. {_EXAMPLES['help']}")
    return problems


def _against(rule: AddedRule, fields: Fields) -> list[str]:
    from telestream_domain.rule_conditions import condition_problems

    about = f"rule {rule.code}"
    known = fields.get(rule.type)
    if known is None:
        return [f"{about}: type {rule.type!r} is none of {', '.join(fields)}; e.g. {_EXAMPLES['type']}"]
    problems = []
    if rule.field not in known:
        problems.append(f"{about}: field {rule.field!r} is none of {', '.join(known)}; e.g. {_EXAMPLES['field']}")
    problems += [
        f"{about} ({rule.type}.{rule.field}): when {problem}; e.g. {_EXAMPLES['when']}"
        for problem in condition_problems(rule.when, known)
    ]
    return problems
