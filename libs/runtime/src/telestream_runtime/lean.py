"""A service's process kept lean: what must be decided before polars, Arrow and their threads are there.

- Polars with one thread: frames are small and cores are few; more threads cost up to a quarter of the CPU time.
- No pandas: Arrow imports it, where it is installed, at its first array, most of a second and 50 MB for nothing.
- Freed memory goes back to the system: glibc keeps up to eight arenas a core, each as large as its threads ever were,
  and polars and Arrow have allocators of their own that keep their peaks.
- Python's cycle collector runs seldom: a batch is tens of thousands of messages that hold no cycles, and looking
  through them every 700 objects cost the enricher a seventh of its time.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_M_ARENA_MAX = -8  # glibc's malloc.h; lower thresholds for giving back cost a tenth of the CPU time, and won nothing
_ARENAS = 2
_COLLECT_EVERY = (100_000, 20, 20)  # objects; then young and middle generations


class _WithoutPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=fullname)


def run_lean(start: str) -> int:
    """Set the process up, then import and call ``start`` (``module:function``); its exit status.

    For ``__main__`` alone: it changes the process. What the environment says already stays.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    sys.meta_path.insert(0, _WithoutPandas())
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
    gc.set_threshold(*_COLLECT_EVERY)
    module, _, function = start.partition(":")
    return int(getattr(importlib.import_module(module), function)())


def give_back_memory() -> None:
    """Return freed memory to the system: some milliseconds, after something large is done."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library; None where it is not glibc, which needs none of this."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
