"""The truth, recomputed from the written CSV by a slow reader that knows only the contract."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from telestream_simulator import Scenario, Written, write_files

SCENARIO = Scenario(
    start=date(2026, 11, 20),
    records=12_000,
    network_records=6_000,
    customers=400,
    cells=60,
    days=2,
    duplicates=0.05,
    invalid=0.02,
    late=0.03,
    seed=7,
    block=3,
    source="reader",
    files=3,
)
ENUMS = {
    "record_type": "VOICE SMS MMS DATA VIDEO USSD OTHER",
    "status": "COMPLETED NO_ANSWER BUSY CANCELLED CONGESTION FAILED DROPPED UNKNOWN",
    "direction": "MO MT FORWARDED TRANSIT GATEWAY_IN GATEWAY_OUT",
    "rat": "GSM UMTS LTE NR NB_IOT LTE_M WIFI FIXED SATELLITE",
    "domain": "CS PS IMS FIXED",
    "event_type": "SAMPLE ATTACH HANDOVER RRC_SETUP RADIO_LINK_FAILURE ALARM CELL_DOWN CELL_UP",
    "severity": "INFO MINOR MAJOR CRITICAL",
}
WHOLE = [
    "duration_ms",
    "bytes_up",
    "bytes_down",
    "charge_micros",
    "holding_ms",
    "pdd_ms",
    "cause_code",
    "record_seq",
    "node_seq",
    "segments",
    "rating_group",
    "sample_count",
]
DECIMAL = [
    "latency_ms",
    "throughput_dl_mbps",
    "throughput_ul_mbps",
    "packet_loss_ratio",
    "rsrp_dbm",
    "rsrq_db",
    "sinr_db",
    "prb_utilisation_ratio",
]
REQUIRED = {"cdr": ("started_at", "record_type", "status"), "network": ("occurred_at", "event_type", "cell_id")}
TIMES = ("started_at", "occurred_at", "answered_at")
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_files(SCENARIO, tmp_path_factory.mktemp("simulated"))


def instant(text: str) -> int:
    if re.fullmatch(r"\d{13}", text):
        return int(text)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(text)
    return round(moment.timestamp() * 1000)


def structural_fault(header: list[str], row: list[str], kind: str) -> str | None:
    if len(row) != len(header):
        return "not_json"
    record = dict(zip(header, row, strict=True))
    if any(not record[field] for field in REQUIRED[kind]):
        return "missing_field"
    if len(record["event_id"]) > 128:
        return "too_long"
    for field, value in record.items():
        if not value:
            continue
        if field in WHOLE and not re.fullmatch(r"-?\d+", value):
            return "wrong_type"
        if field in DECIMAL and not re.fullmatch(r"-?\d+(\.\d+)?", value):
            return "wrong_type"
        if field in ("is_partial", "success") and value not in ("true", "false"):
            return "wrong_type"
        if field in ENUMS and value not in ENUMS[field].split():
            return "not_in_enum"
        if field in TIMES:
            try:
                instant(value)
            except ValueError:
                return "bad_time"
        if field == "msisdn" and not re.fullmatch(r"\+(49|33)\d{6,13}", value):
            return "bad_msisdn"
        if field == "imsi" and not re.fullmatch(r"\d{14,15}", value):
            return "bad_msisdn"
        if field.endswith("cell_id") and not re.fullmatch(r"\d{3}-\d{2,3}(-\d+){1,2}", value):
            return "bad_cell_id"
    return None


def business_fault(record: dict[str, Any], at: int) -> str | None:
    amounts = [
        record.get(name)
        for name in ("duration_ms", "bytes_up", "bytes_down", "charge_micros", "holding_ms", "latency_ms")
    ]
    if any(amount is not None and amount < 0 for amount in amounts):
        return "negative_value"
    if at > datetime.now(UTC).timestamp() * 1000 + 600_000:
        return "from_the_future"
    if at < datetime.now(UTC).timestamp() * 1000 - 400 * DAY_MS:
        return "too_old"
    ratios = [record.get(name) for name in ("packet_loss_ratio", "prb_utilisation_ratio")]
    if any(ratio is not None and not 0 <= ratio <= 1 for ratio in ratios):
        return "ratio_out_of_range"
    answered, held = record.get("answered_at"), record.get("holding_ms")
    if (answered is not None and answered < at) or (held is not None and held < (record["duration_ms"] or 0)):
        return "inconsistent_times"
    return None


def warning(record: dict[str, Any]) -> str | None:
    if "event_type" in record:
        return "implausible_value" if (record["rsrp_dbm"] or 0) > 0 else None
    if (record["duration_ms"] or 0) > DAY_MS:
        return "duration_too_long"
    carried = (record["bytes_up"] or 0) + (record["bytes_down"] or 0)
    if record["record_type"] == "VOICE" and carried:
        return "voice_with_bytes"
    return "data_without_bytes" if record["record_type"] == "DATA" and not carried else None


def typed(header: list[str], row: list[str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field, value in zip(header, row, strict=True):
        if not value:
            record[field] = None
        elif field in TIMES:
            record[field] = instant(value)
        elif field in WHOLE:
            record[field] = int(value)
        elif field in DECIMAL:
            record[field] = Decimal(value)
        else:
            record[field] = value
    return record


IDENTIFYING = [
    "msisdn",
    "imsi",
    "line",
    "peer",
    "started_at",
    "occurred_at",
    "event_type",
    "duration_ms",
    "record_type",
    "session_id",
    "record_seq",
    "node_id",
    "node_seq",
    "cell_id",
    "bytes_up",
    "bytes_down",
]


def judged(paths: list[Path], kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Counts of ``truth.json`` and the stored records."""
    refused: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    warned: Counter[str] = Counter()
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    rows = duplicates = conflicts = 0
    for path in paths:
        with path.open(newline="") as lines:
            reader = csv.reader(lines)
            header = next(reader)
            for row in reader:
                rows += 1
                fault = structural_fault(header, row, kind)
                if fault:
                    refused[fault] += 1
                    continue
                record = typed(header, row)
                at = record["started_at" if kind == "cdr" else "occurred_at"]
                fault = business_fault(record, at)
                if fault:
                    rejected[fault] += 1
                    continue
                subscriber = record.get("msisdn") or record.get("imsi") or record.get("line")
                if kind == "network":
                    subscriber = record["cell_id"]
                name = record["event_id"] or tuple(record.get(field) for field in IDENTIFYING)
                identity = (name, at, subscriber)
                if identity in seen:
                    duplicates += 1
                    conflicts += seen[identity] != record
                    continue
                seen[identity] = record
                warned[warning(record) or ""] += 1
    del warned[""]
    counts = {
        "rows": rows,
        "accepted": rows - refused.total(),
        "stored": len(seen),
        "duplicates": duplicates,
        "conflicts": conflicts,
        "refused": dict(refused),
        "rejected": dict(rejected),
        "warned": dict(warned),
    }
    return counts, list(seen.values())


def reference(path: Path, key: str) -> dict[str, list[dict[str, str]]]:
    """Versions of each key, oldest first."""
    versions: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row[key]:
                versions[row[key]].append(row)
    return {name: sorted(rows, key=lambda row: instant(row["valid_from"])) for name, rows in versions.items()}


def as_of(versions: list[dict[str, str]], at: int) -> dict[str, str] | None:
    valid = [version for version in versions if instant(version["valid_from"]) <= at]
    return valid[-1] if valid else None


def day(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")


def hour(at: int) -> str:
    return datetime.fromtimestamp(at // 3_600_000 * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cdr_measures(record: dict[str, Any]) -> Iterator[tuple[str, int]]:
    kind = record["record_type"]
    call = kind in ("VOICE", "VIDEO")
    yield "records", 1
    names = {"SMS": "sms", "MMS": "mms", "DATA": "data_records", "USSD": "ussd", "OTHER": "others"}
    for name, field in names.items():
        yield field, kind == name
    yield "voice_calls", kind == "VOICE"
    yield "attempts", call
    for status in ENUMS["status"].split():
        yield status.lower(), call and record["status"] == status
    duration = record["duration_ms"] or 0
    yield "all_duration_ms", duration
    yield "duration_ms", duration if call else 0
    held = duration if record["holding_ms"] is None else record["holding_ms"]
    yield "holding_ms", held if call else 0
    yield "bytes_up", record["bytes_up"] or 0
    yield "bytes_down", record["bytes_down"] or 0
    if record["currency"]:
        yield "charge_" + record["currency"], record["charge_micros"]


def network_measures(record: dict[str, Any]) -> Iterator[tuple[str, int]]:
    names = [
        "samples",
        "attaches",
        "handovers",
        "rrc_setups",
        "radio_link_failures",
        "alarms",
        "cell_downs",
        "cell_ups",
    ]
    yield "events", 1
    for name, kind in zip(names, ENUMS["event_type"].split(), strict=True):
        yield name, record["event_type"] == kind
    yield "success_known", record["success"] is not None
    yield "successes", record["success"] == "true"
    scales = {
        "latency_us": ("latency_ms", 1000),
        "throughput_dl_kbps": ("throughput_dl_mbps", 1000),
        "throughput_ul_kbps": ("throughput_ul_mbps", 1000),
        "packet_loss_ppm": ("packet_loss_ratio", 1_000_000),
    }
    for name, (field, scale) in scales.items():
        if record[field] is not None:
            yield name, int(record[field] * scale)
            yield f"{name}_count", 1


def summed(groups: dict[tuple[Any, ...], Counter[str]], group: tuple[Any, ...], measures: Any) -> None:
    for name, value in measures:
        groups[group][name] += int(value)


def flat(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], dict[str, int]]:
    """Rows of the truth by group; zeros left out, so that a Counter compares."""
    result = {}
    for row in rows:
        values = {
            name: value for name, value in row.items() if name not in (*keys, "charge_micros", "identity_changed")
        }
        values |= {f"charge_{currency}": value for currency, value in row.get("charge_micros", {}).items()}
        result[tuple(row[key] for key in keys)] = {name: value for name, value in values.items() if value}
    return result


def as_flat(groups: dict[tuple[Any, ...], Counter[str]], like: dict[tuple[Any, ...], dict[str, int]], rows: Any) -> Any:
    """The same, with the measures that the truth's rows have."""
    names = {name for row in rows for name in row} | {"charge_EUR", "charge_USD"}
    return {
        group: {name: value for name, value in sums.items() if value and name in names}
        for group, sums in groups.items()
    }


def test_counts_of_cdrs_are_those_of_a_reader_that_knows_only_the_contract(written: Written) -> None:
    counts, _ = judged(written.cdr, "cdr")
    assert counts == {name: written.truth["cdr"][name] for name in counts}


def test_counts_of_network_events_are_those_of_a_reader_that_knows_only_the_contract(written: Written) -> None:
    counts, _ = judged(written.network, "network")
    assert counts == {name: written.truth["network"][name] for name in counts}


def test_sums_per_customer_cell_region_and_plan_are_those_of_the_reader(written: Written) -> None:
    _, stored = judged(written.cdr, "cdr")
    customers = reference(written.reference["customer"], "msisdn") | reference(written.reference["customer"], "imsi")
    cells = reference(written.reference["cell"], "cell_id")
    groups: dict[str, dict[tuple[Any, ...], Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    roaming: Counter[str] = Counter()
    for record in stored:
        at = record["started_at"]
        customer = as_of(customers.get(record["msisdn"] or record["imsi"] or "", []), at)
        cell = as_of(cells.get(record["cell_id"] or "", []), at)
        if customer:
            summed(groups["customer_day"], (customer["customer_id"], day(at)), cdr_measures(record))
        if record["cell_id"]:
            summed(groups["cell_hour"], (record["cell_id"], hour(at)), cdr_measures(record))
        summed(groups["region_day"], (cell["region_id"] if cell else None, day(at)), cdr_measures(record))
        summed(groups["plan_day"], (customer["plan_id"] if customer else None, day(at)), cdr_measures(record))
        imsi, own = record["imsi"] or "", "262-42"
        home = f"{imsi[:3]}-{imsi[3:6] if imsi.startswith('310') else imsi[3:5]}" if imsi else None
        serving = record["serving_plmn"] or (record["cell_id"] and "-".join(record["cell_id"].split("-")[:2]))
        if not home or not serving:
            roaming["UNKNOWN"] += 1
        elif home == serving:
            roaming["HOME"] += 1
        elif home[:3] == serving[:3]:
            roaming["NATIONAL"] += 1
        else:
            roaming["OUTBOUND" if home == own else "INBOUND"] += 1
    truth = written.truth
    assert roaming == {how: count for how, count in truth["cdr"]["roaming"].items() if count}
    keys = {
        "customer_day": ("customer_id", "date"),
        "cell_hour": ("cell_id", "hour"),
        "region_day": ("region_id", "date"),
        "plan_day": ("plan_id", "date"),
    }
    for name, group in keys.items():
        expected = flat(truth[name], *group)
        assert as_flat(groups[name], expected, truth[name]) == expected, name


def test_sums_of_network_events_per_cell_and_region_are_those_of_the_reader(written: Written) -> None:
    _, stored = judged(written.network, "network")
    cells = reference(written.reference["cell"], "cell_id")
    by_cell: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    by_region: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for record in stored:
        at = record["occurred_at"]
        region = as_of(cells[record["cell_id"]], at)
        summed(by_cell, (record["cell_id"], hour(at)), network_measures(record))
        summed(by_region, (region["region_id"] if region else None, day(at)), network_measures(record))
    rows = written.truth["network_cell_hour"]
    assert as_flat(by_cell, {}, rows) == flat(rows, "cell_id", "hour")
    rows = written.truth["network_region_day"]
    assert as_flat(by_region, {}, rows) == flat(rows, "region_id", "date")


def test_a_customers_day_is_marked_where_the_number_changed_hands(written: Written) -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    first_day: dict[str, int] = {}
    with written.reference["customer"].open(newline="") as lines:
        for row in csv.DictReader(lines):
            owners[row["imsi"]].add(row["customer_id"])
            first_day.setdefault(row["imsi"], instant(row["valid_from"]))
    changing = {
        owner for imsi, ids in owners.items() if len(ids) > 1 or first_day[imsi] >= SCENARIO.start_ms for owner in ids
    }
    marked = {row["customer_id"] for row in written.truth["customer_day"] if row["identity_changed"]}
    assert marked
    assert marked <= changing
    first_days = {tuple(day) for day in written.truth["first_days"]}
    assert first_days
    assert first_days <= {tuple(day) for day in written.truth["identity_changes"]}
    assert len(first_days) <= sum(first >= SCENARIO.start_ms for first in first_day.values())


def test_truth_adds_up_for_every_file_and_in_all(written: Written) -> None:
    truth = written.truth
    for part in (*truth["files"], truth["cdr"], truth["network"]):
        assert part["rows"] == part["accepted"] + sum(part["refused"].values())
        assert part["accepted"] == part["stored"] + part["duplicates"] + sum(part["rejected"].values())
    for kind in ("cdr", "network"):
        files = [part for part in truth["files"] if part["type"] == kind]
        for name in ("rows", "accepted", "stored", "duplicates", "conflicts"):
            assert sum(part[name] for part in files) == truth[kind][name]
    assert truth["cdr"]["rows"] == SCENARIO.records
    assert truth["network"]["rows"] == SCENARIO.network_records


def test_a_duplicate_may_come_in_another_file_than_its_first(written: Written) -> None:
    ids_by_file = []
    for path in written.cdr:
        with path.open(newline="") as lines:
            ids_by_file.append({row["event_id"] for row in csv.DictReader(lines) if row["event_id"]})
    assert ids_by_file[0] & ids_by_file[1]
