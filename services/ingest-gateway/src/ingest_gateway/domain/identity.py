"""Who a record is about, without saying so: keyed pseudonyms, event uids, partitions (design section 7).

Two keys. The *identity* key makes pseudonyms; the *permanent* key makes event uids, session ids and partitions and is
never rotated. Each use has its own BLAKE2b personalisation, so that no two can be compared with each other. A golden
file in the tests fixes every value: changing one here splits every subscriber in two.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SEPARATOR = "\x1f"
PSEUDONYM_PREFIX = "k1."
DIGEST_BYTES = 16
TEXT_CHARS = 22  # 16 bytes as base64url without padding
_PADDING = b"\0\0"  # to a multiple of three bytes, so that many digests encode at once
_PADDED_CHARS = 24
_MAX_KEY_BYTES = 64
_SHARD_MASK = (1 << 63) - 1

E164, IMSI, IMEI, LINE = "e164", "imsi", "imei", "line"
CELL, REGION, PLAN, UID = "cell", "region", "plan", "uid"


class Party(NamedTuple):
    """Someone or something a record names.

    ``plain`` is the normalised value that enters event uids; ``id`` what the record carries; ``shard`` a 63-bit number
    whose remainder is the partition.
    """

    plain: str
    id: str
    shard: int
    kind: str
    country: str | None = None
    prefix: str | None = None
    plmn: str | None = None


class Identity:
    """All keyed hashes. ``clear`` leaves numbers as they are; uids and partitions are hashed all the same."""

    def __init__(self, identity_key: bytes, permanent_key: bytes, clear: bool = False) -> None:
        identity_key, permanent_key = _fitting(identity_key), _fitting(permanent_key)
        self.clear = clear
        # a keyed state is copied for each value: half the cost of making it anew
        self._pseudonyms = {
            domain: hashlib.blake2b(digest_size=DIGEST_BYTES, key=identity_key, person=domain.encode())
            for domain in (E164, IMSI, IMEI, LINE)
        }
        self._by_id = hashlib.blake2b(digest_size=DIGEST_BYTES, key=permanent_key, person=b"event-id")
        self._by_fields = hashlib.blake2b(digest_size=DIGEST_BYTES, key=permanent_key, person=b"event-fields")
        self._session = hashlib.blake2b(digest_size=DIGEST_BYTES, key=permanent_key, person=b"session")
        self._shard = hashlib.blake2b(digest_size=8, key=permanent_key, person=b"partition")

    def pseudonym(self, domain: str, plain: str) -> str:
        """``k1.`` and 22 characters; the plain value itself if identity is clear."""
        if self.clear:
            return plain
        state = self._pseudonyms[domain].copy()
        state.update(plain.encode())
        return PSEUDONYM_PREFIX + _text(state.digest())

    def shard(self, domain: str, plain: str) -> int:
        """A number whose remainder by the partition count is the partition."""
        state = self._shard.copy()
        state.update(f"{domain}{SEPARATOR}{plain}".encode())
        return int.from_bytes(state.digest(), "big") & _SHARD_MASK

    def session(self, plain: str) -> str:
        state = self._session.copy()
        state.update(plain.encode())
        return _text(state.digest())

    def uid_by_id(self, source: str, event_id: str) -> str:
        state = self._by_id.copy()
        state.update(f"{source}{SEPARATOR}{event_id}".encode())
        return _text(state.digest())

    def uid_by_fields(self, fields: str) -> str:
        state = self._by_fields.copy()
        state.update(fields.encode())
        return _text(state.digest())

    def sessions(self, plains: Iterable[str]) -> pa.Array:
        """``session`` of many, none of them null."""
        copy = self._session.copy
        digests = []
        for plain in plains:
            state = copy()
            state.update(plain.encode())
            digests.append(state.digest())
        return _texts(digests)

    def uids_by_id(self, source: str, event_ids: Iterable[str]) -> pa.Array:
        """``uid_by_id`` of many, none of them null."""
        start = self._by_id.copy()
        start.update(f"{source}{SEPARATOR}".encode())
        copy = start.copy
        digests = []
        for event_id in event_ids:
            state = copy()
            state.update(event_id.encode())
            digests.append(state.digest())
        return _texts(digests)

    def uids_by_fields(self, texts: Iterable[str]) -> pa.Array:
        """``uid_by_fields`` of many, none of them null."""
        copy = self._by_fields.copy
        digests = []
        for text in texts:
            state = copy()
            state.update(text.encode())
            digests.append(state.digest())
        return _texts(digests)

    def shards(self, domain: str, plains: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.fromiter((self.shard(domain, plain) for plain in plains), np.int64)


def joined(values: Iterable[str | int | None]) -> str:
    """Identifying fields as they are hashed: decimal numbers, empty for null, joined by 0x1F."""
    return SEPARATOR.join(["" if value is None else str(value) for value in values])


def with_occurrence(fields: str, occurrence: int) -> str:
    """The n-th of equal rows, from 1; the first is as if there were no others."""
    return fields if occurrence == 1 else f"{fields}{SEPARATOR}{occurrence}"


def _fitting(key: bytes) -> bytes:
    return key if len(key) <= _MAX_KEY_BYTES else hashlib.blake2b(key).digest()


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest)[:TEXT_CHARS].decode()


def _texts(digests: list[bytes]) -> pa.Array:
    count = len(digests)
    if not count:
        return pa.array([], pa.string())
    encoded = base64.urlsafe_b64encode(_PADDING.join(digests) + _PADDING)
    kept = np.frombuffer(encoded, np.uint8).reshape(count, _PADDED_CHARS)[:, :TEXT_CHARS]
    offsets = np.arange(0, (count + 1) * TEXT_CHARS, TEXT_CHARS, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(kept)))
