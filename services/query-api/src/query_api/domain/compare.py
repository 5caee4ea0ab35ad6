"""Why two generations differ: every record that was not judged alike gets one cause. By columns.

A record is the same one in both if it stands at the same raw offset. ``this`` generation is compared with ``other``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import polars as pl

from telestream_domain.rule_changes import RuleChanges
from telestream_warehouse.compare_facts import REFERENCE_COLUMNS, compared_columns
from telestream_warehouse.compare_spans import Span


class Cause(StrEnum):
    """``RULE_CHANGED``: a rule involved is another in one of them. ``REFERENCE_ARRIVED``: judged alike, but customer or
    cell data was there for one only. ``ORIGINAL_BEFORE_START``: what it repeats or takes back lies before the start of
    one of them. ``FOLLOWS_FROM``: what it repeats or takes back was not judged alike. ``REVERSAL``: a reversal that
    took effect in one only, of a record that both judged alike."""

    RULE_CHANGED = "rule_changed"
    REFERENCE_ARRIVED = "reference_arrived"
    ORIGINAL_BEFORE_START = "original_before_start"
    FOLLOWS_FROM = "follows_from"
    REVERSAL = "reversal"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Grounds:
    """What is known of two generations of a type, by which their differences are explained.

    ``changed``: codes of rules that only one of them changed, or each in its own way. ``rules_differ``: rules of two
    versions. ``this_began``, ``other_began``: partition → first raw offset judged. ``pinned_below``: partition → raw
    offsets below it were judged with the same reference data by both, so that none can have arrived.
    """

    record_type: str
    changed: frozenset[str] = frozenset()
    rules_differ: bool = False
    this_began: Mapping[int, int] = field(default_factory=dict)
    other_began: Mapping[int, int] = field(default_factory=dict)
    pinned_below: Mapping[int, int] = field(default_factory=dict)

    def with_rules(self, differ: bool) -> Grounds:
        """The same where the rules are, or are not, of two versions."""
        return replace(self, rules_differ=differ)


class Marks:
    """Some of the raw offsets of the spans: a bit for each."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._first: dict[int, int] = {}
        self._bits: dict[int, npt.NDArray[np.uint8]] = {}
        for span in spans:
            self._first[span.partition] = span.first
            self._bits[span.partition] = np.zeros(len(span) // 8 + 1, np.uint8)

    def mark(self, partition: int, offsets: npt.NDArray[np.int64]) -> None:
        """Offsets outside of the spans are left out."""
        place = self._places(partition, offsets)
        place = place[place >= 0]
        if len(place):
            np.bitwise_or.at(self._bits[partition], place >> 3, np.left_shift(1, place & 7).astype(np.uint8))

    def has(self, partition: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        place = self._places(partition, offsets)
        inside = place >= 0
        found = np.zeros(len(offsets), np.bool_)
        if inside.any():
            found[inside] = (self._bits[partition][place[inside] >> 3] >> (place[inside] & 7).astype(np.uint8)) & 1
        return found

    def _places(self, partition: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if partition not in self._bits:
            return np.full(len(offsets), -1, np.int64)
        place = offsets - self._first[partition]
        return np.where((place >= 0) & (place < len(self._bits[partition]) * 8), place, -1)


_SUMS = {"duration_ms": pl.Int64, "bytes": pl.Int64, "charge_micros": pl.Int64, "currency": pl.String}
_VERDICTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "partition": pl.Int64,
    "offset": pl.Int64,
    "this_there": pl.Boolean,
    "other_there": pl.Boolean,
    **{f"{side}_{name}": pl.String for side in ("this", "other") for name in ("verdict", "rule")},
    **{f"{side}_original": pl.Int64 for side in ("this", "other")},
    "sign": pl.Int64,
    "booked_offset": pl.Int64,
    "booked_alike": pl.Boolean,
    "values_alike": pl.Boolean,
    "source": pl.String,
    **_SUMS,
}
_FACTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "partition": pl.Int64,
    "offset": pl.Int64,
    "this_there": pl.Boolean,
    "other_there": pl.Boolean,
    "source": pl.String,
    "region_id": pl.String,
    "columns": pl.Int64,
    "codes": pl.List(pl.String),
    **_SUMS,
}
SHOWN = ("this_verdict", "this_rule", "other_verdict", "other_rule")
_REJECTED, _STORED = pl.lit("REJECTED"), pl.lit("STORED")


def typed(frame: pl.DataFrame, facts: bool) -> pl.DataFrame:
    """The answer of ``fact_differences`` or ``verdict_differences`` with its columns, also where it has no row."""
    schema = _FACTS if facts else _VERDICTS
    if frame.is_empty():
        return pl.DataFrame(schema=schema)
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items())


class Touched:
    """What is known so far: which records were not judged alike, and which were taken back in one only."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.judged, self.undone = Marks(spans), Marks(spans)

    def note(self, differing: pl.DataFrame) -> None:
        """Records of ``verdict_differences`` whose judgement differs."""
        back = differing.filter(pl.col("sign") < 0).select("partition", offset="booked_offset")
        for marks, places in ((self.judged, differing), (self.undone, back)):
            for (partition,), own in places.select("partition", "offset").group_by("partition"):
                marks.mark(int(partition), own["offset"].to_numpy())

    def behind(self, records: pl.DataFrame) -> pl.Series:
        """Whether what each record repeats or takes back was judged otherwise, or taken back in one only."""
        found = np.zeros(records.height, np.bool_)
        partitions, back = records["partition"].to_numpy(), (records["sign"] < 0).to_numpy()
        originals = [records[f"{side}_original"].fill_null(-1).to_numpy() for side in ("this", "other")]
        booked = np.where(back, records["booked_offset"].to_numpy(), -1)
        for partition in np.unique(partitions).tolist():
            own = np.flatnonzero(partitions == partition)
            for offsets in (*originals, booked):
                found[own] |= self.judged.has(partition, offsets[own])
            for offsets in originals:
                found[own] |= self.undone.has(partition, offsets[own])
        return pl.Series(found)


def explained(verdicts: pl.DataFrame, facts: pl.DataFrame, grounds: Grounds, touched: Touched) -> pl.DataFrame:
    """One row per record that differs, by partition and offset: ``cause``, ``code`` (of the rule; '' else), ``columns``
    that differ (joined by commas), the verdicts and rules of both, ``source``, ``region_id`` ('': unknown) and sums.

    ``verdicts`` and ``facts`` are ``typed`` and of the same offsets; ``touched`` knows those before them, and is told
    of these.
    """
    differs = (
        (pl.col("this_there") != pl.col("other_there"))
        | (pl.col("this_verdict") != pl.col("other_verdict"))
        | (pl.col("this_rule") != pl.col("other_rule"))
        | ~pl.col("booked_alike")
    )
    verdicts = verdicts.with_columns(judged=differs)
    touched.note(verdicts.filter("judged"))
    verdicts = verdicts.with_columns(
        touched=touched.behind(verdicts),
        **{name: _of_partition(getattr(grounds, name)) for name in ("this_began", "other_began")},
    )
    sides = facts.rename({"this_there": "this_fact", "other_there": "other_fact"})
    records = verdicts.join(sides, on=["partition", "offset"], how="full", coalesce=True, suffix="_fact")
    records = records.with_columns(
        pl.coalesce(name, f"{name}_fact") for name in ("source", *_SUMS) if f"{name}_fact" in records.columns
    ).with_columns(
        pl.col("judged").fill_null(False),
        pl.col("region_id").fill_null(""),
        pl.col("columns").fill_null(0),
        pl.col("codes").fill_null(pl.lit([], pl.List(pl.String))),
        # only what is stored has a fact, so what has nothing but that differing is stored in both
        *(pl.col(f"{side}_verdict").fill_null("STORED") for side in ("this", "other")),
        *(pl.col(f"{side}_rule").fill_null("") for side in ("this", "other")),
        pinned=(pl.col("offset") < _of_partition(grounds.pinned_below)).fill_null(False),
    )
    records = records.with_columns(columns=_columns(grounds.record_type), code=_code(grounds))
    return records.select(
        "partition",
        "offset",
        *SHOWN,
        "source",
        "region_id",
        *_SUMS,
        "columns",
        cause=_cause(grounds),
        code=pl.when(_cause(grounds) == Cause.RULE_CHANGED).then(pl.col("code").fill_null("")).otherwise(pl.lit("")),
    ).sort("partition", "offset")


def unknown_originals(
    verdicts: pl.DataFrame, firsts: Mapping[int, int], starts: Mapping[int, int]
) -> dict[int, list[int]]:
    """Partition → originals of these records that both have judged (from ``starts`` on), but that lie before
    ``firsts``, where the comparison begins."""
    found: dict[int, list[int]] = {}
    for name in ("this_original", "other_original"):
        for partition, offset in verdicts.select("partition", name).drop_nulls().unique().iter_rows():
            if starts.get(partition, 0) <= offset < firsts.get(partition, 0):
                found.setdefault(partition, []).append(offset)
    return {partition: sorted(set(offsets)) for partition, offsets in found.items()}


def changed_codes(these: RuleChanges, others: RuleChanges, record_type: str) -> frozenset[str]:
    """Codes that one of two generations alone has changed or added, or each in another way."""
    mine, theirs = (
        {**changes.severities, **{rule.code: replace(rule, help="") for rule in changes.of_type(record_type)}}
        for changes in (these, others)
    )
    return frozenset(code for code in {*mine, *theirs} if mine.get(code) != theirs.get(code))


def _of_partition(offsets: Mapping[int, int]) -> pl.Expr:
    if not offsets:
        return pl.lit(None, pl.Int64)
    return pl.col("partition").replace_strict(dict(offsets), default=None, return_dtype=pl.Int64)


def _columns(record_type: str) -> pl.Expr:
    facts = [
        pl.when((pl.col("columns") // 2**bit) % 2 == 1).then(pl.lit(name))
        for bit, name in enumerate(compared_columns(record_type))
    ]
    judged = pl.col("judged")
    own = [
        pl.when(judged & (pl.col("this_there") != pl.col("other_there"))).then(pl.lit("judgement")),
        pl.when(judged & (pl.col("this_verdict") != pl.col("other_verdict"))).then(pl.lit("verdict")),
        pl.when(judged & (pl.col("this_rule") != pl.col("other_rule"))).then(pl.lit("rule")),
        pl.when(judged & ~pl.col("booked_alike")).then(pl.lit("booked_offset")),
        pl.when(~pl.col("values_alike").fill_null(True)).then(pl.lit("values")),
        pl.when(~judged & (pl.col("this_fact") != pl.col("other_fact"))).then(pl.lit("fact")),
    ]
    listed = pl.concat_str(*own, *facts, separator=",", ignore_nulls=True)
    # what else can differ of a record that is judged alike and whose fact is the same is whether it was warned of
    return pl.when(listed == "").then(pl.lit("warnings")).otherwise(listed)


def _code(grounds: Grounds) -> pl.Expr:
    """The code of the rule that explains the difference; null: none does."""
    changed = sorted(grounds.changed) or [""]
    this_code = pl.when(pl.col("this_verdict") == _REJECTED).then("this_rule")
    other_code = pl.when(pl.col("other_verdict") == _REJECTED).then("other_rule")
    warned = pl.col("codes").list.eval(pl.element().filter(pl.element().is_in(changed))).list.first()
    rejecting: list[pl.Expr] = [pl.when(code.is_in(changed)).then(code) for code in (this_code, other_code)]
    if grounds.rules_differ:
        rejecting.append(pl.coalesce(this_code, other_code))
        warned = pl.coalesce(warned, pl.col("codes").list.first())
    return pl.when("judged").then(pl.coalesce(*rejecting)).otherwise(warned)


def _cause(grounds: Grounds) -> pl.Expr:
    listed = pl.col("columns").str.split(",")
    reference = list(REFERENCE_COLUMNS[grounds.record_type])
    only_reference = listed.list.eval(pl.element().is_in(reference)).list.all()
    only_known = listed.list.eval(pl.element().is_in([*reference, "warnings"])).list.all()
    named = pl.col("code").is_not_null()
    # a record that is rejected by both has no fact that could tell which warnings it had
    unseen = (pl.col("columns") == "warnings") & (pl.col("codes").list.len() == 0)
    ruled = bool(grounds.changed) or grounds.rules_differ
    rejected = (pl.col("this_verdict") == _REJECTED) | (pl.col("other_verdict") == _REJECTED)
    undone = pl.col("sign") < 0
    before = pl.any_horizontal(
        pl.col("this_original") < pl.col("other_began"),
        pl.col("other_original") < pl.col("this_began"),
        undone & (pl.col("this_verdict") != _STORED) & (pl.col("booked_offset") < pl.col("this_began")),
        undone & (pl.col("other_verdict") != _STORED) & (pl.col("booked_offset") < pl.col("other_began")),
    ).fill_null(False)
    whole = (pl.col("this_there") & pl.col("other_there")).fill_null(True) & pl.col("booked_alike").fill_null(True)
    judged = (
        pl.when(~whole)
        .then(pl.lit(Cause.UNEXPLAINED))
        .when(named)
        .then(pl.lit(Cause.RULE_CHANGED))
        .when(rejected)
        .then(pl.lit(Cause.UNEXPLAINED))
        .when(before)
        .then(pl.lit(Cause.ORIGINAL_BEFORE_START))
        .when("touched")
        .then(pl.lit(Cause.FOLLOWS_FROM))
        .when(undone)
        .then(pl.lit(Cause.REVERSAL))
        .otherwise(pl.lit(Cause.UNEXPLAINED))
    )
    alike = (
        pl.when((named & only_known) | (unseen & ruled))
        .then(pl.lit(Cause.RULE_CHANGED))
        .when(only_reference & ~pl.col("pinned"))
        .then(pl.lit(Cause.REFERENCE_ARRIVED))
        .otherwise(pl.lit(Cause.UNEXPLAINED))
    )
    return pl.when("judged").then(judged).otherwise(alike)
