"""Keeps pandas out of this process: Arrow imports it, where it is installed, at its first array.

That costs a second and 50 MB for something that is never used here. Arrow goes on without it if the import fails.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=fullname)


def keep_pandas_out() -> None:
    """For a process of our own, after all its imports; too late if pandas is there already."""
    sys.meta_path.insert(0, _NoPandas())
