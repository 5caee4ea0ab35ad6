"""The identities of closed segments as local files, mapped into memory. Only a cache.

Nothing in here is trusted: a file counts if it is what the committed hash leads to. Files may be deleted at any time;
what a running worker has mapped stays with it. Where none can be written, identities stay in memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cdr_enricher.dedup_log import columns_of
from cdr_enricher.domain.frozen import ROW_BYTES, Frozen
from telestream_runtime import get_logger

_log = get_logger("dedup-cache")
_ENTRY = struct.Struct("<QQ")  # segment, bytes that follow


class SegmentCache:
    """The files of one partition of one type."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self, segment: int) -> bytes | None:
        return self._read(f"{segment}.head")

    def keep_head(self, segment: int, value: bytes) -> None:
        self._write(f"{segment}.head", [value])

    def ids(self, segment: int, entries: int, checksum: int) -> tuple[Frozen, Mapping[int, int]] | None:
        """A segment's identities and their hours, if the file holds just these."""
        try:
            with (self._folder / f"{segment}.ids").open("rb") as file:
                # read, not mapped: a check of all that is mapped would make it resident
                data = file.read()
                if len(data) != entries * ROW_BYTES or zlib.crc32(data) != checksum:
                    return None
                return _mapped(file, entries), columns_of(data, entries).hours()
        except OSError:
            return None

    def keep_ids(self, segment: int, ids: Frozen) -> Frozen:
        """The same identities, mapped from a file if one can be written."""
        return self._write(f"{segment}.ids", [column.data for column in ids.columns], ids) or ids

    def withdrawn(self, hashed: str) -> dict[int, bytes] | None:
        """The packed withdrawn bits by segment that were kept under this hash; the caller checks them."""
        data = self._read(f"{hashed}.withdrawn")
        if data is None:
            return None
        found: dict[int, bytes] = {}
        at = 0
        while at + _ENTRY.size <= len(data):
            segment, length = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            found[segment] = data[at : at + length]
            at += length
        return found

    def keep_withdrawn(self, hashed: str, bits: Mapping[int, bytes]) -> None:
        entries = [_ENTRY.pack(segment, len(packed)) + packed for segment, packed in bits.items()]
        self._write(f"{hashed}.withdrawn", entries)

    def drop_withdrawn(self, hashed: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / f"{hashed}.withdrawn").unlink()

    def drop_ids(self, segments: Collection[int]) -> None:
        for segment in segments:
            with contextlib.suppress(OSError):
                (self._folder / f"{segment}.ids").unlink()

    def clean(self, heads: Collection[int], ids: Collection[int], withdrawn: str) -> None:
        """Delete what is none of these: left by a crash, another generation's life or an older worker."""
        wanted = {f"{segment}.head" for segment in heads} | {f"{segment}.ids" for segment in ids}
        wanted.add(f"{withdrawn}.withdrawn")
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def _write(self, name: str, parts: Collection[bytes | memoryview], ids: Frozen | None = None) -> Frozen | None:
        """Whole or not at all; ``ids``, which are what is written, as mapped from it.

        Not synced: what a power cut leaves is found out by its checksum.
        """
        path = self._folder / name
        temporary = path.with_name(f"{name}.{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("w+b") as file:
                file.writelines(parts)
                file.flush()
                # of this very file, whatever another worker puts in its place
                mapped = _mapped(file, len(ids)) if ids else None
            temporary.replace(path)
        except OSError as err:
            _log.warning("cache_not_written", file=str(path), reason=err.strerror)
            return None
        return mapped


def _mapped(file: BinaryIO, entries: int) -> Frozen:
    mapped = mmap.mmap(file.fileno(), entries * ROW_BYTES, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return columns_of(memoryview(mapped), entries, partial(mapped.madvise, mmap.MADV_DONTNEED))


class NoCache(SegmentCache):
    """Keeps nothing: identities stay in memory."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def _read(self, name: str) -> bytes | None:
        return None

    def _write(self, name: str, parts: Collection[bytes | memoryview], ids: Frozen | None = None) -> Frozen | None:
        return None
