"""What a supervisor needs to know of a program that it keeps running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from telestream_devstack.process import Command


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """A third-party part or one of our services.

    `prepare` runs before every start and returns at once if there is nothing to do; `ready` says why the part is not
    ready, or None; `settle` runs once it is ready, before anybody relies on it (and may run again).
    """

    name: str
    url: str
    ports: Mapping[str, int]
    command: Callable[[], Command]
    ready: Callable[[], str | None]
    prepare: Callable[[], None] = _nothing
    settle: Callable[[], None] = _nothing
    start_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 30.0
    admin_url: str | None = None
