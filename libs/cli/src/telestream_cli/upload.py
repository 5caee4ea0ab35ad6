"""A file's way through the gateway: where did it stop? send what is missing, wait until it is loaded.

The gateway keeps what it has got of a body. A note beside the embedded stack says what content an upload began with, so
that the rest of another content is never put behind it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

import httpx
import typer

from telestream_cli.access import Access, refused, unreachable
from telestream_domain import TelestreamError

CHUNK_BYTES = 1 << 18
PATIENCE_S = 120.0
"""How long a file waits for a gateway that went away or has no room, before it gives up."""
_POLL_S = 0.2
_PAUSE_S = 1.0
_FINISHED = ("LOADED", "LOADED_MISMATCH", "FAILED", "DUPLICATE")
_ENCODINGS = {".gz": "gzip", ".zst": "zstd"}

Tell = Callable[[str, int, int], None]
"""Called with a step, how many bytes are done, and of how many."""


@dataclass(frozen=True, slots=True)
class FileToLoad:
    path: Path
    type: str
    source: str
    profile: str = "generic"
    allow_age_days: int | None = None
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What became of a file; ``problem`` is why it could not be read to its end."""

    name: str
    file_id: int | None
    rows: int
    accepted: int
    refused: int
    refused_by_code: dict[str, int]
    seconds: float
    duplicate_of: int | None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The result as the contract has it."""
        return asdict(self)


def notes_folder(state_dir: Path) -> Path:
    """Where interrupted uploads are noted: beside the embedded stack, else in the user's cache."""
    if state_dir.is_dir():
        return state_dir / "uploads"
    return Path(typer.get_app_dir("telestream")) / "uploads"


def load_file(
    client: httpx.Client,
    access: Access,
    wanted: FileToLoad,
    notes: Path | None = None,
    tell: Tell | None = None,
    patient: bool = False,
) -> LoadedFile:
    """Send a file, or what is missing of it, and wait until the gateway has loaded it.

    ``notes`` is a folder for what an interrupted upload needs to go on; without it a file is always sent whole.
    A file that the gateway cannot read has a ``problem``. Raises ApiUnreachable, ApiRefused (the key, the source, the
    profile), or TelestreamError if the gateway stays away. ``patient``: it is known to run, so one that does not answer
    is starting again.
    """
    return _Upload(client, access, wanted, notes, tell, patient).run()


class _Gone(Exception):
    """The connection broke or the gateway said: not now."""

    def __init__(self, why: str, pause_s: float = _PAUSE_S) -> None:
        super().__init__(why)
        self.why, self.pause_s = why, pause_s


class _Upload:
    def __init__(
        self,
        client: httpx.Client,
        access: Access,
        wanted: FileToLoad,
        notes: Path | None,
        tell: Tell | None,
        patient: bool,
    ) -> None:
        self._client, self._access, self._wanted, self._tell = client, access, wanted, tell
        name = wanted.path.name
        self._encoding = _ENCODINGS.get(wanted.path.suffix)
        self._url = f"{access.gateway}/v1/files/{quote(wanted.source, safe='')}/{quote(name, safe='')}"
        with wanted.path.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").digest()
        self._size = wanted.path.stat().st_size
        self._answered_at: float | None = time.monotonic() if patient else None
        place = "\x1f".join((self._url, wanted.type))
        self._note = None if notes is None else notes / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"

    def run(self) -> LoadedFile:
        begun = time.monotonic()
        while True:
            try:
                loaded = self._attempt(begun)
                self._forget()
                return loaded
            except _Gone as gone:
                # A gateway that never answered is not running; one that did may be starting again.
                if self._answered_at is None and gone.why == "ConnectError":
                    raise unreachable("gateway", self._access.gateway, httpx.ConnectError("")) from None
                if time.monotonic() - (self._answered_at or begun) > PATIENCE_S:
                    raise TelestreamError(
                        f"{self._wanted.path.name}: the gateway at {self._access.gateway} did not take it for "
                        f"{PATIENCE_S:.0f} s ({gone.why}); the same command goes on where this one stopped"
                    ) from gone
                time.sleep(gone.pause_s)

    def _attempt(self, begun: float) -> LoadedFile:
        head = self._ask("HEAD", self._url, params={"type": self._wanted.type})
        if head.status_code == 200 and head.headers.get("Upload-State") == "LOADING":
            # Either this very file, or another content under its name, whose end must be waited for.
            entry = self._finished(int(head.headers["File-Id"]))
            if self._noted():
                return self._result(entry, begun)
        offset = self._resumable(head)
        with self._watch():
            answer = self._send(offset)
        if answer.status_code == 204:
            raise _Gone("the upload is not whole yet", 0.0)
        body = self._json(answer)
        if answer.status_code == 409 and body.get("code") == "loading" and body.get("file_id"):
            entry = self._finished(int(body["file_id"]))
            return self._result(entry, begun, duplicate_of=int(entry["file_id"]))
        if answer.status_code == 409:
            raise _Gone("this file is being loaded by somebody else")
        if answer.status_code == 503 and body.get("file_id"):
            return self._result(self._finished(int(body["file_id"])), begun)
        if answer.status_code in (400, 413, 422) and body.get("code") not in _OURS:
            return LoadedFile(
                self._wanted.path.name, None, 0, 0, 0, {}, round(time.monotonic() - begun, 3), None, body["detail"]
            )
        if answer.status_code not in (200, 202):
            raise refused("gateway", answer)
        return self._result(body, begun, duplicate_of=body.get("duplicate_of"))

    def _resumable(self, head: httpx.Response) -> int:
        """Where to go on: 0 is from the start."""
        if head.status_code != 200 or head.headers.get("Upload-State") != "UPLOADING" or not self._noted():
            self._remember()
            return 0
        offset = int(head.headers.get("Upload-Offset", "0"))
        return offset if offset <= self._size else 0

    def _send(self, offset: int) -> httpx.Response:
        wanted = self._wanted
        headers = {"Content-Length": str(self._size - offset)}
        params: dict[str, str | int] = {"type": wanted.type}
        if offset:
            headers |= {"Upload-Offset": str(offset), "Upload-Length": str(self._size)}
            headers["Content-Type"] = "application/offset+octet-stream"
            return self._ask("PATCH", self._url, params=params, headers=headers, content=self._bytes(offset))
        headers |= {"Content-Type": "text/csv", "Upload-Length": str(self._size)}
        headers["Content-Digest"] = f"sha-256=:{base64.b64encode(self._digest).decode()}:"
        if self._encoding:
            headers["Content-Encoding"] = self._encoding
        params["profile"] = wanted.profile
        if wanted.allow_age_days is not None:
            params["allow_age_days"] = wanted.allow_age_days
        if wanted.backfill:
            params["priority"] = "backfill"
        return self._ask("PUT", self._url, params=params, headers=headers, content=self._bytes(0))

    def _bytes(self, offset: int) -> Iterator[bytes]:
        done = offset
        with self._wanted.path.open("rb") as file:
            file.seek(offset)
            while data := file.read(min(CHUNK_BYTES, self._size - done)):
                done += len(data)
                yield data
                if self._tell is not None:
                    self._tell("sending", done, self._size)
        if done < self._size:
            raise TelestreamError(f"{self._wanted.path} became shorter while it was being sent")

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        """Tell how far the gateway is in the file, from a thread: its answer comes only at the end."""
        if self._tell is None:
            yield
            return
        done = Event()
        thread = Thread(target=self._follow, args=(done, self._tell), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _follow(self, done: Event, tell: Tell) -> None:
        with httpx.Client(headers=self._access.headers, timeout=5) as client:
            while not done.wait(_POLL_S):
                with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
                    head = client.head(self._url, params={"type": self._wanted.type})
                    if head.headers.get("Upload-State") == "LOADING":
                        entry = client.get(f"{self._access.gateway}/v1/files/{head.headers['File-Id']}").json()
                        tell("loading", int(entry["progress"] * self._size), self._size)

    def _finished(self, file_id: int) -> dict[str, Any]:
        """A file's entry once the gateway is done with it."""
        while True:
            answer = self._ask("GET", f"{self._access.gateway}/v1/files/{file_id}")
            if answer.status_code != 200:
                raise refused("gateway", answer)
            entry = self._json(answer)
            if entry["state"] in _FINISHED:
                return entry
            if self._tell is not None:
                self._tell("loading", int(entry["progress"] * self._size), self._size)
            time.sleep(_POLL_S)

    def _result(self, entry: Mapping[str, Any], begun: float, duplicate_of: int | None = None) -> LoadedFile:
        return LoadedFile(
            name=self._wanted.path.name,
            file_id=entry["file_id"],
            rows=entry["rows"],
            accepted=entry["accepted"],
            refused=entry["refused"],
            refused_by_code=dict(entry["refused_by_code"]),
            seconds=round(time.monotonic() - begun, 3),
            duplicate_of=duplicate_of if duplicate_of is not None else entry.get("duplicate_of"),
            problem=entry.get("problem"),
        )

    def _ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, url, **more)
        except httpx.TransportError as err:
            raise _Gone(type(err).__name__) from err
        if answer.status_code in (429, 503) and not (answer.content and b'"file_id"' in answer.content):
            self._answered_at = self._answered_at or time.monotonic()
            raise _Gone(f"status {answer.status_code}", _retry_after(answer))
        self._answered_at = time.monotonic()
        if answer.status_code in (401, 403):
            raise refused("gateway", answer)
        return answer

    @staticmethod
    def _json(answer: httpx.Response) -> dict[str, Any]:
        try:
            body: dict[str, Any] = answer.json()
        except ValueError:
            raise refused("gateway", answer) from None
        return body

    def _noted(self) -> bool:
        """Whether an upload of this very content began here."""
        if self._note is None:
            return False
        try:
            return bool(json.loads(self._note.read_text())["sha256"] == self._digest.hex())
        except (OSError, ValueError, KeyError):
            return False

    def _remember(self) -> None:
        if self._note is not None:
            with contextlib.suppress(OSError):
                self._note.parent.mkdir(parents=True, exist_ok=True)
                self._note.write_text(json.dumps({"sha256": self._digest.hex()}))

    def _forget(self) -> None:
        if self._note is not None:
            with contextlib.suppress(OSError):
                self._note.unlink(missing_ok=True)


# Codes of a refused question, not of a refused file: profile, source, name.
_OURS = ("not_in_enum", "source_not_allowed", "digest", "bad_header", "wrong_type")


def _retry_after(answer: httpx.Response) -> float:
    try:
        return min(10.0, max(0.1, float(answer.headers.get("Retry-After", _PAUSE_S))))
    except ValueError:
        return _PAUSE_S
