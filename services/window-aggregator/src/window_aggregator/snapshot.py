"""The sums of one partition as of one of its positions, and their bytes on disk.

The sums are what the judged records up to that position add up to, whoever added them: so a snapshot stands for these
records, and nothing else of what was committed.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

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
    frames: Mapping[str, tuple[pl.DataFrame, ...]]
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
            {name: open_.levels.frames for name, open_ in state.families.items()}
            | {name + _SKETCH: open_.levels.sketch_rows() for name, open_ in state.families.items()},
            agg_ends,
        )

    def holds(self, name: str, open_: FamilyState) -> bool:
        """Whether it has the segment that is open now; if not, that one began behind it."""
        return self.segments[name] == open_.segment

    def levels(self, name: str) -> Levels:
        """A family's sums; all of them may have to be emitted."""
        frames = tuple(frame for frame in self.frames[name] if frame.height)
        touched = max((int(frame["touched"].max()) for frame in frames), default=-1)  # type: ignore[arg-type]
        sketch = Sketch.of_rows(self.frames.get(name + _SKETCH, ()))
        return Levels(frames, touched, sum(frame.height for frame in frames), sketch)


def to_bytes(snapshot: Snapshot) -> bytes:
    """What ``from_bytes`` reads. The frames stay as many as they are: merging them would cost more than writing."""
    body = io.BytesIO()
    lengths: dict[str, list[int]] = {}
    for name, frames in snapshot.frames.items():
        lengths[name] = []
        for frame in frames:
            begin = body.tell()
            # in the old layout a text column holds its texts only, not all that they were once cut from
            frame.write_ipc_stream(body, compression="lz4", compat_level=pl.CompatLevel.oldest())
            lengths[name].append(body.tell() - begin)
    header = json.dumps(
        {
            "format": FORMAT,
            "identity": snapshot.identity,
            "position": snapshot.position,
            "next_src": snapshot.next_src,
            "segments": dict(snapshot.segments),
            "agg_ends": dict(snapshot.agg_ends),
            "lengths": lengths,
        }
    ).encode()
    content = header + body.getvalue()
    return _HEAD.pack(_MAGIC, zlib.crc32(content), len(header)) + content


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
    frames: dict[str, tuple[pl.DataFrame, ...]] = {}
    for name, lengths in header["lengths"].items():
        found = []
        for length in lengths:
            found.append(pl.read_ipc_stream(bytes(content[at : at + length])))
            at += length
        frames[name] = tuple(found)
    return Snapshot(
        header["identity"],
        header["position"],
        header["next_src"],
        header["segments"],
        frames,
        header["agg_ends"],
    )
