"""The table of KPIs: hand-worked numbers for each, and what must hold for all."""

from __future__ import annotations

from fractions import Fraction

import pytest

from telestream_domain.kpis import KPI, KPIS, PRESENT, WINDOW_MS, Basis, Shown, kpis_of, shown

HOUR_MS = 3_600_000
CALLS = {
    # one hour of one route: 100 seizures, of which 60 ended as wished and 4 were lost after the answer
    "records": 130,
    "attempts": 100,
    "completed": 60,
    "no_answer": 15,
    "busy": 10,
    "cancelled": 3,
    "congestion": 5,
    "failed": 2,
    "dropped": 4,
    "unknown": 1,
    "ended_answered": 50,
    "ended_dropped": 5,
    "holding_ms": 100 * 90_000,
    "duration_ms": 64 * 120_000,
    "pdd_ms": 80 * 3_500,
    "pdd_ms_count": 80,
    # a session of three partial records is closed by its third
    "sessions": 1,
    "bytes_up": 1_000_000,
    "bytes_down": 9_000_000,
    "data_bytes": 9_000_000,
    "data_duration_ms": 60_000,
    WINDOW_MS: HOUR_MS,
}
RADIO = {
    "events": 60,
    "latency_us": 3 * 40_500,
    "latency_us_count": 3,
    "throughput_dl_kbps": 50_000 + 25_500,
    "throughput_dl_kbps_count": 2,
    "throughput_ul_kbps": 4_000,
    "throughput_ul_kbps_count": 1,
    "packet_loss_ppm": 1_000 + 3_000,
    "packet_loss_ppm_count": 2,
    "rrc_setup_known": 200,
    "rrc_setup_successes": 197,
    "attach_known": 50,
    "attach_successes": 49,
    "handover_known": 40,
    "handover_successes": 38,
}
WORKED = {
    "call_attempts": Shown(100, 100, 1),
    "answer_seizure_ratio": Shown(0.64, 64, 100),
    "network_effectiveness_ratio": Shown(0.89, 89, 100),
    "call_completion_ratio": Shown(0.6, 60, 100),
    "drop_ratio": Shown(0.1, 5, 50),
    "mean_holding_time_ms": Shown(90_000, 9_000_000, 100),
    "mean_duration_ms": Shown(120_000, 7_680_000, 64),
    # a hundred seizures of 90 s in an hour: 9000 s / 3600 s
    "traffic_erlang": Shown(2.5, 9_000_000, HOUR_MS),
    "busy_hour_erlang": Shown(2.5, 9_000_000, HOUR_MS),
    "post_dial_delay_ms": Shown(3_500, 280_000, 80),
    "data_sessions": Shown(1, 1, 1),
    "data_volume_bytes": Shown(10_000_000, 10_000_000, 1),
    # 9 MB in a minute: 72 Mbit / 60 s
    "mean_session_throughput_kbps": Shown(1_200, 72_000_000, 60_000),
    "latency_ms": Shown(40.5, 121.5, 3),
    "throughput_dl_mbps": Shown(37.75, 75.5, 2),
    "throughput_ul_mbps": Shown(4, 4, 1),
    "packet_loss_ratio": Shown(0.002, 0.004, 2),
    "rrc_setup_success_ratio": Shown(0.985, 197, 200),
    "attach_success_ratio": Shown(0.98, 49, 50),
    "handover_success_ratio": Shown(0.95, 38, 40),
    "distinct_subscribers": Shown(42, 42, 1),
    # down for 90 s of an hour
    "cell_availability": Shown(0.975, 3_510, 3_600),
}


@pytest.mark.parametrize("name", KPI)
def test_a_kpi_is_what_is_worked_by_hand(name: str) -> None:
    beside = {"hour_ms": HOUR_MS, "distinct_estimate": 42, "available_ms": 3_510_000, "range_ms": HOUR_MS}
    assert shown(KPI[name], {**CALLS, **RADIO, **beside}) == WORKED[name]


@pytest.mark.parametrize("name", KPI)
def test_a_kpi_without_its_source_is_null_and_never_0(name: str) -> None:
    other = RADIO if "cdr" in KPI[name].needs else {**CALLS, "records": 130}
    assert shown(KPI[name], {WINDOW_MS: HOUR_MS, **other}).value is None
    assert shown(KPI[name], {WINDOW_MS: HOUR_MS, **other}).den == 0


def test_a_quiet_hour_with_records_has_no_attempts_and_no_traffic_but_no_ratio_either() -> None:
    quiet = {"records": 5, WINDOW_MS: HOUR_MS}
    assert shown(KPI["call_attempts"], quiet) == Shown(0, 0, 1)
    assert shown(KPI["traffic_erlang"], quiet) == Shown(0, 0, HOUR_MS)
    assert shown(KPI["answer_seizure_ratio"], quiet) == Shown(None, 0, 0)


def test_seizures_end_in_eight_ways_and_the_ratios_lie_in_order() -> None:
    ways = ("completed", "no_answer", "busy", "cancelled", "congestion", "failed", "dropped", "unknown")
    assert sum(CALLS[way] for way in ways) == CALLS["attempts"]
    found = [
        shown(KPI[name], CALLS).value or 0
        for name in ("call_completion_ratio", "answer_seizure_ratio", "network_effectiveness_ratio")
    ]
    assert found == sorted(found)


def test_sums_over_two_halves_give_the_kpi_of_the_whole() -> None:
    halves = [{name: value // 2 for name, value in CALLS.items()}, {n: v - v // 2 for n, v in CALLS.items()}]
    for kpi in kpis_of("plan", Basis.WINDOWS):
        whole, parts = shown(kpi, CALLS), [shown(kpi, half) for half in halves]
        assert sum(part.num for part in parts) == whole.num
        if kpi.additive:
            assert sum(part.value or 0 for part in parts) == whole.value
        else:
            assert sum(part.den for part in parts) == whole.den


def test_the_table_is_whole() -> None:
    assert len(KPI) == len(KPIS)
    for kpi in KPIS:
        assert all((kpi.title, kpi.unit, kpi.formula, kpi.standard, kpi.numerator, kpi.needs, kpi.families)), kpi.name
        assert kpi.needs <= set(PRESENT)
        assert len(kpi.needs) == 1
        assert "plan" not in kpi.families or kpi.needs == {"cdr"}, f"{kpi.name}: a network event has no plan"
        assert not kpi.additive or not kpi.denominator
        for name, factor in (*kpi.numerator, *kpi.denominator):
            assert Fraction(factor) > 0
            if kpi.basis is Basis.WINDOWS and name != WINDOW_MS:
                assert name in kpi.formula, f"{kpi.name}: {name} is not in its formula"
