"""Raw records to judged records: decode → validate → dedupe → enrich. Pure: no Kafka, no clock.

Every raw record gives one judged record, in raw order, for the same partition (dense judgement).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from cdr_enricher.decode import Decoded, RawDecoder, undecodable_reason
from cdr_enricher.dedup_log import Position
from cdr_enricher.domain.dedupe import NO_OFFSET, Repeats, Seen
from cdr_enricher.domain.hash_table import Bools
from cdr_enricher.domain.hashing import ContentHash, Ints, TextKey, TextKeys, identity_key
from cdr_enricher.domain.kinds import INGESTION_FIELDS, Kind
from cdr_enricher.domain.progress import Reported
from cdr_enricher.domain.references import References, cells_at, customers_at
from cdr_enricher.domain.rejection_limit import Excess, RejectionLimit, Rejections
from cdr_enricher.domain.reversals import Arrived, Identities
from cdr_enricher.domain.roaming import roaming
from cdr_enricher.domain.rules import (
    APPENDED_MS,
    EVENT_MS,
    NO_RULE,
    UNDECODABLE,
    Broken,
    RuleSet,
    rule_set,
    warning_lists,
)
from cdr_enricher.domain.watermark import ARRIVED_MS, EVENT_END_MS, SOURCE, Watermark
from cdr_enricher.errors import RawNotDense, RejectionsAboveLimit
from cdr_enricher.originals import NO_ORIGINALS, NOTHING_UNDONE, Originals, Reversals, Undone
from faust_batch import Batch, Output
from telestream_contracts import (
    Schema,
    encode_payloads,
    encode_records,
    enriched_head,
    frame,
    load_schema,
)
from telestream_domain import CONFLICT, RULES_VERSION, RuleChanges, Severity

STORED, DUPLICATE, REJECTED = "STORED", "DUPLICATE", "REJECTED"
_VERDICTS = pl.Series([STORED, DUPLICATE, REJECTED])
_DAY_MS = 86_400_000
_LAST_DATE_MS = 253_402_214_400_000  # 9999-12-31: beyond it there are no dates


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one raw partition, as of ``next_offset`` (None: nothing was judged yet).

    ``began_at``: the first offset this generation judged. ``reported``: the last word on ``progress``. ``dedup``: where
    ``seen`` can be brought back from.
    """

    next_offset: int | None
    raw_end: int
    seen: Seen
    watermark: Watermark = field(default_factory=Watermark)
    began_at: int | None = None
    reported: Reported = field(default_factory=Reported)
    dedup: Position = field(default_factory=Position)
    rejections: Rejections = field(default_factory=Rejections)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one batch came to, for the metrics."""

    verdicts: Mapping[str, int]
    rejected: Mapping[str, int]
    reversals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one type's records go, and under which schema ids."""

    raw_topic: str
    enriched_topic: str
    rejected_topic: str
    enriched_id: int
    dead_letter_id: int


class Judge:
    """Judges the batches of one type."""

    def __init__(
        self,
        kind: Kind,
        target: Target,
        decoder: RawDecoder,
        *,
        business_timezone: str = "UTC",
        home_plmns: tuple[str, ...] = (),
        severities: Mapping[str, Severity] | None = None,
        changes: RuleChanges | None = None,
        limit: RejectionLimit | None = None,
        on_tally: Callable[[str, Tally], None] = lambda *_: None,
    ) -> None:
        self._kind, self._target, self._decoder = kind, target, decoder
        self._zone = business_timezone
        self._rules: RuleSet = rule_set(
            kind.checks, severities, (changes := changes or RuleChanges.none()).severities, changes.of_type(kind.name)
        )
        self._rule_codes = pl.Series(
            [None, CONFLICT, UNDECODABLE, *(check.code for check in self._rules.rejecting)], dtype=pl.String
        )
        self._roaming = roaming(home_plmns)
        self._head: Schema = enriched_head(kind.name)
        self._dead_letter: Schema = load_schema("dead_letter")
        self._frame = frame(target.enriched_id)
        self._time, self._holder = kind.record_type.time_field, kind.record_type.key_field
        self._keys = TextKeys(*dict.fromkeys(("event_uid", self._holder, "cell_id")))
        self._content = ContentHash((f for f in decoder.columns if f not in INGESTION_FIELDS), decoder.columns)
        self._event_end = _event_end(kind)
        self._reversals = Reversals(kind, target.enriched_topic, target.enriched_id, decoder.schema_of)
        self._limit = limit or RejectionLimit()
        self._on_tally = on_tally

    def decode(self, batch: Batch) -> Decoded:
        """The batch in columns. Raises Unsupported for a raw schema that is newer than this code."""
        return self._decoder.decode(batch.values)

    def on_batch(
        self,
        batch: Batch,
        state: State,
        references: References,
        originals: Originals = NO_ORIGINALS,
        decoded: Decoded | None = None,
    ) -> tuple[list[Output], State]:
        """One judged record per raw record, dead letters beside them, and the state after the batch.

        ``originals``: this partition's judged records before the batch. ``decoded``: what ``decode`` gave for it.

        Raises RawNotDense if the batch does not follow ``state`` without a hole (I2), RejectionsAboveLimit if too much
        of it and what came before is rejected; ``state`` stays as it was.
        """
        _check_dense(batch, state)
        state.seen.advance(batch.first_offset)
        if decoded is None:
            decoded = self.decode(batch)
        event_ms = decoded.records[self._time].cast(pl.Int64)
        records = decoded.records.hstack([event_ms.alias(EVENT_MS), pl.Series(APPENDED_MS, batch.timestamps_ms)])
        reversal = records["reverses_offset"].is_not_null().to_numpy()
        broken = self._rules.judge(records)
        readable = np.ones(len(batch), np.bool_)
        readable[list(decoded.undecodable)] = False
        # a reversal is a copy of what was judged once, not judged by the rules of today
        rejected = ((broken.rejected != NO_RULE) & ~reversal) | ~readable
        # before anything of the batch is remembered
        rejections, excess = self._limit.after(state.rejections, batch.offsets, rejected)
        if excess is not None:
            raise self._too_many(batch, excess, broken, rejected, readable)
        content = self._content.of(records)
        content[~readable] = 0
        keys = self._keys.of(records)
        identity = identity_key(keys["event_uid"], event_ms.to_numpy(), keys[self._holder])
        undone = NOTHING_UNDONE
        if reversal.any():
            reverses = records["reverses_offset"].fill_null(NO_OFFSET).to_numpy()
            identities = Identities(batch.offsets, keys["event_uid"], identity, event_ms.to_numpy())
            valid = ~(rejected | reversal)
            arrived = Arrived(identities, content, batch.timestamps_ms, valid, reversal, reverses)
            repeats, undone = self._reversals.judge(batch, arrived, state.seen, originals)
        else:
            repeats = _dedupe(identity, event_ms.to_numpy(), batch, content, rejected, state.seen)
        state.seen.advance(batch.last_offset + 1)
        head = pl.DataFrame(
            [
                *self._judged(batch, broken, readable, rejected, reversal, repeats, content),
                *self._known(batch, records, keys, readable, references),
            ]
        )
        judged = self._enriched(batch, head, decoded)
        if len(undone.at):
            self._reversals.put_copies(batch, undone, judged)
        outputs = [Output(self._target.enriched_topic, batch.source.partition, judged)]
        if rejected.any():
            letters = self._dead_letters(batch, records, broken, decoded, np.flatnonzero(rejected))
            outputs.append(Output(self._target.rejected_topic, batch.source.partition, letters))
        self._on_tally(self._kind.name, _tally(rejected, reversal, undone, repeats, head["rule"]))
        return outputs, replace(
            state,
            next_offset=batch.last_offset + 1,
            raw_end=max(batch.high_watermark, batch.last_offset + 1),
            watermark=self._watermark(records, rejected | reversal, state.watermark),
            began_at=batch.first_offset if state.began_at is None else state.began_at,
            rejections=rejections,
        )

    def _too_many(
        self, batch: Batch, excess: Excess, broken: Broken, rejected: Bools, readable: Bools
    ) -> RejectionsAboveLimit:
        rules, counts = np.unique(np.where(readable, broken.rejected + 3, 2)[rejected], return_counts=True)
        rule = self._rule_codes[int(rules[np.argmax(counts)])]
        return RejectionsAboveLimit(
            f"{batch.source}@{excess.since}..{excess.until}: {excess.rejected} records are rejected, most by {rule}; "
            f"more than {self._limit.share:g} of {self._limit.records}. Nothing from @{batch.first_offset} on is "
            "judged: mend the cause, or let them pass with TELESTREAM_MAX_REJECTED_SHARE=1 "
            "(docs/runbook/rejections-above-the-limit.md)"
        )

    def _judged(
        self,
        batch: Batch,
        broken: Broken,
        readable: Bools,
        rejected: Bools,
        reversal: Bools,
        repeats: Repeats,
        content: Ints,
    ) -> list[pl.Series]:
        count = len(batch)
        ruled = readable & ~reversal
        duplicate = repeats.duplicate
        first_offset = pl.Series("first_offset", repeats.first_offset)
        rule = np.where(rejected, broken.rejected + 3, repeats.conflict)
        rule[~readable] = 2
        warned = broken.warned if ruled.all() else {code: w & ruled for code, w in broken.warned.items()}
        return [
            pl.Series("src_partition", np.full(count, batch.source.partition, np.int64)),
            pl.Series("src_offset", batch.offsets),
            pl.Series("appended_at", batch.timestamps_ms).cast(pl.Datetime("ms")),
            # reversals that take effect are replaced by copies
            _VERDICTS.gather(np.where(rejected, 2, duplicate | reversal)).alias("verdict"),
            pl.Series("sign", np.where(reversal, -1, 1)),
            self._rule_codes.gather(rule).alias("rule"),
            first_offset.set(pl.Series(~duplicate), None),
            pl.Series("content_hash", content),
            pl.Series("rules_version", np.full(count, RULES_VERSION, np.int64)),
            warning_lists(warned, count),
        ]

    def _known(
        self, batch: Batch, records: pl.DataFrame, keys: Mapping[str, TextKey], readable: Bools, references: References
    ) -> list[pl.Series]:
        event_ms = records[EVENT_MS]
        cell, cell_known = cells_at(references.cells, keys["cell_id"], event_ms.to_numpy())
        known = cell.get_columns()
        if not self._kind.has_customer:
            return known
        customers = references.customers(batch.source.partition)
        customer, customer_known = customers_at(customers, keys[self._holder], event_ms.to_numpy())
        parts = pl.DataFrame(
            [
                *(records[field] for field in ("home_plmn", "serving_plmn", "cell_id")),
                pl.Series("customer_known", customer_known),
                pl.Series("cell_known", cell_known),
            ]
        )
        return [
            *known,
            _local_date(event_ms, self._zone, readable),
            *customer.get_columns(),
            parts.select(self._roaming)["roaming"],
        ]

    def _enriched(self, batch: Batch, head: pl.DataFrame, decoded: Decoded) -> list[dict[str, bytes | None]]:
        # Avro is plain concatenation: what was read is passed on as it stood
        before = self._frame
        heads = encode_payloads(head, self._head)
        return [
            {"key": key, "value": before + own + raw}
            for key, own, raw in zip(batch.keys, heads, decoded.payloads, strict=True)
        ]

    def _dead_letters(
        self, batch: Batch, records: pl.DataFrame, broken: Broken, decoded: Decoded, where: Ints
    ) -> list[dict[str, bytes | None]]:
        whence = records[where].select("source", "batch_id", "line", "event_uid").rows(named=True)
        letters = []
        for index, origin in zip(where.tolist(), whence, strict=True):
            detail = decoded.undecodable.get(index)
            if detail is None:
                check = self._rules.rejecting[int(broken.rejected[index])]
                why: dict[str, str | None] = {"rule": check.code, "reason": check.reason, "field": check.field}
            else:
                why = {"rule": UNDECODABLE, "reason": undecodable_reason(detail), "field": None}
                origin = dict.fromkeys(origin)
            letters.append(
                {
                    "type": self._kind.name,
                    "src_topic": batch.source.topic,
                    "src_partition": batch.source.partition,
                    "src_offset": int(batch.offsets[index]),
                    "appended_at": int(batch.timestamps_ms[index]),
                    "rules_version": RULES_VERSION,
                    "original": batch.values[index] or b"",
                    **why,
                    **origin,
                }
            )
        values = encode_records(letters, self._dead_letter, self._target.dead_letter_id)
        return [{"key": batch.keys[index], "value": value} for index, value in zip(where.tolist(), values, strict=True)]

    def _watermark(self, records: pl.DataFrame, left_out: Bools, watermark: Watermark) -> Watermark:
        events = records.select(
            pl.col("source").alias(SOURCE), self._event_end.alias(EVENT_END_MS), pl.col(APPENDED_MS).alias(ARRIVED_MS)
        )
        return watermark.after(events.filter(~left_out) if left_out.any() else events)


def _dedupe(identity: TextKey, event_ms: Ints, batch: Batch, content: Ints, rejected: Bools, seen: Seen) -> Repeats:
    offsets, appended_ms = batch.offsets, batch.timestamps_ms
    if not rejected.any():
        return seen.judge(identity, event_ms, offsets, content, appended_ms)
    # a rejected record leaves no trace: mended and sent again, it is stored
    valid = np.flatnonzero(~rejected)
    judged = seen.judge(
        (identity[0][valid], identity[1][valid]), event_ms[valid], offsets[valid], content[valid], appended_ms[valid]
    )
    repeats = Repeats(np.full(len(offsets), NO_OFFSET, np.int64), np.zeros(len(offsets), np.bool_))
    repeats.first_offset[valid] = judged.first_offset
    repeats.conflict[valid] = judged.conflict
    return repeats


def _event_end(kind: Kind) -> pl.Expr:
    length = kind.event_length_ms().clip(0, 10 * 365 * _DAY_MS)
    return pl.min_horizontal(pl.min_horizontal(EVENT_MS, APPENDED_MS) + length, APPENDED_MS)


def _local_date(event_ms: pl.Series, zone: str, readable: Bools) -> pl.Series:
    # an instant beyond the calendar has no date; such a record is rejected, and must not stop the others
    dated = pl.Series(readable) & event_ms.is_between(0, _LAST_DATE_MS)
    instants = event_ms if dated.all() else event_ms.set(~dated, None)
    instants = instants.cast(pl.Datetime("ms"))
    if zone != "UTC":
        instants = instants.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return instants.dt.date().alias("local_date")


def _check_dense(batch: Batch, state: State) -> None:
    expected = batch.first_offset if state.next_offset is None else state.next_offset
    offsets = batch.offsets
    if batch.first_offset == expected and batch.last_offset - batch.first_offset + 1 == len(batch):
        return
    wanted = np.arange(expected, expected + len(batch))
    at = int(np.flatnonzero(offsets != wanted)[0])
    raise RawNotDense(
        f"{batch.source}@{int(wanted[at])}: the next record read is @{int(offsets[at])}; raw has a hole or repeats "
        "itself, so no judgement would be complete: was the topic cut, made anew or written in transactions?"
    )


def _tally(rejected: Bools, reversal: Bools, undone: Undone, repeats: Repeats, rule: pl.Series) -> Tally:
    counts = {REJECTED: int(rejected.sum()), DUPLICATE: int(repeats.duplicate.sum())}
    reversals = int(reversal.sum())
    counts[STORED] = len(rejected) - sum(counts.values()) - reversals
    by_rule: dict[str, int] = {}
    if counts[REJECTED]:
        by_rule = dict(rule.filter(rejected).value_counts().iter_rows())
    by_effect = {STORED: len(undone.at), DUPLICATE: reversals - len(undone.at)}
    return Tally(_some(counts), by_rule, _some(by_effect))


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
