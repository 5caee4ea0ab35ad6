"""The HTTP edge of files: upload, resume, list, refused rows."""

from __future__ import annotations

import csv
import io
import re
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from ingest_gateway.files import Outcome, described
from ingest_gateway.gateway import Gateway
from ingest_gateway.http import gateway_of, needs, source_of
from ingest_gateway.openapi_examples import responses
from ingest_gateway.problems import Problem
from telestream_opstore import ApiKey, FileEntry, NewFile, Priority

PAGE = 100
PAGE_MAX = 1_000
DAYS_MAX = 100_000
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,200}")
_LONG_NUMBER = re.compile(r"\d{15,}")

RecordType = Literal["cdr", "network", "customer", "cell", "region", "plan"]
Ingest = Annotated[ApiKey, Depends(needs("ingest"))]
Type = Annotated[RecordType, Query(description="What the rows are")]


def add_routes(app: FastAPI) -> None:
    """Add the routes of files."""
    app.add_api_route(
        "/v1/files/{source}/{name}",
        _put,
        methods=["PUT"],
        status_code=202,
        tags=["files"],
        summary="Load a CSV file",
        responses=responses()
        | {
            200: {
                "description": "The same content was loaded before: that result, with duplicate_of; nothing was sent"
            },
            204: {"description": "Upload-Length says that more is to come: go on by PATCH"},
            409: {"description": "This file, or the same content, is being loaded now"},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "CSV, plain or with Content-Encoding gzip or zstd, as `curl -T` sends it",
                "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    app.add_api_route("/v1/files/{source}/{name}", _head, methods=["HEAD"], tags=["files"], summary="How much is here")
    app.add_api_route(
        "/v1/files/{source}/{name}",
        _patch,
        methods=["PATCH"],
        status_code=202,
        tags=["files"],
        summary="Go on with an upload that broke off",
    )
    app.add_api_route("/v1/files", _list, methods=["GET"], tags=["files"], summary="Files, newest first")
    app.add_api_route("/v1/files/{file_id}", _one, methods=["GET"], tags=["files"], summary="One file")
    app.add_api_route(
        "/v1/files/{file_id}/refused", _refused, methods=["GET"], tags=["files"], summary="Its refused rows as CSV"
    )


def _length(value: str | None, name: str) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Problem(400, "bad_header", f"{name} must be a number of bytes")
    return int(value)


def _answer(outcome: Outcome | int) -> Response:
    if isinstance(outcome, int):
        return Response(status_code=204, headers={"Upload-Offset": str(outcome)})
    body = dict(described(outcome.entry))
    if outcome.duplicate:
        body["duplicate_of"] = outcome.entry.file_id
    return JSONResponse(body, 200 if outcome.duplicate else 202)


async def _put(
    request: Request,
    source: str,
    name: str,
    key: Ingest,
    type: Type,
    profile: Annotated[str, Query(description="How the file is written", max_length=64)] = "generic",
    allow_age_days: Annotated[int | None, Query(ge=1, le=DAYS_MAX, description="Days a record may be old")] = None,
    expected_rows: Annotated[int | None, Query(description="The switch's own count")] = None,
    expected_duration_ms: int | None = None,
    expected_bytes: int | None = None,
    expected_charge_micros: int | None = None,
    sequence: Annotated[int | None, Query(ge=0, lt=2**63, description="The producer's own number of the file")] = None,
    priority: Annotated[
        Priority, Query(description="backfill: sent only as fast as live records do not wait for it")
    ] = "live",
    content_digest: Annotated[str | None, Header()] = None,
    content_encoding: Annotated[str | None, Header()] = None,
    upload_length: Annotated[str | None, Header()] = None,
    content_length: Annotated[str | None, Header()] = None,
) -> Response:
    """The body is kept until it is whole, then judged and sent; the answer comes once Kafka has every accepted row."""
    gateway = gateway_of(request)
    _check_name(name)
    found = gateway.files.profile(profile)
    expected = {
        "rows": expected_rows,
        "duration_ms": expected_duration_ms,
        "bytes": expected_bytes,
        "charge_micros": expected_charge_micros,
    }
    new = NewFile(
        source_of(key, source),
        name,
        type,
        profile,
        found.digest,
        gateway.files.instance,
        allow_age_days,
        _encoding(content_encoding),
        _length(upload_length, "Upload-Length") or _length(content_length, "Content-Length"),
        {total: value for total, value in expected.items() if value is not None},
        sequence,
        priority,
    )
    return _answer(await gateway.files.put(new, request.stream(), content_digest))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or _LONG_NUMBER.search(name):
        raise Problem(
            422, "wrong_type", "a file's name has 1 to 200 characters, no '/' and no number of 15 digits", "name"
        )


def _encoding(header: str | None) -> str | None:
    encoding = (header or "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "zstd"):
        raise Problem(415, "media_type", "Content-Encoding must be gzip or zstd, or absent")
    return encoding


async def _latest(gateway: Gateway, key: ApiKey, source: str, record_type: str, name: str) -> FileEntry:
    entry = await gateway.ledger.latest(source_of(key, source), record_type, name)
    if entry is None:
        raise Problem(404, "not_found", "there is no such file")
    return entry


async def _head(request: Request, source: str, name: str, key: Ingest, type: Type) -> Response:
    """Upload-Offset says how much of the body is here; 404: send it from the start."""
    gateway = gateway_of(request)
    entry = await _latest(gateway, key, source, type, name)
    offset = gateway.files.offset(entry)
    if offset is None:
        raise Problem(404, "not_found", "nothing of it is here: send it from the start")
    headers = {"Upload-Offset": str(offset), "Upload-State": entry.state, "File-Id": str(entry.file_id)}
    if entry.upload_length is not None:
        headers["Upload-Length"] = str(entry.upload_length)
    return Response(status_code=200, headers=headers | {"Cache-Control": "no-store"})


async def _patch(
    request: Request,
    source: str,
    name: str,
    key: Ingest,
    type: Type,
    upload_offset: Annotated[str, Header()],
    upload_length: Annotated[str | None, Header()] = None,
) -> Response:
    """Without any Upload-Length, now or before, the end of this body is the end of the file."""
    gateway = gateway_of(request)
    entry = await _latest(gateway, key, source, type, name)
    offset = _length(upload_offset, "Upload-Offset") or 0
    length = _length(upload_length, "Upload-Length")
    return _answer(await gateway.files.patch(entry, offset, length, request.stream()))


async def _list(
    request: Request,
    key: Ingest,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE,
    cursor: Annotated[int | None, Query(description="next_cursor of the page before")] = None,
) -> dict[str, Any]:
    """Only of the sources this key may send for."""
    sources = None if key.may_send("*") else sorted(key.sources)
    entries = await gateway_of(request).ledger.recent(limit, cursor, sources)
    return {
        "data": [described(entry) for entry in entries],
        "next_cursor": entries[-1].file_id if len(entries) == limit else None,
        "request_id": request.state.request_id,
    }


async def _known(request: Request, key: ApiKey, file_id: int) -> FileEntry:
    entry = await gateway_of(request).ledger.get(file_id)
    if entry is None or not key.may_send(entry.source):
        raise Problem(404, "not_found", "there is no such file")
    return entry


async def _one(request: Request, file_id: int, key: Ingest) -> dict[str, Any]:
    """Counts of what Kafka has acknowledged. What became of it later is at query-api's /v1/reconciliation?batch=…"""
    return dict(described(await _known(request, key, file_id)))


async def _refused(request: Request, file_id: int, key: Ingest) -> Response:
    """line, code, field and the row with its numbers masked; at most the first ten thousand."""
    await _known(request, key, file_id)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("line", "code", "field", "row"))
    for row in await gateway_of(request).ledger.refused_rows(file_id):
        writer.writerow((row.line, row.code, row.field or "", row.row))
    return Response(text.getvalue(), media_type="text/csv")
