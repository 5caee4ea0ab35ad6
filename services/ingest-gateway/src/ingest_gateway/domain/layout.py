"""A profile bound to one file's columns: where each field is, and how its text becomes the contract's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from ingest_gateway.domain.direct import Direct
from ingest_gateway.domain.fields import EXT_KEYS, INPUT_FIELDS, INT64_MAX, INT64_MIN, InputField, Kind
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.profile import TIME_ISO, FieldRule, Profile, TimeRules, input_fields, units_of
from ingest_gateway.domain.refusal import BodyRefused, Refused, shown_name
from ingest_gateway.domain.resolve import Resolver
from ingest_gateway.domain.values import Parse, epoch_ms, instant_of_text, parser

EXT_PREFIX = "ext."
LIKELY_DELIMITERS = ",;\t|"
_EPOCH = re.compile(r"-?\d{1,10}(\.\d+)?", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,18}(\.\d{1,12})?", re.ASCII)

Transform = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """One field of this file. ``columns`` are indexes (none for a constant); ``transform`` changes the text first;
    ``factor`` multiplies what is written; ``parse`` reads the text."""

    field: InputField
    columns: tuple[int, ...]
    join: str
    constant: str | None
    transform: Transform | None
    factor: int
    parse: Parse


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read the rows of one file."""

    profile: Profile
    record_type: str
    width: int
    bound: tuple[Bound, ...]
    ext: tuple[tuple[str, int], ...]
    resolver: Resolver
    direct: Direct

    def record(self, row: Sequence[str]) -> dict[str, object]:
        """One row as named texts for the direct path; empty ones are left out by it."""
        record: dict[str, object] = {}
        for bound in self.bound:
            if bound.constant is not None:
                text: str | None = bound.constant
            elif len(bound.columns) == 1:
                text = row[bound.columns[0]]
            else:
                parts = [row[column] for column in bound.columns]
                text = bound.join.join(parts) if any(parts) else ""
            if text and bound.transform is not None:
                text = bound.transform(text)
            record[bound.field.name] = text
        if self.ext:
            kept = {name: row[column] for name, column in self.ext if row[column]}
            record["ext"] = kept or None
        return record


def bind(profile: Profile, record_type: str, header: Sequence[str], identity: Identity) -> Layout:
    """``header``: the file's own names, or the profile's as many as the first row has fields.

    Raises BodyRefused for a column that is missing, or that nothing is known of.
    """
    known = input_fields(record_type)
    places: dict[str, int] = {}
    for index, name in enumerate(header):
        if name in places:
            raise BodyRefused("unknown_field", f"the header names {shown_name(name)!r} twice", shown_name(name))
        places[name] = index
    resolver = Resolver(identity, profile.numbers.rules())
    rules: dict[str, FieldRule] = {name: rule for name, rule in profile.fields.items() if name in known}
    ext = [(name, places[name]) for name in profile.keep if name in places]
    if not profile.fields:
        for name in header:
            if name.startswith(EXT_PREFIX) and record_type in ("cdr", "network") and len(name) > len(EXT_PREFIX):
                ext.append((name.removeprefix(EXT_PREFIX), places[name]))
            elif name in known and known[name].kind is not Kind.PARTY:
                rules[name] = FieldRule(column=name)
            else:
                raise _unknown(name, header, profile)
        _check_required(record_type, rules, header, profile)
    if len(ext) > EXT_KEYS:
        raise BodyRefused("too_long", f"at most {EXT_KEYS} columns can go into ext", "ext")
    bound = []
    for name, rule in rules.items():
        absent = [origin for origin in rule.origins if origin not in places]
        field = known[name]
        if absent:
            optional = profile.columns[len(profile.columns) - profile.optional_columns :] if profile.columns else ()
            if field.required or any(origin not in optional for origin in absent):
                raise BodyRefused(
                    "missing_field", f"column {absent[0]!r} is missing, the profile takes {name} from it", absent[0]
                )
            if field.kind is not Kind.EVENT_ID or all(origin not in places for origin in rule.origins):
                continue
            # an id of fewer parts would be another id: without all of them the row identifies itself
            continue
        bound.append(_bound(field, rule, places, profile, resolver))
    direct = Direct(
        record_type,
        resolver,
        from_json=False,
        parsers={entry.field.name: entry.parse for entry in bound},
        keep_identical=profile.identical_rows == "keep",
    )
    return Layout(profile, record_type, len(header), tuple(bound), tuple(sorted(ext)), resolver, direct)


def _bound(field: InputField, rule: FieldRule, places: dict[str, int], profile: Profile, resolver: Resolver) -> Bound:
    factor = units_of(field.name)[rule.unit] if rule.unit else 1
    parse = parser(field, resolver, from_json=False)
    if field.kind is Kind.INSTANT and profile.time.format != TIME_ISO and rule.constant is None:
        parse = time_parser(profile.time)
    elif factor != 1:
        parse = _scaled(field, factor)
    elif len(rule.columns) > 1:
        parse = _unlimited
    return Bound(
        field,
        tuple(places[origin] for origin in rule.origins),
        rule.join,
        rule.constant,
        _transform(rule),
        factor,
        parse,
    )


def _unlimited(text: str) -> str:
    """Several columns joined are hashed, not kept: their sum may be long."""
    return text


def _transform(rule: FieldRule) -> Transform | None:
    if rule.extract is None and not rule.values:
        return None
    pattern = re.compile(rule.extract) if rule.extract is not None else None
    values = rule.values

    def transform(text: str) -> str | None:
        if pattern is not None:
            match = pattern.search(text)
            if match is None:
                return None
            text = match.group(1)
        return values.get(text, text)

    return transform


def _scaled(field: InputField, factor: int) -> Parse:
    expected = "a decimal number"

    def parse(text: str) -> int:
        if not _DECIMAL.fullmatch(text):
            raise Refused("wrong_type", expected)
        try:
            number = int(Decimal(text) * factor)
        except InvalidOperation:
            raise Refused("wrong_type", expected) from None
        if not max(field.low, INT64_MIN) <= number <= min(field.high, INT64_MAX):
            raise Refused("wrong_type", expected)
        return number

    return parse


def time_parser(rules: TimeRules) -> Parse:
    """Epoch milliseconds of a time as this profile writes it."""
    if rules.format == TIME_ISO:
        return instant_of_text
    if rules.format in ("epoch_s", "epoch_ms"):
        return _epoch_seconds if rules.format == "epoch_s" else _epoch_ms
    pattern = re.compile(rules.pattern(), re.ASCII)
    zone = ZoneInfo(rules.zone)
    expected = f"a time as {rules.format} in {rules.zone}"

    def parse(text: str) -> int:
        if not pattern.fullmatch(text):
            raise Refused("bad_time", expected)
        try:
            local = datetime.strptime(text, rules.format)
        except ValueError:
            raise Refused("bad_time", expected) from None
        first, second = local.replace(tzinfo=zone), local.replace(tzinfo=zone, fold=1)
        if first.utcoffset() != second.utcoffset():
            if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
                raise Refused("bad_time", "a local time that exists: clocks went forward over it")
            if rules.ambiguous_time == "reject":
                raise Refused("bad_time", "a local time that exists once: clocks went back over it")
        return epoch_ms(second if rules.ambiguous_time == "second" else first)

    return parse


def _epoch_seconds(text: str) -> int:
    if not _EPOCH.fullmatch(text):
        raise Refused("bad_time", "seconds since 1970")
    return int(Decimal(text) * 1000)


def _epoch_ms(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{12}", text, re.ASCII):
        raise Refused("bad_time", "milliseconds since 1970, 13 digits")
    return int(text)


def _check_required(record_type: str, rules: dict[str, FieldRule], header: Sequence[str], profile: Profile) -> None:
    for field in INPUT_FIELDS[record_type]:
        if field.required and field.name not in rules:
            raise BodyRefused("missing_field", f"column {field.name!r} is missing{_hint(header, profile)}", field.name)
    if record_type == "cdr" and not rules.keys() & {"msisdn", "imsi", "line", "route_in"}:
        raise BodyRefused("missing_field", "one of the columns msisdn, imsi, line, route_in must be there", "msisdn")
    if record_type == "customer" and not rules.keys() & {"msisdn", "imsi"}:
        raise BodyRefused("missing_field", "one of the columns msisdn and imsi must be there", "msisdn")


def _unknown(name: str, header: Sequence[str], profile: Profile) -> BodyRefused:
    hint = _hint(header, profile)
    if hint:
        return BodyRefused("missing_field", f"the header is not one of this type{hint}")
    return BodyRefused(
        "unknown_field",
        f"column {shown_name(name)!r} is no field; name it ext.{shown_name(name)} to keep it",
        shown_name(name),
    )


def _hint(header: Sequence[str], profile: Profile) -> str:
    """What may be wrong with a header as a whole."""
    if len(header) == 1:
        for delimiter in LIKELY_DELIMITERS:
            if delimiter != profile.delimiter and delimiter in header[0]:
                return f": header has 1 column: is the delimiter {delimiter!r}?"
    return ""
