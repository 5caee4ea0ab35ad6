from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from telestream_simulator import Scenario, SimulationError, write_files
from telestream_simulator.asterisk import COLUMNS, write_asterisk
from telestream_simulator.faults import CDR_FAULTS, NETWORK_FAULTS, WARNINGS

SCENARIO = Scenario(
    start=date(2026, 11, 22), records=3_000, network_records=2_000, customers=100, cells=20, invalid=0.02
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    write_files(SCENARIO, tmp_path / "one")
    write_files(SCENARIO, tmp_path / "two")
    write_files(replace(SCENARIO, seed=2), tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")["cdr.csv"] != contents(tmp_path / "other")["cdr.csv"]


def test_one_file_of_each_sort_is_written_under_the_names_of_the_contract(tmp_path: Path) -> None:
    write_files(SCENARIO, tmp_path)
    names = {"cdr.csv", "network.csv", "customer.csv", "cell.csv", "region.csv", "plan.csv", "truth.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_every_fault_that_can_pass_its_door_is_there(tmp_path: Path) -> None:
    write_files(SCENARIO, tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    for kind, faults in (("cdr", CDR_FAULTS), ("network", NETWORK_FAULTS)):
        assert truth[kind]["refused"].keys() | truth[kind]["rejected"].keys() == set(faults)
        assert truth[kind]["duplicates"] > truth[kind]["conflicts"] > 0
    assert truth["cdr"]["warned"].keys() | truth["network"]["warned"].keys() == set(WARNINGS)


def test_blocks_share_no_customer_cell_region_or_plan(tmp_path: Path) -> None:
    keys = {
        "customer": ("customer_id", "msisdn", "imsi"),
        "cell": ("cell_id",),
        "region": ("region_id",),
        "plan": ("plan_id",),
    }
    seen: dict[str, set[str]] = {name: set() for name in keys}
    for block in (1, 2, 29_900_001, 29_900_002):
        write_files(replace(SCENARIO, block=block), tmp_path / str(block))
        for name, columns in keys.items():
            with (tmp_path / str(block) / f"{name}.csv").open(newline="") as lines:
                values = {row[column] for row in csv.DictReader(lines) for column in columns if row[column]}
            assert not values & seen[name]
            seen[name] |= values


@pytest.mark.parametrize("records", [0, 1, 7, 60])
def test_a_stream_may_be_tiny(tmp_path: Path, records: int) -> None:
    truth = write_files(replace(SCENARIO, records=records, network_records=records), tmp_path).truth
    assert truth["cdr"]["rows"] == truth["network"]["rows"] == records


def test_all_mistakes_of_a_scenario_are_named_at_once() -> None:
    with pytest.raises(SimulationError, match="customers must be at least 20, not 1; duplicates is a share"):
        Scenario(start=date(2026, 11, 22), customers=1, duplicates=2)


def test_an_asterisk_file_is_what_the_format_says(tmp_path: Path) -> None:
    truth = write_asterisk(tmp_path / "Master.csv", 500, date(2026, 11, 22), seed=1)
    with (tmp_path / "Master.csv").open(newline="") as lines:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in csv.reader(lines)]
    assert len(rows) == truth["cdr"]["rows"]
    unique = {(row["uniqueid"], row["dstchannel"]) for row in rows}
    assert len(unique) == truth["cdr"]["stored"]
    assert len(rows) - len(unique) == truth["cdr"]["duplicates"] > 0
    assert len({row["uniqueid"] for row in rows}) < len(unique), "legs of one call share its id"
    for row in rows:
        assert bool(row["answer"]) == (row["disposition"] == "ANSWERED")
        assert int(row["billsec"]) <= int(row["duration"])
    stored = {(row["uniqueid"], row["dstchannel"]): row for row in rows}.values()
    assert truth["cdr"]["sums"]["duration_ms"] == sum(int(row["billsec"]) * 1000 for row in stored)
    assert truth["cdr"]["sums"]["holding_ms"] == sum(int(row["duration"]) * 1000 for row in stored)
