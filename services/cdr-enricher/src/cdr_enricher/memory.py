"""glibc keeps what is freed: up to eight arenas a core, each as large as its threads ever were.

Every Kafka client brings threads of its own, so a worker that has just rebuilt its state held a third more than it
used. Elsewhere than on glibc these do nothing.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def limit_arenas() -> None:
    """Let all threads share two arenas. To be called before they start."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return freed memory to the system: some milliseconds, after something large is done."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
