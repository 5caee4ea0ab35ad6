"""Known faults among good records: what arrives twice, late, changed, or broken, and what must become of it.

Every row gets a fate. Faults are drawn so that the fate does not depend on how a correct pipeline goes about it:

- a row breaks one rule only, and by a wide margin;
- a duplicate or a conflict arrives after the record it repeats;
- a broken row has an event id of its own, or it is the first try of a record that is mended and sent again later.
  It leaves no trace, so that the later one is stored;
- some event ids are used again by another record, at another time: identity is source and id, event time and
  subscriber together, so both are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from telestream_simulator.cdrs import BY_NOTHING, DATA, SMS, VOICE, Columns, count_of, stack, take
from telestream_simulator.columns import NULL, Ints, is_set, nulls, vocabulary_text, zero_if_null
from telestream_simulator.population import Population
from telestream_simulator.scenario import MS_PER_DAY, Scenario

REFUSED_CODES = (
    "not_json",
    "unknown_field",
    "missing_field",
    "wrong_type",
    "not_in_enum",
    "bad_time",
    "bad_msisdn",
    "bad_cell_id",
    "too_long",
)
REJECTED_CODES = ("negative_value", "from_the_future", "too_old", "ratio_out_of_range", "inconsistent_times")
WARNINGS = ("duration_too_long", "voice_with_bytes", "data_without_bytes", "implausible_value")

STORED, DUPLICATE, CONFLICT = range(3)
FIRST_REFUSED = 3
FIRST_REJECTED = FIRST_REFUSED + len(REFUSED_CODES)
"""Fates: these three, then one for each code of refusal, then one for each of rejection."""

# A column that is unknown is so for the whole file, so no row of a CSV can have this one.
_CSV_REFUSED = tuple(code for code in REFUSED_CODES if code != "unknown_field")
CDR_FAULTS = (*_CSV_REFUSED, "negative_value", "from_the_future", "too_old", "inconsistent_times")
NETWORK_FAULTS = (*_CSV_REFUSED, "negative_value", "from_the_future", "too_old", "ratio_out_of_range")

# A line that is no JSON would be told apart from its neighbours by the reader's taste only; so it is left out here.
LIVE_FAULTS = ("unknown_field", *CDR_FAULTS[1:])

# Far enough that neither the clock nor the month of loading matters.
_FUTURE_MS = 3650 * MS_PER_DAY
_LONG_AGO_MS = 500 * MS_PER_DAY
_HOUR_MS = 3_600_000

Texts = dict[str, list[str]]


def refused(code: str) -> int:
    return FIRST_REFUSED + REFUSED_CODES.index(code)


def rejected(code: str) -> int:
    return FIRST_REJECTED + REJECTED_CODES.index(code)


def _fate_of(code: str) -> int:
    return refused(code) if code in REFUSED_CODES else rejected(code)


def fate_names(table: Columns) -> list[str]:
    """What becomes of each row, in words: STORED, DUPLICATE, DUPLICATE conflict, REFUSED or REJECTED and the code."""
    names = ["STORED", "DUPLICATE", "DUPLICATE conflict"]
    names += [f"REFUSED {code}" for code in REFUSED_CODES] + [f"REJECTED {code}" for code in REJECTED_CODES]
    return vocabulary_text(names, table["fate"])


@dataclass(frozen=True, slots=True)
class Shares:
    """How many rows of each sort make up a stream; ``sound`` are the records that must end up stored."""

    sound: int
    invalid: int
    duplicates: int
    late: int

    @classmethod
    def of(cls, scenario: Scenario, rows: int) -> Shares:
        duplicates, invalid = round(rows * scenario.duplicates), round(rows * scenario.invalid)
        return cls(rows - duplicates - invalid, invalid, duplicates, round(rows * scenario.late))


def faulty_cdrs(population: Population, sound: Columns, shares: Shares, rng: np.random.Generator) -> Columns:
    """Records and their faults in order of arrival; adds ``arrival``, ``fate``, ``fault``, ``variant``, ``warning``."""
    count = count_of(sound)
    _without_id(sound, rng, 0.03, sound["named_by"] != BY_NOTHING)
    _late(sound, shares, rng, "started_at", ("answered_at",))
    _ids_used_again(sound, rng)
    _warned_cdrs(sound, rng, population)
    held = np.where(is_set(sound["holding_ms"]), sound["holding_ms"], zero_if_null(sound["duration_ms"]))
    sound["arrival"] += held + rng.exponential(30_000, size=count).astype(np.int64)

    broken = _broken(sound, shares, rng, CDR_FAULTS)
    _break_cdrs(broken, CDR_FAULTS)
    may_conflict = np.nonzero(
        is_set(sound["charge_micros"]) & np.isin(sound["record_type"], (VOICE, SMS, DATA)) & ~is_set(sound["warning"])
    )[0]
    repeats = _repeated(sound, shares, rng, may_conflict)
    conflict = repeats["fate"] == CONFLICT
    repeats["charge_micros"][conflict] += 10_000
    # Of a record without an id the duration is part of its identity.
    longer = conflict & is_set(repeats["event"]) & is_set(repeats["duration_ms"]) & (rng.random(len(conflict)) < 0.5)
    repeats["duration_ms"][longer] += 1_000
    repeats["holding_ms"][longer & is_set(repeats["holding_ms"])] += 1_000
    return _in_order_of_arrival([sound, broken, repeats])


def faulty_live_cdrs(
    population: Population, sound: Columns, shares: Shares, rng: np.random.Generator, seconds: float
) -> Columns:
    """Records in the order in which they are to be sent within ``seconds``; their instants are left to the sender.

    Adds ``row``, the record that a repeat repeats, beside the columns of ``faulty_cdrs``.
    """
    count = count_of(sound)
    sound["row"] = np.arange(count, dtype=np.int64)
    _late(sound, replace(shares, late=0), rng, "started_at", ())
    _warned_cdrs(sound, rng, population)
    sound["arrival"] = (np.arange(count) * (seconds * 1000 / max(1, count))).astype(np.int64)
    broken = _broken(sound, shares, rng, LIVE_FAULTS)
    _break_cdrs(broken, LIVE_FAULTS)
    may_conflict = np.nonzero(is_set(sound["charge_micros"]) & ~is_set(sound["warning"]))[0]
    repeats = _repeated(sound, shares, rng, may_conflict)
    repeats["charge_micros"][repeats["fate"] == CONFLICT] += 10_000
    # Spread over what is left of the time, not over hours.
    first_sent = sound["arrival"][repeats["row"]]
    left = np.maximum(seconds * 1000 - first_sent, 1)
    repeats["arrival"] = first_sent + 1 + (rng.random(count_of(repeats)) * left).astype(np.int64)
    broken["arrival"] = np.maximum(sound["arrival"][broken["row"]] - 1, 0)
    return _in_order_of_arrival([sound, broken, repeats])


def faulty_network_events(population: Population, sound: Columns, shares: Shares, rng: np.random.Generator) -> Columns:
    """The same for network events."""
    _without_id(sound, rng, 0.03, _alone(sound))
    _late(sound, shares, rng, "occurred_at", ())
    _ids_used_again(sound, rng)
    rows = np.nonzero(is_set(sound["rsrp_cdbm"]))[0][: max(1, count_of(sound) // 2_000)]
    sound["rsrp_cdbm"][rows] = 4_000  # more than the antenna sends
    sound["warning"][rows] = WARNINGS.index("implausible_value")
    sound["arrival"] += rng.exponential(10_000, size=count_of(sound)).astype(np.int64)
    broken = _broken(sound, shares, rng, NETWORK_FAULTS)
    _break_network_events(broken)
    repeats = _repeated(sound, shares, rng, np.nonzero(is_set(sound["latency_us"]) & is_set(sound["event"]))[0])
    repeats["latency_us"][repeats["fate"] == CONFLICT] += 1_000
    return _in_order_of_arrival([sound, broken, repeats])


def _alone(events: Columns) -> Ints:
    """Events that no other shares cell and millisecond with: told apart without an id."""
    key = events["cell"] * (1 << 44) + events["occurred_at"]
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    alone: Ints = counts[inverse] == 1
    return alone


def _without_id(table: Columns, rng: np.random.Generator, share: float, eligible: Ints) -> None:
    table["event"][(rng.random(count_of(table)) < share) & eligible] = NULL


def _late(table: Columns, shares: Shares, rng: np.random.Generator, time: str, other_times: Sequence[str]) -> None:
    """Late by hours, and one in five by days, as records of roaming partners are."""
    count = count_of(table)
    table["arrival"] = table[time].copy()
    table["fate"] = np.full(count, STORED, dtype=np.int64)
    table["fault"], table["variant"], table["warning"] = nulls(count), nulls(count), nulls(count)
    late = rng.choice(count, size=min(shares.late, count), replace=False)
    old, hours = late[: len(late) // 5], late[len(late) // 5 :]
    table["arrival"][hours] += rng.integers(_HOUR_MS, 20 * _HOUR_MS, size=len(hours))
    for column in (time, *other_times):
        back = (np.arange(len(old)) % 25 + 1) * MS_PER_DAY
        table[column][old] = np.where(is_set(table[column][old]), table[column][old] - back, NULL)


def _ids_used_again(table: Columns, rng: np.random.Generator) -> None:
    count = count_of(table)
    pairs = rng.choice(count, size=min(count, 2 * max(1, count // 5_000)) // 2 * 2, replace=False).reshape(-1, 2)
    for first, second in pairs.tolist():
        if table["event"][first] != NULL and table["event"][second] != NULL:
            table["event"][second] = table["event"][first]


def _warned_cdrs(table: Columns, rng: np.random.Generator, population: Population) -> None:
    count = count_of(table)
    each = max(1, count // 2_000)
    start = population.scenario.start_ms
    # Begun early enough to have ended by the end of the simulated days.
    answered = np.nonzero((table["record_type"] == VOICE) & is_set(table["answered_at"]))[0]
    rows = answered[table["started_at"][answered] < start + 6 * _HOUR_MS][:each]
    table["duration_ms"][rows] = MS_PER_DAY + 1_000 + rng.integers(0, 2 * _HOUR_MS, size=len(rows))
    table["holding_ms"][rows] = table["duration_ms"][rows] + 60_000
    table["warning"][rows] = WARNINGS.index("duration_too_long")
    calls = np.nonzero((table["record_type"] == VOICE) & ~is_set(table["warning"]))[0]
    rows = rng.choice(calls, size=min(each, len(calls)), replace=False)
    table["bytes_down"][rows] = rng.integers(1, 10**6, size=len(rows))
    table["warning"][rows] = WARNINGS.index("voice_with_bytes")
    sessions = np.nonzero(table["record_type"] == DATA)[0]
    rows = rng.choice(sessions, size=min(each, len(sessions)), replace=False)
    for column in ("bytes_up", "bytes_down"):
        table[column][rows] = np.where(np.arange(len(rows)) % 2 == 0, 0, NULL)
    table["warning"][rows] = WARNINGS.index("data_without_bytes")


def _broken(sound: Columns, shares: Shares, rng: np.random.Generator, faults: Sequence[str]) -> Columns:
    """Copies of records that a fault is put into; one in four is the first try of its record."""
    count = min(shares.invalid, count_of(sound))
    # A warning of the copy would be told apart from the fault only by knowing the order of the rules.
    plain = np.nonzero(~is_set(sound["warning"]) & is_set(sound["event"]))[0]
    rows = np.sort(rng.choice(plain, size=min(count, len(plain)), replace=False))
    table = take(sound, rows)
    number = np.arange(len(rows))
    table["fault"] = number % len(faults)
    table["fate"] = np.array([_fate_of(code) for code in faults], dtype=np.int64)[table["fault"]]
    table["variant"] = number // len(faults)
    first_try = number % 4 == 0
    table["event"] = np.where(first_try, table["event"], count_of(sound) + number)
    table["arrival"] = table["arrival"] - rng.integers(1, 60_000, size=len(rows))
    return table


def _break_cdrs(table: Columns, faults: Sequence[str]) -> None:
    """What breaks a business rule; structural faults are put into the text."""
    fault, variant = np.array(faults, dtype=object)[table["fault"]], table["variant"]
    negative = fault == "negative_value"
    table["duration_ms"][negative & (variant % 3 == 0)] = -1_000
    table["bytes_down"][negative & (variant % 3 == 1)] = -5
    money = negative & (variant % 3 == 2)
    table["charge_micros"][money], table["currency"][money] = -10_000, 0
    _shift(table, fault, "started_at", ("answered_at",))
    times = fault == "inconsistent_times"
    table["answered_at"][times & (variant % 2 == 0)] = table["started_at"][times & (variant % 2 == 0)] - _HOUR_MS
    shorter = times & (variant % 2 == 1)
    table["duration_ms"][shorter], table["holding_ms"][shorter] = 60_000, 30_000


def _break_network_events(table: Columns) -> None:
    fault, variant = np.array(NETWORK_FAULTS, dtype=object)[table["fault"]], table["variant"]
    _shift(table, fault, "occurred_at", ())
    table["latency_us"][fault == "negative_value"] = -5_000
    ratio = fault == "ratio_out_of_range"
    table["packet_loss_ppm"][ratio & (variant % 2 == 0)] = 1_500_000
    table["prb_ppm"][ratio & (variant % 2 == 1)] = -100_000


def _shift(table: Columns, fault: np.ndarray, time: str, other_times: Sequence[str]) -> None:
    for code, by in (("from_the_future", _FUTURE_MS), ("too_old", -_LONG_AGO_MS)):
        for column in (time, *other_times):
            rows = (fault == code) & is_set(table[column])
            table[column][rows] += by


def _repeated(sound: Columns, shares: Shares, rng: np.random.Generator, may_conflict: Ints) -> Columns:
    """Repeats that come seconds to hours after the first; one in eight with other content."""
    count = min(shares.duplicates, 10 * count_of(sound)) if count_of(sound) else 0
    conflicts = min(-(-count // 8), len(may_conflict))
    rows = np.concatenate(
        [
            rng.choice(may_conflict, size=conflicts, replace=False),
            rng.integers(0, max(1, count_of(sound)), size=count - conflicts),
        ]
    ).astype(np.int64)
    table = take(sound, rows)
    table["fate"] = np.where(np.arange(count) < conflicts, CONFLICT, DUPLICATE)
    table["style"] = rng.integers(0, 3, size=count)  # another way of writing the same instant is not other content
    after = np.where(rng.random(count) < 0.5, rng.exponential(60_000, size=count), rng.exponential(4 * _HOUR_MS, count))
    table["arrival"] = table["arrival"] + 1 + after.astype(np.int64)
    return table


def _in_order_of_arrival(tables: list[Columns]) -> Columns:
    table = stack(tables)
    return take(table, np.argsort(table["arrival"], kind="stable"))


# What a structural fault writes into which field; a record's variant chooses one.
_CDR_TEXT: Mapping[str, Sequence[tuple[str, str]]] = {
    "missing_field": (("started_at", ""), ("record_type", ""), ("status", "")),
    "wrong_type": (("duration_ms", "12s"), ("bytes_up", "many"), ("charge_micros", "1.5"), ("is_partial", "perhaps")),
    "not_in_enum": (("record_type", "FAX"), ("status", "OK"), ("rat", "6G"), ("direction", "SIDEWAYS")),
    "bad_time": (("started_at", "yesterday"), ("started_at", "2026-13-45T25:61:00Z"), ("answered_at", "soon")),
    "bad_msisdn": (("msisdn", "+49"), ("msisdn", "+4915x1234567"), ("msisdn", "+999123456789")),
    "bad_cell_id": (("cell_id", "somewhere"), ("cell_id", "262-42"), ("cell_id", "262-42-1-2-3")),
    "too_long": (("event_id", "x" * 200),),
}
_NETWORK_TEXT: Mapping[str, Sequence[tuple[str, str]]] = {
    "missing_field": (("occurred_at", ""), ("event_type", ""), ("cell_id", "")),
    "wrong_type": (("latency_ms", "fast"), ("sample_count", "many"), ("success", "perhaps")),
    "not_in_enum": (("event_type", "SNEEZE"), ("severity", "AWFUL")),
    "bad_time": (("occurred_at", "yesterday"), ("occurred_at", "2026-13-45T25:61:00Z")),
    "bad_msisdn": (("imsi", "26242x"),),
    "bad_cell_id": (("cell_id", "somewhere"), ("cell_id", "262-42"), ("target_cell_id", "262-42-1-2-3")),
    "too_long": (("event_id", "x" * 200),),
}
# A row with another number of columns is no row of this file.
_MISSHAPEN: Sequence[Callable[[str], str]] = (
    lambda line: line + ",surplus,columns",
    lambda line: line.rsplit(",", 3)[0],
)


def break_cdr_texts(table: Columns, texts: Texts, faults: Sequence[str] = CDR_FAULTS) -> None:
    """Put the structural faults of each row into its fields."""
    _break_texts(table, texts, faults, _CDR_TEXT)


def break_network_texts(table: Columns, texts: Texts) -> None:
    _break_texts(table, texts, NETWORK_FAULTS, _NETWORK_TEXT)


def _break_texts(
    table: Columns, texts: Texts, faults: Sequence[str], wrong: Mapping[str, Sequence[tuple[str, str]]]
) -> None:
    for row in np.nonzero(is_set(table["fault"]))[0].tolist():
        choices = wrong.get(faults[int(table["fault"][row])])
        if choices:
            field, text = choices[int(table["variant"][row]) % len(choices)]
            texts[field][row] = text


def misshape_lines(table: Columns, lines: list[str]) -> None:
    """Give the rows with the fault ``not_json`` a wrong number of columns."""
    for row in np.nonzero(table["fate"] == refused("not_json"))[0].tolist():
        lines[row] = _MISSHAPEN[int(table["variant"][row]) % len(_MISSHAPEN)](lines[row])
