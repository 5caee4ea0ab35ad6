"""Which fault comes when: a list made beforehand, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

MEAN_KILL_S = 8.0
MEAN_STOP_S = 50.0
BURST_EVERY_S, BURST = 150.0, 5
ROLLING_EVERY_S = 200.0
MEAN_BROKER_KILL_S, MEAN_BROKER_STOP_S = 240.0, 300.0
MEMBERSHIP_EVERY_S = 110.0

KILL, STOP, ROLLING, LEAVE, JOIN = "kill -9", "stop and continue", "rolling restart", "member leaves", "member joins"
BROKER_KILL, BROKER_STOP = "broker kill -9", "broker stop and continue"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """``at_s``: seconds after the beginning. ``worker``: which (−1: broker or all). ``for_s``: how long it lasts."""

    at_s: float
    kind: str
    worker: int = -1
    for_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} at {self.at_s:.0f} s" + (f" for {self.for_s:.0f} s" if self.for_s >= 1 else "")


def schedule(seed: int, seconds: float, workers: int, joiners: int) -> list[Fault]:
    """In order of time. Each kind comes once at least; the last tenth of a long run stays calm for the broker."""
    rng = random.Random(seed)
    faults: list[Fault] = []

    def spread(mean_s: float, until_s: float = seconds) -> list[float]:
        at, found = 0.0, []
        while (at := at + rng.expovariate(1 / mean_s)) < until_s:
            found.append(at)
        return found or [rng.uniform(0.2, 0.8) * until_s]

    def anyone() -> int:
        return rng.randrange(workers)

    faults += [Fault(at, KILL, anyone()) for at in spread(MEAN_KILL_S)]
    for at in spread(BURST_EVERY_S):
        faults += [Fault(at + rng.uniform(0, 3), KILL, anyone()) for _ in range(BURST)]
    # longer than the session timeout of 10 s: the group goes on without it, and what wakes up is a zombie
    faults += [Fault(at, STOP, anyone(), rng.uniform(15, 25)) for at in spread(MEAN_STOP_S)]
    faults += [Fault(at, ROLLING) for at in spread(ROLLING_EVERY_S)]
    for at in spread(MEMBERSHIP_EVERY_S):
        for_s = rng.uniform(15, 40)
        joins = rng.random() < 0.5
        who = workers + rng.randrange(joiners) if joins else anyone()
        faults.append(Fault(at, JOIN if joins else LEAVE, who, for_s))
    calm = seconds * 0.9
    faults += [Fault(at, BROKER_KILL, for_s=rng.uniform(0.5, 5)) for at in spread(MEAN_BROKER_KILL_S, calm)]
    faults += [Fault(at, BROKER_STOP, for_s=rng.uniform(15, 30)) for at in spread(MEAN_BROKER_STOP_S, calm)]
    return sorted(fault for fault in faults if fault.at_s < seconds)
