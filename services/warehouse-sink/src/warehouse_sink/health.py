"""What keeps the sink from working just now, in words; read by the admin thread."""

from __future__ import annotations

import time


class Health:
    """``beat`` is called by the owning thread whenever it gets on; ``blocked`` and ``free`` by whoever waits."""

    def __init__(self, stuck_after_s: float) -> None:
        self._stuck_after_s = stuck_after_s
        self._beat_at = time.monotonic()
        self._reasons: dict[str, str] = {}

    def beat(self) -> None:
        self._beat_at = time.monotonic()

    def blocked(self, dependency: str, reason: str) -> None:
        self._reasons[dependency] = reason

    def free(self, dependency: str) -> None:
        self._reasons.pop(dependency, None)

    def reason(self, dependency: str) -> str | None:
        return self._reasons.get(dependency)

    def stuck(self) -> str | None:
        silent_s = time.monotonic() - self._beat_at
        return f"no sign of life for {silent_s:.0f} s" if silent_s > self._stuck_after_s else None
