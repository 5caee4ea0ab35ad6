"""Where downloads are kept, shared by all stacks of a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    raise ImportError("the embedded stack runs on Linux and macOS")
import fcntl


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """TELESTREAM_CACHE, else the user's cache directory."""
    if own := environ.get("TELESTREAM_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "telestream"
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telestream"


def python_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For programs in Python that are started again and again: compiled modules go to the cache where the caller wants
    none beside the sources, since compiling the libraries anew takes two thirds of a service's start."""
    environment = dict(environ)
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment.setdefault("PYTHONPYCACHEPREFIX", str(cache_dir(environ) / "pycache"))
    return environment


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; waits until it is free. A killed holder frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
