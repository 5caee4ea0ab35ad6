"""What a correct pipeline must report of a stream, computed from how it was made.

Rows and verdicts, per type (``cdr``, ``network``) and per file:

- ``rows`` = ``accepted`` + all of ``refused``; ``accepted`` = ``stored`` + ``duplicates`` + all of ``rejected``.
- ``refused`` and ``rejected`` count by code. ``duplicates`` includes ``conflicts``: same source and event id (or,
  without an id, the same identifying fields), event time and subscriber as a record stored before, but other content.
- ``warned`` counts stored records by warning.

Every sum counts stored records only, and missing values count as nothing (not as zero, where there is a count):

- ``customer_day``: per customer and day (UTC) of the start, the customer being the one at the start: ``voice_calls``
  (record type VOICE), ``all_duration_ms`` (of every record type) and the measures of ``cell_hour``.
  ``identity_changed``: on that day the number belonged to nobody, or to another, for a while, so that sums kept by
  number, not by customer, differ; ``identity_changes`` lists all such customers and days, also without records, and
  ``first_days`` those of them on which the number belonged to nobody before.
  Records of unknown customers are counted in ``unknown_customer`` only.
- ``cell_hour``: per cell (``cell_id``, the first one) and hour (UTC) of the start: ``records``; ``sms``, ``mms``,
  ``data_records``, ``ussd``, ``others`` by record type; ``attempts`` = VOICE and VIDEO, and of these the statuses
  ``completed`` … ``unknown``, ``duration_ms`` and ``holding_ms`` (``holding_ms``, else ``duration_ms``);
  ``bytes_up``, ``bytes_down`` and ``charge_micros`` per currency, of every record type.
- ``network_cell_hour``: ``events``, one count by event type, ``success_known`` and ``successes``, and for
  ``latency_us``, ``throughput_dl_kbps``, ``throughput_ul_kbps``, ``packet_loss_ppm`` the sum of the values, each
  rounded to a whole number, beside ``…_count``.
- ``region_day``, ``network_region_day``: the same per region and day, the region being that of the cell at the start.
  ``plan_day``: the same per plan and day. Null group: the region or plan is unknown.
- ``roaming``: records by HOME (served by the own network), OUTBOUND, INBOUND, NATIONAL (same country), UNKNOWN (the
  IMSI or the serving network is not known).

Charges are in millionths, whole numbers as JSON numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from telestream_simulator import cdrs, faults
from telestream_simulator.columns import NULL, Bools, Ints, is_set, iso, iso_date, zero_if_null
from telestream_simulator.population import HOME_PLMN, Population
from telestream_simulator.scenario import MS_PER_DAY

Truth: TypeAlias = dict[str, Any]
"""JSON."""
Rows: TypeAlias = list[dict[str, Any]]

_HOUR_MS = 3_600_000
_CALL_STATUSES = tuple(status.lower() for status in cdrs.STATUSES)
_CALL_COUNTS = ("records", "sms", "mms", "data_records", "ussd", "others", "attempts")
_EVENT_COUNTS = (
    "samples",
    "attaches",
    "handovers",
    "rrc_setups",
    "radio_link_failures",
    "alarms",
    "cell_downs",
    "cell_ups",
)
_MEASURES = ("latency_us", "throughput_dl_kbps", "throughput_ul_kbps", "packet_loss_ppm")


def counts(table: cdrs.Columns) -> Truth:
    """Rows and verdicts of a stream or a part of one."""
    fate, warning = table["fate"], table["warning"]

    def tally(codes: Sequence[str], first: int, column: Ints) -> dict[str, int]:
        found = {code: int((column == first + index).sum()) for index, code in enumerate(codes)}
        return {code: n for code, n in found.items() if n}

    refused = tally(faults.REFUSED_CODES, faults.FIRST_REFUSED, fate)
    rejected = tally(faults.REJECTED_CODES, faults.FIRST_REJECTED, fate)
    stored = fate == faults.STORED
    conflicts = int((fate == faults.CONFLICT).sum())
    return {
        "rows": len(fate),
        "accepted": len(fate) - sum(refused.values()),
        "stored": int(stored.sum()),
        "duplicates": int((fate == faults.DUPLICATE).sum()) + conflicts,
        "conflicts": conflicts,
        "refused": refused,
        "rejected": rejected,
        "warned": tally(faults.WARNINGS, 0, np.where(stored, warning, NULL)),
    }


def cdr_truth(population: Population, table: cdrs.Columns) -> Truth:
    """``cdr`` of ``truth.json``, and the rows per customer, cell, region and plan."""
    stored = cdrs.take(table, table["fate"] == faults.STORED)
    customer, plan = population.customer_as_of(stored["party"], stored["started_at"])
    region = population.region_as_of(stored["cell"], stored["started_at"])
    measures = _cdr_measures(stored)
    roaming = _roaming(population, stored)
    summary = counts(table) | {
        "sums": _totals(measures, ("duration_ms", "holding_ms", "bytes_up", "bytes_down", "all_duration_ms")),
        "roaming": {name: int((roaming == index).sum()) for index, name in enumerate(ROAMING)},
        "record_types": _by_code(cdrs.RECORD_TYPES, stored["record_type"]),
        "statuses": _by_code(cdrs.STATUSES, stored["status"]),
        "directions": _by_code(cdrs.DIRECTIONS, stored["direction"]),
        "partial": int(stored["is_partial"].sum()),
        "without_subscriber": int((stored["named_by"] == cdrs.BY_NOTHING).sum()),
        "unknown_customer": int((~is_set(customer)).sum()),
    }
    summary["sums"]["charge_micros"] = _charges(measures)
    day, hour = stored["started_at"] // MS_PER_DAY, stored["started_at"] // _HOUR_MS
    kpis: tuple[str, ...] = (*_CALL_COUNTS, *_CALL_STATUSES, "duration_ms", "holding_ms", "bytes_up", "bytes_down")
    customer_day = _grouped(
        {"customer_id": (customer, population.customer_id), "date": (day, _date)},
        measures,
        ("voice_calls", "all_duration_ms", *kpis),
        where=is_set(customer),
    )
    unsettled = _unsettled(population)
    for row in customer_day:
        row["identity_changed"] = (row["customer_id"], row["date"]) in unsettled
    cell_ids = population.cell_ids
    return {
        "cdr": summary,
        "customer_day": customer_day,
        "identity_changes": sorted(map(list, unsettled)),
        "first_days": sorted(map(list, _first_days(population))),
        "cell_hour": _grouped(
            {"cell_id": (stored["cell"], lambda index: str(cell_ids[index])), "hour": (hour, _hour)},
            measures,
            kpis,
            where=is_set(stored["cell"]),
        ),
        "region_day": _grouped({"region_id": (region, population.region_id), "date": (day, _date)}, measures, kpis),
        "plan_day": _grouped({"plan_id": (plan, population.plan_id), "date": (day, _date)}, measures, kpis),
    }


def network_truth(population: Population, table: cdrs.Columns) -> Truth:
    """``network`` of ``truth.json``, and the rows per cell and region."""
    stored = cdrs.take(table, table["fate"] == faults.STORED)
    measures = _network_measures(stored)
    region = population.region_as_of(stored["cell"], stored["occurred_at"])
    names: tuple[str, ...] = ("events", *_EVENT_COUNTS, "success_known", "successes")
    names = (*names, *(name for measure in _MEASURES for name in (measure, f"{measure}_count")))
    cell_ids = population.cell_ids
    cell = (stored["cell"], lambda index: str(cell_ids[index]))
    return {
        "network": counts(table) | {"sums": _totals(measures, names)},
        "network_cell_hour": _grouped(
            {"cell_id": cell, "hour": (stored["occurred_at"] // _HOUR_MS, _hour)}, measures, names
        ),
        "network_region_day": _grouped(
            {"region_id": (region, population.region_id), "date": (stored["occurred_at"] // MS_PER_DAY, _date)},
            measures,
            names,
        ),
    }


ROAMING = ("HOME", "OUTBOUND", "INBOUND", "NATIONAL", "UNKNOWN")


def _roaming(population: Population, stored: cdrs.Columns) -> Ints:
    shows_imsi = np.isin(stored["named_by"], (cdrs.BY_MSISDN_AND_IMSI, cdrs.BY_IMSI))
    who = np.where(shows_imsi, stored["party"], 0)
    home = np.where(shows_imsi, population.home_plmns[who], "")
    serving = np.where(
        is_set(stored["serving_plmn"]),
        np.array([*cdrs.PLMNS, ""], dtype=object)[np.where(is_set(stored["serving_plmn"]), stored["serving_plmn"], -1)],
        np.where(is_set(stored["cell"]), HOME_PLMN, ""),
    )
    pairs = {(h, s): ROAMING.index(_roaming_of(h, s)) for h in set(home.tolist()) for s in set(serving.tolist())}
    return np.array([pairs[pair] for pair in zip(home.tolist(), serving.tolist(), strict=True)], dtype=np.int64)


def _roaming_of(home: str, serving: str) -> str:
    if not home or not serving:
        return "UNKNOWN"
    if home == serving:
        return "HOME"
    if home[:3] == serving[:3]:
        return "NATIONAL"
    return "OUTBOUND" if home == HOME_PLMN else "INBOUND"


def _cdr_measures(stored: cdrs.Columns) -> dict[str, Ints]:
    kind = stored["record_type"]
    call = (kind == cdrs.VOICE) | (kind == cdrs.VIDEO)
    duration = zero_if_null(stored["duration_ms"])
    holding = np.where(is_set(stored["holding_ms"]), stored["holding_ms"], duration)
    measures: dict[str, Any] = {
        "records": np.ones(len(kind), dtype=np.int64),
        "voice_calls": kind == cdrs.VOICE,
        "sms": kind == cdrs.SMS,
        "mms": kind == cdrs.MMS,
        "data_records": kind == cdrs.DATA,
        "ussd": kind == cdrs.USSD,
        "others": kind == cdrs.OTHER,
        "attempts": call,
        "duration_ms": np.where(call, duration, 0),
        "holding_ms": np.where(call, holding, 0),
        "all_duration_ms": duration,
        "bytes_up": zero_if_null(stored["bytes_up"]),
        "bytes_down": zero_if_null(stored["bytes_down"]),
    }
    for index, status in enumerate(_CALL_STATUSES):
        measures[status] = call & (stored["status"] == index)
    for index, currency in enumerate(cdrs.CURRENCIES):
        measures[currency] = np.where(stored["currency"] == index, zero_if_null(stored["charge_micros"]), 0)
    return {name: np.asarray(values, dtype=np.int64) for name, values in measures.items()}


def _network_measures(stored: cdrs.Columns) -> dict[str, Ints]:
    kind = stored["event_type"]
    measures: dict[str, Any] = {
        "events": np.ones(len(kind), dtype=np.int64),
        "success_known": is_set(stored["success"]),
        "successes": stored["success"] == 1,
    }
    for index, name in enumerate(_EVENT_COUNTS):
        measures[name] = kind == index
    for name in _MEASURES:
        measures[name] = zero_if_null(stored[name])
        measures[f"{name}_count"] = is_set(stored[name])
    return {name: np.asarray(values, dtype=np.int64) for name, values in measures.items()}


def _unsettled(population: Population) -> set[tuple[str, str]]:
    """Customers and days on which their number was not theirs from the first moment to the last."""
    days = _first_days(population)
    first, second = population.first, population.second
    passed_on = np.nonzero(is_set(second.customer) & (second.customer != first.customer))[0]
    for party in passed_on.tolist():
        date = iso_date(int(second.valid_from[party]))
        days.add((population.customer_id(int(first.customer[party])), date))
        days.add((population.customer_id(int(second.customer[party])), date))
    return days


def _first_days(population: Population) -> set[tuple[str, str]]:
    first = population.first
    begins = np.nonzero(is_set(first.customer) & (first.valid_from >= population.scenario.start_ms))[0]
    return {
        (population.customer_id(int(first.customer[party])), iso_date(int(first.valid_from[party])))
        for party in begins.tolist()
    }


def _grouped(
    keys: Mapping[str, tuple[Ints, Any]],
    measures: Mapping[str, Ints],
    names: Iterable[str],
    where: Bools | None = None,
) -> Rows:
    """One row per combination of keys, in their order, with the sum of each measure and the charge per currency."""
    names = list(names)
    money = [currency for currency in cdrs.CURRENCIES if currency in measures]
    chosen = slice(None) if where is None else where
    columns = [column[chosen] for column, _ in keys.values()]
    if len(columns[0]) == 0:
        return []
    combinations, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    sums = {name: _sum_by(inverse, measures[name][chosen], len(combinations)) for name in (*names, *money)}
    labels = [
        [None if value == NULL else label(value) for value in combinations[:, index].tolist()]
        for index, (_, label) in enumerate(keys.values())
    ]
    rows: Rows = []
    for index, group in enumerate(zip(*labels, strict=True)):
        row: dict[str, Any] = dict(zip(keys, group, strict=True))
        for name in names:
            row[name] = sums[name][index]
        if money:
            row["charge_micros"] = {currency: sums[currency][index] for currency in money if sums[currency][index]}
        rows.append(row)
    return rows


def _sum_by(group: Ints, values: Ints, groups: int) -> list[int]:
    result = np.zeros(groups, dtype=np.int64)
    np.add.at(result, group, values)
    summed: list[int] = result.tolist()
    return summed


def _totals(measures: Mapping[str, Ints], names: Iterable[str]) -> dict[str, Any]:
    return {name: int(measures[name].sum()) for name in names}


def _charges(measures: Mapping[str, Ints]) -> dict[str, int]:
    return {currency: int(measures[currency].sum()) for currency in cdrs.CURRENCIES if measures[currency].any()}


def _by_code(words: Sequence[str], codes: Ints) -> dict[str, int]:
    return {word: int((codes == index).sum()) for index, word in enumerate(words)}


def _date(day: int) -> str:
    return iso_date(day * MS_PER_DAY)


def _hour(hour: int) -> str:
    return iso(hour * _HOUR_MS)


def merged_rows(truths: Iterable[Truth], name: str, *keys: str) -> Rows:
    """The rows ``name`` of several truths, those of the same keys added up."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for truth in truths:
        for row in truth.get(name, ()):
            group = tuple(row[key] for key in keys)
            before = merged.get(group)
            if before is None:
                merged[group] = dict(row)
                continue
            for field, value in row.items():
                if field in keys:
                    continue
                if isinstance(value, bool):
                    before[field] = before[field] or value
                elif isinstance(value, dict):
                    before[field] = {
                        part: before[field].get(part, 0) + value.get(part, 0) for part in before[field] | value
                    }
                else:
                    before[field] += value
    return list(merged.values())
