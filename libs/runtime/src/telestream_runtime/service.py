"""Start and stop: one place where an error becomes one line, and a signal becomes an event."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from telestream_domain import TelestreamError
from telestream_runtime.logs import configure_logging, get_logger
from telestream_runtime.runbook import page_of, stated
from telestream_runtime.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)

EXIT_FAILED = 1


def run_service(
    name: str,
    settings_type: type[S],
    main: Callable[[S, threading.Event], None],
    argv: Sequence[str] | None = None,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Read the settings, run ``main(settings, stop)`` and return the exit status.

    ``--check`` stops after the settings. SIGTERM and SIGINT set ``stop``; ``main`` drains and returns. A
    TelestreamError (or one of ``expected``, or a TelestreamError that one of these was raised from) is one line on
    stderr, with its page of the runbook if there is one, and status 1; anything else is logged with its traceback,
    status 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        settings = settings_type.from_env()
    except TelestreamError as err:
        sys.stderr.write(f"{name}: {err}\n")
        return EXIT_FAILED
    if "--check" in arguments:
        sys.stderr.write(f"{name}: settings are good\n")
        return 0
    configure_logging(name, settings.log_format, settings.log_level)
    log = get_logger(name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("starting", instance=settings.instance, generation=settings.generation)
    try:
        main(settings, stop)
    except Exception as err:
        if isinstance(err, (TelestreamError, *expected)):
            cause = stated(err)
            page = page_of(cause)
            log.error("stopped", reason=str(cause), **({"runbook": page} if page else {}))
            return EXIT_FAILED
        log.exception("stopped by a mistake of ours")
        return EXIT_FAILED
    log.info("stopped in order")
    return 0
