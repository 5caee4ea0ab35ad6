"""A partition's state, a value; and the part of it that is committed with the offset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from telestream_domain import segment_of, segment_start
from window_aggregator.domain.families import Family
from window_aggregator.domain.levels import Levels
from window_aggregator.domain.rhythm import Cursor
from window_aggregator.errors import NotRecoverable, SettingsDiffer

METADATA_VERSION = 1


@dataclass(frozen=True, slots=True)
class FamilyState:
    """One family's open segment.

    ``position``: offset in the enriched topic from which to re-read: where the family's last marker stands, or the
    segment's beginning while ``marked`` is false. ``log_from``: no upsert of the segment lies before it in the agg
    topic; None: there is none yet.
    """

    segment: int
    position: int
    cursor: Cursor
    marked: bool = False
    log_from: int | None = None
    levels: Levels = field(default_factory=Levels)

    @classmethod
    def opened(cls, family: Family, src_offset: int, position: int, before: FamilyState | None = None) -> FamilyState:
        """The segment of ``src_offset``, empty; its timers are those of the segment before."""
        nothing = src_offset - 1
        cursor = Cursor(nothing, nothing) if before is None else before.cursor
        return cls(segment_of(src_offset, family.bits), position, replace(cursor, all_to=nothing, recent_to=nothing))

    def begun(self, now_ms: int) -> FamilyState:
        """With its timers running."""
        if self.cursor.all_at_ms is not None:
            return self
        return replace(self, cursor=replace(self.cursor, all_at_ms=now_ms, recent_at_ms=now_ms))

    def first_src(self, family: Family) -> int:
        return segment_start(self.segment, family.bits)


@dataclass(frozen=True, slots=True)
class State:
    """One source's state: everything up to ``position`` in the enriched topic and before ``next_src`` in raw.

    ``pending``: rows that are checked and not yet added to a family. ``next_src`` is None before the first record.
    ``idle_src`` and ``idle_since_ms``: the ``next_src`` that the clock last saw, and since when.
    """

    position: int
    next_src: int | None = None
    families: Mapping[str, FamilyState] = field(default_factory=dict)
    pending: tuple[pl.DataFrame, ...] = ()
    idle_src: int | None = None
    idle_since_ms: int = 0

    @property
    def pending_rows(self) -> int:
        return sum(rows.height for rows in self.pending)

    def seen(self, now_ms: int) -> State:
        """As of a look at the clock: timers that have not begun begin, and new records end idleness."""
        state = self
        if self.idle_src != self.next_src:
            state = replace(state, idle_src=self.next_src, idle_since_ms=now_ms)
        if any(family.cursor.all_at_ms is None for family in self.families.values()):
            state = replace(state, families={name: family.begun(now_ms) for name, family in self.families.items()})
        return state

    def windows(self) -> int:
        """Rows held in all families."""
        return sum(family.levels.rows() for family in self.families.values())


def to_metadata(state: State, rules: str) -> str:
    """What ``restore`` needs besides the log; under 1 KB, Kafka allows 4. ``rules``: what all sums depend on."""
    families = {
        name: [
            family.segment,
            family.position,
            int(family.marked),
            family.log_from,
            _emitted_to(state, family),
        ]
        for name, family in state.families.items()
    }
    return json.dumps(
        {"v": METADATA_VERSION, "rules": rules, "next": state.next_src, "f": families}, separators=(",", ":")
    )


def _emitted_to(state: State, family: FamilyState) -> int:
    """Last source offset up to which every window is emitted. Records that touch no window of a family leave its cursor
    where it was, though nothing of them is left to emit: whoever waits for that would wait for ever."""
    if state.next_src is None or state.pending or family.levels.touched > family.cursor.all_to:
        return family.cursor.all_to
    return max(family.cursor.all_to, state.next_src - 1)


def from_metadata(text: str, position: int, rules: str, where: str) -> State:
    """The state without its sums. Raises NotRecoverable for text that is not ours, or was written under other
    ``rules``; ``where`` names the partition."""
    try:
        found = json.loads(text)
        if found["v"] != METADATA_VERSION:
            raise ValueError(f"version {found['v']}")
        if found["rules"] != rules:
            raise SettingsDiffer(
                f"{where}@{position}: this generation's aggregates are made with {found['rules']}, this worker is set "
                f"to {rules}; set it back, or build a new generation"
            )
        families = {
            name: FamilyState(
                segment=segment,
                position=at,
                marked=bool(marked),
                log_from=log_from,
                cursor=Cursor(int(all_to), int(all_to)),
            )
            for name, (segment, at, marked, log_from, all_to) in found["f"].items()
        }
        return State(position, found["next"], families)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise NotRecoverable(
            f"{where}@{position}: the committed metadata cannot be read ({err}): another version of this service wrote "
            "it; run that version, or build a new generation"
        ) from err
