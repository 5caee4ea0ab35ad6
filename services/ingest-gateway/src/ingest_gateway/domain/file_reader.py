"""A file as a stream of bytes → blocks of whole lines, each judged: by columns what surely is good, else row by row."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ingest_gateway.domain.accepted import Accepted, Entry
from ingest_gateway.domain.columns import judge_columns
from ingest_gateway.domain.csv_block import TOO_LARGE, Line, read_block, read_line
from ingest_gateway.domain.fields import RECORD_BYTES
from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.layout import Layout, bind
from ingest_gateway.domain.profile import Profile
from ingest_gateway.domain.refusal import BodyRefused, Refusal, mask_digits

BLOCK_BYTES = 4 << 20  # some 20,000 rows: larger ones cost as much a row and more memory
REFUSED_ROW_CHARS = 4_000
HEAD_BYTES = 1 << 20  # the header, and what is skipped before it, lie within
BLANK_LINES = 100
_BOM = codecs.BOM_UTF8


class Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines. ``first_line`` counts from 1 in the file; ``end`` is the byte after them, unpacked."""

    data: bytes
    first_line: int
    end: int
    overlong: bool = False


@dataclass(slots=True)
class JudgedBlock:
    """``columns`` and ``entries`` are what was accepted; lines count from 1 in the file."""

    rows: int
    lines: int
    columns: Accepted
    entries: list[Entry]
    entry_lines: list[int]
    accepted: int
    refusals: list[tuple[Refusal, str]] = field(default_factory=list)

    def refused_by_code(self) -> Counter[str]:
        return Counter(refusal.code for refusal, _ in self.refusals)


def chunks(stream: Bytes, offset: int, first_line: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Chunk]:
    """Cut a stream that stands at ``offset``, the start of ``first_line``, at line ends. A line longer than a block is
    its own chunk, marked ``overlong``, with only its beginning.

    A chunk depends on where it begins alone, not on what was read before: a load that goes on after a crash cuts the
    blocks that the crashed one cut."""
    most = max(block_bytes, RECORD_BYTES + 1)
    rest = b""
    while True:
        data = _filled(stream, rest, block_bytes)
        cut = data.rfind(b"\n", 0, block_bytes) + 1
        if not cut and len(data) >= block_bytes:
            data = _filled(stream, data, most)
            cut = data.find(b"\n") + 1
        if cut:
            offset += cut
            yield Chunk(data[:cut], first_line, offset)
            first_line += data.count(b"\n", 0, cut)
            rest = data[cut:]
        elif len(data) < most:
            if data:
                yield Chunk(data, first_line, offset + len(data))
            return
        else:
            size = len(data)
            tail = b""
            while b"\n" not in tail:
                tail = stream.read(block_bytes)
                if not tail:
                    break
                end = tail.find(b"\n") + 1
                size += end or len(tail)
            offset += size
            yield Chunk(data[:RECORD_BYTES] + b"\n", first_line, offset, overlong=True)
            first_line += 1
            rest = tail[tail.find(b"\n") + 1 :] if tail else b""


def _filled(stream: Bytes, data: bytes, size: int) -> bytes:
    """``data`` and what follows it, ``size`` bytes unless the stream ends before."""
    parts, missing = [data], size - len(data)
    while missing > 0 and (more := stream.read(missing)):
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)


class FileReader:
    """Reads the blocks of one file in order. ``bind`` the first chunk, then ``judge`` every chunk, the first too."""

    def __init__(self, profile: Profile, record_type: str, identity: Identity, source: str) -> None:
        if record_type not in profile.types:
            raise BodyRefused("not_in_enum", f"profile {profile.name} is not for {record_type}", "profile")
        self.profile, self.record_type, self.source = profile, record_type, source
        self._identity = identity
        self._utf8 = codecs.lookup(profile.encoding).name in ("utf-8", "ascii")
        self._layout: Layout | None = None
        self._head_lines = 0

    def bind(self, first: Chunk) -> None:
        """Find the columns. Raises BodyRefused if there are none, or not those the profile needs."""
        at = self.profile.skip_rows
        lines = self._text(first.data[:HEAD_BYTES].removeprefix(_BOM)).split(b"\n", at + BLANK_LINES)
        while at < len(lines) and not lines[at]:
            at += 1
        if at >= len(lines):
            raise BodyRefused("missing_field", "the file is empty")
        profile = self.profile
        found = self._fields(lines[at])
        if profile.header:
            header = [name.strip() for name in found]
            self._head_lines = at + 1
        else:
            self._head_lines = profile.skip_rows
            least, most = len(profile.columns) - profile.optional_columns, len(profile.columns)
            if not least <= len(found) <= most:
                wanted = f"{most}" if least == most else f"{least} to {most}"
                raise BodyRefused(
                    "missing_field", f"the first row has {len(found)} fields, the profile {profile.name} lists {wanted}"
                )
            header = list(profile.columns[: len(found)])
        self._layout = bind(profile, self.record_type, header, self._identity)

    def judge(self, chunk: Chunk) -> JudgedBlock:
        """Judge a chunk's rows. Not before ``bind``."""
        layout = self._layout
        assert layout is not None
        data = self._text(chunk.data)
        if not data.endswith(b"\n"):
            data += b"\n"
        lines = data.count(b"\n")
        skipped = 0
        if chunk.first_line <= self._head_lines:
            skipped = min(lines, self._head_lines - chunk.first_line + 1)
            data = data.split(b"\n", skipped)[skipped]
        first = chunk.first_line + skipped
        if chunk.overlong:
            return self._overlong(first, data)
        profile = self.profile
        block = read_block(data, profile.delimiter, profile.quote, layout.width)
        columns, sure = judge_columns(layout, block.plain, self.source)
        places = block.plain_index[columns.lines]
        columns = Accepted(columns.columns, places + first, columns.shards, columns.keys)
        refusals = [
            (Refusal(fault.line.index + first, fault.code, None, fault.message), fault.line.text)
            for fault in block.faults
        ]
        unsure = [Line(index, block.text(index)) for index in block.plain_index[~sure].tolist()]
        entries: list[Entry] = []
        entry_lines: list[int] = []
        accepted = len(columns)
        for line in sorted([*unsure, *block.odd], key=lambda line: line.index):
            fields = read_line(line.text, profile.delimiter, profile.quote, layout.width)
            if isinstance(fields, tuple):
                refusals.append((Refusal(line.index + first, fields[0], None, fields[1]), line.text))
                continue
            judged = layout.direct.judge(layout.record(fields), self.source)
            if isinstance(judged, list):
                accepted += 1
                entries.extend(judged)
                entry_lines.extend([line.index + first] * len(judged))
            else:
                code, name, message = judged
                refusals.append((Refusal(line.index + first, code, name, message), line.text))
        refusals.sort(key=lambda item: item[0].position)
        return JudgedBlock(
            rows=accepted + len(refusals),
            lines=skipped + block.lines,
            columns=columns,
            entries=entries,
            entry_lines=entry_lines,
            accepted=accepted,
            refusals=[(refusal, shown_row(text)) for refusal, text in refusals],
        )

    def _overlong(self, line: int, data: bytes) -> JudgedBlock:
        nothing = Accepted({}, np.empty(0, np.int64), np.empty(0, np.int64), [])
        refusal = Refusal(line, "too_large", None, TOO_LARGE)
        return JudgedBlock(1, 1, nothing, [], [], 0, [(refusal, shown_row(data))])

    def _text(self, data: bytes) -> bytes:
        """UTF-8 with ``\\n`` line ends; bytes that are no text stay as they are, to be found by line."""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if self._utf8:
            return data
        try:
            return data.decode(self.profile.encoding).encode()
        except UnicodeDecodeError:
            return b"\n".join(self._line_text(line) for line in data.split(b"\n"))

    def _line_text(self, line: bytes) -> bytes:
        try:
            return line.decode(self.profile.encoding).encode()
        except UnicodeDecodeError:
            return line if not _is_utf8(line) else b"\xff" + line

    def _fields(self, line: bytes) -> list[str]:
        found = read_line(line, self.profile.delimiter, self.profile.quote, None)
        if isinstance(found, tuple):
            raise BodyRefused(found[0], f"the first row cannot be read: {found[1]}")
        return found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def shown_row(text: bytes) -> str:
    """A refused row to show: numbers masked, what is no text replaced."""
    return mask_digits(text[:REFUSED_ROW_CHARS].decode("utf-8", "replace").replace("\x00", "\ufffd"))
