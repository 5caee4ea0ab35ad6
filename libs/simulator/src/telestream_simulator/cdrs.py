"""Call detail records as a network would write them, still without faults."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from telestream_simulator.columns import (
    NULL,
    Bools,
    Ints,
    Objects,
    bool_text,
    instant_text,
    int_text,
    is_set,
    nulls,
    objects,
    vocabulary_text,
)
from telestream_simulator.population import (
    FOREIGN_PLMNS,
    HOME_CURRENCY,
    HOME_PLMN,
    INBOUND_ROAMER,
    ONLY_IMSI,
    ROAMING_CURRENCY,
    TECHNOLOGIES,
    Population,
)

Columns: TypeAlias = dict[str, Ints]
"""Equally long columns of whole numbers: amounts, instants in epoch ms, or indexes into the word lists below."""

RECORD_TYPES = ("VOICE", "SMS", "MMS", "DATA", "VIDEO", "USSD", "OTHER")
VOICE, SMS, MMS, DATA, VIDEO, USSD, OTHER = range(7)
STATUSES = ("COMPLETED", "NO_ANSWER", "BUSY", "CANCELLED", "CONGESTION", "FAILED", "DROPPED", "UNKNOWN")
COMPLETED, NO_ANSWER, BUSY, CANCELLED, CONGESTION, FAILED, DROPPED, UNKNOWN = range(8)
DIRECTIONS = ("MO", "MT", "FORWARDED", "GATEWAY_IN")
MO, MT, FORWARDED, GATEWAY_IN = range(4)
RATS = (*TECHNOLOGIES, "FIXED")
DOMAINS = ("CS", "PS", "IMS", "FIXED")
CS, PS, IMS, FIXED = range(4)
CURRENCIES = (HOME_CURRENCY, ROAMING_CURRENCY)
EUR, USD = range(2)
PLMNS = (HOME_PLMN, *FOREIGN_PLMNS)
CAUSE_FAMILIES = ("Q850", "SIP", "SMS")
Q850, SIP, SMS_CAUSE = range(3)
RELEASED_BY = ("CALLER", "CALLEE", "NETWORK")
CLOSING_REASONS = ("NORMAL_RELEASE", "TIME_LIMIT", "VOLUME_LIMIT", "ABNORMAL_RELEASE")
NODES = ("msc-1", "msc-2", "pgw-1", "smsc-1", "gmsc-1")
APNS = ("internet", "ims", "iot.example", "corp.example")
ROUTES = ("TRK-CARRIER-A", "TRK-CARRIER-B", "TRK-CARRIER-C")
LINE_COUNT = 200

# Who the record belongs to, and how the producer names them.
BY_MSISDN_AND_IMSI, BY_MSISDN, BY_IMSI, BY_LINE, BY_NOTHING = range(5)

# Quietest at four in the morning, busiest in the early evening.
HOUR_WEIGHTS = (14, 8, 5, 4, 4, 7, 16, 34, 52, 60, 62, 64, 66, 62, 60, 62, 66, 74, 80, 76, 64, 50, 36, 24)

PARTIAL_MS = 30 * 60_000
"""A data session closes a partial record this often."""

_TYPE_SHARES = (0.50, 0.15, 0.01, 0.305, 0.015, 0.015, 0.005)
_STATUS_SHARES = (0.74, 0.12, 0.06, 0.03, 0.01, 0.015, 0.015, 0.01)
_Q850 = {COMPLETED: 16, NO_ANSWER: 19, BUSY: 17, CANCELLED: 16, CONGESTION: 34, FAILED: 38, DROPPED: 41, UNKNOWN: 31}

_SPECIAL_PEERS = (
    ("112", "EMERGENCY"),
    ("110", "EMERGENCY"),
    ("22422", "SHORT_CODE"),
    ("70007", "SHORT_CODE"),
    ("MyBank", "ALPHANUMERIC"),
    ("PARCELINFO", "ALPHANUMERIC"),
)
EMERGENCY_PEERS, SHORT_CODE_PEERS, ALPHANUMERIC_PEERS = (0, 2), (2, 4), (4, 6)
_FOREIGN_SHAPES = (
    # E.164 prefix, digits that follow, share
    ("+4917", 8, 0.5),
    ("+336", 8, 0.1),
    ("+447", 9, 0.1),
    ("+1212555", 4, 0.05),
    ("+346", 8, 0.05),
    ("+4850", 7, 0.05),
    ("+9053", 8, 0.1),
    ("+43664", 7, 0.05),
)
_OFF_NET_PEERS = 3_000


def count_of(table: Columns) -> int:
    return len(next(iter(table.values()))) if table else 0


def take(table: Columns, rows: Ints | Bools) -> Columns:
    return {name: column[rows] for name, column in table.items()}


def stack(tables: list[Columns]) -> Columns:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def day_shape(rng: np.random.Generator, count: int, start_ms: int, end_ms: int) -> Ints:
    """``count`` instants in [start, end), more of them when people are awake; unsorted."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    hours = np.arange(start_ms // 3_600_000, -(-end_ms // 3_600_000))
    weights = np.array(HOUR_WEIGHTS, dtype=np.float64)[hours % 24]
    picked = rng.choice(hours, size=count, p=weights / weights.sum())
    instants = picked * 3_600_000 + rng.integers(0, 3_600_000, size=count)
    result: Ints = np.where(
        (instants < start_ms) | (instants >= end_ms), rng.integers(start_ms, end_ms, size=count), instants
    )
    return result


def peer_words(population: Population) -> tuple[Objects, list[str]]:
    """Every other party that may be called, and its kind; the last ones are the population's own numbers."""
    rng = np.random.default_rng([population.scenario.seed, population.scenario.block, 12])
    shares = np.array([share for _, _, share in _FOREIGN_SHAPES])
    shapes = rng.choice(len(_FOREIGN_SHAPES), size=_OFF_NET_PEERS, p=shares / shares.sum())
    off_net = []
    for shape, serial in zip(shapes.tolist(), rng.integers(0, 10**9, size=_OFF_NET_PEERS).tolist(), strict=True):
        prefix, digits, _ = _FOREIGN_SHAPES[shape]
        off_net.append(f"{prefix}{serial % 10**digits:0{digits}d}")
    words = [word for word, _ in _SPECIAL_PEERS] + off_net + population.msisdns.tolist()
    kinds = [kind for _, kind in _SPECIAL_PEERS] + ["E164"] * (len(words) - len(_SPECIAL_PEERS))
    return objects(words), kinds


def cdr_traffic(population: Population, rng: np.random.Generator, count: int, start_ms: int, end_ms: int) -> Columns:
    """``count`` valid records that start in [start, end) (a few sessions a little before), in no order.

    Every row has an ``event`` number of its own, so no two are the same record.
    """
    p = population
    record_type = rng.choice(7, size=count, p=_TYPE_SHARES).astype(np.int64)
    n = nulls
    table: Columns = {
        "event": np.arange(count, dtype=np.int64),
        "style": rng.choice(3, size=count, p=(0.8, 0.1, 0.1)).astype(np.int64),
        "started_at": day_shape(rng, count, start_ms, end_ms),
        "record_type": record_type,
        "status": np.full(count, COMPLETED, dtype=np.int64),
        "party": rng.choice(len(p.weights), size=count, p=p.weights).astype(np.int64),
        "named_by": rng.choice(3, size=count, p=(0.75, 0.15, 0.1)).astype(np.int64),
        "line": n(count),
        "cell": n(count),
        "duration_ms": n(count),
        "bytes_up": n(count),
        "bytes_down": n(count),
        "charge_micros": n(count),
        "currency": n(count),
        "direction": np.where(rng.random(count) < 0.6, MO, MT),
        "peer": n(count),
        "serving_plmn": n(count),
        "is_partial": np.zeros(count, dtype=np.int64),
        "rat": n(count),
        "domain": n(count),
        "answered_at": n(count),
        "holding_ms": n(count),
        "pdd_ms": n(count),
        "last_cell": n(count),
        "cause_family": n(count),
        "cause_code": n(count),
        "released_by": n(count),
        "session": n(count),
        "record_seq": n(count),
        "closing_reason": n(count),
        "node": n(count),
        "node_seq": np.arange(1, count + 1, dtype=np.int64),
        "imei": (rng.random(count) < 0.7).astype(np.int64),
        "apn": n(count),
        "route_in": n(count),
        "route_out": n(count),
        "segments": n(count),
        "rating_group": n(count),
    }
    _data_sessions(table, rng, start_ms, end_ms)
    _subscribers(table, p, rng)
    _cells(table, p, rng)
    _calls(table, p, rng)
    _messages(table, rng)
    _charges(table, p, rng)
    return table


def _data_sessions(table: Columns, rng: np.random.Generator, start_ms: int, end_ms: int) -> None:
    """Cut the DATA records into sessions: one subscriber, record_seq 1 …, all but the last partial."""
    rows = np.nonzero(table["record_type"] == DATA)[0]
    if len(rows) == 0:
        return
    lengths = np.minimum(rng.geometric(0.5, size=len(rows)), 8)
    ends = np.cumsum(lengths)
    sessions = int(np.searchsorted(ends, len(rows))) + 1
    lengths = lengths[:sessions]
    lengths[-1] -= int(lengths.sum()) - len(rows)
    session = np.repeat(np.arange(sessions), lengths)
    first = np.cumsum(lengths) - lengths
    seq = np.arange(len(rows)) - first[session]
    begin = table["started_at"][rows[first]]
    begin = np.minimum(begin, end_ms - 1 - (lengths - 1) * PARTIAL_MS)
    last = seq == lengths[session] - 1
    size = rng.lognormal(14.5, 1.8, size=len(rows))
    table["started_at"][rows] = begin[session] + seq * PARTIAL_MS
    table["party"][rows] = table["party"][rows[first]][session]
    table["named_by"][rows] = table["named_by"][rows[first]][session]
    table["session"][rows] = session
    table["record_seq"][rows] = seq + 1
    table["is_partial"][rows] = ~last
    table["duration_ms"][rows] = np.where(last, rng.integers(1_000, PARTIAL_MS, size=len(rows)), PARTIAL_MS)
    table["bytes_down"][rows] = np.clip(size, 200, 5e9).astype(np.int64)
    table["bytes_up"][rows] = np.clip(size * rng.uniform(0.03, 0.3, size=len(rows)), 100, 5e8).astype(np.int64)
    table["closing_reason"][rows] = np.where(last, 0, np.where(rng.random(len(rows)) < 0.9, 1, 2))
    table["direction"][rows] = NULL
    table["domain"][rows] = PS
    table["node"][rows] = 2
    table["apn"][rows] = rng.choice(len(APNS), size=len(rows), p=(0.85, 0.05, 0.06, 0.04))
    table["rating_group"][rows] = np.where(rng.random(len(rows)) < 0.5, rng.choice((10, 20, 30), size=len(rows)), NULL)
    lost = last & (rng.random(len(rows)) < 0.01)
    table["status"][rows[lost]] = DROPPED
    table["closing_reason"][rows[lost]] = 3


def _subscribers(table: Columns, p: Population, rng: np.random.Generator) -> None:
    count = count_of(table)
    record_type, party = table["record_type"], table["party"]
    named_by = table["named_by"]
    named_by[p.numbers[party] == ONLY_IMSI] = BY_IMSI
    # Roamers of others are recognised by their IMSI.
    named_by[(p.kind[party] == INBOUND_ROAMER) & (named_by == BY_MSISDN)] = BY_MSISDN_AND_IMSI
    voice = record_type == VOICE
    chance = rng.random(count)
    interconnect = voice & (chance < 0.02)
    fixed = voice & (chance >= 0.02) & (chance < 0.03)
    for rows, how in ((interconnect, BY_NOTHING), (fixed, BY_LINE)):
        named_by[rows] = how
        party[rows] = NULL
        table["imei"][rows] = 0
    table["line"][fixed] = rng.integers(0, LINE_COUNT, size=int(fixed.sum()))
    table["rat"][fixed] = RATS.index("FIXED")
    table["domain"][fixed] = FIXED
    table["direction"][interconnect] = GATEWAY_IN
    table["route_in"][interconnect] = rng.integers(0, len(ROUTES), size=int(interconnect.sum()))
    table["node"][interconnect] = 4
    table["direction"][voice & (chance > 0.985)] = FORWARDED


def _cells(table: Columns, p: Population, rng: np.random.Generator) -> None:
    """At home by night, at work by day, somewhere else now and then; long calls may end in a neighbouring cell."""
    count = count_of(table)
    party = table["party"]
    has_party = is_set(party)
    who = np.where(has_party, party, 0)
    hour = table["started_at"] // 3_600_000 % 24
    cell = np.where((hour >= 8) & (hour < 17), p.work_cell[who], p.home_cell[who])
    moving = rng.random(count) < 0.25
    cell = np.where(moving, rng.choice(len(p.cell_weights), size=count, p=p.cell_weights), cell)
    abroad = has_party & is_set(p.abroad[who])
    away = np.where(abroad, p.abroad[who], 0)
    in_home_network = has_party & ~abroad & (rng.random(count) < 0.985)
    table["cell"] = np.where(in_home_network, cell, NULL)
    table["serving_plmn"] = np.where(abroad, away + 1, np.where(in_home_network & (rng.random(count) < 0.5), 0, NULL))
    table["rat"] = np.where(
        in_home_network, p.cell_technology[cell], np.where(abroad & (rng.random(count) < 0.8), 0, table["rat"])
    )
    calls = (table["record_type"] == VOICE) | (table["record_type"] == VIDEO) | (table["record_type"] == DATA)
    ends_elsewhere = in_home_network & calls & (rng.random(count) < 0.15)
    neighbour = (cell + rng.integers(1, 4, size=count)) % len(p.cell_ids)
    reports_end = ends_elsewhere | (in_home_network & calls & (rng.random(count) < 0.3))
    table["last_cell"] = np.where(reports_end, np.where(ends_elsewhere, neighbour, cell), NULL)


def _calls(table: Columns, p: Population, rng: np.random.Generator) -> None:
    """Voice and video: outcome, ringing, talking; worse where the cell is bad."""
    rows = np.nonzero((table["record_type"] == VOICE) | (table["record_type"] == VIDEO))[0]
    size = len(rows)
    cell = table["cell"][rows]
    status = rng.choice(8, size=size, p=_STATUS_SHARES)
    bad = is_set(cell) & p.bad_cells[np.where(is_set(cell), cell, 0)]
    trouble = bad & (rng.random(size) < 0.25)
    status = np.where(trouble, np.where(rng.random(size) < 0.7, DROPPED, CONGESTION), status)
    answered = (status == COMPLETED) | (status == DROPPED)
    talk = np.clip(rng.lognormal(11.2, 1.1, size=size), 800, 4 * 3_600_000).astype(np.int64)
    pdd = np.clip(rng.normal(2_500, 800, size=size), 200, 12_000).astype(np.int64)
    ring = np.clip(rng.exponential(6_000, size=size), 0, 45_000).astype(np.int64)
    duration = np.where(answered, np.where(status == DROPPED, talk // 2 + 1, talk), 0)
    reports_holding = rng.random(size) < 0.88
    family = np.where(rng.random(size) < 0.8, Q850, SIP)
    q850 = np.array([_Q850[code] for code in range(8)])[status]
    sip = np.array([200, 480, 486, 487, 503, 500, 200, 200])[status]
    table["status"][rows] = status
    table["duration_ms"][rows] = duration
    table["answered_at"][rows] = np.where(answered, table["started_at"][rows] + pdd + ring, NULL)
    table["pdd_ms"][rows] = np.where(rng.random(size) < 0.7, pdd, NULL)
    table["holding_ms"][rows] = np.where(reports_holding, pdd + ring + duration, NULL)
    table["cause_family"][rows] = family
    table["cause_code"][rows] = np.where(family == Q850, q850, sip)
    table["released_by"][rows] = np.where(
        (status == DROPPED) | (status == CONGESTION) | (status == FAILED), 2, rng.integers(0, 2, size=size)
    )
    table["domain"][rows] = np.where(
        is_set(table["domain"][rows]), table["domain"][rows], np.where(family == SIP, IMS, CS)
    )
    table["node"][rows] = np.where(is_set(table["node"][rows]), table["node"][rows], rng.integers(0, 2, size=size))
    table["peer"][rows] = _numbers_called(p, rng, size)
    emergency = (rng.random(size) < 0.002) & (table["direction"][rows] == MO)
    table["peer"][rows[emergency]] = rng.integers(*EMERGENCY_PEERS, size=int(emergency.sum()))
    out = (rng.random(size) < 0.3) & (table["direction"][rows] == MO)
    table["route_out"][rows[out]] = rng.integers(0, len(ROUTES), size=int(out.sum()))
    withheld = rng.random(size) < 0.01
    table["peer"][rows[withheld]] = NULL


def _numbers_called(p: Population, rng: np.random.Generator, size: int) -> Ints:
    """Four of ten calls stay among the population's own numbers."""
    off_net = len(_SPECIAL_PEERS) + rng.integers(0, _OFF_NET_PEERS, size=size)
    on_net = len(_SPECIAL_PEERS) + _OFF_NET_PEERS + rng.integers(0, len(p.msisdns), size=size)
    result: Ints = np.where(rng.random(size) < 0.4, on_net, off_net)
    return result


def _messages(table: Columns, rng: np.random.Generator) -> None:
    record_type = table["record_type"]
    for kind, node, most in ((SMS, 3, 4), (MMS, 3, 1)):
        rows = np.nonzero(record_type == kind)[0]
        size = len(rows)
        failed = rng.random(size) < 0.02
        table["status"][rows] = np.where(failed, FAILED, COMPLETED)
        table["segments"][rows] = rng.integers(1, most + 1, size=size)
        table["node"][rows] = node
        table["domain"][rows] = np.where(rng.random(size) < 0.3, IMS, CS)
        table["cause_family"][rows] = np.where(failed, SMS_CAUSE, NULL)
        table["cause_code"][rows] = np.where(failed, 27, NULL)
        first, last = len(_SPECIAL_PEERS), len(_SPECIAL_PEERS) + _OFF_NET_PEERS
        peer = rng.integers(first, last, size=size)
        chance = rng.random(size)
        peer = np.where(chance < 0.15, rng.integers(*ALPHANUMERIC_PEERS, size=size), peer)
        peer = np.where((chance >= 0.15) & (chance < 0.25), rng.integers(*SHORT_CODE_PEERS, size=size), peer)
        table["peer"][rows] = peer
        # What a name sends is received.
        table["direction"][rows] = np.where(chance < 0.15, MT, table["direction"][rows])
    ussd = np.nonzero(record_type == USSD)[0]
    table["domain"][ussd] = CS
    table["direction"][ussd] = MO
    table["node"][ussd] = 0
    other = np.nonzero(record_type == OTHER)[0]
    table["node"][other] = 0
    table["status"][other] = UNKNOWN


def _charges(table: Columns, p: Population, rng: np.random.Generator) -> None:
    """Minutes, messages and megabytes; dollars abroad, nothing stated for what an allowance covers."""
    count = count_of(table)
    abroad = is_set(table["serving_plmn"]) & (table["serving_plmn"] > 0)
    kind = table["record_type"]
    minutes = -(-np.where(is_set(table["duration_ms"]), table["duration_ms"], 0) // 60_000)
    total = np.where(is_set(table["bytes_down"]), table["bytes_down"] + table["bytes_up"], 0)
    charge = np.select(
        [(kind == VOICE) | (kind == VIDEO), (kind == SMS) | (kind == MMS), kind == DATA],
        [minutes * 90_000, np.where(is_set(table["segments"]), table["segments"], 0) * 70_000, total // 100],
        0,
    )
    charge = np.where(abroad, charge * 3 + 1_234, charge)
    stated = np.where(abroad, rng.random(count) < 0.9, rng.random(count) < 0.5) & is_set(table["party"])
    stated &= kind != OTHER
    table["charge_micros"] = np.where(stated, charge, NULL)
    table["currency"] = np.where(stated, np.where(abroad, USD, EUR), NULL)


HEADER = (
    "event_id",
    "started_at",
    "record_type",
    "status",
    "msisdn",
    "imsi",
    "line",
    "cell_id",
    "duration_ms",
    "bytes_up",
    "bytes_down",
    "charge_micros",
    "currency",
    "direction",
    "peer",
    "serving_plmn",
    "is_partial",
    "rat",
    "domain",
    "answered_at",
    "holding_ms",
    "pdd_ms",
    "last_cell_id",
    "cause_family",
    "cause_code",
    "released_by",
    "session_id",
    "record_seq",
    "closing_reason",
    "node_id",
    "node_seq",
    "imei",
    "apn",
    "route_in",
    "route_out",
    "segments",
    "rating_group",
)


def as_text(population: Population, table: Columns, peers: Objects) -> dict[str, list[str]]:
    """The fields of ``HEADER`` as CSV text, empty where null."""
    p = population
    party, named_by = table["party"], table["named_by"]
    shows_msisdn = (named_by == BY_MSISDN_AND_IMSI) | (named_by == BY_MSISDN)
    shows_imsi = (named_by == BY_MSISDN_AND_IMSI) | (named_by == BY_IMSI)
    cells = p.cell_ids.tolist()
    prefix = p.scenario.source
    return {
        "event_id": [f"{prefix}-{number}" if number != NULL else "" for number in table["event"].tolist()],
        "started_at": instant_text(table["started_at"], table["style"]),
        "record_type": vocabulary_text(RECORD_TYPES, table["record_type"]),
        "status": vocabulary_text(STATUSES, table["status"]),
        "msisdn": vocabulary_text(p.msisdns.tolist(), np.where(shows_msisdn, party, NULL)),
        "imsi": vocabulary_text(p.imsis.tolist(), np.where(shows_imsi, party, NULL)),
        "line": ["" if number == NULL else str(2000 + number) for number in table["line"].tolist()],
        "cell_id": vocabulary_text(cells, table["cell"]),
        "duration_ms": int_text(table["duration_ms"]),
        "bytes_up": int_text(table["bytes_up"]),
        "bytes_down": int_text(table["bytes_down"]),
        "charge_micros": int_text(table["charge_micros"]),
        "currency": vocabulary_text(CURRENCIES, table["currency"]),
        "direction": vocabulary_text(DIRECTIONS, table["direction"]),
        "peer": vocabulary_text(peers.tolist(), table["peer"]),
        "serving_plmn": vocabulary_text(PLMNS, table["serving_plmn"]),
        "is_partial": bool_text(table["is_partial"]),
        "rat": vocabulary_text(RATS, table["rat"]),
        "domain": vocabulary_text(DOMAINS, table["domain"]),
        "answered_at": instant_text(table["answered_at"]),
        "holding_ms": int_text(table["holding_ms"]),
        "pdd_ms": int_text(table["pdd_ms"]),
        "last_cell_id": vocabulary_text(cells, table["last_cell"]),
        "cause_family": vocabulary_text(CAUSE_FAMILIES, table["cause_family"]),
        "cause_code": int_text(table["cause_code"]),
        "released_by": vocabulary_text(RELEASED_BY, table["released_by"]),
        "session_id": ["" if number == NULL else f"s{number}" for number in table["session"].tolist()],
        "record_seq": int_text(table["record_seq"]),
        "closing_reason": vocabulary_text(CLOSING_REASONS, table["closing_reason"]),
        "node_id": vocabulary_text(NODES, table["node"]),
        "node_seq": int_text(table["node_seq"]),
        "imei": vocabulary_text(p.imeis.tolist(), np.where(table["imei"] == 1, party, NULL)),
        "apn": vocabulary_text(APNS, table["apn"]),
        "route_in": vocabulary_text(ROUTES, table["route_in"]),
        "route_out": vocabulary_text(ROUTES, table["route_out"]),
        "segments": int_text(table["segments"]),
        "rating_group": int_text(table["rating_group"]),
    }
