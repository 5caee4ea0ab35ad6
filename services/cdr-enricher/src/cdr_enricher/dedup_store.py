"""Keeps what closed segments leave behind, and brings it back: from local files, else from ``state.dedup``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from cdr_enricher.dedup_cache import NoCache, SegmentCache
from cdr_enricher.dedup_log import (
    HEAD,
    IDS,
    WITHDRAWN,
    DedupLog,
    Head,
    Key,
    Message,
    Position,
    bits_hash,
    checksum_of,
    hash_of,
    joined,
)
from cdr_enricher.domain.dedupe import DEDUP_HORIZON, Past, Seen
from cdr_enricher.domain.frozen import Frozen
from cdr_enricher.errors import JudgedCut, JudgementBroken
from faust_batch import Batch, Output, Source
from telestream_contracts import DecodeError
from telestream_domain import SEGMENT_BITS, segment_of

Hours = Mapping[int, int]
_KEPT_WITHDRAWN = 8  # more than the rounds that one transaction may hold


@dataclass(slots=True)
class _Found:
    """What was brought back so far."""

    heads: dict[int, tuple[bytes, Head]] = field(default_factory=dict)
    ids: dict[int, tuple[Frozen, Hours | None]] = field(default_factory=dict)
    withdrawn: dict[int, bytes] | None = None


class DedupStore:
    """For all partitions of a worker. ``topic``: ``state.dedup``; ``cache``: a folder of its own, None for none."""

    def __init__(
        self,
        topic: str,
        log: DedupLog,
        cache: Path | None = None,
        *,
        segment_bits: int = SEGMENT_BITS,
        horizon: timedelta = DEDUP_HORIZON,
    ) -> None:
        self._topic, self._log, self._folder = topic, log, cache
        self._bits, self._horizon = segment_bits, horizon
        self._withdrawn_files: dict[tuple[str, int], list[str]] = {}

    @property
    def topic(self) -> str:
        return self._topic

    @property
    def segment_bits(self) -> int:
        return self._bits

    @property
    def horizon_days(self) -> int:
        return self._horizon.days

    def empty(self) -> Seen:
        """Of a partition that nothing was judged of."""
        return Seen(self._bits, self._horizon)

    def close(
        self, type_name: str, partition: int, seen: Seen, position: Position, enriched_from: Callable[[], int]
    ) -> tuple[list[Output], Position]:
        """What the segments leave behind that closed in this batch, to be written with its round; the new position.

        ``enriched_from`` is asked, if any did, for an enriched offset at or before the batch's first judged record.
        """
        closings = seen.take_closings()
        if not closings:
            return [], position
        begins = enriched_from()
        messages: list[Message] = []
        cache = self._cache(type_name, partition)
        for closing in closings:
            head = self._log.head(type_name, partition, closing, position, self._bits)
            messages.extend(self._log.messages(type_name, partition, closing, head))
            cache.keep_head(closing.segment, head)
            if closing.segment in seen.closed:
                seen.closed.rehouse(closing.segment, cache.keep_ids(closing.segment, closing.ids))
            cache.drop_ids(closing.dropped)
            touched = {at: bits_hash(packed, self._bits) for at, packed in closing.withdrawn.items()}
            position = Position(begins, hash_of(head), {**position.withdrawn, **touched})
            if touched:
                self._keep_withdrawn(type_name, partition, cache, position, seen.withdrawn)
        return [Output(self._topic, partition, messages)], position

    def restore(
        self,
        source: Source,
        type_name: str,
        position: Position,
        withdrawn_hash: str,
        began: int,
        next_offset: int,
        log: Callable[[], Iterable[Batch]],
    ) -> tuple[Seen, Position]:
        """What was remembered when the segment of ``next_offset`` opened, and the position then.

        ``position``, ``withdrawn_hash``, ``began``: as committed; ``log``: all of this partition of ``state.dedup``,
        read only if the cache lacks something. Raises JudgedCut if it is not to be had, JudgementBroken if it holds
        what is none of ours.
        """
        partition = source.partition
        cache = self._cache(type_name, partition)
        open_segment = segment_of(next_offset, self._bits)
        wanted = range(segment_of(began, self._bits), open_segment)
        found = _Found(withdrawn={} if not withdrawn_hash else self._cached_withdrawn(cache, withdrawn_hash))
        chain_end = self._cached_heads(cache, wanted, position.chain, found)
        if chain_end == wanted.start:
            self._cached_ids(cache, self._live(found), found)
        missing = chain_end != wanted.start or found.withdrawn is None or self._live(found) - found.ids.keys()
        if missing:
            _Reader(self._log, type_name, partition, wanted, found, cache, self._where(partition)).read(log())
            self._check(source, type_name, wanted, position.chain, withdrawn_hash, found)
            if withdrawn_hash:
                cache.keep_withdrawn(withdrawn_hash, found.withdrawn or {})
        live = self._live(found)
        withdrawn = found.withdrawn or {}
        cache.clean(wanted, live, withdrawn_hash)
        past = Past(
            {segment: found.heads[segment][1].stored for segment in wanted},
            dict(withdrawn),
            {
                segment: (found.ids[segment][0], found.heads[segment][1].last_stored_ms, found.ids[segment][1])
                for segment in sorted(live)
            },
            found.heads[wanted[-1]][1].last_stored_ms if wanted else 0,
        )
        hashes = {segment: bits_hash(packed, self._bits) for segment, packed in withdrawn.items()}
        return Seen(self._bits, self._horizon, past, open_segment), replace(position, withdrawn=hashes)

    def _cached_heads(self, cache: SegmentCache, wanted: range, chain: str, found: _Found) -> int:
        """Walk back along the chain as far as the files go; the first segment reached."""
        for segment in reversed(wanted):
            value = cache.head(segment)
            if value is None or hash_of(value) != chain:
                return segment + 1
            try:
                head = self._log.read_head(value)
            except DecodeError:
                return segment + 1
            found.heads[segment] = value, head
            chain = head.previous
        return wanted.start

    def _cached_ids(self, cache: SegmentCache, live: Iterable[int], found: _Found) -> None:
        for segment in live:
            head = found.heads[segment][1]
            kept = cache.ids(segment, head.entries, head.checksum)
            if kept is not None:
                found.ids[segment] = kept

    def _cached_withdrawn(self, cache: SegmentCache, withdrawn_hash: str) -> dict[int, bytes] | None:
        bits = cache.withdrawn(withdrawn_hash)
        return bits if bits is not None and self._hash_of_all(bits) == withdrawn_hash else None

    def _live(self, found: _Found) -> set[int]:
        """The segments whose identities are still remembered."""
        if not found.heads:
            return set()
        horizon_ms = found.heads[max(found.heads)][1].last_stored_ms - self._horizon // timedelta(milliseconds=1)
        return {
            segment for segment, (_, head) in found.heads.items() if head.entries and head.last_stored_ms >= horizon_ms
        }

    def _check(
        self, source: Source, type_name: str, wanted: range, chain: str, withdrawn_hash: str, found: _Found
    ) -> None:
        where = self._where(source.partition)
        lost = f"{where}: what closed segments of {source} left behind"
        advice = "without it duplicates would be stored again; restore the topic or derive a new generation"
        for segment in reversed(wanted):
            if segment not in found.heads:
                raise JudgedCut(f"{lost} lacks segment {segment} of {type_name}; {advice}")
            value, head = found.heads[segment]
            if hash_of(value) != chain:
                raise JudgedCut(
                    f"{lost}: segment {segment} of {type_name} is not the one the group committed; {advice}"
                )
            chain = head.previous
        for segment in sorted(self._live(found)):
            # what was found has the head's checksum: to check it again would map all of it into memory
            if segment not in found.ids:
                raise JudgedCut(f"{lost} lacks identities of segment {segment} of {type_name}; {advice}")
        if self._hash_of_all(found.withdrawn or {}) != withdrawn_hash:
            raise JudgedCut(f"{lost}: its withdrawn records are not those the group committed; {advice}")

    def _hash_of_all(self, bits: Mapping[int, bytes]) -> str:
        try:
            hashes = {segment: bits_hash(packed, self._bits) for segment, packed in bits.items()}
        except ValueError:
            return "none"
        return Position(withdrawn=hashes).withdrawn_hash

    def _keep_withdrawn(
        self, type_name: str, partition: int, cache: SegmentCache, position: Position, bits: Mapping[int, bytes]
    ) -> None:
        cache.keep_withdrawn(position.withdrawn_hash, {segment: bits[segment] for segment in position.withdrawn})
        kept = self._withdrawn_files.setdefault((type_name, partition), [])
        kept.append(position.withdrawn_hash)
        while len(kept) > _KEPT_WITHDRAWN:
            cache.drop_withdrawn(kept.pop(0))

    def _cache(self, type_name: str, partition: int) -> SegmentCache:
        return NoCache() if self._folder is None else SegmentCache(self._folder / f"{type_name}-{partition}")

    def _where(self, partition: int) -> str:
        return f"{self._topic}[{partition}]"


class _Reader:
    """Brings back what is not found yet from all records of one partition, the last of each key."""

    def __init__(
        self,
        log: DedupLog,
        type_name: str,
        partition: int,
        wanted: range,
        found: _Found,
        cache: SegmentCache,
        where: str,
    ) -> None:
        self._log, self._type, self._partition, self._where = log, type_name, partition, where
        self._wanted, self._found, self._cache = wanted, found, cache
        self._heads = set(wanted) - found.heads.keys()
        self._withdrawn = found.withdrawn is None
        self._parts: dict[int, dict[int, Frozen]] = {}

    def read(self, batches: Iterable[Batch]) -> None:
        prefix = f"{self._type}/{self._partition}/".encode()
        if self._withdrawn:
            self._found.withdrawn = {}
        for batch in batches:
            for at, raw_key in enumerate(batch.keys):
                if raw_key is None or not raw_key.startswith(prefix):
                    continue
                key = Key.read(raw_key)
                value = batch.values[at]
                if key is None or key.segment not in self._wanted:
                    continue
                try:
                    self._take(key, value)
                except DecodeError as err:
                    raise JudgementBroken(
                        f"{self._where}@{int(batch.offsets[at])}: not a record of the enricher: {err}"
                    ) from err

    def _take(self, key: Key, value: bytes | None) -> None:
        if key.part == WITHDRAWN and self._withdrawn and value is not None:
            assert self._found.withdrawn is not None
            self._found.withdrawn[key.segment] = self._log.read_withdrawn(value)
        elif key.part == HEAD and value is not None:
            # what stands before belongs to an earlier life of the generation
            self._parts.pop(key.segment, None)
            if self._withdrawn and self._found.withdrawn is not None:
                self._found.withdrawn.pop(key.segment, None)
            if key.segment in self._heads:
                self._found.heads[key.segment] = value, self._log.read_head(value)
                self._found.ids.pop(key.segment, None)
                self._cache.keep_head(key.segment, value)
        elif key.part == IDS:
            self._take_ids(key, value)

    def _take_ids(self, key: Key, value: bytes | None) -> None:
        segment = key.segment
        if value is None:
            self._parts.pop(segment, None)
            if segment in self._heads:
                self._found.ids.pop(segment, None)
            return
        known = self._found.heads.get(segment)
        if known is None or segment in self._found.ids or key.chunk >= known[1].chunks:
            return
        parts = self._parts.setdefault(segment, {})
        parts[key.chunk] = self._log.read_ids(value)
        head = known[1]
        if len(parts) < head.chunks:
            return
        ids = joined([parts[chunk] for chunk in range(head.chunks)])
        if len(ids) == head.entries and checksum_of(ids) == head.checksum:
            del self._parts[segment]
            # as a file of its own at once: all of them together would not fit in memory
            self._found.ids[segment] = self._cache.keep_ids(segment, ids), ids.hours()
