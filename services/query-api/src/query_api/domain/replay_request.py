"""What is asked of ``POST /v1/generations``, and where it begins: checked in full, without Kafka or a clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from query_api.domain.problems import Problem
from query_api.domain.ranges import instant, iso, iso_ms
from telestream_domain import SUBSCRIBER_DAY_SEGMENT_BITS, TYPES

MAX_REASON_CHARS = 500
MAX_RULES_CHARS = 65_536
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=400)

_OFFSET = re.compile(r"[0-9]{1,12}")
_SAMPLE = re.compile(r"([1-9][0-9]{0,4})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_FIELDS = ("types", "from", "rules", "sample", "compare_only", "reference_of", "reason")

Offsets = dict[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replay as asked for. At most one of ``from_offset``, ``from_time`` and ``sample`` is given."""

    types: tuple[str, ...]
    reason: str
    from_offset: int | None = None
    from_time: datetime | None = None
    sample: timedelta | None = None
    rules: str | None = None
    compare_only: bool = False
    reference_of: int | None = None

    def words(self) -> dict[str, str]:
        """The request for the row and the audit log; of rules only that there are some: the row has them."""
        found = {"types": ",".join(self.types)}
        if self.from_offset is not None:
            found["from"] = str(self.from_offset)
        if self.from_time is not None:
            found["from"] = iso(self.from_time)
        if self.sample is not None:
            found["sample"] = f"{self.sample // timedelta(minutes=1)}m"
        if self.rules is not None:
            found["rules"] = "given"
        if self.compare_only:
            found["compare_only"] = "true"
        if self.reference_of is not None:
            found["reference_of"] = str(self.reference_of)
        return found


@dataclass(frozen=True, slots=True)
class Raw:
    """One raw topic: partition → first offset that is there, and the offset after the last; ``at`` → first offset
    appended at or after the time asked for, None where there is none."""

    low: Mapping[int, int]
    end: Mapping[int, int]
    at: Mapping[int, int | None]


def wanted_of(body: Mapping[str, Any]) -> Wanted:
    """Raises Problem for the first thing that is wrong."""
    known_fields(body, _FIELDS)
    found = Wanted(
        types=types_of(body) or tuple(TYPES),
        reason=reason_of(body),
        rules=_text(body, "rules", MAX_RULES_CHARS),
        compare_only=flag(body, "compare_only"),
        reference_of=_generation(body, "reference_of"),
        sample=_sample(_text(body, "sample", 10)),
        **_from(body.get("from")),
    )
    if found.sample is not None and (found.from_offset is not None or found.from_time is not None):
        raise _wrong("sample", "give sample or from, not both", "bad_sample")
    if found.sample is not None and not found.compare_only:
        raise _wrong("sample", "a sample can only be compared, never activated: set compare_only", "bad_sample")
    return found


def starts_of(wanted: Wanted, record_type: str, raw: Raw, first_at_ms: Mapping[int, int | None]) -> Offsets:
    """Partition → first raw offset to derive.

    ``first_at_ms``: when the first record that is still there arrived. What is not a rehearsal begins on the border of
    a subscriber-day segment where that is possible, so that another generation can answer for what lies before: at
    most 2²⁰ records earlier than asked for, later only where raw has lost the beginning and none was asked for. Raises
    Problem where what is asked for is no longer, or not yet, there.
    """
    starts = {}
    for partition, low in sorted(raw.low.items()):
        end, where = raw.end[partition], f"{record_type}.raw[{partition}]"
        if wanted.from_offset is not None:
            start = wanted.from_offset
            if start < low:
                raise _beyond(where, f"offset {start}", low, end, first_at_ms.get(partition))
            if start > end:
                raise _past(where, f"offset {start}", f"it ends at {end}")
        elif wanted.from_time is not None or wanted.sample is not None:
            at = raw.at.get(partition)
            start = end if at is None else at
            if wanted.from_time is not None:
                first_ms = first_at_ms.get(partition)
                if low > 0 and first_ms is not None and wanted.from_time < _at(first_ms):
                    raise _beyond(where, iso(wanted.from_time), low, end, first_ms)
        else:
            start = low
        starts[partition] = start if wanted.compare_only else _on_border(start, low, end, wanted)
    return starts


def require_anything(wanted: Wanted, raw: Mapping[str, Raw]) -> None:
    """Raises Problem if nothing of any type arrived since the time that is asked for."""
    if any(at is not None for topic in raw.values() for at in topic.at.values()):
        return
    if wanted.from_time is not None:
        raise _past(" and ".join(f"{name}.raw" for name in raw), iso(wanted.from_time), "nothing arrived since")
    if wanted.sample is not None:
        raise _wrong("sample", f"nothing of {' and '.join(raw)} arrived in it: take a longer one", "bad_sample")


def within(starts: Mapping[int, int], ends: Mapping[int, int], record_type: str, generation: int) -> None:
    """Raises Problem if a replay would begin after the ends that it takes over from another one."""
    for partition, start in starts.items():
        if start > ends.get(partition, start):
            raise _wrong(
                "reference_of",
                f"{record_type}.raw[{partition}] would begin at {start}, after generation {generation}'s end "
                f"{ends[partition]}: begin earlier",
                "bad_reference_of",
            )


def known_fields(body: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in body:
        if name not in known:
            field = name if name.isidentifier() and len(name) <= 40 else None
            raise Problem(422, "unknown_field", f"there is no such field; known are: {', '.join(known)}", field)


def types_of(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """None if none are named."""
    given = body.get("types")
    if given is None:
        return None
    if not isinstance(given, list) or not given or any(name not in TYPES for name in map(str, given)):
        raise _wrong("types", f"a list of some of: {', '.join(TYPES)}", "bad_types")
    return tuple(name for name in TYPES if name in given)


def reason_of(body: Mapping[str, Any]) -> str:
    """Whoever changes something says why: it stands in the audit log."""
    given = _text(body, "reason", MAX_REASON_CHARS)
    if given is None or not given.strip():
        raise _wrong("reason", "say why: it stands in the audit log", "bad_reason")
    return given.strip()


def flag(body: Mapping[str, Any], name: str) -> bool:
    given = body.get(name, False)
    if not isinstance(given, bool):
        raise _wrong(name, "true or false", f"bad_{name}")
    return given


def _text(body: Mapping[str, Any], name: str, longest: int) -> str | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or len(given) > longest or "\0" in given or not _encodable(given):
        raise _wrong(name, f"text of at most {longest} characters", f"bad_{name}")
    return given


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _generation(body: Mapping[str, Any], name: str) -> int | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given < 2**31:
        raise _wrong(name, "the number of a generation", f"bad_{name}")
    return given


def _from(given: Any) -> dict[str, Any]:
    """An offset, or an instant: 13 digits are epoch milliseconds, as everywhere."""
    if given is None:
        return {}
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or len(given) > 40:
        raise _wrong("from", "an offset or a time", "bad_from")
    if _OFFSET.fullmatch(given):
        return {"from_offset": int(given)}
    try:
        return {"from_time": instant(given, ZoneInfo("UTC"), "from")}
    except Problem as err:
        raise _wrong("from", f"not an offset, and {err.detail.removeprefix('from: ')}", "bad_from") from None


def _sample(given: str | None) -> timedelta | None:
    if given is None:
        return None
    match = _SAMPLE.fullmatch(given)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not SHORTEST <= length <= LONGEST:
        raise _wrong("sample", "how much of the newest, such as 1d, 6h or 30m; at most 400d", "bad_sample")
    return length


def _on_border(start: int, low: int, end: int, wanted: Wanted) -> int:
    size = 1 << SUBSCRIBER_DAY_SEGMENT_BITS
    before = start // size * size
    if before >= low:
        return before
    asked = wanted.from_offset is not None or wanted.from_time is not None
    after = before + size
    return after if not asked and after <= end else start


def _at(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def _beyond(where: str, asked: str, low: int, end: int, first_ms: int | None) -> Problem:
    since = "" if first_ms is None else f", which arrived at {iso_ms(first_ms)}"
    return Problem(
        409,
        "beyond_retention",
        f"{where}: {asked} was asked for, but retention has removed what lay before offset {low}{since}; there is "
        f"{low} to {end}: begin there, or leave from away",
        "from",
    )


def _past(where: str, asked: str, there: str) -> Problem:
    return Problem(422, "past_the_end", f"{where}: {asked} was asked for, but {there}: begin earlier", "from")


def _wrong(field: str, what: str, code: str) -> Problem:
    return Problem(422, code, f"{field}: {what}", field)
