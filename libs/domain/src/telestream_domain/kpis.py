"""The KPIs, once: formula, unit, standard, numerator and denominator by measure of the aggregates.

The reference page, the API's document, the columns of the SQL views and the tests are made from ``KPIS``. A KPI is
always numerator and denominator, summed before they are divided; its value is null where the denominator is 0, and the
denominator is 0 where the source is missing, so that unknown is never shown as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

Term = tuple[str, int | Fraction]
"""A measure and the exact factor it is multiplied by."""

WINDOW_MS = "window_ms"
"""Not a measure of the aggregates: the length of the answer's step, as far as it lies in the range asked for."""

PRESENT: Mapping[str, str] = {"cdr": "records", "network": "events"}
"""Type of record → the measure that says whether there was any."""


class Basis(StrEnum):
    """Where the numbers of a KPI come from."""

    WINDOWS = "sums of windows"
    BUSY_HOUR = "quarter hours of a day"
    SKETCH = "sketches of quarter hours"
    AVAILABILITY = "outages in fact_network_event"


@dataclass(frozen=True, slots=True)
class Kpi:
    """One row of the table. ``denominator`` empty: the value is the numerator, wherever the source is there.

    ``additive``: values of several groups and steps may be summed; of others only numerators and denominators may.
    ``needs``: types of record without which the KPI is null. ``families``: aggregates that have it.
    """

    name: str
    title: str
    unit: str
    formula: str
    standard: str
    numerator: tuple[Term, ...]
    denominator: tuple[Term, ...]
    additive: bool
    needs: frozenset[str]
    families: tuple[str, ...]
    note: str = ""
    basis: Basis = Basis.WINDOWS

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures it is made of, each once, numerator first."""
        return tuple(dict.fromkeys(name for name, _ in (*self.numerator, *self.denominator) if name != WINDOW_MS))

    @property
    def gated(self) -> bool:
        """Whether the denominator alone does not tell that the source was missing."""
        return not self.denominator or any(name == WINDOW_MS for name, _ in self.denominator)


@dataclass(frozen=True, slots=True)
class Shown:
    """A KPI as it is answered: ``value`` is ``num / den``, None where ``den`` is 0."""

    value: float | None
    num: float
    den: float


def shown(kpi: Kpi, sums: Mapping[str, int | float]) -> Shown:
    """The KPI of one row of sums; what is not among them is 0. Wants ``WINDOW_MS`` where the KPI has it."""
    num = _total(kpi.numerator, sums)
    den = _total(kpi.denominator, sums) if kpi.denominator else Fraction(1)
    if kpi.gated and not all(sums.get(PRESENT[kind], 0) for kind in kpi.needs):
        den = Fraction(0)
    return Shown(float(num / den) if den else None, float(num), float(den))


def _total(terms: Iterable[Term], sums: Mapping[str, int | float]) -> Fraction:
    return sum((Fraction(sums.get(name, 0)) * factor for name, factor in terms), Fraction(0))


def _plus(*names: str, factor: int | Fraction = 1) -> tuple[Term, ...]:
    return tuple((name, factor) for name in names)


_CDR, _NETWORK = frozenset({"cdr"}), frozenset({"network"})
_ALL, _RADIO = ("cell", "region", "plan"), ("cell", "region")
_ANSWERED = _plus("completed", "dropped")
_THOUSANDTH, _MILLIONTH = Fraction(1, 1_000), Fraction(1, 1_000_000)
_BOOKED_WHOLLY = "A call counts wholly in the window in which it began, also where it lasts into the next."


def _mean(name: str, title: str, unit: str, measure: str, factor: Fraction, standard: str, note: str) -> Kpi:
    scale = f" / {factor.denominator}"
    return Kpi(
        name=name,
        title=title,
        unit=unit,
        formula=f"({measure}{scale}) / {measure}_count",
        standard=standard,
        numerator=((measure, factor),),
        denominator=_plus(f"{measure}_count"),
        additive=False,
        needs=_NETWORK,
        families=_RADIO,
        note=note,
    )


def _success(name: str, title: str, procedure: str, event_type: str, standard: str) -> Kpi:
    return Kpi(
        name=name,
        title=title,
        unit="ratio",
        formula=f"{procedure}_successes / {procedure}_known",
        standard=standard,
        numerator=_plus(f"{procedure}_successes"),
        denominator=_plus(f"{procedure}_known"),
        additive=False,
        needs=_NETWORK,
        families=_RADIO,
        note=f"Counts {event_type} events whose success is set. The standard counts messages in the network element; "
        "this counts what producers report.",
    )


KPIS: tuple[Kpi, ...] = (
    Kpi(
        name="call_attempts",
        title="Call attempts",
        unit="calls",
        formula="attempts",
        standard="ITU-T E.600 (03/93) 2.4, 1.14",
        numerator=_plus("attempts"),
        denominator=(),
        additive=True,
        needs=_CDR,
        families=_ALL,
        note="Attempts that a switch recorded, which are seizures; what failed before a switch wrote a CDR is in no "
        "CDR. VOICE and VIDEO.",
    ),
    Kpi(
        name="answer_seizure_ratio",
        title="Answer-seizure ratio (ASR)",
        unit="ratio",
        formula="(completed + dropped) / attempts",
        standard="ITU-T E.425 (03/2002) 1.3; E.411; E.600 2.14",
        numerator=_ANSWERED,
        denominator=_plus("attempts"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="A call that was answered and then lost was answered. The standard counts per route and destination; "
        "here it is per cell, region or plan.",
    ),
    Kpi(
        name="network_effectiveness_ratio",
        title="Network effectiveness ratio (NER)",
        unit="ratio",
        formula="(completed + dropped + no_answer + busy) / attempts",
        standard="ITU-T E.425 (03/2002) 1.5, annex A",
        numerator=(*_ANSWERED, *_plus("no_answer", "busy")),
        denominator=_plus("attempts"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="A lower bound: the standard also counts terminal rejection and calls given up while ringing as "
        "delivered; the status of a CDR does not tell these from other failures, so FAILED and CANCELLED count "
        "against the network.",
    ),
    Kpi(
        name="call_completion_ratio",
        title="Call completion",
        unit="ratio",
        formula="completed / attempts",
        standard="none; near to ITU-T E.600 (03/93) 2.13",
        numerator=_plus("completed"),
        denominator=_plus("attempts"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Answered and ended as its parties wished. E.600's completion ratio counts every answered call: that is "
        "the answer-seizure ratio here.",
    ),
    Kpi(
        name="drop_ratio",
        title="Drop rate",
        unit="ratio",
        formula="ended_dropped / ended_answered",
        standard="none for CDRs; near to the call drop rate of 3GPP TS 32.410",
        numerator=_plus("ended_dropped"),
        denominator=_plus("ended_answered"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Booked on the cell where the call ended (last_cell_id, else cell_id); by region and plan on the record's "
        "own group, because the last cell's region is not in the record. The standard counts lost radio bearers, "
        "this counts calls.",
    ),
    Kpi(
        name="mean_holding_time_ms",
        title="Mean holding time",
        unit="ms",
        formula="holding_ms / attempts",
        standard="ITU-T E.600 (03/93) 1.18",
        numerator=_plus("holding_ms"),
        denominator=_plus("attempts"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Seizure to release, of all attempts; where a CDR has no holding time its chargeable duration stands in, "
        "which is shorter.",
    ),
    Kpi(
        name="mean_duration_ms",
        title="Average call duration",
        unit="ms",
        formula="duration_ms / (completed + dropped)",
        standard="none (known as ACD or ALOC)",
        numerator=_plus("duration_ms"),
        denominator=_ANSWERED,
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Answer to release. An answered call whose CDR has no duration counts with 0.",
    ),
    Kpi(
        name="traffic_erlang",
        title="Traffic",
        unit="Erl",
        formula="holding_ms / length of the step",
        standard="ITU-T E.600 (03/93) 1.12; E.500 2",
        numerator=_plus("holding_ms"),
        denominator=_plus(WINDOW_MS),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note=f"Carried traffic. Groups of one step may be summed, steps may not. {_BOOKED_WHOLLY} So a step shorter "
        "than most calls shows when they began rather than when lines were held. Of a step that is cut by the range or "
        "not over yet, the part that is asked for and past.",
    ),
    Kpi(
        name="busy_hour_erlang",
        title="Busy hour",
        unit="Erl",
        formula="the greatest holding_ms of four consecutive quarter hours of a local day / 3600000",
        standard="ITU-T E.500 (quarter-hour boundaries); E.600",
        numerator=_plus("holding_ms"),
        denominator=(("hour_ms", 1),),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="The peak of each day and group, with its start; of equal ones the earliest that begins with calls. "
        f"E.500's yearly loads are means over such peaks, which are not made here. {_BOOKED_WHOLLY}",
        basis=Basis.BUSY_HOUR,
    ),
    Kpi(
        name="post_dial_delay_ms",
        title="Post-dial delay",
        unit="ms",
        formula="pdd_ms / pdd_ms_count",
        standard="ITU-T E.431 (post-dialling delay)",
        numerator=_plus("pdd_ms"),
        denominator=_plus("pdd_ms_count"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="The mean over calls whose CDR gives it; the standard also asks for percentiles.",
    ),
    Kpi(
        name="data_sessions",
        title="Data sessions",
        unit="sessions",
        formula="sessions",
        standard="3GPP TS 32.251, 32.298 (partial records)",
        numerator=_plus("sessions"),
        denominator=(),
        additive=True,
        needs=_CDR,
        families=_ALL,
        note="Counted by the record that closes them (is_partial false), in the window and cell where that record "
        "began; a session still open counts nowhere yet.",
    ),
    Kpi(
        name="data_volume_bytes",
        title="Data volume",
        unit="bytes",
        formula="bytes_up + bytes_down",
        standard="3GPP TS 32.298 (recorded volumes)",
        numerator=_plus("bytes_up", "bytes_down"),
        denominator=(),
        additive=True,
        needs=_CDR,
        families=_ALL,
        note="Of all record types, partial records each with their own volume.",
    ),
    Kpi(
        name="mean_session_throughput_kbps",
        title="Mean session throughput",
        unit="kbit/s",
        formula="8 × data_bytes / data_duration_ms",
        standard="none",
        numerator=_plus("data_bytes", factor=8),
        denominator=_plus("data_duration_ms"),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Up and down together over the time that DATA records lasted, idle time included; records without a "
        "duration are on neither side. Not what a user sees in a download.",
    ),
    _mean(
        "latency_ms",
        "Latency",
        "ms",
        "latency_us",
        _THOUSANDTH,
        "none; near to ITU-T Y.1540 (IPTD)",
        "The mean over SAMPLE and other events that carry it, each with the same weight.",
    ),
    _mean(
        "throughput_dl_mbps",
        "Throughput down",
        "Mbit/s",
        "throughput_dl_kbps",
        _THOUSANDTH,
        "none",
        "The mean over events that carry it, each with the same weight.",
    ),
    _mean(
        "throughput_ul_mbps",
        "Throughput up",
        "Mbit/s",
        "throughput_ul_kbps",
        _THOUSANDTH,
        "none",
        "The mean over events that carry it, each with the same weight.",
    ),
    _mean(
        "packet_loss_ratio",
        "Packet loss",
        "ratio",
        "packet_loss_ppm",
        _MILLIONTH,
        "none; near to ITU-T Y.1540 (IPLR)",
        "The mean of ratios, each with the same weight; the standard divides packets lost by packets sent, which "
        "events do not carry.",
    ),
    _success(
        "rrc_setup_success_ratio",
        "RRC setup success",
        "rrc_setup",
        "RRC_SETUP",
        "3GPP TS 32.410 (RRC connection establishment)",
    ),
    _success("attach_success_ratio", "Attach success", "attach", "ATTACH", "3GPP TS 32.410 (attach success rate)"),
    _success(
        "handover_success_ratio", "Handover success", "handover", "HANDOVER", "3GPP TS 32.410 (handover success rate)"
    ),
    Kpi(
        name="distinct_subscribers",
        title="Distinct subscribers",
        unit="subscribers",
        formula="HyperLogLog estimate over subscriber_registers and subscriber_ranks",
        standard="none",
        numerator=_plus("distinct_estimate"),
        denominator=(),
        additive=False,
        needs=_CDR,
        families=_ALL,
        note="Standard error 3.25 % (1024 registers). Steps of a quarter hour and more. Nothing can be taken out of a "
        "sketch: where records were reversed it is an upper bound, and the answer says so.",
        basis=Basis.SKETCH,
    ),
    Kpi(
        name="cell_availability",
        title="Cell availability",
        unit="ratio",
        formula="(available_ms / 1000) / (range_ms / 1000)",
        standard="3GPP TS 32.410 (UTRAN cell availability), TS 32.405 4.35.1; ITU-T X.733 (critical alarms)",
        numerator=(("available_ms", _THOUSANDTH),),
        denominator=(("range_ms", _THOUSANDTH),),
        additive=False,
        needs=_NETWORK,
        families=("cell",),
        note="Seconds in which the cell was not down. Down: from CELL_DOWN to CELL_UP, and from a CRITICAL alarm "
        "RAISED until the same alarm_id is CLEARED or raised with another severity; overlapping outages count once, "
        "in event time, over any number of days. A cell without any event in the range that is not "
        "known to be down is null. All causes count, planned work too.",
        basis=Basis.AVAILABILITY,
    ),
)

KPI: Mapping[str, Kpi] = {kpi.name: kpi for kpi in KPIS}
"""By name."""


def kpis_of(family: str, basis: Basis | None = None) -> tuple[Kpi, ...]:
    """The KPIs that a family has, in the table's order; of one basis if given."""
    return tuple(kpi for kpi in KPIS if family in kpi.families and basis in (None, kpi.basis))
