"""What one partition's topics hold, against the truth of ``traffic``. Pure: values in, differences out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from telestream_contracts import FRAME_BYTES, decode_payloads, decode_record, enriched_head, load_schema

from .traffic import JUNK, REVERSAL, Ints, Traffic

MAX_SAID = 5
_HEAD = enriched_head("cdr")
_DEAD = load_schema("dead_letter")
_PLAIN = [f["name"] for f in _HEAD["fields"] if f["name"] not in ("content_hash", "warnings", "appended_at")]


@dataclass(slots=True)
class Found:
    """Counts of one partition; ``said``: the first differences in words."""

    records: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    misordered: int = 0
    wrong: int = 0
    wrong_raw: int = 0
    wrong_dead_letters: int = 0
    wrong_aggregates: int = 0
    upserts: int = 0
    cpu_s: float = 0.0
    peak_rss: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return (
            self.lost
            + self.doubled
            + self.invented
            + self.misordered
            + self.wrong
            + self.wrong_raw
            + self.wrong_dead_letters
            + self.wrong_aggregates
        )

    def say(self, what: str) -> None:
        if len(self.said) < MAX_SAID * 4:
            self.said.append(what)


class Partition:
    """The check of one partition: first its raw log, then what was judged, then the dead letters."""

    def __init__(self, traffic: Traffic, partition: int, count: int, schema_id: int) -> None:
        self.traffic, self.partition, self.schema_id = traffic, partition, schema_id
        self.found = Found(records=count)
        self.appended = np.zeros(count, np.int64)
        self._read = 0
        self._seen = np.zeros(count, np.uint8)
        self._highest = -1
        self._rejected: list[tuple[int, str, bytes, int]] = []

    # -- raw ----------------------------------------------------------------------------------------------------------

    def raw(self, offsets: Ints, timestamps_ms: Ints, values: Sequence[bytes | None]) -> pl.DataFrame:
        """Check the next values of the raw log; returns what must be judged of them."""
        count = len(self.appended)
        if self._read + len(offsets) > count or int(offsets[0]) != self._read:
            self.found.wrong_raw += 1
            self.found.say(
                f"raw[{self.partition}]: {self._read:,} read, then offset {int(offsets[0]):,}; {count:,} sent"
            )
            offsets, timestamps_ms, values = (
                one[: max(count - self._read, 0)] for one in (offsets, timestamps_ms, values)
            )
        n = np.arange(self._read, self._read + len(offsets))
        records = self.traffic.records(np.full(len(n), self.partition), n)
        sent = self.traffic.values(records, self.schema_id)
        if list(values) != sent:
            bad = [at for at, (a, b) in enumerate(zip(values, sent, strict=True)) if a != b]
            self.found.wrong_raw += len(bad)
            self.found.say(f"raw[{self.partition}]@{int(n[bad[0]])} is not what was sent there")
        self.appended[n] = timestamps_ms
        self._read += len(n)
        judged = self.traffic.judged(records).with_columns(appended_ms=pl.Series(self._arrived(records)))
        for verdict, rule, sign, many in judged.group_by("verdict", "rule", "sign").len().iter_rows():
            name = f"{verdict} {rule}" if rule else f"{verdict} reversal" if sign < 0 else verdict
            self.found.verdicts[name] = self.found.verdicts.get(name, 0) + many
        for index in np.flatnonzero((judged["verdict"] == "REJECTED").to_numpy()).tolist():
            self._rejected.append((int(n[index]), judged["rule"][index], sent[index] or b"", int(timestamps_ms[index])))
        return judged

    def _arrived(self, records: pl.DataFrame) -> Ints:
        """When each came, by its judged record: a reversal bears the arrival of what it takes back."""
        return self.appended[np.where(records["kind"] == REVERSAL, records["target"], records["n"])]

    def raw_end(self) -> None:
        if self._read != len(self.appended):
            self.found.wrong_raw += len(self.appended) - self._read
            self.found.say(f"raw[{self.partition}] ends at {self._read}, {len(self.appended)} were acknowledged")

    # -- judged -------------------------------------------------------------------------------------------------------

    def judged(self, offsets: Ints, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Check the next judged records."""
        bare = [(value or b"")[FRAME_BYTES:] for value in values]
        head = decode_payloads(bare, _HEAD)
        src = head["src_offset"].to_numpy()
        foreign = (src < 0) | (src >= len(self._seen))
        if foreign.any():
            self.found.invented += int(foreign.sum())
            at = int(np.flatnonzero(foreign)[0])
            self.found.say(f"enriched[{self.partition}]@{offsets[at]}: src_offset {src[at]} was never sent")
            keep = np.flatnonzero(~foreign)
            src, offsets, head = src[keep], offsets[keep], head[keep]
            keys, bare = [keys[at] for at in keep.tolist()], [bare[at] for at in keep.tolist()]
        if not len(src):
            return
        self._order(src, offsets)
        records = self.traffic.records(np.full(len(src), self.partition), src)
        truth = self.traffic.judged(records)
        wrong = np.zeros(len(src), np.bool_)
        differing: dict[str, int] = {}
        columns = {name: (head[name], truth[name]) for name in _PLAIN}
        columns["appended_at"] = head["appended_at"].cast(pl.Int64), pl.Series(self._arrived(records))
        columns["warnings"] = head["warnings"].list.join(","), truth["warnings"]
        for name, (got, expected) in columns.items():
            differ = got.ne_missing(expected.cast(got.dtype)).to_numpy()
            if differ.any():
                differing[name] = int(np.flatnonzero(differ)[0])
                wrong |= differ
        sent = self.traffic.passed_on(records, self.schema_id)
        readable = (records["kind"] != JUNK).to_list()
        subscriber = records["subscriber_id"].to_list()
        passed_on = [
            (not good or value.endswith((raw or b"")[FRAME_BYTES:])) and key == who.encode()
            for value, raw, key, who, good in zip(bare, sent, keys, subscriber, readable, strict=True)
        ]
        if not all(passed_on):
            changed = ~np.array(passed_on)
            differing["the raw record or its key"] = int(np.flatnonzero(changed)[0])
            wrong |= changed
        self.found.wrong += int(wrong.sum())
        for name, at in differing.items():
            got, expected = (one[at] for one in columns[name]) if name in columns else ("other bytes", "as sent")
            self.found.say(
                f"enriched[{self.partition}]@{offsets[at]}: {name} of src_offset {src[at]} is {got!r}, "
                f"truth {expected!r}"
            )

    def _order(self, src: Ints, offsets: Ints) -> None:
        before = np.concatenate([[self._highest], np.maximum.accumulate(src)[:-1]])
        before = np.maximum(before, self._highest)
        first = np.zeros(len(src), np.bool_)
        first[np.unique(src, return_index=True)[1]] = True
        first &= self._seen[src] == 0
        late = first & (src < before)
        if late.any():
            self.found.misordered += int(late.sum())
            at = int(np.flatnonzero(late)[0])
            self.found.say(f"enriched[{self.partition}]@{offsets[at]}: src_offset {src[at]} comes after {before[at]}")
        again = np.flatnonzero(~first)
        if len(again):
            self.found.doubled += len(again)
            at = int(again[0])
            self.found.say(f"enriched[{self.partition}]@{offsets[at]}: src_offset {src[at]} is judged again")
        self._seen[src] = 1
        self._highest = max(self._highest, int(src.max()))

    def judged_end(self) -> None:
        lost = np.flatnonzero(self._seen == 0)
        self.found.lost += len(lost)
        if len(lost):
            shown = ", ".join(map(str, lost[:5].tolist()))
            self.found.say(f"raw[{self.partition}]: {len(lost)} never judged, the first at {shown}")

    # -- dead letters -------------------------------------------------------------------------------------------------

    def dead_letters(self, values: Sequence[bytes]) -> None:
        """Check all dead letters, in their order."""
        letters = [decode_record(value, _DEAD) for value in values]
        found = [
            (one["src_offset"], one["rule"], one["original"], round(one["appended_at"].timestamp() * 1_000))
            for one in letters
        ]
        if found == self._rejected:
            return
        pairs = list(zip(found, self._rejected, strict=False))
        bad = [at for at, (got, expected) in enumerate(pairs) if got != expected]
        self.found.wrong_dead_letters += len(bad) + abs(len(found) - len(self._rejected))
        at = bad[0] if bad else len(pairs)
        show = lambda log: f"{log[at][1]} of {log[at][0]}" if at < len(log) else "nothing"  # noqa: E731
        self.found.say(f"dead letter {at} of partition {self.partition}: {show(found)}, truth {show(self._rejected)}")
