"""What is said of a run: to people, and as JSON."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from .run import Plan, Result
from .watch import Pause, percentiles

_WRONG = ("lost", "doubled", "invented", "misordered", "wrong", "wrong_raw", "wrong_dead_letters", "wrong_aggregates")
_COUNTS = ("records", *_WRONG, "upserts")
_BROKER_SHADOW_S = 20.0  # after it answers again: clients find it, sessions and transactions are settled


def summary(plan: Plan, result: Result) -> dict[str, Any]:
    """All figures of a run."""
    exits: Counter[str] = Counter()
    for worker in result.workers:
        for ended, count in worker.exits.items():
            exits[f"{worker.name.rsplit('-', 1)[0]}: {_general(ended)}"] += count
    verdicts: Counter[str] = Counter()
    for one in result.found:
        verdicts.update(one.verdicts)
    pauses = result.tail.pauses if result.tail else []
    by_partition = result.tail.partition_pauses if result.tail else []
    recovery: dict[str, Any] = {}
    for stage in ("cdr-enricher", "window-aggregator"):
        whole = [pause for pause in pauses if pause.stage == stage]
        parts = [pause for pause in by_partition if pause.stage.startswith(stage)]
        recovery[stage] = {
            "no output at all": percentiles(whole) | _longest(whole, result),
            "no output of a partition": percentiles(parts) | _longest(parts, result),
            "no output of a partition, broker well": (
                percentiles(well := [pause for pause in parts if not _by_broker(pause, result)])
                | _longest(well, result)
            ),
        }
    return {
        "seed": plan.seed,
        "minutes": plan.minutes,
        "passed": not result.failures,
        "failures": result.failures,
        **{name: sum(getattr(one, name) for one in result.found) for name in _COUNTS},
        "records_sent": result.sent,
        "records_per_s": round(result.sent / result.fed_s) if result.fed_s else 0,
        "drained_after_s": round(result.drained_s, 1),
        "truth": dict(sorted(verdicts.items())),
        "faults": dict(result.faults),
        "broker_outages_s": [round(seconds, 1) for seconds in result.outages_s],
        "restarts": sum(max(worker.starts - 1, 0) for worker in result.workers),
        "exits": dict(exits.most_common()),
        "recovery": recovery,
        "peak_rss_mb": {worker.name: round(worker.peak_rss / 1e6) for worker in result.workers},
        "struck": [[round(at, 1), what] for at, what in result.struck],
        "pauses": [
            [p.stage, round(p.began - result.began_at, 1), round(p.seconds, 1)] for p in (*pauses, *by_partition)
        ],
    }


def _general(ended: str) -> str:
    """Positions and times taken out, so that like goes with like."""
    code, _, said = ended.partition(": ")
    said = re.sub(r"[0-9][0-9.,:]*", "#", said)
    said = re.sub(r"(?:[^ ]+\[#\], )+", "…, ", said)
    return f"{code}: {said[:220]}"


def _near(pause: Pause, result: Result) -> list[str]:
    began = pause.began - result.began_at
    return [f"{what} at {at:.0f} s" for at, what in result.struck if began - 3 <= at <= began + pause.seconds]


def _by_broker(pause: Pause, result: Result) -> bool:
    began = pause.began - result.began_at
    return any(
        "broker" in what and at - 1 <= began + pause.seconds and began <= at + _BROKER_SHADOW_S + _lasting(what)
        for at, what in result.struck
    )


def _lasting(what: str) -> float:
    found = re.search(r"for (\d+) s", what)
    return float(found.group(1)) if found else 0.0


def _longest(pauses: list[Pause], result: Result) -> dict[str, Any]:
    if not pauses:
        return {}
    longest = max(pauses, key=lambda pause: pause.seconds)
    return {
        "longest": f"{longest.seconds:.1f} s from {longest.began - result.began_at:.0f} s on ({longest.stage})",
        "faults_then": _near(longest, result)[:6],
    }


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        "",
        f"seed {found['seed']}, {found['minutes']:g} minutes, {found['records_sent']:,} records, "
        f"{found['records_per_s']:,}/s, drained {found['drained_after_s']:.0f} s after the last fault",
        "truth: " + ", ".join(f"{name} {count:,}" for name, count in found["truth"].items()),
        "faults: " + ", ".join(f"{name} {count}" for name, count in found["faults"].items()),
        f"broker away, s: {found['broker_outages_s']}; workers restarted {found['restarts']} times",
        "how workers ended:",
        *(f"  {count:>4} × {what}" for what, count in found["exits"].items()),
        "recovery:",
    ]
    for stage, kinds in found["recovery"].items():
        for kind, figures in kinds.items():
            if not figures:
                lines.append(f"  {stage}, {kind}: never over 1.5 s")
                continue
            lines.append(
                f"  {stage}, {kind}: {figures['count']} pauses, p50 {figures['p50_s']} s, p95 {figures['p95_s']} s, "
                f"longest {figures['longest']}"
            )
            if figures["faults_then"]:
                lines.append("      then: " + "; ".join(figures["faults_then"]))
    lines.append("peak memory, MB: " + ", ".join(f"{name} {mb}" for name, mb in found["peak_rss_mb"].items()))
    lines.append("")
    lines.append(
        f"{found['records']:,} records: lost {found['lost']}, doubled {found['doubled']}, "
        f"out of order {found['misordered']}, invented {found['invented']}, wrong {found['wrong']}, "
        f"dead letters wrong {found['wrong_dead_letters']}, raw log wrong {found['wrong_raw']}, "
        f"aggregates wrong {found['wrong_aggregates']} of {found['upserts']:,} upserts"
    )
    lines += [f"FAILED: {failure}" for failure in found["failures"]]
    lines.append("passed" if found["passed"] else "NOT passed")
    return "\n".join(lines)
