"""Small HTTP questions to parts and services on this machine; no proxy is ever asked."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit


def ask(url: str, *, body: bytes | None = None, timeout_seconds: float = 3.0) -> tuple[int, bytes]:
    """GET, or POST if there is a body: status and answer. Raises OSError if nothing answers."""
    parts = urlsplit(url)
    maker = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = maker(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_seconds)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET" if body is None else "POST", target, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url}: {type(error).__name__}") from error
    finally:
        connection.close()


def why_not(url: str, *, body: bytes | None = None, timeout_seconds: float = 3.0) -> str | None:
    """None if the answer is 200, else the reason in words."""
    try:
        status, answer = ask(url, body=body, timeout_seconds=timeout_seconds)
    except OSError as error:
        return f"no answer at {url}: {error.strerror or type(error).__name__}"
    if status == 200:
        return None
    text = answer.decode("utf-8", "replace").strip().replace("\n", " ")
    return f"{url} answers {status}: {text[:200]}" if text else f"{url} answers {status}"
