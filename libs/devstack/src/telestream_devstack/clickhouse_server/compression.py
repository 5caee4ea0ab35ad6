"""HTTP content encodings, of requests (streamed) and of answers."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame
import zstandard

ENCODINGS = ("lz4", "zstd", "gzip", "deflate")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class UnknownEncoding(Exception):
    pass


class Decoder:
    """Decodes a stream that may consist of several frames one after another."""

    def __init__(self, encoding: str) -> None:
        makers: dict[str, Callable[[], Any]] = {
            "lz4": lz4.frame.LZ4FrameDecompressor,
            "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
            "gzip": lambda: zlib.decompressobj(_GZIP_WINDOW),
            "x-gzip": lambda: zlib.decompressobj(_GZIP_WINDOW),
            "deflate": zlib.decompressobj,
        }
        if encoding not in makers:
            raise UnknownEncoding(f"Content-Encoding {encoding!r} is not known: use one of {', '.join(ENCODINGS)}")
        self._make = makers[encoding]
        self._frame = self._make()
        self._fresh = True

    def decode(self, data: bytes) -> bytes:
        """What this piece completes. Raises an exception of the codec if the data is damaged."""
        out = []
        while data:
            if self._frame.eof:
                self._frame = self._make()
            out.append(self._frame.decompress(data))
            self._fresh = False
            data = self._frame.unused_data if self._frame.eof else b""
        return b"".join(out)

    def complete(self) -> bool:
        """Whether the data may end here."""
        return self._fresh or bool(self._frame.eof)


class Encoder:
    """Encodes an answer piece by piece."""

    def __init__(self, encoding: str) -> None:
        if encoding == "lz4":
            lz4_frame = lz4.frame.LZ4FrameCompressor()
            self._begin = lz4_frame.begin()
            self._feed: Callable[[bytes], bytes] = lz4_frame.compress
            self._end: Callable[[], bytes] = lz4_frame.flush
            return
        self._begin = b""
        if encoding == "zstd":
            frame = zstandard.ZstdCompressor(level=1).compressobj()
            self._feed, self._end = frame.compress, frame.flush
        else:
            stream = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW if encoding == "gzip" else zlib.MAX_WBITS)
            self._feed, self._end = stream.compress, stream.flush

    def encode(self, data: bytes) -> bytes:
        begin, self._begin = self._begin, b""
        return b"".join((begin, self._feed(data)))

    def finish(self) -> bytes:
        begin, self._begin = self._begin, b""
        return b"".join((begin, self._end()))


def accepted(header: str) -> str | None:
    """The first encoding of an Accept-Encoding header that we have, or None."""
    for part in header.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() in ENCODINGS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip()
    return None
