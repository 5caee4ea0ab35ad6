"""Where the APIs are and which key opens them: from options, else the environment, else the embedded stack's folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import httpx
import typer

from telestream_devstack.state import load
from telestream_domain import TelestreamError

T = TypeVar("T")
PAUSE_S = 0.5
BUSY = "too_wide"
"""Code of a question that took too long. Ours are small: asked again when there is less to do, they are answered."""
DEFAULT_STATE_DIR = Path(".telestream")

Gateway = Annotated[
    str | None, typer.Option(envvar="TELESTREAM_GATEWAY", help="Gateway URL; by default the embedded stack's.")
]
QueryApi = Annotated[
    str | None, typer.Option(envvar="TELESTREAM_QUERY_API", help="Query API URL; by default the embedded stack's.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(help="API key; by default TELESTREAM_API_KEY, TELESTREAM_API_KEY_FILE, the embedded stack's."),
]
StateDir = Annotated[Path, typer.Option(envvar="TELESTREAM_STATE_DIR", help="The embedded stack's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


class ApiUnreachable(TelestreamError):
    """Nobody answers at an API's address."""


class ApiRefused(TelestreamError):
    """An API answered that it will not."""


@dataclass(frozen=True, slots=True)
class Access:
    """URLs without a trailing slash."""

    gateway: str
    query_api: str
    clickhouse: str
    api_key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


def find_access(
    state_dir: Path, gateway: str | None = None, query_api: str | None = None, api_key: str | None = None
) -> Access:
    """Raises TelestreamError if there is no key."""
    stack = load(state_dir)
    urls = {} if stack is None else {name: member.url for name, member in stack.members.items()}
    return Access(
        gateway=(gateway or urls.get("ingest-gateway") or "http://127.0.0.1:18080").rstrip("/"),
        query_api=(query_api or urls.get("query-api") or "http://127.0.0.1:18081").rstrip("/"),
        clickhouse=(
            os.environ.get("TELESTREAM_CLICKHOUSE") or urls.get("clickhouse") or "http://127.0.0.1:18023"
        ).rstrip("/"),
        api_key=api_key or _find_key(state_dir),
    )


def _find_key(state_dir: Path) -> str:
    key = os.environ.get("TELESTREAM_API_KEY")
    if key:
        return key.strip()
    named = os.environ.get("TELESTREAM_API_KEY_FILE")
    path = Path(named) if named else state_dir / "api_key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise TelestreamError(
            f"no API key: {path} does not exist; start the embedded stack with 'telestream up', "
            "or give --api-key or TELESTREAM_API_KEY"
        ) from None
    except OSError as err:
        raise TelestreamError(f"no API key: cannot read {path}: {err.strerror}") from None


def unreachable(what: str, url: str, err: Exception) -> ApiUnreachable:
    """The error for an API that does not answer."""
    why = "" if isinstance(err, httpx.ConnectError) else f" ({type(err).__name__})"
    return ApiUnreachable(f"the {what} does not answer at {url}{why}; run 'telestream up', or give its address")


def patiently(ask: Callable[[], T], seconds: float) -> T:
    """The answer of ``ask``, which is asked again for so long while nobody answers: a service may be starting again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except ApiUnreachable:
            if time.monotonic() + PAUSE_S > deadline:
                raise
            time.sleep(PAUSE_S)


def refused(what: str, answer: httpx.Response) -> ApiRefused | ApiUnreachable:
    """The error for an answer that is none of the expected ones, with the problem's own words."""
    try:
        problem = answer.json()
        detail = problem.get("detail") or problem.get("title") or answer.text
        code = problem.get("code")
    except ValueError:
        detail, code = answer.text[:300], None
    if answer.status_code == 503 or code == BUSY:
        return ApiUnreachable(f"the {what} cannot answer now: {detail}")
    hint = {401: "; is it the key of this stack?", 403: "; the key lacks that right"}.get(answer.status_code, "")
    return ApiRefused(f"the {what} answered {answer.status_code}{f' {code}' if code else ''}: {detail}{hint}")
