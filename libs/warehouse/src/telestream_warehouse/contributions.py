"""What one stored record adds to each measure, as SQL over the fact views: the proof behind a KPI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telestream_domain import shown_subscriber_sql
from telestream_domain.kpis import Basis, Kpi
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import FACTS, source

_CALL = "(f.record_type IN ('VOICE', 'VIDEO'))"
_DATA = "(f.record_type = 'DATA')"


def _count(condition: str) -> str:
    return f"toInt64(ifNull({condition}, 0))"


def _of(condition: str, value: str) -> str:
    return f"toInt64(if({condition}, ifNull({value}, 0), 0))"


def _scaled(field: str, factor: int) -> str:
    return f"toInt64(ifNull(round(f.{field} * {factor}), 0))"


def _procedure(event_type: str, condition: str) -> str:
    return _count(f"(f.event_type = '{event_type}') AND {condition}")


CONTRIBUTIONS: Mapping[str, Mapping[str, str]] = {
    "cdr": {
        "attempts": _count(_CALL),
        **{
            status.lower(): _count(f"{_CALL} AND f.status = '{status}'")
            for status in ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
        },
        "ended_answered": _count(f"{_CALL} AND f.status IN ('COMPLETED', 'DROPPED')"),
        "ended_dropped": _count(f"{_CALL} AND f.status = 'DROPPED'"),
        "duration_ms": _of(_CALL, "f.duration_ms"),
        "holding_ms": _of(_CALL, "coalesce(f.holding_ms, f.duration_ms)"),
        "pdd_ms": _of(_CALL, "f.pdd_ms"),
        "pdd_ms_count": _count(f"{_CALL} AND f.pdd_ms IS NOT NULL"),
        "sessions": _count(f"{_DATA} AND NOT f.is_partial"),
        "bytes_up": _of("1", "f.bytes_up"),
        "bytes_down": _of("1", "f.bytes_down"),
        "data_duration_ms": _of(_DATA, "f.duration_ms"),
        "data_bytes": _of(
            f"{_DATA} AND ifNull(f.duration_ms, 0) > 0", "ifNull(f.bytes_up, 0) + ifNull(f.bytes_down, 0)"
        ),
        "distinct_estimate": _count("f.subscriber_kind != 'NONE'"),
    },
    "network": {
        "latency_us": _scaled("latency_ms", 1_000),
        "latency_us_count": _count("f.latency_ms IS NOT NULL"),
        "throughput_dl_kbps": _scaled("throughput_dl_mbps", 1_000),
        "throughput_dl_kbps_count": _count("f.throughput_dl_mbps IS NOT NULL"),
        "throughput_ul_kbps": _scaled("throughput_ul_mbps", 1_000),
        "throughput_ul_kbps_count": _count("f.throughput_ul_mbps IS NOT NULL"),
        "packet_loss_ppm": _scaled("packet_loss_ratio", 1_000_000),
        "packet_loss_ppm_count": _count("f.packet_loss_ratio IS NOT NULL"),
        **{
            f"{name}_{side}": _procedure(event_type, condition)
            for name, event_type in (("rrc_setup", "RRC_SETUP"), ("attach", "ATTACH"), ("handover", "HANDOVER"))
            for side, condition in (("known", "f.success IS NOT NULL"), ("successes", "ifNull(f.success, false)"))
        },
        "outage_events": _count(
            "f.event_type IN ('CELL_DOWN', 'CELL_UP') OR (f.event_type = 'ALARM' AND f.alarm_id IS NOT NULL)"
        ),
    },
}
"""Type → measure → what one row ``f`` of its fact view adds to it."""

_TIME = {"cdr": "started_at", "network": "occurred_at"}
_PLACE = {"partition": "f.src_partition", "offset": "f.src_offset"}
_ORIGIN = {"source": "toString(f.source)", "batch_id": "f.batch_id", "line": "f.line", **_PLACE}
_SHOWN: Mapping[str, Mapping[str, str]] = {
    "cdr": {
        "event_uid": "f.event_uid",
        "record_type": "toString(f.record_type)",
        "status": "toString(f.status)",
        "cell_id": "ifNull(toString(f.cell_id), '')",
        "last_cell_id": "ifNull(toString(f.last_cell_id), '')",
        "subscriber_id": shown_subscriber_sql("f.subscriber_id"),
        **_ORIGIN,
    },
    "network": {
        "event_uid": "f.event_uid",
        "event_type": "toString(f.event_type)",
        "cell_id": "toString(f.cell_id)",
        "alarm_id": "ifNull(f.alarm_id, '')",
        "alarm_state": "ifNull(toString(f.alarm_state), '')",
        "severity": "ifNull(toString(f.severity), '')",
        **_ORIGIN,
    },
}
_GROUP = {"cell": "f.cell_id", "region": "f.region_id", "plan": "f.plan_id"}
_LAST_CELL = "ifNull(f.last_cell_id, f.cell_id)"


def measures_behind(kpi: Kpi) -> tuple[str, ...]:
    """The measures of ``CONTRIBUTIONS`` that a KPI is counted from."""
    if kpi.basis is Basis.AVAILABILITY:
        return ("outage_events",)
    return tuple(name for name in kpi.measures if name != "hour_ms")


@dataclass(frozen=True, slots=True)
class Contributing:
    """A question for records, and how its answer is read."""

    query: Query
    kpis: tuple[Kpi, ...]
    record_type: str

    def records(self, row: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """KPI → its records, from the one row of the answer: what they are, where they came from, and ``adds``."""
        names = [_TIME[self.record_type], *_SHOWN[self.record_type]]
        found = {}
        for kpi in self.kpis:
            behind = measures_behind(kpi)
            found[kpi.name] = [
                {
                    **dict(zip(names, (f"{entry[2].replace(' ', 'T')}Z", *entry[3 : 2 + len(names)]), strict=True)),
                    "adds": dict(zip(behind, entry[2 + len(names)], strict=True)),
                }
                for entry in row[kpi.name]
            ]
        return found


def contributing(
    kpis: Sequence[Kpi],
    family: str,
    since: datetime,
    until: datetime,
    *,
    groups: Sequence[str] | None = None,
    generation: int | None = None,
    limit: int = 10,
) -> Contributing:
    """Some records (the earliest) of ``since ≤ t < until`` that each KPI counts, in ``groups`` if given.

    All ``kpis`` need the same type of record. The facts are read once.
    """
    record_type = next(iter(kpis[0].needs))
    time = _TIME[record_type]
    params: dict[str, Parameter] = {"since": since, "until": until}
    where = [f"f.{time} >= {{since:DateTime64(3, 'UTC')}}", f"f.{time} < {{until:DateTime64(3, 'UTC')}}"]
    if groups is not None:
        params["groups"] = list(groups)
        sides = [_GROUP[family]]
        if family == "cell" and record_type == "cdr":
            sides.append("f.last_cell_id")
        where.append(f"({' OR '.join(_in_groups(side, groups) for side in sides)})")
    shown = ", ".join(_SHOWN[record_type].values())
    columns = []
    for kpi in kpis:
        adds = [CONTRIBUTIONS[record_type][measure] for measure in measures_behind(kpi)]
        counts = " OR ".join(f"{sql} != 0" for sql in adds)
        if groups is not None:
            on_last = family == "cell" and any(name.startswith("ended_") for name in measures_behind(kpi))
            counts = f"({counts}) AND {_in_groups(_LAST_CELL if on_last else _GROUP[family], groups)}"
        row = f"tuple(f.{time}, f.src_offset, toString(f.{time}), {shown}, [{', '.join(adds)}])"
        columns.append(f"groupArraySortedIf({int(limit)})({row}, {counts}) AS {kpi.name}")
    sql = f"""SELECT
    {(", " + chr(10) + "    ").join(columns)}
FROM {source(FACTS[record_type], generation)} AS f
WHERE {(chr(10) + "  AND ").join(where)}"""
    return Contributing(Query(sql, params), tuple(kpis), record_type)


def _in_groups(column: str, groups: Sequence[str]) -> str:
    # the windows' group without a name is null in the facts
    unknown = f" OR {column} IS NULL" if "" in groups else ""
    return f"(ifNull({column} IN {{groups:Array(String)}}, 0){unknown})"
