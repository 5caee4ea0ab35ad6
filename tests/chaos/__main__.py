"""The chaos run: ``make chaos SEED=1 MINUTES=20 RECORDS=10000000``; see docs/chaos.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    """0 if everything equals the truth, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the records and of the times of all faults")
    parser.add_argument("--minutes", type=float, default=2.0, help="under fire")
    parser.add_argument("--records", type=int, default=400_000, help="raw records, spread evenly over the time")
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--state-dir", type=Path, default=Path(".chaos"), help="a folder is made in it for each run")
    parser.add_argument("--port-base", type=int, default=27_000)
    parser.add_argument("--keep", action="store_true", help="keep Kafka's data also when all is well")
    given = parser.parse_args()
    # as in the services, before polars is there: its threads would take the workers' time
    os.environ.setdefault("POLARS_MAX_THREADS", "1")

    from .report import summary, text
    from .run import Plan, Run

    folder = given.state_dir.absolute() / time.strftime(f"%Y%m%d-%H%M%S-seed{given.seed}")
    folder.mkdir(parents=True)
    log = (folder / "run.log").open("w", encoding="utf-8")

    def say(line: str) -> None:
        for stream in (sys.stdout, log):
            stream.write(line + "\n")
            stream.flush()

    # so that all processes are ended also if this one is asked to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = Plan(given.seed, given.minutes, given.records, given.partitions, folder, given.port_base)
    say(f"chaos: seed {plan.seed}, {plan.minutes:g} minutes, {plan.records:,} records, {plan.partitions} partitions")
    found = summary(plan, Run(plan, say).go())
    say(text(found))
    (folder / "report.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    say(f"report: {folder / 'report.json'}, logs of the workers: {folder / 'workers'}")
    if found["passed"] and not given.keep:
        shutil.rmtree(folder / "kafka", ignore_errors=True)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
