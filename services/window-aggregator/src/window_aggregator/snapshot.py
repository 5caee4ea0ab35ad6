"""The sums of one partition as of one of its positions, and their bytes on disk.

The sums are what the judged records up to that position add up to, whoever added them: so a snapshot stands for these
records, and nothing else of what was committed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from window_aggregator.domain.held import Held, ipc
from window_aggregator.domain.levels import Levels
from window_aggregator.domain.sketches import Sketch
from window_aggregator.state import FamilyState, State

_SKETCH = "/sketch"
FORMAT = 1
_MAGIC = b"TSWA"
_HEAD = struct.Struct("<4sII")  # magic, checksum of all that follows, length of the header


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything up to ``position`` in the enriched topic and before ``next_src`` in raw, by family.

    ``identity`` says of what: a text that differs as soon as the log, the rules or the shape of the sums do.
    ``agg_ends``: where the agg partitions ended then or later, by topic.
    """

    identity: str
    position: int
    next_src: int
    segments: Mapping[str, int]
    frames: Mapping[str, tuple[Held, ...]]
    sketches: Mapping[str, tuple[pl.DataFrame, ...]]
    agg_ends: Mapping[str, int]

    @classmethod
    def of(cls, state: State, identity: str, agg_ends: Mapping[str, int]) -> Snapshot:
        """Of a state that has records, and none that are not added yet."""
        if state.next_src is None or state.pending:
            raise AssertionError("a snapshot holds all records before its position")
        return cls(
            identity,
            state.position,
            state.next_src,
            {name: open_.segment for name, open_ in state.families.items()},
            {name: open_.levels.frames for name, open_ in state.families.items()},
            {name: open_.levels.sketch_rows() for name, open_ in state.families.items()},
            agg_ends,
        )

    def holds(self, name: str, open_: FamilyState) -> bool:
        """Whether it has the segment that is open now; if not, that one began behind it."""
        return self.segments[name] == open_.segment

    def levels(self, name: str) -> Levels:
        """A family's sums; all of them may have to be emitted."""
        frames = self.frames[name]
        touched = max((held.touched[1] for held in frames), default=-1)
        return Levels(frames, touched, sum(held.height for held in frames), Sketch.of_rows(self.sketches[name]))


def to_parts(snapshot: Snapshot) -> list[bytes]:
    """What ``from_bytes`` reads, in parts: most are there already. The frames stay as many as they are: merging them
    would cost more than writing."""
    body = {name: [held.ipc() for held in frames] for name, frames in snapshot.frames.items()}
    body |= {name + _SKETCH: [ipc(rows, "lz4") for rows in frames] for name, frames in snapshot.sketches.items()}
    header = json.dumps(
        {
            "format": FORMAT,
            "identity": snapshot.identity,
            "position": snapshot.position,
            "next_src": snapshot.next_src,
            "segments": dict(snapshot.segments),
            "agg_ends": dict(snapshot.agg_ends),
            "lengths": {name: [len(part) for part in parts] for name, parts in body.items()},
        }
    ).encode()
    content = [header, *(part for parts in body.values() for part in parts)]
    checksum = 0
    for part in content:
        checksum = zlib.crc32(part, checksum)
    return [_HEAD.pack(_MAGIC, checksum, len(header)), *content]


def from_bytes(data: bytes) -> Snapshot | None:
    """None for what was not written so, whole and by this version."""
    try:
        return _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError):
        return None


def _parsed(data: bytes) -> Snapshot | None:
    if len(data) < _HEAD.size:
        return None
    magic, checksum, header_bytes = _HEAD.unpack_from(data)
    content = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or zlib.crc32(content) != checksum:
        return None
    header = json.loads(bytes(content[:header_bytes]))
    if header["format"] != FORMAT:
        return None
    at = header_bytes
    frames: dict[str, tuple[Held, ...]] = {}
    sketches: dict[str, tuple[pl.DataFrame, ...]] = {}
    for name, lengths in header["lengths"].items():
        parts = []
        for length in lengths:
            parts.append(bytes(content[at : at + length]))
            at += length
        if name.endswith(_SKETCH):
            sketches[name.removesuffix(_SKETCH)] = tuple(pl.read_ipc_stream(part) for part in parts)
        else:
            frames[name] = tuple(held for part in parts if (held := Held.of_ipc(part)) is not None)
    return Snapshot(
        header["identity"],
        header["position"],
        header["next_src"],
        header["segments"],
        frames,
        sketches,
        header["agg_ends"],
    )
