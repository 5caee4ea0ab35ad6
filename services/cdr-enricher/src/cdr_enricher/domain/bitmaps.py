"""One bit per raw offset of a segment, compressed: mostly they are all alike."""

from __future__ import annotations

import zlib

import numpy as np

from cdr_enricher.domain.hash_table import Bools

_LEVEL = 1


def pack(bits: Bools) -> bytes:
    """A short form of these bits."""
    return zlib.compress(np.packbits(bits).tobytes(), _LEVEL)


def unpack(packed: bytes, count: int) -> Bools:
    """The bits that ``pack`` was given. Raises ValueError if it is not of ``count`` bits."""
    try:
        raw = zlib.decompress(packed)
    except zlib.error as err:
        raise ValueError(f"not a bitmap: {err}") from err
    if len(raw) != (count + 7) // 8:
        raise ValueError(f"a bitmap of {len(raw)} bytes where {count} bits should be")
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).view(np.bool_)
