"""Network events as probes and management systems would send them, still without faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from telestream_simulator.cdrs import RATS, Columns, day_shape
from telestream_simulator.columns import (
    NULL,
    Ints,
    bool_text,
    decimal_text,
    instant_text,
    int_text,
    vocabulary_text,
)
from telestream_simulator.population import Population

EVENT_TYPES = ("SAMPLE", "ATTACH", "HANDOVER", "RRC_SETUP", "RADIO_LINK_FAILURE", "ALARM", "CELL_DOWN", "CELL_UP")
SAMPLE, ATTACH, HANDOVER, RRC_SETUP, RADIO_LINK_FAILURE, ALARM, CELL_DOWN, CELL_UP = range(8)
SEVERITIES = ("INFO", "MINOR", "MAJOR", "CRITICAL")
ALARM_STATES = ("RAISED", "CLEARED")
PROBABLE_CAUSES = ("linkFailure", "powerProblem", "temperatureUnacceptable")
CAUSE_FAMILIES = ("NAS", "VENDOR")
_TYPE_SHARES = (0.80, 0.05, 0.08, 0.05, 0.012, 0.006, 0.001, 0.001)


def network_traffic(
    population: Population, rng: np.random.Generator, count: int, start_ms: int, end_ms: int
) -> Columns:
    """``count`` valid events in [start, end), in no order; every one has an ``event`` number of its own.

    ``latency_us``, ``throughput_dl_kbps``, ``throughput_ul_kbps`` and ``packet_loss_ppm`` are whole thousandths and
    millionths of what the CSV shows, the others hundredths.
    """
    p = population
    kind = rng.choice(8, size=count, p=_TYPE_SHARES).astype(np.int64)
    cell = rng.choice(len(p.cell_ids), size=count, p=p.cell_weights).astype(np.int64)
    bad = p.bad_cells[cell]
    sample = kind == SAMPLE
    procedure = (kind == ATTACH) | (kind == HANDOVER) | (kind == RRC_SETUP)
    success = np.where(procedure, rng.random(count) >= np.where(bad, 0.2, 0.02), NULL)
    failed = procedure & (success == 0)

    def measured(values: npt.NDArray[np.number[Any]], share: float = 0.92) -> Ints:
        return np.where(sample & (rng.random(count) < share), values, NULL).astype(np.int64)

    latency = np.clip(rng.lognormal(np.where(bad, 11.3, 10.2), 0.5), 1_000, 4e6).astype(np.int64)
    downlink = np.clip(rng.lognormal(np.where(bad, 8.5, 10.5), 0.8), 1, 3e6).astype(np.int64)
    loss = np.clip(rng.exponential(np.where(bad, 30_000, 1_500)), 0, 1e6).astype(np.int64)
    subscriber = np.where(
        (procedure | (kind == RADIO_LINK_FAILURE)) & (rng.random(count) < 0.8),
        rng.choice(len(p.weights), size=count, p=p.weights),
        NULL,
    )
    return {
        "event": np.arange(count, dtype=np.int64),
        "style": rng.choice(3, size=count, p=(0.8, 0.1, 0.1)).astype(np.int64),
        "occurred_at": day_shape(rng, count, start_ms, end_ms),
        "event_type": kind,
        "cell": cell,
        "success": success,
        "severity": np.where(
            kind == ALARM,
            rng.integers(1, 4, size=count),
            np.where(kind == CELL_DOWN, 3, np.where(kind == CELL_UP, 0, NULL)),
        ),
        "latency_us": measured(latency),
        "throughput_dl_kbps": measured(downlink),
        "throughput_ul_kbps": measured(downlink // rng.integers(4, 12, size=count)),
        "packet_loss_ppm": measured(loss, 0.8),
        "rsrp_cdbm": measured(rng.normal(-9_500, 1_000, size=count).clip(-14_000, -5_000), 0.7),
        "rsrq_cdb": measured(rng.normal(-1_100, 250, size=count).clip(-1_950, -300), 0.7),
        "sinr_cdb": measured(rng.normal(np.where(bad, 200, 1_200), 500).clip(-2_000, 3_000), 0.7),
        "prb_ppm": measured(rng.beta(2, 4, size=count) * 1_000_000, 0.7),
        "sample_count": measured(rng.integers(1, 200, size=count)),
        "party": subscriber,
        "rat": np.where(rng.random(count) < 0.9, p.cell_technology[cell], NULL),
        "target_cell": np.where(kind == HANDOVER, (cell + rng.integers(1, 4, size=count)) % len(p.cell_ids), NULL),
        "cause_family": np.where(failed, rng.integers(0, 2, size=count), NULL),
        "cause_code": np.where(failed, rng.integers(1, 120, size=count), NULL),
        "session": np.where(procedure & (rng.random(count) < 0.2), rng.integers(1, 10**6, size=count), NULL),
        "alarm": np.where(kind == ALARM, rng.integers(1, 10_000, size=count), NULL),
        "alarm_state": np.where(kind == ALARM, rng.integers(0, 2, size=count), NULL),
        "probable_cause": np.where(kind == ALARM, rng.integers(0, len(PROBABLE_CAUSES), size=count), NULL),
    }


HEADER = (
    "event_id",
    "occurred_at",
    "event_type",
    "cell_id",
    "success",
    "severity",
    "latency_ms",
    "throughput_dl_mbps",
    "throughput_ul_mbps",
    "packet_loss_ratio",
    "rsrp_dbm",
    "rsrq_db",
    "sinr_db",
    "prb_utilisation_ratio",
    "sample_count",
    "imsi",
    "rat",
    "target_cell_id",
    "cause_family",
    "cause_code",
    "session_id",
    "alarm_id",
    "alarm_state",
    "probable_cause",
)


def as_text(population: Population, table: Columns) -> dict[str, list[str]]:
    """The fields of ``HEADER`` as CSV text, empty where null."""
    cells = population.cell_ids.tolist()
    prefix = population.scenario.source
    return {
        "event_id": [f"{prefix}-n{number}" if number != NULL else "" for number in table["event"].tolist()],
        "occurred_at": instant_text(table["occurred_at"], table["style"]),
        "event_type": vocabulary_text(EVENT_TYPES, table["event_type"]),
        "cell_id": vocabulary_text(cells, table["cell"]),
        "success": bool_text(table["success"]),
        "severity": vocabulary_text(SEVERITIES, table["severity"]),
        "latency_ms": decimal_text(table["latency_us"], 3),
        "throughput_dl_mbps": decimal_text(table["throughput_dl_kbps"], 3),
        "throughput_ul_mbps": decimal_text(table["throughput_ul_kbps"], 3),
        "packet_loss_ratio": decimal_text(table["packet_loss_ppm"], 6),
        "rsrp_dbm": decimal_text(table["rsrp_cdbm"], 2),
        "rsrq_db": decimal_text(table["rsrq_cdb"], 2),
        "sinr_db": decimal_text(table["sinr_cdb"], 2),
        "prb_utilisation_ratio": decimal_text(table["prb_ppm"], 6),
        "sample_count": int_text(table["sample_count"]),
        "imsi": vocabulary_text(population.imsis.tolist(), table["party"]),
        "rat": vocabulary_text(RATS, table["rat"]),
        "target_cell_id": vocabulary_text(cells, table["target_cell"]),
        "cause_family": vocabulary_text(CAUSE_FAMILIES, table["cause_family"]),
        "cause_code": int_text(table["cause_code"]),
        "session_id": ["" if number == NULL else f"n{number}" for number in table["session"].tolist()],
        "alarm_id": ["" if number == NULL else f"A{number:05d}" for number in table["alarm"].tolist()],
        "alarm_state": vocabulary_text(ALARM_STATES, table["alarm_state"]),
        "probable_cause": vocabulary_text(PROBABLE_CAUSES, table["probable_cause"]),
    }
