"""An enricher for which finding an original takes long, and whose transactions may not.

`python enricher_slow_originals.py SECONDS [hurried]`: each original takes so long; hurried: it asks for no quiet.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from cdr_enricher import app, judged_log
from cdr_enricher.kafka import EnricherStage
from telestream_runtime.lean import run_lean

TRANSACTION_MS = 1_000


def main(seconds: float, hurried: bool) -> int:
    reach = judged_log.JudgedLog._reach

    def slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return reach(*arguments)

    judged_log.JudgedLog._reach = slowly  # type: ignore[method-assign]
    judged_log.NEAR = judged_log.CHUNK = 2
    app.WorkerConfig = partial(app.WorkerConfig, transaction_timeout_ms=TRANSACTION_MS)  # type: ignore[assignment,misc]
    if hurried:
        EnricherStage.needs_quiet = lambda self, batches: False  # type: ignore[method-assign]
    return run_lean("cdr_enricher.app:main")


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), "hurried" in sys.argv[2:]))
