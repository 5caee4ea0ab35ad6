"""Waiting for a dependency before a service begins: it says so on its admin port and in its log, and does not end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TypeVar

from telestream_runtime.admin import AdminServer
from telestream_runtime.logs import get_logger
from telestream_runtime.settings import ServiceSettings

T = TypeVar("T")

RETRY_S = 1.0
LOG_EVERY_S = 30.0

log = get_logger(__name__)


def wait_for(
    name: str, call: Callable[[], T], unavailable: type[Exception], settings: ServiceSettings, stop: Event
) -> T | None:
    """The result of ``call``, tried until it raises ``unavailable`` no more; None if ``stop`` was set before that.

    Meanwhile ``/readyz`` names what is missing; the admin port is free again afterwards.
    """
    missing: dict[str, str] = {}
    admin: AdminServer | None = None
    logged_at = -LOG_EVERY_S
    try:
        while not stop.is_set():
            try:
                return call()
            except unavailable as err:
                missing[name] = str(err)
            if admin is None:
                admin = AdminServer(
                    settings.admin_host, settings.admin_port, {name: partial(missing.get, name)}
                ).start()
            if time.monotonic() - logged_at >= LOG_EVERY_S:
                log.warning("waiting", missing=missing)
                logged_at = time.monotonic()
            stop.wait(RETRY_S)
        return None
    finally:
        if admin is not None:
            admin.stop()
