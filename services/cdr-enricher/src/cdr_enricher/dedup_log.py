"""What closed segments leave behind, as records of ``state.dedup``.

Each head names the one before it by its hash, and the last one's hash is committed beside the offset: so whoever holds
that hash can tell whether heads, wherever they were kept, are the ones that were written.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cdr_enricher.domain.bitmaps import unpack
from cdr_enricher.domain.dedupe import Closing
from cdr_enricher.domain.frozen import ROW_BYTES, Frozen
from telestream_contracts import (
    FRAME_BYTES,
    DecodeError,
    Schema,
    decode_record,
    encode_record,
    load_schema,
    schema_id_of,
)

HEAD, IDS, WITHDRAWN = "HEAD", "IDS", "WITHDRAWN"
CHUNK_IDS = 1 << 15  # 786 kB: a broker takes messages of 1 MiB at most
_DIGEST_BYTES = 16
_U8, _U4 = np.dtype("<u8"), np.dtype("<u4")

Message = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Position:
    """Where the state of a partition stands in the logs, as of the open segment's start.

    ``enriched_from``: an enriched offset at or before it (None: the log's start). ``chain``: the hash of the last
    closed segment's head, empty if there is none. ``withdrawn``: per segment the hash of its withdrawn bits.
    """

    enriched_from: int | None = None
    chain: str = ""
    withdrawn: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def withdrawn_hash(self) -> str:
        """Of all withdrawn bits, empty if there are none."""
        if not self.withdrawn:
            return ""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for segment, each in sorted(self.withdrawn.items()):
            digest.update(segment.to_bytes(8, "little") + each)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """A closed segment. ``stored``: its bits, packed."""

    segment: int
    entries: int
    segment_bits: int
    last_stored_ms: int
    checksum: int
    previous: str
    stored: bytes

    @property
    def chunks(self) -> int:
        return -(-self.entries // CHUNK_IDS)


@dataclass(frozen=True, slots=True)
class Key:
    """A record's key, read."""

    type: str
    partition: int
    segment: int
    part: str
    chunk: int

    def __bytes__(self) -> bytes:
        return f"{self.type}/{self.partition}/{self.segment}/{self.part}/{self.chunk}".encode()

    @classmethod
    def read(cls, key: bytes | None) -> Key | None:
        """None for what is no such key."""
        parts = (key or b"").decode(errors="replace").split("/")
        if len(parts) != 5 or not all(part.isdecimal() for part in (parts[1], parts[2], parts[4])):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]), parts[3], int(parts[4]))


def hash_of(head_value: bytes) -> str:
    """The hash of a head's value, its frame left out."""
    return hashlib.blake2b(head_value[FRAME_BYTES:], digest_size=_DIGEST_BYTES).hexdigest()


def bits_hash(packed: bytes, segment_bits: int) -> bytes:
    """The hash of packed bits, however they were compressed. Raises ValueError if they are none."""
    return hashlib.blake2b(np.packbits(unpack(packed, 1 << segment_bits)).tobytes(), digest_size=_DIGEST_BYTES).digest()


def checksum_of(ids: Frozen) -> int:
    """CRC-32 of the columns, one after the other."""
    checksum = 0
    for column in ids.columns:
        checksum = zlib.crc32(column.data, checksum)
    return checksum


class DedupLog:
    """Writes and reads the records. ``schema_of`` finds the schema of an id."""

    def __init__(self, schema_id: int, schema_of: Callable[[int], Schema | None]) -> None:
        self._schema_id, self._schema_of = schema_id, schema_of
        self._schema = load_schema("state_dedup")

    def head(self, type_name: str, partition: int, closing: Closing, position: Position, segment_bits: int) -> bytes:
        """The value of a segment's head, which follows the one that ``position`` names."""
        return self._value(
            Key(type_name, partition, closing.segment, HEAD, 0),
            closing.stored,
            entries=len(closing.ids),
            segment_bits=segment_bits,
            last_stored_at=closing.last_stored_ms,
            enriched_from=position.enriched_from,
            checksum=checksum_of(closing.ids),
            previous=position.chain,
        )

    def messages(self, type_name: str, partition: int, closing: Closing, head: bytes) -> Iterator[Message]:
        """All that is written when a segment closes; ``head`` first."""
        yield {"key": bytes(Key(type_name, partition, closing.segment, HEAD, 0)), "value": head}
        ids = closing.ids
        for chunk, start in enumerate(range(0, len(ids), CHUNK_IDS)):
            rows = slice(start, start + CHUNK_IDS)
            data = b"".join(column[rows].tobytes() for column in ids.columns)
            key = Key(type_name, partition, closing.segment, IDS, chunk)
            yield {"key": bytes(key), "value": self._value(key, data, entries=len(data) // ROW_BYTES)}
        for segment, packed in closing.withdrawn.items():
            key = Key(type_name, partition, segment, WITHDRAWN, 0)
            yield {"key": bytes(key), "value": self._value(key, packed)}
        for segment, entries in closing.dropped.items():
            for chunk in range(-(-entries // CHUNK_IDS)):
                yield {"key": bytes(Key(type_name, partition, segment, IDS, chunk)), "value": None}

    def read_head(self, value: bytes) -> Head:
        """Raises DecodeError if it is none."""
        record = self._read(value, HEAD)
        try:
            return Head(
                int(record["segment"]),
                int(record["entries"]),
                int(record["segment_bits"]),
                _epoch_ms(record["last_stored_at"]),
                int(record["checksum"]),
                str(record["previous"]),
                bytes(record["data"]),
            )
        except TypeError as err:
            raise DecodeError(f"state_dedup: a head that lacks a field ({err})") from err

    def read_ids(self, value: bytes) -> Frozen:
        """Some of a segment's identities. Raises DecodeError."""
        record = self._read(value, IDS)
        return columns_of(record["data"], int(record["entries"]))

    def read_withdrawn(self, value: bytes) -> bytes:
        """Packed bits. Raises DecodeError."""
        return bytes(self._read(value, WITHDRAWN)["data"])

    def _read(self, value: bytes, part: str) -> dict[str, Any]:
        schema_id = schema_id_of(value)
        if schema_id == self._schema_id:
            schema: Schema | None = self._schema
        else:
            schema = None if schema_id is None else self._schema_of(schema_id)
        if schema is None or schema.get("name") != "state_dedup":
            raise DecodeError(f"state_dedup: schema id {schema_id} is none of its own")
        record = decode_record(value, schema)
        if record["part"] != part:
            raise DecodeError(f"state_dedup: {record['part']} where {part} should be")
        return record

    def _value(self, key: Key, data: bytes, *, entries: int = 0, **head: int | str | None) -> bytes:
        record = {
            "type": key.type,
            "partition": key.partition,
            "segment": key.segment,
            "part": key.part,
            "chunk": key.chunk,
            "entries": entries,
            **dict.fromkeys(("segment_bits", "last_stored_at", "enriched_from", "checksum", "previous")),
            **head,
            "data": data,
        }
        return encode_record(record, self._schema, self._schema_id)


def columns_of(data: bytes | memoryview, entries: int, release: Callable[[], None] | None = None) -> Frozen:
    """Columns over ``data``, nothing copied. Raises DecodeError if it is not of ``entries`` identities."""
    if len(data) != entries * ROW_BYTES:
        raise DecodeError(f"state_dedup: {len(data)} bytes where {entries} identities should be")
    places, seconds = (np.frombuffer(data, _U8, entries, at * entries) for at in (0, 8))
    offsets, contents = (np.frombuffer(data, _U4, entries, at * entries) for at in (16, 20))
    return Frozen(places, seconds, offsets, contents, release or _nothing)


def joined(parts: list[Frozen]) -> Frozen:
    """The chunks of a segment as one."""
    return Frozen(
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.content for part in parts]),
    )


def _nothing() -> None:
    pass


def _epoch_ms(moment: Any) -> int:
    return int(moment.timestamp() * 1000 + 0.5) if hasattr(moment, "timestamp") else int(moment)
