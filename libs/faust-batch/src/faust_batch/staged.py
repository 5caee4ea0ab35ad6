"""Calls into the stage: the one place where code that is not ours runs on the owning thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from faust_batch.errors import BatchError, StageFailed

_R = TypeVar("_R")

DETAIL_LIMIT = 300  # characters of a stage's own error: it may quote a whole record


@dataclass(frozen=True, slots=True)
class Call:
    """A call in work: what it does, since when (monotonic), and whether it may take as long as a restore."""

    doing: str
    since: float
    patient: bool


class Staged:
    """Whatever a stage raises becomes StageFailed. `current` may be read from any thread."""

    def __init__(self) -> None:
        self.current: Call | None = None

    def __call__(self, doing: str, call: Callable[[], _R], *, patient: bool = False) -> _R:
        self.current = Call(doing, time.monotonic(), patient)
        try:
            return call()
        except BatchError:
            raise
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"[:DETAIL_LIMIT]
            raise StageFailed(f"stage: {doing}: {detail}") from error
        finally:
            self.current = None

    def each(self, doing: str, values: Iterable[_R]) -> Iterator[_R]:
        """The values, which the stage may make as they are asked for."""
        found = iter(values)
        nothing = object()
        while (value := self(doing, lambda: next(found, nothing))) is not nothing:
            yield cast(_R, value)
