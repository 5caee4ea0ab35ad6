"""Uploads on disk: bytes as they came, one file each, until they are loaded."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

from ingest_gateway.domain.refusal import BodyRefused

READ_BYTES = 1 << 20
ZSTD_WINDOW = 128 << 20


class Spool:
    """One folder. Names are file ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_id: int) -> Path:
        return self._folder / f"{file_id}.upload"

    def begin(self, file_id: int) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self.path(file_id).open("wb")

    def go_on(self, file_id: int) -> IO[bytes]:
        return self.path(file_id).open("ab")

    def ids(self) -> list[int]:
        """Of all uploads that are here."""
        return sorted(int(path.stem) for path in self._folder.glob("*.upload") if path.stem.isdigit())

    def size(self, file_id: int) -> int | None:
        """Bytes there are; None if there is no such upload (any more)."""
        try:
            return self.path(file_id).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, file_id: int) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def open(self, file_id: int, encoding: str | None, limit: int) -> Unpacked:
        return Unpacked(self.path(file_id).open("rb"), encoding, limit)

    def sha256(self, file_id: int) -> bytes:
        """Of the bytes as they came."""
        with self.path(file_id).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def digest(self, file_id: int, encoding: str | None, limit: int) -> tuple[str, int]:
        """Digest and size of the unpacked content."""
        state, size = content_hash(), 0
        with self.open(file_id, encoding, limit) as stream:
            while data := stream.read(READ_BYTES):
                state.update(data)
                size += len(data)
        return state.hexdigest(), size


def content_hash() -> Any:
    """The hash by which the same content is known again."""
    return hashlib.blake2b(digest_size=32)


class Unpacked:
    """A stream of the content. Raises BodyRefused where it cannot be unpacked, or is larger than ``limit``."""

    def __init__(self, file: IO[bytes], encoding: str | None, limit: int) -> None:
        self._file, self._encoding, self._limit, self._read = file, encoding, limit, 0
        self._stream: Any = file
        if encoding == "gzip":
            self._stream = gzip.GzipFile(fileobj=file)
        elif encoding == "zstd":
            self._stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(
                file, read_across_frames=True
            )

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as err:
            if self._encoding is None:
                raise
            raise BodyRefused("not_json", f"the {self._encoding} body is broken", status=400) from err
        self._read += len(data)
        if self._read > self._limit:
            raise BodyRefused("too_large", f"the content is larger than {self._limit >> 20} MiB", status=413)
        return data

    def skip(self, count: int) -> None:
        if self._encoding is None:
            self._file.seek(count)
            self._read = count
            return
        while count and (data := self.read(min(count, READ_BYTES))):
            count -= len(data)

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
