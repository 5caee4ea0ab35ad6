"""One value as written → the value a record carries, from JSON or from the text of a CSV field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest_gateway.domain.fields import (
    EXT_KEY_CHARS,
    EXT_KEYS,
    EXT_VALUE_BYTES,
    INT64_MAX,
    INT64_MIN,
    InputField,
    Kind,
)
from ingest_gateway.domain.identity import Party
from ingest_gateway.domain.refusal import Refused, mask_numbers
from ingest_gateway.domain.resolve import Memo, Resolver

Parse = Callable[[Any], Any]

TIME_EXPECTED = "ISO 8601 with zone, or epoch milliseconds (13 digits)"
EPOCH_MS_MIN, EPOCH_MS_END = 10**12, 10**13  # 13 digits: 2001 to 2286; seconds must not pass as 1970

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-](?:0\d|1[0-4]):?[0-5]\d|[+-](?:0\d|1[0-4]))", re.ASCII
)
_EPOCH_MS = re.compile(r"[1-9]\d{12}", re.ASCII)
_LONG = re.compile(r"-?\d{1,19}", re.ASCII)
_DOUBLE = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_DOUBLE_CHARS = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UPPER = re.compile(r"[A-Z]+", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000
BOOLS = {"true": True, "false": False, "1": True, "0": False}


def epoch_ms(moment: datetime) -> int:
    """Milliseconds, what is finer cut off towards the past."""
    since: timedelta = moment - _EPOCH
    return since.days * _DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def instant_of_text(text: str) -> int:
    """Epoch milliseconds of a contract time; raises Refused."""
    match = _ISO.fullmatch(text)
    if match is None:
        if _EPOCH_MS.fullmatch(text):
            return int(text)
        raise Refused("bad_time", TIME_EXPECTED)
    fraction = match.group(1)
    if fraction is not None and len(fraction) > 7:
        text = text[: match.start(1) + 7] + text[match.end(1) :]
    try:
        return epoch_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise Refused("bad_time", TIME_EXPECTED) from None


def _instant_of_json(value: Any) -> int:
    if type(value) is str:
        return instant_of_text(value)
    if type(value) is not int:
        raise Refused("wrong_type", TIME_EXPECTED)
    if not EPOCH_MS_MIN <= value < EPOCH_MS_END:
        raise Refused("bad_time", TIME_EXPECTED)
    return value


def _string(value: Any, field: InputField) -> str:
    if type(value) is not str:
        raise Refused("wrong_type", "a string")
    if len(value) > field.limit:
        raise Refused("too_long", f"at most {field.limit} characters")
    return value


def _text(field: InputField) -> Parse:
    def parse(value: Any) -> str:
        text = _string(value, field)
        if not text.isprintable() and _CONTROL.search(text):
            raise Refused("wrong_type", "text without control characters")
        return mask_numbers(text) if field.masked else text

    return parse


def _shaped(field: InputField, letters: int, expected: str) -> Parse:
    def parse(value: Any) -> str:
        if type(value) is not str or len(value) != letters or not _UPPER.fullmatch(value):
            raise Refused("wrong_type", expected)
        return value

    return parse


def _enum(field: InputField) -> Parse:
    allowed = {value: value for value in field.values}
    expected = "one of " + ", ".join(field.values)

    def parse(value: Any) -> str:
        if type(value) is not str:
            raise Refused("wrong_type", expected)
        known = allowed.get(value)
        if known is None:
            raise Refused("not_in_enum", expected)
        return known

    return parse


def _bounds(field: InputField) -> str:
    if (field.low, field.high) == (INT64_MIN, INT64_MAX):
        return "a whole number of at most 64 bits"
    return f"a whole number from {field.low} to {field.high}"


def _long_of_json(field: InputField) -> Parse:
    low, high, expected = field.low, field.high, _bounds(field)

    def parse(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Refused("wrong_type", expected)
        return value

    return parse


def _long_of_text(field: InputField) -> Parse:
    low, high, expected = field.low, field.high, _bounds(field)

    def parse(value: str) -> int:
        if not _LONG.fullmatch(value):
            raise Refused("wrong_type", expected)
        number = int(value)
        if not low <= number <= high:
            raise Refused("wrong_type", expected)
        return number

    return parse


def _double_of_json(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and INT64_MIN <= value <= INT64_MAX:
        return float(value)
    raise Refused("wrong_type", "a number")


def _double_of_text(value: str) -> float:
    if len(value) <= _DOUBLE_CHARS and _DOUBLE.fullmatch(value):
        number = float(value)
        if math.isfinite(number):
            return number
    raise Refused("wrong_type", "a number")


def _bool_of_json(value: Any) -> bool:
    if type(value) is not bool:
        raise Refused("wrong_type", "true or false")
    return value


def _bool_of_text(value: str) -> bool:
    known = BOOLS.get(value)
    if known is None:
        raise Refused("wrong_type", "true or false")
    return known


def remembered(memo: Memo[Party], field: InputField) -> Parse:
    """A lookup as a parser."""

    def parse(value: Any) -> Party:
        answer = memo[_string(value, field)]
        if answer.__class__ is Refused:
            raise Refused(answer.code, answer.expected)
        return answer  # type: ignore[return-value]

    return parse


def checked_ext(items: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Pairs in order of their names, numbers masked; raises Refused."""
    if len(items) > EXT_KEYS:
        raise Refused("too_long", f"at most {EXT_KEYS} keys")
    pairs = []
    for key in sorted(items):
        value = items[key]
        if type(value) is not str:
            raise Refused("wrong_type", "strings only")
        if not key or len(key) > EXT_KEY_CHARS or len(value.encode()) > EXT_VALUE_BYTES:
            raise Refused("too_long", f"keys of at most {EXT_KEY_CHARS} characters, {EXT_VALUE_BYTES} bytes each")
        if _CONTROL.search(key) or _CONTROL.search(value):
            raise Refused("wrong_type", "text without control characters")
        pairs.append((mask_numbers(key), mask_numbers(value)))
    return pairs


def _ext_of_json(value: Any) -> list[tuple[str, str]]:
    if type(value) is not dict:
        raise Refused("wrong_type", "an object of strings")
    return checked_ext(value)


def _memo_of(kind: Kind, resolver: Resolver) -> Memo[Party] | None:
    return {
        Kind.MSISDN: resolver.msisdn,
        Kind.IMSI: resolver.imsi,
        Kind.IMEI: resolver.imei,
        Kind.LINE: resolver.line,
        Kind.PARTY: resolver.party,
        Kind.PEER: resolver.peer,
        Kind.CELL: resolver.cell,
        Kind.PLMN: resolver.plmn,
    }.get(kind)


def memo_of(field: InputField, resolver: Resolver) -> Memo[Party] | None:
    """The lookup behind a field, None if it is no lookup."""
    return _memo_of(field.kind, resolver)


def parser(field: InputField, resolver: Resolver, from_json: bool) -> Parse:
    """The function that reads this field; it raises Refused. Empty strings and nulls never reach it."""
    memo = memo_of(field, resolver)
    if memo is not None:
        return remembered(memo, field)
    match field.kind:
        case Kind.INSTANT:
            return _instant_of_json if from_json else instant_of_text
        case Kind.ENUM:
            return _enum(field)
        case Kind.LONG:
            return _long_of_json(field) if from_json else _long_of_text(field)
        case Kind.DOUBLE:
            return _double_of_json if from_json else _double_of_text
        case Kind.BOOL:
            return _bool_of_json if from_json else _bool_of_text
        case Kind.CURRENCY:
            return _shaped(field, 3, "an ISO 4217 code such as EUR")
        case Kind.COUNTRY:
            return _shaped(field, 2, "an ISO 3166 code such as FR")
        case Kind.EXT:
            return _ext_of_json
        case _:
            return _text(field)
