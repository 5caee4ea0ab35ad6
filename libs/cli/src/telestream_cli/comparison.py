"""What the warehouse holds of a simulated run, figure by figure beside the run's truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx

from telestream_cli.access import Access, patiently, refused, unreachable
from telestream_domain import TelestreamError
from telestream_simulator.truth import Truth, merged_rows

CALL_MEASURES = (
    "records",
    "sms",
    "mms",
    "data_records",
    "ussd",
    "others",
    "attempts",
    "completed",
    "no_answer",
    "busy",
    "cancelled",
    "congestion",
    "failed",
    "dropped",
    "unknown",
    "duration_ms",
    "holding_ms",
    "bytes_up",
    "bytes_down",
)
NETWORK_MEASURES = (
    "events",
    "samples",
    "attaches",
    "handovers",
    "rrc_setups",
    "radio_link_failures",
    "alarms",
    "cell_downs",
    "cell_ups",
    "success_known",
    "successes",
    "latency_us",
    "latency_us_count",
    "throughput_dl_kbps",
    "throughput_dl_kbps_count",
    "throughput_ul_kbps",
    "throughput_ul_kbps_count",
    "packet_loss_ppm",
    "packet_loss_ppm_count",
)
CURRENCIES = ("EUR", "USD")
_CHARGES = tuple(f"charge_{currency}" for currency in CURRENCIES)

# The measures of a CDR from its fact: what the aggregates add up must be what the facts say.
_CALL = "record_type IN ('VOICE', 'VIDEO')"
_FACT_CALLS = {
    "records": "count()",
    "sms": "countIf(record_type = 'SMS')",
    "mms": "countIf(record_type = 'MMS')",
    "data_records": "countIf(record_type = 'DATA')",
    "ussd": "countIf(record_type = 'USSD')",
    "others": "countIf(record_type = 'OTHER')",
    "attempts": f"countIf({_CALL})",
    **{
        status.lower(): f"countIf({_CALL} AND status = '{status}')"
        for status in ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
    },
    "duration_ms": f"sumIf(ifNull(duration_ms, 0), {_CALL})",
    "holding_ms": f"sumIf(coalesce(holding_ms, duration_ms, 0), {_CALL})",
    "bytes_up": "sum(ifNull(bytes_up, 0))",
    "bytes_down": "sum(ifNull(bytes_down, 0))",
}
_FACT_CHARGES = {
    f"charge_{currency}": f"sumIf(ifNull(charge_micros, 0), ifNull(currency, '') = '{currency}')"
    for currency in CURRENCIES
}
_SCALED = {
    "latency_us": ("latency_ms", 1000),
    "throughput_dl_kbps": ("throughput_dl_mbps", 1000),
    "throughput_ul_kbps": ("throughput_ul_mbps", 1000),
    "packet_loss_ppm": ("packet_loss_ratio", 1_000_000),
}
_FACT_EVENTS = {
    "events": "count()",
    **{
        name: f"countIf(event_type = '{kind}')"
        for name, kind in zip(
            NETWORK_MEASURES[1:9],
            ("SAMPLE", "ATTACH", "HANDOVER", "RRC_SETUP", "RADIO_LINK_FAILURE", "ALARM", "CELL_DOWN", "CELL_UP"),
            strict=True,
        )
    },
    "success_known": "count(success)",
    "successes": "countIf(ifNull(success, false))",
    **{name: f"sum(toInt64(round(ifNull({column}, 0) * {scale})))" for name, (column, scale) in _SCALED.items()},
    **{f"{name}_count": f"count({column})" for name, (column, _) in _SCALED.items()},
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is not what the truth says. ``where`` names the group, ``found`` None: the group is missing."""

    check: str
    where: str
    figure: str
    expected: int | None
    found: int | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.check}: {self.where} is missing"
        if self.expected is None:
            return f"{self.check}: {self.where} should not be there ({self.figure} {self.found:,})"
        return f"{self.check}: {self.where}: {self.figure} is {self.found:,}, not {self.expected:,}"


@dataclass(slots=True)
class Report:
    """``figures`` compared by check, and what differed."""

    figures: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take over what another one has found."""
        self.figures.update(other.figures)
        self.differences += other.differences

    def compare(self, check: str, where: str, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
        """Compare figures by name; one that is not named counts 0."""
        for name in expected.keys() | found.keys():
            self.figures[check] += 1
            if expected.get(name, 0) != found.get(name, 0):
                self.differences.append(
                    Difference(check, where, name, int(expected.get(name, 0)), int(found.get(name, 0)))
                )

    def compare_groups(
        self,
        check: str,
        names: Sequence[str],
        expected: Mapping[tuple[Any, ...], Mapping[str, int]],
        found: Mapping[tuple[Any, ...], Mapping[str, int]],
    ) -> None:
        """Compare the named figures of every group; a group of zeros is as good as none."""
        for group in expected.keys() | found.keys():
            wanted, got = expected.get(group), found.get(group)
            self.figures[check] += len(names)
            where = " ".join(str(part) for part in group)
            if got is None and wanted is not None and any(wanted.get(name, 0) for name in names):
                self.differences.append(Difference(check, where, names[0], wanted.get(names[0], 0), None))
            elif wanted is None and got is not None and any(got.get(name, 0) for name in names):
                self.differences.append(Difference(check, where, names[0], None, got.get(names[0], 0)))
            elif wanted is not None and got is not None:
                self.differences += [
                    Difference(check, where, name, wanted.get(name, 0), got.get(name, 0))
                    for name in names
                    if wanted.get(name, 0) != got.get(name, 0)
                ]


class Warehouse:
    """Reads the published views over ClickHouse's HTTP interface."""

    def __init__(self, url: str, database: str = "telestream") -> None:
        self._url = url
        self._client = httpx.Client(timeout=120)
        self._params = {
            "database": database,
            "default_format": "JSONCompact",
            "output_format_json_quote_64bit_integers": "0",
        }

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def rows(self, sql: str, **params: str) -> list[list[Any]]:
        """Rows of a SELECT; ``params`` fill ``{name:Type}``. Raises TelestreamError with ClickHouse's words."""
        bound = {f"param_{name}": value for name, value in params.items()}
        answer = patiently(lambda: self._post(sql, bound), PATIENCE_S)
        if answer.status_code != 200:
            raise TelestreamError(f"ClickHouse refused a query of the comparison: {answer.text[:500]}")
        rows: list[list[Any]] = answer.json()["data"]
        return rows

    def _post(self, sql: str, bound: Mapping[str, str]) -> httpx.Response:
        try:
            return self._client.post(self._url, params=self._params | dict(bound), content=sql.encode())
        except httpx.TransportError as err:
            raise unreachable("ClickHouse", self._url, err) from err

    def groups(self, keys: int, names: Sequence[str], sql: str, **params: str) -> dict[tuple[Any, ...], dict[str, int]]:
        """Rows whose first ``keys`` columns are the group and whose others are the named figures."""
        return {
            tuple(row[:keys]): dict(zip(names, map(int, row[keys:]), strict=True)) for row in self.rows(sql, **params)
        }


def array(values: Iterable[str]) -> str:
    """A ClickHouse Array(String) parameter."""
    return "[" + ",".join("'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for value in values) + "]"


_FIGURES = (*CALL_MEASURES, *_CHARGES)
_FACT_FIGURES = ", ".join((_FACT_CALLS | _FACT_CHARGES)[name] for name in _FIGURES)
_EVENT_FIGURES = ", ".join(_FACT_EVENTS[name] for name in NETWORK_MEASURES)
_AGGREGATE_FIGURES = ", ".join(
    [f"sum({name})" for name in CALL_MEASURES] + [f"sum(charge_micros['{currency}'])" for currency in CURRENCIES]
)
_AGGREGATE_EVENTS = ", ".join(f"sum({name})" for name in NETWORK_MEASURES)
_USAGE_FIGURES = ", ".join(
    [f"sum({name})" for name in CALL_MEASURES]
    + [f"sumIf(charge_micros, currency = '{currency}')" for currency in CURRENCIES]
)
Groups = dict[tuple[Any, ...], dict[str, int]]


def _hour(column: str) -> str:
    return f"formatDateTime(toStartOfHour({column}), '%Y-%m-%dT%H:00:00Z', 'UTC')"


def _expected(truths: Sequence[Truth], name: str, *keys: str) -> Groups:
    return {tuple(row[key] for key in keys): _flat(row) for row in merged_rows(truths, name, *keys)}


def compare_facts(warehouse: Warehouse, report: Report, sources: Sequence[str], truths: Sequence[Truth]) -> None:
    """Compare what the facts of these sources add up to."""
    named = {"sources": array(sources)}
    here = "source IN {sources:Array(String)}"
    by_day = (
        ("customer and day", "customer_day", "customer_id"),
        ("region and day", "region_day", "region_id"),
        ("plan and day", "plan_day", "plan_id"),
    )
    for words, name, key in by_day:
        known = f"AND {key} IS NOT NULL" if key == "customer_id" else ""
        report.compare_groups(
            f"fact_cdr, sums per {words}",
            _FIGURES,
            _expected(truths, name, key, "date"),
            warehouse.groups(
                2,
                _FIGURES,
                f"SELECT {key}, toString(local_date), {_FACT_FIGURES} FROM fact_cdr WHERE {here} {known} GROUP BY ALL",
                **named,
            ),
        )
    report.compare_groups(
        "fact_cdr, KPIs per cell and hour",
        _FIGURES,
        _expected(truths, "cell_hour", "cell_id", "hour"),
        warehouse.groups(
            2,
            _FIGURES,
            f"SELECT cell_id, {_hour('started_at')}, {_FACT_FIGURES} FROM fact_cdr "
            f"WHERE {here} AND cell_id IS NOT NULL GROUP BY ALL",
            **named,
        ),
    )
    report.compare_groups(
        "fact_network_event, KPIs per cell and hour",
        NETWORK_MEASURES,
        _expected(truths, "network_cell_hour", "cell_id", "hour"),
        warehouse.groups(
            2,
            NETWORK_MEASURES,
            f"SELECT cell_id, {_hour('occurred_at')}, {_EVENT_FIGURES} FROM fact_network_event "
            f"WHERE {here} GROUP BY ALL",
            **named,
        ),
    )


def compare_aggregates(warehouse: Warehouse, report: Report, truths: Sequence[Truth], block: int) -> None:
    """Compare the aggregates, which know no source, by the block's own customers, cells, regions and plans."""
    cell_hour = _expected(truths, "cell_hour", "cell_id", "hour")
    network_cell_hour = _expected(truths, "network_cell_hour", "cell_id", "hour")
    cells = {"cells": array(sorted({cell for cell, _ in (*cell_hour, *network_cell_hour)}))}
    for words, names, figures, expected in (
        ("calls", _FIGURES, _AGGREGATE_FIGURES, cell_hour),
        ("network events", NETWORK_MEASURES, _AGGREGATE_EVENTS, network_cell_hour),
    ):
        report.compare_groups(
            f"fact_cell_kpi, {words} per cell and hour",
            names,
            expected,
            warehouse.groups(
                2,
                names,
                f"SELECT cell_id, {_hour('window_start')}, {figures} FROM fact_cell_kpi "
                "WHERE cell_id IN {cells:Array(String)} GROUP BY ALL",
                **cells,
            ),
        )
    by_day = (
        ("agg_region", "region_id", "region_day", "calls", _FIGURES, _AGGREGATE_FIGURES),
        ("agg_region", "region_id", "network_region_day", "network events", NETWORK_MEASURES, _AGGREGATE_EVENTS),
        ("agg_plan", "plan_id", "plan_day", "calls", _FIGURES, _AGGREGATE_FIGURES),
    )
    for view, key, name, words, names, figures in by_day:
        report.compare_groups(
            f"{view}, {words} per day",
            names,
            # nobody's region or plan is shared by all runs
            {group: sums for group, sums in _expected(truths, name, key, "date").items() if group[0] is not None},
            warehouse.groups(
                2,
                names,
                f"SELECT {key}, toString(toDate(window_start, 'UTC')), {figures} FROM {view} "
                f"WHERE size_s = 900 AND startsWith({key}, {{prefix:String}}) GROUP BY ALL",
                prefix=f"{key[0].upper()}{block}-",
            ),
        )
    first_days = _first_days(truths)
    found = warehouse.groups(
        2,
        _FIGURES,
        f"SELECT customer_id, toString(local_date), {_USAGE_FIGURES} FROM fact_customer_usage_daily "
        "WHERE startsWith(customer_id, {prefix:String}) GROUP BY ALL",
        prefix=f"C{block}-",
    )
    report.compare_groups(
        "fact_customer_usage_daily, per customer and day",
        _FIGURES,
        _without(_expected(truths, "customer_day", "customer_id", "date"), first_days),
        _without(found, first_days),
    )


def compare_counts(warehouse: Warehouse, report: Report, source: str, record_type: str, truth: Truth) -> None:
    """Compare verdicts and codes of one source and type, as the published views hold them."""
    named = {"source": source, "type": record_type}
    fact = "fact_cdr" if record_type == "cdr" else "fact_network_event"
    check = f"verdicts of {record_type}"
    found = {
        "stored": int(warehouse.rows(f"SELECT count() FROM {fact} WHERE source = {{source:String}}", **named)[0][0])
    }
    of_type = "WHERE type = {type:String} AND source = {source:String}"
    duplicates, conflicts = warehouse.rows(
        f"SELECT count(), countIf(rule = 'conflict') FROM duplicate {of_type}", **named
    )[0]
    found |= {"duplicates": int(duplicates), "conflicts": int(conflicts)}
    report.compare(check, source, {name: truth[name] for name in ("stored", "duplicates", "conflicts")}, found)
    for what, sql, wanted in (
        ("rejected", f"SELECT rule, count() FROM dead_letter {of_type} GROUP BY rule", truth["rejected"]),
        (
            "warned",
            f"SELECT arrayJoin(warnings) AS code, count() FROM {fact} WHERE source = {{source:String}} GROUP BY code",
            truth["warned"],
        ),
    ):
        got = {str(code): int(count) for code, count in warehouse.rows(sql, **named)}
        report.compare(f"{what} {record_type} by rule", source, wanted, got)
    if record_type != "cdr":
        return
    for column, name in (
        ("roaming", "roaming"),
        ("record_type", "record_types"),
        ("status", "statuses"),
        ("subscriber_kind", "subscriber_kinds"),
        ("peer_kind", "peer_kinds"),
    ):
        if name in truth:
            got = {
                str(code): int(count)
                for code, count in warehouse.rows(
                    f"SELECT {column}, count() FROM fact_cdr WHERE source = {{source:String}} "
                    f"AND {column} IS NOT NULL GROUP BY {column}",
                    **named,
                )
            }
            report.compare(f"fact_cdr by {column}", source, truth[name], got)


def compare_days(warehouse: Warehouse, report: Report, source: str, days: Sequence[Mapping[str, Any]]) -> None:
    """Compare records, duration and holding time per day of a source."""
    names = ("records", "duration_ms", "holding_ms")
    found = warehouse.groups(
        1,
        names,
        "SELECT toString(local_date), count(), sum(ifNull(duration_ms, 0)), sum(coalesce(holding_ms, duration_ms, 0)) "
        "FROM fact_cdr WHERE source = {source:String} GROUP BY ALL",
        source=source,
    )
    report.compare_groups(
        f"fact_cdr of {source}, sums per day",
        names,
        {(day["date"],): {n: day[n] for n in names} for day in days},
        found,
    )


PATIENCE_S = 60.0
"""How long the comparison waits for who does not answer: a service may be starting again."""
API_CUSTOMERS = 20
API_CELLS = 40
_API_EVENTS = tuple(name for name in NETWORK_MEASURES if not name.endswith("_count"))[:11]


def compare_api(client: httpx.Client, access: Access, report: Report, truths: Sequence[Truth], day: date) -> None:
    """Ask the query API as a dashboard would: the heaviest customers and those of numbers that changed hands, every
    region by day, some cells by hour of ``day``."""

    def ask(path: str, params: Mapping[str, str | list[str]]) -> dict[str, Any]:
        return patiently(lambda: _ask(client, access, path, params), PATIENCE_S)

    customer_day = merged_rows(truths, "customer_day", "customer_id", "date")
    first_days = _first_days(truths)
    records: Counter[str] = Counter()
    passed_on: Counter[str] = Counter()
    for row in customer_day:
        records[row["customer_id"]] += row["records"]
        if row["identity_changed"] and (row["customer_id"], row["date"]) not in first_days:
            passed_on[row["customer_id"]] += row["records"]
    heaviest = (*records.most_common(API_CUSTOMERS), *passed_on.most_common(API_CUSTOMERS // 2))
    chosen = dict.fromkeys(customer for customer, _ in heaviest)
    dates = sorted({row["date"] for row in customer_day})
    if not dates:
        return
    span = {"from": dates[0], "to": (date.fromisoformat(dates[-1]) + timedelta(days=1)).isoformat()}
    found: Groups = {}
    for customer in chosen:
        for row in ask(f"/v1/customers/{customer}/usage", span)["rows"]:
            found[customer, row["local_date"]] = _shown(row)
    report.compare_groups(
        "API, usage of customers per day",
        _FIGURES,
        {
            group: sums
            for group, sums in _expected(truths, "customer_day", "customer_id", "date").items()
            if group[0] in chosen and group not in first_days
        },
        _without(found, first_days),
    )
    names = (*_FIGURES, *_API_EVENTS)
    regions = sorted({row["region_id"] for truth in truths for row in truth["region_day"] if row["region_id"]})
    region_days = {group: sums for group, sums in _both(truths, "region_day", "region_id", "date").items() if group[0]}
    # regions have days of their own: of unknown customers, and of network events
    days = sorted(str(group[1]) for group in region_days)
    question: dict[str, str | list[str]] = {
        "from": days[0],
        "to": (date.fromisoformat(days[-1]) + timedelta(days=1)).isoformat(),
    }
    question |= {"group_by": "region", "step": "1d", "region_id": regions}
    report.compare_groups(
        "API, network performance per region and day",
        names,
        region_days,
        {
            (row["region_id"], row["step_start"][:10]): _shown(row)
            for row in ask("/v1/network/performance", question)["rows"]
        },
    )
    cells = sorted({row["cell_id"] for row in truths[0]["cell_hour"]})[:API_CELLS]
    question = {"from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat()}
    question |= {"group_by": "cell", "step": "1h", "cell_id": cells}
    report.compare_groups(
        "API, network performance per cell and hour",
        names,
        {
            group: sums
            for group, sums in _both(truths, "cell_hour", "cell_id", "hour").items()
            if group[0] in set(cells) and group[1].startswith(day.isoformat())
        },
        {
            (row["cell_id"], row["step_start"][:13] + ":00:00Z"): _shown(row)
            for row in ask("/v1/network/performance", question)["rows"]
        },
    )


def _first_days(truths: Sequence[Truth]) -> set[tuple[Any, ...]]:
    """Customers and days on which their number was nobody's before: usage gives them the whole day, the truth the part
    since then."""
    return {tuple(day) for truth in truths for day in truth["first_days"]}


def _without(groups: Groups, left_out: set[tuple[Any, ...]]) -> Groups:
    return {group: sums for group, sums in groups.items() if group not in left_out}


def _both(truths: Sequence[Truth], name: str, *keys: str) -> Groups:
    """Calls and network events of each group in one."""
    both = _expected(truths, name, *keys)
    for group, sums in _expected(truths, f"network_{name}", *keys).items():
        both[group] = both.get(group, {}) | sums
    return both


def _shown(row: Mapping[str, Any]) -> dict[str, int]:
    """A row of an answer as figures; amounts of money are exact decimals as text."""
    figures = {name: value for name, value in row.items() if isinstance(value, int)}
    return figures | {
        f"charge_{charge['currency']}": int(Decimal(charge["amount"]) * 1_000_000) for charge in row["charges"]
    }


def _ask(client: httpx.Client, access: Access, path: str, params: Mapping[str, str | list[str]]) -> dict[str, Any]:
    try:
        answer = client.get(access.query_api + path, params=params)
    except httpx.TransportError as err:
        raise unreachable("query API", access.query_api, err) from err
    if answer.status_code != 200:
        raise refused("query API", answer)
    data: dict[str, Any] = answer.json()["data"]
    return data


def misjudged_rows(
    warehouse: Warehouse, source: str, record_type: str, file_id: int, first_line: int, fates: Sequence[str]
) -> list[str]:
    """Rows of a file that became something else than they should, a sentence each, by line.

    ``fates`` are those of the file's rows in order; the first stands in line ``first_line``.
    """
    named = {"source": source, "type": record_type, "batch": str(file_id)}
    fact = "fact_cdr" if record_type == "cdr" else "fact_network_event"
    this = "source = {source:String} AND batch_id = {batch:Int64}"
    found: dict[int, list[str]] = {}
    for line, became in warehouse.rows(
        f"SELECT line, 'STORED' FROM {fact} WHERE {this} "
        "UNION ALL SELECT line, if(rule = 'conflict', 'DUPLICATE conflict', 'DUPLICATE') "
        f"FROM duplicate WHERE type = {{type:String}} AND {this} "
        f"UNION ALL SELECT line, concat('REJECTED ', rule) FROM dead_letter WHERE type = {{type:String}} AND {this}",
        **named,
    ):
        found.setdefault(int(line), []).append(str(became))
    wrong = []
    for line, fate in enumerate(fates, first_line):
        became = found.pop(line, [])
        wanted = [] if fate.startswith("REFUSED") else [fate]
        if became != wanted:
            wrong.append(f"line {line}: should be {fate}, is {' and '.join(became) or 'nowhere in the warehouse'}")
    wrong += [f"line {line}: the file has no such row, it is {' and '.join(became)}" for line, became in found.items()]
    return wrong


def _flat(row: Mapping[str, Any]) -> dict[str, int]:
    figures = {name: value for name, value in row.items() if isinstance(value, int) and not isinstance(value, bool)}
    return figures | {f"charge_{currency}": micros for currency, micros in row.get("charge_micros", {}).items()}
