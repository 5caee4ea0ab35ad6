"""Files: uploads into the spool, then loads, one after the other or side by side; resumed after a crash."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest_gateway.domain.file_reader import FileReader
from ingest_gateway.domain.refusal import BodyRefused
from ingest_gateway.errors import GatewayError, Stopping
from ingest_gateway.load import Load, Loading
from ingest_gateway.metrics import FILES
from ingest_gateway.problems import Problem, frames_of, unavailable
from ingest_gateway.profiles import Found, find_profile
from ingest_gateway.raw_topic import RawTopics
from ingest_gateway.spool import Spool, content_hash
from telestream_domain import TelestreamError
from telestream_opstore import FileEntry, NewFile, OpstoreError
from telestream_runtime import get_logger

if TYPE_CHECKING:
    from ingest_gateway.gateway import Gateway

PATIENCE_S = 6.0  # on top of the acknowledgement timeout, before a waiting client is told to come again
LOOK_S = 0.5
RESUME_RETRY_S = 2.0
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")

log = get_logger("ingest-gateway")
Place = tuple[str, str, str]
"""Source, type and name of a file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an upload: its row, or that of the first with the same content."""

    entry: FileEntry
    duplicate: bool = False


class Files:
    """All files of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.spool = Spool(gateway.settings.state_dir / "spool")
        self.instance = f"gateway-{gateway.settings.instance}"
        self.raw = RawTopics(gateway.settings.kafka, gateway.settings.ack_timeout_ms / 1000)
        self._thread = ThreadPoolExecutor(1, "files")
        self._live: set[Place] = set()
        self._loads: dict[int, Load] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Go on with what was being loaded when this instance last stopped."""
        for file_id in self.spool.ids():
            entry = await self._gateway.ledger.get(file_id)
            if entry is None or entry.state not in ("UPLOADING", "LOADING"):
                self.spool.remove(file_id)
        for entry in await self._gateway.ledger.unfinished(self.instance):
            self._live.add((entry.source, entry.type, entry.name))
            self._spawn(self._resume(entry))

    async def stop(self) -> None:
        """Stop loads after the block they are at; they go on at the next start."""
        self._stopping = True
        for load in self._loads.values():
            load.stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=15)
        self._thread.shutdown(wait=False)

    def profile(self, name: str) -> Found:
        try:
            return find_profile(name, self._gateway.settings.profiles_dir)
        except TelestreamError as err:
            raise Problem(422, "not_in_enum", str(err), "profile") from err

    def offset(self, entry: FileEntry) -> int | None:
        """How many bytes of a body are here; None if it must be sent from the start."""
        if entry.state == "UPLOADING":
            return self.spool.size(entry.file_id) if entry.instance == self.instance else None
        return None if entry.state == "FAILED" else entry.upload_offset

    async def put(self, new: NewFile, body: AsyncIterator[bytes], content_digest: str | None) -> Outcome | int:
        """Take a body from its start. Returns the outcome, or the offset if more of it is to come."""
        place = (new.source, new.type, new.name)
        self._claim(place)
        try:
            left = await self._gateway.ledger.latest(*place)
            if left is not None and left.state == "UPLOADING":
                self.spool.remove(left.file_id)
            entry = await self._gateway.ledger.begin_upload(new)
            state = content_hash() if new.content_encoding is None else None
            with self.spool.begin(entry.file_id) as file:
                size = 0
                async for data in body:
                    size += len(data)
                    await self._check_size(entry, size)
                    file.write(data)
                    if state is not None:
                        state.update(data)
            if new.upload_length is not None and size < new.upload_length:
                await self._gateway.ledger.uploaded(entry.file_id, size, new.upload_length)
                return size
            await self._gateway.ledger.uploaded(entry.file_id, size, size)
            if content_digest is not None:
                await self._check_digest(entry, content_digest)
            known = (state.hexdigest(), size) if state is not None else None
            return await self._loaded(entry, known, place)
        finally:
            self._release(place)

    async def patch(
        self, entry: FileEntry, offset: int, length: int | None, body: AsyncIterator[bytes]
    ) -> Outcome | int:
        """Go on with a body at ``offset``, which must be where it stopped."""
        place = (entry.source, entry.type, entry.name)
        self._claim(place)
        try:
            size = self.offset(entry)
            if entry.state != "UPLOADING" or size is None:
                raise Problem(404, "not_found", "there is no upload to go on with: send the file by PUT")
            if offset != size:
                raise Problem(
                    409, "offset", "Upload-Offset is not where the upload stopped", headers={"Upload-Offset": str(size)}
                )
            with self.spool.go_on(entry.file_id) as file:
                async for data in body:
                    size += len(data)
                    await self._check_size(entry, size)
                    file.write(data)
            total = length if length is not None else entry.upload_length
            await self._gateway.ledger.uploaded(entry.file_id, size, total)
            if total is not None and size < total:
                return size
            return await self._loaded(entry, None, place)
        finally:
            self._release(place)

    def _claim(self, place: Place) -> None:
        if place in self._live:
            raise Problem(409, "loading", "this file is being uploaded or loaded now")
        if len(self._live) >= self._gateway.settings.max_files:
            raise Problem(429, "busy", "too many files at once; try again", headers={"Retry-After": "5"})
        self._live.add(place)

    def _release(self, place: Place) -> None:
        if not any((load.entry.source, load.entry.type, load.entry.name) == place for load in self._loads.values()):
            self._live.discard(place)

    async def _check_size(self, entry: FileEntry, size: int) -> None:
        limit = self._gateway.settings.max_file_bytes
        if size > limit:
            await self._fail(entry, f"larger than {limit >> 20} MiB")
            raise Problem(413, "too_large", f"a file has at most {limit >> 20} MiB")

    async def _check_digest(self, entry: FileEntry, header: str) -> None:
        match = _DIGEST.search(header)
        if match is None:
            return
        found = await self._in_thread(self.spool.sha256, entry.file_id)
        if base64.b64encode(found).decode() != match.group(1):
            await self._fail(entry, "Content-Digest differs: the body was damaged on its way")
            raise Problem(400, "digest", "Content-Digest differs: the body was damaged on its way; send it again")

    async def _loaded(self, entry: FileEntry, known: tuple[str, int] | None, place: Place) -> Outcome:
        """Claim the content and load it; waits for the end, but not longer than Kafka is patient with us."""
        gateway = self._gateway
        limit = gateway.settings.max_file_bytes
        try:
            digest, size = known or await self._in_thread(
                self.spool.digest, entry.file_id, entry.content_encoding, limit
            )
            found = self.profile(entry.profile)
            reader = FileReader(found.profile, entry.type, gateway.identity, entry.source)
        except (BodyRefused, Problem) as err:
            await self._fail(entry, str(err))
            raise
        try:
            sent_from = await asyncio.get_running_loop().run_in_executor(
                None, self.raw.ends, gateway.topic(entry.type), gateway.partitions[entry.type]
            )
        except TelestreamError as err:
            raise unavailable(
                "not_acknowledged", "Kafka does not answer; the upload is kept, go on with an empty PATCH"
            ) from err
        entry, first = await gateway.ledger.begin_load(entry.file_id, digest, size, sent_from)
        if first is not None:
            self.spool.remove(entry.file_id)
            if first.state == "LOADING":
                raise Problem(
                    409, "loading", "the same content is being loaded now", members={"file_id": first.file_id}
                )
            FILES.labels(state="DUPLICATE").inc()
            return Outcome(first, duplicate=True)
        load = self._make(entry, found, reader)
        task = self._spawn(self._run(load, resumed=False, place=place))
        return Outcome(await self._patiently(load, task))

    async def _patiently(self, load: Load, task: asyncio.Task[FileEntry]) -> FileEntry:
        limit = self._gateway.settings.ack_timeout_ms / 1000 + PATIENCE_S
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_S)
            if not task.done() and time.monotonic() - load.alive_at > limit:
                raise unavailable(
                    "not_acknowledged",
                    "Kafka does not acknowledge; the file is here whole and goes on by itself",
                    file_id=load.entry.file_id,
                )
        try:
            return task.result()
        except Stopping as err:
            raise unavailable("stopping", str(err), file_id=load.entry.file_id) from err
        except GatewayError as err:
            raise unavailable("not_acknowledged", str(err), file_id=load.entry.file_id) from err

    def _make(self, entry: FileEntry, found: Found, reader: FileReader) -> Load:
        gateway = self._gateway
        loading = Loading(
            self.raw,
            gateway.topic(entry.type),
            gateway.partitions[entry.type],
            gateway.encoders[entry.type],
            gateway.file_sender,
            gateway.ledger,
            self.spool,
            self._thread,
            gateway.settings.max_file_bytes,
            gateway.pacer,
        )
        load = Load(entry, found.profile, reader, loading)
        self._loads[entry.file_id] = load
        return load

    async def _run(self, load: Load, resumed: bool, place: Place) -> FileEntry:
        entry = load.entry
        try:
            finished = await load.run(resumed)
        except BodyRefused as err:
            await self._fail(entry, str(err))
            raise
        except (GatewayError, OpstoreError):
            raise
        except Exception as err:
            log.error("a mistake of ours", file_id=entry.file_id, kind=type(err).__name__, frames=frames_of(err))
            await self._fail(entry, "a mistake of ours: the log says where")
            raise Problem(500, "internal", "a mistake of ours; the log says where") from err
        finally:
            del self._loads[entry.file_id]
            self._live.discard(place)
        self.spool.remove(entry.file_id)
        FILES.labels(state=finished.state).inc()
        log.info("file loaded", file_id=entry.file_id, accepted=finished.accepted, refused=finished.refused)
        return finished

    async def _resume(self, entry: FileEntry) -> None:
        place = (entry.source, entry.type, entry.name)
        log.info("going on with a file", file_id=entry.file_id, rows=entry.rows)
        try:
            if self.spool.size(entry.file_id) is None:
                await self._fail(entry, "the upload is no longer here: send the file again")
                return
            found = self.profile(entry.profile)
            if found.digest != entry.profile_digest:
                await self._fail(entry, "the profile was changed while the file was loading: send the file again")
                return
            reader = FileReader(found.profile, entry.type, self._gateway.identity, entry.source)
            await self._run(self._make(entry, found, reader), resumed=True, place=place)
        except (Stopping, BodyRefused):
            pass
        except (GatewayError, Problem, OpstoreError) as err:
            log.error("file not loaded", file_id=entry.file_id, reason=str(err))
        finally:
            self._live.discard(place)

    async def _fail(self, entry: FileEntry, problem: str) -> None:
        self.spool.remove(entry.file_id)
        await self._gateway.ledger.finish(entry.file_id, "FAILED", problem)
        FILES.labels(state="FAILED").inc()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def described(entry: FileEntry) -> Mapping[str, Any]:
    """A file as the API shows it."""
    size = entry.size or entry.upload_length
    return {
        "file_id": entry.file_id,
        "source": entry.source,
        "name": entry.name,
        "type": entry.type,
        "profile": entry.profile,
        "state": entry.state,
        "rows": entry.rows,
        "accepted": entry.accepted,
        "refused": entry.refused,
        "refused_by_code": entry.refused_by_code,
        "totals": entry.totals,
        "expected": entry.expected,
        "sequence": entry.sequence,
        "priority": entry.priority,
        "allow_age_days": entry.allow_age_days,
        "size": size,
        "progress": 1.0 if entry.finished_at else round(entry.read_bytes / size, 4) if size else 0.0,
        "problem": entry.problem,
        "duplicate_of": entry.duplicate_of,
        "created_at": entry.created_at.isoformat(),
        "finished_at": entry.finished_at.isoformat() if entry.finished_at else None,
        "seconds": round((entry.finished_at - entry.created_at).total_seconds(), 3) if entry.finished_at else None,
    }
