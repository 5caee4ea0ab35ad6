"""Random raw logs, small and with everything in them that a rule speaks of."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

Call = dict[str, Any]
DAY_MS = 86_400_000
NOW_MS = int(time.time() * 1000)


def call(uid: str, **changes: Any) -> Call:
    """A CDR that will be stored."""
    return {
        "event_uid": uid,
        "started_at": NOW_MS - 600_000,
        "record_type": "VOICE",
        "status": "COMPLETED",
        "subscriber_id": "k1.alice",
        "subscriber_kind": "MSISDN",
        "cell_id": "208-01-7",
        "duration_ms": 1_000,
        "charge_micros": 5,
        "currency": "EUR",
        "is_partial": False,
    } | changes


def calls(seed: int, count: int, first: int = 0, before: Sequence[Call | bytes] = ()) -> list[Call | bytes]:
    """``count`` records: most are new, the others repeat, contradict or mend an earlier one, are bad or junk.

    ``before``: what else lies in the partition.
    """
    rng = random.Random(seed)
    log: list[Call | bytes] = []
    for number in range(first, first + count):
        known = before if before and rng.random() < 0.5 else log
        earlier = rng.choice(known) if known else b""
        dice = rng.random()
        if dice < 0.05:
            log.append(b"\x00junk")
        elif dice < 0.30 and isinstance(earlier, dict):
            # again as it was, with other content, or mended
            charge = rng.choice((earlier["charge_micros"], abs(earlier["charge_micros"]), 77))
            log.append(earlier | {"charge_micros": charge, "reverses_offset": None})
        else:
            age_ms = rng.choice((0, 0, 1_800_000, 40 * DAY_MS, 390 * DAY_MS))
            log.append(
                call(
                    f"{seed}-{number:06d}",
                    started_at=NOW_MS - 60_000 - age_ms - rng.randrange(1_800_000),
                    subscriber_id=f"k1.{rng.randrange(20)}",
                    cell_id=f"208-01-{rng.randrange(4)}",
                    duration_ms=rng.randrange(100_000),
                    charge_micros=rng.choice((-1, 0, 3, 9)),
                )
            )
    return log
