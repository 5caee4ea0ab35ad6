"""Snapshots as local files, one a partition. Only a cache: they may be deleted at any time, and nothing in them is
trusted that the committed position, the log and the checksum do not bear out.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from faust_batch import Source
from telestream_runtime import get_logger
from window_aggregator.snapshot import Snapshot, from_bytes, to_parts

_log = get_logger("window-snapshots")

MAX_AGE_S = 2 * 86_400
"""Files that nobody has replaced for so long are of partitions that others have, or of old generations."""


class SnapshotCache(Protocol):
    """Where snapshots lie. Every method may find, or do, nothing."""

    def read(self, source: Source) -> Snapshot | None: ...

    def keep(self, source: Source, snapshot: Snapshot) -> None: ...

    def drop(self, source: Source) -> None: ...


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """See ``SnapshotCache``."""

    folder: Path

    def read(self, source: Source) -> Snapshot | None:
        try:
            data = self._path(source).read_bytes()
        except OSError:
            return None
        return from_bytes(data)

    def keep(self, source: Source, snapshot: Snapshot) -> None:
        """Whole or not at all. Not synced: what a power cut leaves is found out by its checksum."""
        path = self._path(source)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.writelines(to_parts(snapshot))
            temporary.replace(path)
            self._clean(time.time() - MAX_AGE_S)
        except OSError as err:
            _log.warning("snapshot_not_written", file=str(path), reason=err.strerror)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def drop(self, source: Source) -> None:
        with contextlib.suppress(OSError):
            self._path(source).unlink()

    def _path(self, source: Source) -> Path:
        return self.folder / f"{source.topic}-{source.partition}.snapshot"

    def _clean(self, before_s: float) -> None:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker cleans here, too
                if path.stat().st_mtime < before_s:
                    path.unlink()


class NoSnapshots:
    """Keeps nothing: every restore is from the log alone."""

    def read(self, source: Source) -> Snapshot | None:
        return None

    def keep(self, source: Source, snapshot: Snapshot) -> None:
        """Nothing is kept."""

    def drop(self, source: Source) -> None:
        """Nothing is there."""
