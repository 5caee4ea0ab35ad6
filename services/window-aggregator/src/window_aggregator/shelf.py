"""Long frames of sums on local disk, in files without a name: gone with the process, whatever ends it.

Only a cache: what cannot be read again ends the worker, and the next one restores its sums from the log.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from telestream_runtime import get_logger

BLOCK_BYTES = 8 << 20
"""A file is given back when nothing in it is held any more."""

_log = get_logger("window-shelf")


class Shelf:
    """``put`` is a ``held.Keeper``. What the disk does not take stays in memory."""

    def __init__(self, folder: Path, block_bytes: int = BLOCK_BYTES) -> None:
        self._folder = folder
        self._block_bytes = block_bytes
        self._file: IO[bytes] | None = None
        self._end = 0
        self._refused = False

    def put(self, data: bytes) -> Callable[[], bytes]:
        """Keep it; what this gives reads it again. Raises OSError if that fails."""
        try:
            if self._file is None or self._end + len(data) > self._block_bytes:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file, self._end = tempfile.TemporaryFile(dir=self._folder, buffering=0), 0  # noqa: SIM115 – it stays open
            file, begin = self._file, self._end
            if os.pwrite(file.fileno(), data, begin) != len(data):
                raise OSError("the disk is full")
        except OSError as err:
            if not self._refused:
                _log.warning("sums_stay_in_memory", folder=str(self._folder), reason=err.strerror or str(err))
            self._refused, self._file = True, None
            return lambda: data
        self._end += len(data)
        self._refused = False

        def read() -> bytes:
            found = os.pread(file.fileno(), length, begin)
            if len(found) != length:
                raise OSError(f"{length} bytes of sums were kept and {len(found)} are there; start again")
            return found

        length = len(data)
        return read
