"""The ledger of files in PostgreSQL, asked through the pool that looks keys up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from query_api.domain.problems import unavailable
from query_api.keys import Keys
from telestream_opstore import Mirror, OpstoreError

T = TypeVar("T")


async def from_ledger(keys: Keys, question: Callable[[Mirror], Awaitable[T]]) -> T:
    """The answer; raises Problem (503) while PostgreSQL is away."""
    mirror = keys.mirror()
    if mirror is None:
        raise unavailable("the ledger of files")
    try:
        return await question(mirror)
    except OpstoreError as err:
        raise unavailable("the ledger of files") from err
