"""Raw CDRs whose every field, and whose judgement, follow from (seed, partition, offset) by arithmetic.

So the truth needs no memory: whatever was produced can be said again, and what must have become of it. Nothing of the
enricher's own code is used; hashing, rules and joins are written here a second time.

A record at offset n of a partition is *fresh*, or

- a copy (also with another charge: a conflict) of a fresh one before it, a few or a million offsets back,
- broken in a way that one rule rejects; D offsets later it may come again, mended,
- bytes that no schema fits,
- a reversal of a fresh one, some hundred or tens of thousands of offsets back; then it is sent once more, without
  effect, and what it took back comes again under the same uid with another charge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from telestream_contracts import arrow_schema, encode, load_schema

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DAY_MS = 86_400_000
CELLS, SUBSCRIBERS, REGIONS, PLANS = 2_000, 3_000, 100, 12  # subscribers: in each partition
MENDED_AFTER = 997
NEAR = 1_000
UNDONE_AFTER = (613, 40_009)  # near, and far beyond what any round holds
AGAIN_AFTER, RESENT_AFTER = 211, 577  # counted from the reversal
SOURCES = ("switch-1", "switch-2", "msc-north", "roaming-hub")

# of ten thousand
_NEAR_COPY, _FAR_COPY, _CONFLICT, _BROKEN, _JUNK, _UNDONE_NEAR, _UNDONE_FAR = 150, 250, 290, 340, 360, 370, 375
FRESH, COPY, CONFLICT, BROKEN, JUNK, MENDED, REVERSAL, AGAIN, RESENT = range(9)
_RULES = ("negative_value", "from_the_future", "too_old", "inconsistent_times")

_TYPES = np.array(["VOICE"] * 50 + ["SMS"] * 20 + ["DATA"] * 25 + ["VIDEO"] * 2 + ["USSD", "MMS", "OTHER"], object)
_STATUSES = np.array(
    ["COMPLETED"] * 9 + ["NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN"], object
)
_CURRENCIES = np.array(["EUR"] * 7 + ["USD", "CHF", None], object)
_DIRECTIONS = np.array(["MO", "MO", "MT", None], object)
_HOMES = np.array(["208-01"] * 16 + ["262-02"] * 3 + [None], object)


def mixed(seed: int, salt: int, *parts: Ints) -> npt.NDArray[np.uint64]:
    """64 well mixed bits of each row (xorshift-multiply over the parts)."""
    at = np.uint64((seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    bits = np.full(len(parts[0]), at, np.uint64)
    for part in parts:
        bits = bits ^ part.astype(np.uint64)
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        bits = bits ^ (bits >> np.uint64(33))
    return bits


@dataclass(frozen=True, slots=True)
class Traffic:
    """``began_ms``: the instant of offset 0; each offset of a partition is ``step_ms`` later."""

    seed: int
    began_ms: int
    step_ms: float

    def _draw(self, salt: int, below: int | Ints, p: Ints, n: Ints) -> Ints:
        limit = np.asarray(below).astype(np.uint64)
        return (mixed(self.seed, salt, p, n) % limit).astype(np.int64)

    # -- what a record is ---------------------------------------------------------------------------------------------

    def _slot(self, p: Ints, n: Ints) -> Ints:
        return self._draw(1, 10_000, p, n)

    def _mends(self, p: Ints, n: Ints) -> Bools:
        before = n - MENDED_AFTER
        slot = self._slot(p, np.maximum(before, 0))
        return (before >= 0) & (slot >= _CONFLICT) & (slot < _BROKEN)

    def _would_undo(self, p: Ints, n: Ints) -> tuple[Bools, Ints]:
        """Whether the offset is meant for a reversal, and of what; going by slots alone."""
        target = np.full(len(n), -1)
        for after, low, high in zip(UNDONE_AFTER, (_JUNK, _UNDONE_NEAR), (_UNDONE_NEAR, _UNDONE_FAR), strict=True):
            before = n - after
            slot = self._slot(p, np.maximum(before, 0))
            target = np.where((target < 0) & (before >= 0) & (slot >= low) & (slot < high), before, target)
        return target >= 0, target

    def _by_slot(self, p: Ints, n: Ints) -> Bools:
        """Whether it is nothing but what its slot says."""
        other = self._mends(p, n)
        for after in (0, AGAIN_AFTER, RESENT_AFTER):
            other |= self._would_undo(p, n - after)[0]
        return ~other

    def _fresh(self, p: Ints, n: Ints) -> Bools:
        # by its slot alone: a would-be copy that became fresh is never copied itself; nor is what is taken back
        return (self._slot(p, n) >= _UNDONE_FAR) & self._by_slot(p, n)

    def _undoes(self, p: Ints, n: Ints) -> tuple[Bools, Ints]:
        """Whether it takes something back, and what."""
        would, target = self._would_undo(p, n)
        return would & ~self._mends(p, n) & self._by_slot(p, np.maximum(target, 0)), target

    def kinds(self, p: Ints, n: Ints) -> tuple[Ints, Ints]:
        """What each is, and the offset whose content it has (its own, the one copied, the one mended)."""
        slot = self._slot(p, n)
        kind = np.select(
            [slot < _FAR_COPY, slot < _CONFLICT, slot < _BROKEN, slot < _JUNK], [COPY, CONFLICT, BROKEN, JUNK], FRESH
        )
        near = (slot < _NEAR_COPY) | ((slot >= _FAR_COPY) & (slot % 2 == 0))
        back = np.where(near, 1 + self._draw(2, NEAR, p, n), 1 + self._draw(3, np.maximum(n, 1), p, n))
        target = n - back
        copies = (kind == COPY) | (kind == CONFLICT)
        # who would copy no fresh record is one himself
        kind[copies & ((target < 0) | ~self._fresh(p, np.maximum(target, 0)))] = FRESH
        copies = (kind == COPY) | (kind == CONFLICT)
        mends = self._mends(p, n)
        kind[mends] = MENDED
        copies &= ~mends
        content = np.select([copies, mends], [target, n - MENDED_AFTER], n)
        free = ~mends
        for number, after in ((REVERSAL, 0), (RESENT, RESENT_AFTER), (AGAIN, AGAIN_AFTER)):
            undoes, undone = self._undoes(p, n - after)
            undoes &= free
            kind[undoes] = number
            content = np.where(undoes, undone, content)
            free &= ~self._would_undo(p, n - after)[0]
        return kind, content

    # -- what it holds ------------------------------------------------------------------------------------------------

    def records(self, p: Ints, n: Ints) -> pl.DataFrame:
        """The filled fields of the raw records (``JUNK``: of what it was before it was spoilt), and ``kind``,
        ``target``, ``broken`` (which rule)."""
        kind, m = self.kinds(p, n)
        draw = lambda salt, below: self._draw(salt, below, p, m)  # noqa: E731
        age_of = draw(10, 1_000)
        age = np.select(
            [age_of < 920, age_of < 970, age_of < 996],
            [draw(11, 60_000), draw(12, 3 * 3_600_000), draw(13, 35 * DAY_MS)],
            draw(14, 390 * DAY_MS),
        )
        started = self.began_ms + (m * self.step_ms).astype(np.int64) - age
        record_type = _TYPES[draw(15, len(_TYPES))]
        is_call, is_data = np.isin(record_type, ("VOICE", "VIDEO")), record_type == "DATA"
        duration = draw(16, 600_000)
        holding = duration + draw(17, 5_000)
        # a call with bytes and a data record without are worth a warning
        up = np.where(is_data & (draw(18, 50) != 0), 1 + draw(19, 10**7), 0)
        up = np.where(is_call & (draw(20, 200) == 0), 7, up)
        has_bytes = is_data | (up > 0)
        charge = draw(21, 10**6)
        charged = draw(22, 5) != 0
        cell, no_cell = draw(23, CELLS), draw(24, 50) == 0
        subscriber, nobody = draw(25, SUBSCRIBERS), draw(26, 100) == 0
        answered = started + 1_000
        has_answer = is_call & (draw(27, 2) == 0)

        broken = np.where(kind == BROKEN, self._draw(30, len(_RULES), p, m), -1)
        other = (kind == CONFLICT) | (kind == RESENT)
        charge = np.where(other, np.where(charged, charge, 0) + 1, charge)
        charged = charged | other
        started = started + np.select([broken == 1, broken == 2], [age + 2 * DAY_MS, -500 * DAY_MS], 0)
        answered = np.where(broken == 3, started - 1_000, started + 1_000)
        has_answer = has_answer | (broken == 3)
        has_duration = is_call | is_data | (broken == 0)
        duration = np.where(broken == 0, -1 - duration, duration)

        uid = _numbered(p, 2, m, 20)
        own = pl.select(pl.concat_str(pl.lit("k1."), _numbered(p, 2, subscriber, 20))).to_series()
        none = pl.Series(nobody)
        frame = pl.DataFrame(
            {
                "p": p,
                "n": n,
                "kind": kind,
                "target": m,
                "broken": broken,
                "event_uid": uid,
                "started_at": pl.Series(started).cast(pl.Datetime("ms", "UTC")),
                "record_type": _text(record_type),
                "status": _text(_STATUSES[draw(31, len(_STATUSES))]),
                "subscriber_id": own.zip_with(~none, uid),
                "subscriber_kind": _text(np.where(nobody, "NONE", "MSISDN").astype(object)),
                "cell_id": _only(~no_cell, cell_ids(cell)),
                "duration_ms": _only(has_duration, pl.Series(duration)),
                "bytes_up": _only(has_bytes, pl.Series(up)),
                "bytes_down": _only(is_data & (up > 0), pl.Series(up * 9)),
                "charge_micros": _only(charged, pl.Series(charge)),
                "currency": _text(_CURRENCIES[draw(32, len(_CURRENCIES))]),
                "direction": _text(_DIRECTIONS[draw(33, len(_DIRECTIONS))]),
                "home_plmn": _text(_HOMES[draw(34, len(_HOMES))]),
                "is_partial": np.zeros(len(n), np.bool_),
                "source": _text(np.array(SOURCES, object)[draw(35, len(SOURCES))]),
                # how it came: its own, also where the content is another's
                **self._arrival(n),
                "answered_at": _only(has_answer, pl.Series(answered).cast(pl.Datetime("ms", "UTC"))),
                "holding_ms": _only(is_call, pl.Series(holding)),
                "reverses_offset": _only((kind == REVERSAL) | (kind == AGAIN), pl.Series(m)),
                "device_tac": _text(np.full(len(n), "35332211", object)),
            }
        )
        return frame.with_columns(
            cell=pl.Series(np.where(no_cell, -1, cell)), subscriber=pl.Series(np.where(nobody, -1, subscriber))
        )

    def _arrival(self, n: Ints) -> dict[str, pl.Series]:
        at = pl.Series(self.began_ms + (n * self.step_ms).astype(np.int64))
        return {
            "batch_id": pl.Series(n // 1_000),
            "line": pl.Series(n % 1_000 + 1),
            "ingested_at": at.cast(pl.Datetime("ms", "UTC")),
        }

    def passed_on(self, records: pl.DataFrame, schema_id: int) -> list[bytes | None]:
        """As ``values``, but as judged records have it: a reversal that takes effect is a copy of the original."""
        origin = np.where(records["kind"] == REVERSAL, records["target"], records["n"])
        return self.values(records.with_columns(**self._arrival(origin)), schema_id)

    def values(self, records: pl.DataFrame, schema_id: int) -> list[bytes | None]:
        """What is produced for ``records``, some of them spoilt."""
        encoded: list[bytes | None] = list(encode(_complete(records), load_schema("cdr"), schema_id))
        for index in np.flatnonzero(records["kind"].to_numpy() == JUNK).tolist():
            value = encoded[index] or b""
            spoilt = (b"\x00junk" + value[5:], value[: len(value) // 2], b"\x01" + value[1:], b"", None)
            encoded[index] = spoilt[records["n"][index] % len(spoilt)]
        return encoded

    # -- what must become of it ---------------------------------------------------------------------------------------

    def judged(self, records: pl.DataFrame) -> pl.DataFrame:
        """``records`` with the head of the judged record (but for ``content_hash``), and ``warned``."""
        kind, at = pl.col("kind"), pl.col("started_at").cast(pl.Int64)
        junk = kind == JUNK
        copy = kind.is_in([COPY, CONFLICT])
        back = kind.is_in([REVERSAL, AGAIN])
        cell, s = pl.col("cell"), pl.col("subscriber")
        days = lambda count: self.began_ms - count * DAY_MS  # noqa: E731
        cell_known = (cell >= 0) & (cell % 10 != 0) & ((cell % 10 != 1) | (at < days(100)) | (at >= days(10)))
        cell_known &= ~junk
        known = (s >= 0) & (s % 5 != 0) & ~junk
        region = cell + pl.when((cell % 10 == 1) & (at >= days(10))).then(25).when(at >= days(30)).then(50).otherwise(0)
        plan = (s + pl.when(at >= days(15)).then(5).otherwise(0)) % PLANS
        bytes_ = pl.col("bytes_up").fill_null(0) + pl.col("bytes_down").fill_null(0)
        warned = [
            pl.when((pl.col("record_type") == "VOICE") & (bytes_ > 0)).then(pl.lit("voice_with_bytes")),
            pl.when((pl.col("record_type") == "DATA") & (bytes_ == 0)).then(pl.lit("data_without_bytes")),
        ]
        serving = pl.when(cell >= 0).then(
            pl.when(cell % 20 == 2)
            .then(pl.lit("262-01"))
            .when(cell % 20 == 1)
            .then(pl.lit("208-20"))
            .otherwise(pl.lit("208-01"))
        )
        home = pl.col("home_plmn")
        roaming = (
            pl.when(junk | home.is_null() | (cell < 0))
            .then(pl.lit("UNKNOWN"))
            .when(home == serving)
            .then(pl.lit("HOME"))
            .when(home.str.slice(0, 3) == serving.str.slice(0, 3))
            .then(pl.lit("NATIONAL"))
            .when(known)
            .then(pl.lit("OUTBOUND"))
            .when(cell_known)
            .then(pl.lit("INBOUND"))
            .otherwise(pl.lit("UNKNOWN"))
        )
        rule = pl.when(junk).then(pl.lit("undecodable")).when(kind == CONFLICT).then(pl.lit("conflict"))
        for number, code in enumerate(_RULES):
            rule = rule.when(pl.col("broken") == number).then(pl.lit(code))
        named = lambda known_, *parts: pl.when(known_).then(pl.concat_str(*parts))  # noqa: E731
        return records.with_columns(
            src_partition="p",
            src_offset="n",
            verdict=pl.when(junk | (kind == BROKEN))
            .then(pl.lit("REJECTED"))
            .when(copy | (kind == AGAIN))
            .then(pl.lit("DUPLICATE"))
            .otherwise(pl.lit("STORED")),
            sign=pl.when(back).then(-1).otherwise(1).cast(pl.Int64),
            rule=rule,
            first_offset=pl.when(copy).then("target"),
            rules_version=pl.lit(1, pl.Int64),
            warnings=pl.when(junk | (kind == AGAIN))
            .then(pl.lit(""))
            .otherwise(pl.concat_str(*warned, separator=",", ignore_nulls=True)),
            region_id=named(cell_known, pl.lit("R"), region % REGIONS),
            technology=pl.when(cell_known).then(pl.lit("LTE")),
            vendor=pl.when(cell_known).then(pl.lit("acme")),
            local_date=pl.when(~junk).then(pl.col("started_at").dt.date()),
            customer_id=named(known, pl.lit("C"), "p", pl.lit("-"), "subscriber"),
            plan_id=named(known, pl.lit("P"), plan),
            segment=pl.when(known).then(pl.lit("consumer")),
            customer_region_id=named(known, pl.lit("R"), s % REGIONS),
            roaming=roaming,
        )

    # -- reference data -----------------------------------------------------------------------------------------------

    def cell_versions(self) -> pl.DataFrame:
        """Every tenth is unknown, every tenth was gone for a while; the others change their region."""
        cell = np.arange(CELLS)
        parts = []
        for days, shift in ((1_000, 0), (30, 50), (100, None), (10, 25)):
            for_gap = shift in (None, 25)
            some = cell[(cell % 10 == 1)] if for_gap else cell[(cell % 10 > 1) | ((cell % 10 == 1) & (days == 1_000))]
            body = {"technology": "LTE", "vendor": "acme"} if shift is not None else {}
            regions = [f"R{(c + shift) % REGIONS}" if shift is not None else None for c in some.tolist()]
            parts.append(self._versions(cell_ids(some).alias("cell_id").to_frame(), days, body, {"region_id": regions}))
        return pl.concat(parts, how="diagonal_relaxed")

    def customer_versions(self, partition: int) -> pl.DataFrame:
        """Four of five subscribers of a partition, who changed their plan once."""
        s = np.arange(SUBSCRIBERS)
        s = s[s % 5 != 0]
        p = np.full(len(s), partition)
        keys = pl.select(
            pl.concat_str(pl.lit("k1."), _numbered(p, 2, s, 20)).alias("identifier"),
            pl.lit("MSISDN").alias("identifier_kind"),
        )
        parts = []
        for days, shift in ((15, 5), (1_000, 0)):  # the later first: order of arrival means nothing
            body = {
                "customer_id": [f"C{partition}-{one}" for one in s.tolist()],
                "plan_id": [f"P{(one + shift) % PLANS}" for one in s.tolist()],
                "region_id": [f"R{one % REGIONS}" for one in s.tolist()],
            }
            parts.append(self._versions(keys, days, {"segment": "consumer"}, body))
        return pl.concat(parts)

    def _versions(self, keys: pl.DataFrame, days: int, same: dict[str, str], own: dict[str, list[Any]]) -> pl.DataFrame:
        instant = pl.lit(self.began_ms - days * DAY_MS).cast(pl.Datetime("ms", "UTC"))
        return keys.with_columns(
            *(pl.Series(name, values, pl.String) for name, values in own.items()),
            *(pl.lit(value).alias(name) for name, value in same.items()),
            instant.alias("valid_from"),
            pl.lit(not same).alias("deleted"),
            pl.lit("chaos").alias("source"),
            pl.lit(1, pl.Int64).alias("batch_id"),
            pl.lit(1, pl.Int64).alias("line"),
            instant.alias("ingested_at"),
        )


def encoded_versions(versions: pl.DataFrame, entity: str, schema_id: int) -> list[bytes]:
    """Reference data as it is produced."""
    wanted = arrow_schema(load_schema(entity))
    given = versions.to_arrow()
    columns = [
        given.column(field.name).combine_chunks().cast(field.type)
        if field.name in versions.columns
        else pa.nulls(versions.height, field.type)
        for field in wanted
    ]
    return encode(pa.RecordBatch.from_arrays(columns, schema=wanted), load_schema(entity), schema_id)


def cell_ids(cells: Ints) -> pl.Series:
    """Most at home, some of another network of the country, some abroad."""
    networks = np.select([cells % 20 == 2, cells % 20 == 1], ["262-01-", "208-20-"], "208-01-").astype(object)
    return pl.select(pl.concat_str(_text(networks), pl.Series(np.maximum(cells, 0)).cast(pl.String))).to_series()


def _complete(records: pl.DataFrame) -> pa.RecordBatch:
    schema = arrow_schema(load_schema("cdr"))
    given = records.to_arrow()
    columns = []
    for field in schema:
        if field.name in records.columns:
            columns.append(given.column(field.name).combine_chunks().cast(field.type))
        elif field.name == "ext":
            columns.append(pa.array([[]] * records.height, field.type))
        else:
            columns.append(pa.nulls(records.height, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _text(values: npt.NDArray[Any]) -> pl.Series:
    return pl.Series(values.tolist(), dtype=pl.String)


def _numbered(first: Ints, first_width: int, second: Ints, second_width: int) -> pl.Series:
    return pl.select(
        pl.concat_str(
            pl.Series(first).cast(pl.String).str.zfill(first_width),
            pl.Series(second).cast(pl.String).str.zfill(second_width),
        )
    ).to_series()


def _only(where: Bools, values: pl.Series) -> pl.Series:
    return values.set(pl.Series(~where), None)
