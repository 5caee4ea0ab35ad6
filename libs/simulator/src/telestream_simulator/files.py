"""A scenario as files: CSV in the ``generic`` profile, reference data, and ``truth.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from telestream_simulator import cdrs, faults, network
from telestream_simulator.cdrs import Columns, count_of, take
from telestream_simulator.population import (
    HOME_CURRENCY,
    HOME_PLMN,
    REFERENCE_HEADERS,
    Population,
    populate,
    reference_rows,
)
from telestream_simulator.scenario import Scenario
from telestream_simulator.truth import Truth, cdr_truth, counts, network_truth

TRUTH_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Written:
    """What lies in the folder. Files of one type are to be loaded in this order."""

    reference: dict[str, Path]
    cdr: list[Path]
    network: list[Path]
    truth: Truth
    population: Population
    fates: dict[str, list[str]]
    """File name → what becomes of each row, in order: STORED, DUPLICATE, DUPLICATE conflict, REFUSED and REJECTED with
    their code."""


def cdr_stream(population: Population) -> Columns:
    """All CDRs of the population's scenario with their faults, in order of arrival."""
    scenario = population.scenario
    rng = np.random.default_rng([scenario.seed, scenario.block, 1])
    shares = faults.Shares.of(scenario, scenario.records)
    sound = cdrs.cdr_traffic(population, rng, shares.sound, scenario.start_ms, scenario.end_ms)
    return faults.faulty_cdrs(population, sound, shares, rng)


def network_stream(population: Population) -> Columns:
    """All network events of the population's scenario with their faults, in order of arrival."""
    scenario = population.scenario
    rng = np.random.default_rng([scenario.seed, scenario.block, 2])
    shares = faults.Shares.of(scenario, scenario.network_records)
    sound = network.network_traffic(population, rng, shares.sound, scenario.start_ms, scenario.end_ms)
    return faults.faulty_network_events(population, sound, shares, rng)


def write_files(scenario: Scenario, out: Path, progress: Callable[[str], None] = lambda step: None) -> Written:
    """Write everything into ``out`` (made if missing); a file that is there is replaced.

    With ``files`` = 1 the CDRs are ``cdr.csv``; else ``cdr-01.csv`` … in order of arrival, so that a repeat may come in
    a later file than its first. Network events are always ``network.csv``.
    """
    out.mkdir(parents=True, exist_ok=True)
    population = populate(scenario)
    reference = {}
    progress("reference data")
    for name, lines in reference_rows(population).items():
        reference[name] = out / f"{name}.csv"
        _write(reference[name], REFERENCE_HEADERS[name], lines)
    truth: Truth = {
        "format": TRUTH_FORMAT,
        "source": scenario.source,
        "start": scenario.start.isoformat(),
        "days": scenario.days,
        "seed": scenario.seed,
        "block": scenario.block,
        "home_plmn": HOME_PLMN,
        "home_currency": HOME_CURRENCY,
        "files": [],
        "reference_rows": {name: len(lines) for name, lines in reference_rows(population).items()},
    }
    progress("CDRs")
    calls = cdr_stream(population)
    peers, _ = cdrs.peer_words(population)
    cdr_paths = []
    fates = {}
    for name, part in _parts(calls, scenario.files):
        texts = cdrs.as_text(population, part, peers)
        faults.break_cdr_texts(part, texts)
        lines = _lines(part, [texts[field] for field in cdrs.HEADER])
        _write(out / name, ",".join(cdrs.HEADER), lines)
        cdr_paths.append(out / name)
        truth["files"].append({"name": name, "type": "cdr"} | counts(part))
        fates[name] = faults.fate_names(part)
    progress("network events")
    events = network_stream(population)
    texts = network.as_text(population, events)
    faults.break_network_texts(events, texts)
    network_path = out / "network.csv"
    _write(network_path, ",".join(network.HEADER), _lines(events, [texts[field] for field in network.HEADER]))
    truth["files"].append({"name": "network.csv", "type": "network"} | counts(events))
    fates["network.csv"] = faults.fate_names(events)
    progress("truth")
    truth |= cdr_truth(population, calls) | network_truth(population, events)
    (out / "truth.json").write_text(json.dumps(truth, separators=(",", ":")) + "\n")
    return Written(reference, cdr_paths, [network_path], truth, population, fates)


def _parts(table: Columns, files: int) -> list[tuple[str, Columns]]:
    if files == 1:
        return [("cdr.csv", table)]
    bounds = [count_of(table) * index // files for index in range(files + 1)]
    return [
        (f"cdr-{index + 1:02d}.csv", take(table, np.arange(bounds[index], bounds[index + 1]))) for index in range(files)
    ]


def _lines(table: Columns, columns: list[list[str]]) -> list[str]:
    lines = [",".join(fields) for fields in zip(*columns, strict=True)]
    faults.misshape_lines(table, lines)
    return lines


def _write(path: Path, header: str, lines: list[str]) -> None:
    path.write_text("\n".join([header, *lines]) + "\n", newline="")
