"""The body of a request → single records, each parsed or known not to be JSON."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import msgspec
import zstandard

from ingest_gateway.domain.fields import RECORD_BYTES
from ingest_gateway.domain.refusal import BodyRefused

MAX_BODY_BYTES = 16 << 20
"""Of a request with events, packed and unpacked."""
MAX_RECORDS = 100_000

Format = Literal["json", "ndjson"]
_BROKEN = object()
_LARGE = object()
_decoder = msgspec.json.Decoder()


def too_large(limit: int) -> BodyRefused:
    return BodyRefused(
        "too_large", f"the body is larger than {limit >> 20} MiB; send less at once, or a file", status=413
    )


def unpack(body: bytes, encoding: str, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body without its Content-Encoding. Raises BodyRefused; never makes more than ``limit`` bytes."""
    if encoding in ("", "identity"):
        return body
    try:
        if encoding == "gzip":
            unpacker = zlib.decompressobj(wbits=31)
            plain = unpacker.decompress(body, limit + 1)
            if len(plain) <= limit and not unpacker.eof:
                raise BodyRefused("not_json", "the gzip body ends too early", status=400)
        elif encoding == "zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=limit).stream_reader(body)
            plain = reader.read(limit + 1)
        else:
            raise BodyRefused("not_json", "Content-Encoding must be gzip or zstd, or absent", status=415)
    except (zlib.error, zstandard.ZstdError):
        raise BodyRefused("not_json", f"the body is not {encoding}", status=400) from None
    if len(plain) > limit:
        raise too_large(limit)
    return plain


def records_of(body: bytes, body_format: Format) -> list[Any]:
    """One item per record: what its JSON says, or a mark that ``fault_of`` knows.

    Raises BodyRefused if a JSON body cannot be parsed at all, or holds too many records.
    """
    if body_format == "json":
        try:
            whole = _decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise BodyRefused("not_json", "the body is not JSON", status=400) from None
        found = whole if isinstance(whole, list) else [whole]
    else:
        found = [_record(line) for line in body.split(b"\n") if line and not line.isspace()]
    if len(found) > MAX_RECORDS:
        raise BodyRefused("too_large", f"more than {MAX_RECORDS} records; send less at once, or a file", status=413)
    return found


def _record(line: bytes) -> Any:
    if len(line) > RECORD_BYTES:
        return _LARGE
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _BROKEN


def fault_of(record: Any) -> tuple[str, str | None, str] | None:
    """Why an item of ``records_of`` cannot be judged: code, field, message; None if it can."""
    if type(record) is dict:
        return None
    if record is _LARGE:
        return "too_large", None, f"a record has at most {RECORD_BYTES >> 10} KiB"
    return "not_json", None, "must be a JSON object"
