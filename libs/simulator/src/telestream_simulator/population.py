"""Who calls and where: customers, roamers, cells, regions, plans, and how they change during the day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from telestream_simulator.columns import NULL, Bools, Floats, Ints, Objects, is_set, iso, nulls, objects
from telestream_simulator.scenario import MS_PER_DAY, Scenario

HOME_MCC, HOME_MNC = "262", "42"
HOME_PLMN = f"{HOME_MCC}-{HOME_MNC}"
NATIONAL_PLMN = "262-43"
HOME_CURRENCY, ROAMING_CURRENCY = "EUR", "USD"
FOREIGN_PLMNS = ("208-91", "222-98", "234-86", "214-71", "204-77", "310-990")
BEGINNING_MS = 1_577_836_800_000
"""2020-01-01: what never changes is valid from here."""

TECHNOLOGIES = ("LTE", "NR", "UMTS", "GSM")
VENDORS = ("Nordlicht", "Kestrel", "Baobab")
SEGMENTS = ("CONSUMER", "BUSINESS", "IOT", "YOUTH")
_PLANS = (
    # name, payment, fee, voice s, sms, data bytes; -1: unlimited
    ("Prepaid S", "PREPAID", 0, 0, 0, 0),
    ("Prepaid M", "PREPAID", 4_990_000, 6_000, 50, 2 << 30),
    ("Flat S", "POSTPAID", 9_990_000, 18_000, 100, 5 << 30),
    ("Flat M", "POSTPAID", 19_990_000, -1, 500, 20 << 30),
    ("Flat L", "POSTPAID", 39_990_000, -1, -1, -1),
    ("Business", "POSTPAID", 29_990_000, -1, -1, 50 << 30),
    ("Machines", "POSTPAID", 990_000, 0, 100, 100 << 20),
    ("Youth", "PREPAID", 7_990_000, 12_000, -1, 10 << 30),
)
PLAN_COUNT = len(_PLANS)

# What a party is, beyond having a number.
CUSTOMER, UNKNOWN_CUSTOMER, INBOUND_ROAMER = 0, 1, 2

BOTH_NUMBERS, ONLY_IMSI = 0, 1


@dataclass(frozen=True, slots=True)
class Versions:
    """Two versions at most of every party's customer row; ``customer`` NULL: no row."""

    valid_from: Ints
    customer: Ints
    plan: Ints
    region: Ints


@dataclass(frozen=True, slots=True)
class Population:
    """Parties are indexes 0 … n: first the customers, then unknown ones, then inbound roamers."""

    scenario: Scenario
    kind: Ints
    numbers: Ints  # BOTH_NUMBERS or ONLY_IMSI
    msisdns: Objects
    imsis: Objects
    imeis: Objects
    home_plmns: Objects
    abroad: Ints  # index into FOREIGN_PLMNS of a customer who is away all the time, or NULL
    weights: Floats  # how much of the traffic a party makes; sums to 1
    home_cell: Ints
    work_cell: Ints
    first: Versions
    second: Versions
    segments: Ints
    cell_ids: Objects
    cell_technology: Ints
    cell_vendor: Ints
    cell_region: Ints
    cell_next_region: Ints  # region from cell_changes_at on, or NULL
    cell_changes_at: int
    cell_weights: Floats
    bad_cells: Bools
    latitudes: Ints  # millionths of a degree
    longitudes: Ints
    regions: int

    def region_id(self, index: int) -> str:
        return f"R{self.scenario.block}-{index:03d}"

    def plan_id(self, index: int) -> str:
        return f"P{self.scenario.block}-{index}"

    def customer_id(self, index: int) -> str:
        return f"C{self.scenario.block}-{index:06d}"

    def customer_as_of(self, party: Ints, at_ms: Ints) -> tuple[Ints, Ints]:
        """Customer and plan of each party (NULL: none) by the version valid at that instant."""
        known = is_set(party)
        who = np.where(known, party, 0)
        second = is_set(self.second.customer[who]) & (at_ms >= self.second.valid_from[who])
        first = is_set(self.first.customer[who]) & (at_ms >= self.first.valid_from[who])
        customer = np.where(second, self.second.customer[who], np.where(first, self.first.customer[who], NULL))
        plan = np.where(second, self.second.plan[who], np.where(first, self.first.plan[who], NULL))
        return np.where(known, customer, NULL), np.where(known, plan, NULL)

    def region_as_of(self, cell: Ints, at_ms: Ints) -> Ints:
        """Region of each cell (NULL: none) at that instant."""
        known = is_set(cell)
        where = np.where(known, cell, 0)
        moved = is_set(self.cell_next_region[where]) & (at_ms >= self.cell_changes_at)
        region = np.where(moved, self.cell_next_region[where], self.cell_region[where])
        result: Ints = np.where(known, region, NULL)
        return result


def populate(scenario: Scenario) -> Population:
    """Customers, roamers and cells of this scenario's block; no two blocks share any."""
    rng = np.random.default_rng([scenario.seed, scenario.block, 11])
    known, unknown = scenario.customers, max(2, scenario.customers // 50)
    roamers = max(4, scenario.customers // 40)
    count = known + unknown + roamers
    kind = np.repeat(np.array([CUSTOMER, UNKNOWN_CUSTOMER, INBOUND_ROAMER], dtype=np.int64), (known, unknown, roamers))
    # A block of numbers as wide as the parties, so that another block's customers are never met.
    span = 10 ** len(str(count))
    first_number = scenario.block * span % 10**9
    national = [(first_number + i) % 10**9 for i in range(count)]
    plmn_of_roamer = rng.integers(0, len(FOREIGN_PLMNS) + 1, size=roamers)  # the last: a national roamer
    home_plmns = [HOME_PLMN] * (known + unknown) + [(*FOREIGN_PLMNS, NATIONAL_PLMN)[i] for i in plmn_of_roamer.tolist()]
    msisdns = [f"+4915{number:09d}" for number in national[: known + unknown]]
    msisdns += [f"+336{number % 10**8:08d}" for number in national[known + unknown :]]
    imsis = [
        plmn.replace("-", "") + f"{number:0{15 - len(plmn) + 1}d}"
        for plmn, number in zip(home_plmns, national, strict=True)
    ]
    tacs = rng.integers(35_000_000, 35_999_999, size=40)
    imeis = [
        f"{tac}{serial:06d}0"
        for tac, serial in zip(
            tacs[rng.integers(0, 40, size=count)].tolist(), rng.integers(0, 10**6, size=count).tolist(), strict=True
        )
    ]
    numbers = np.full(count, BOTH_NUMBERS, dtype=np.int64)
    numbers[:known][rng.random(known) < 0.05] = ONLY_IMSI

    # Heavy users: a Zipf tail, in random order so that a customer id says nothing.
    weights = 1.0 / np.arange(1, count + 1) ** 0.75
    rng.shuffle(weights)
    weights = (weights / weights.sum()).astype(np.float64)

    regions = max(3, scenario.cells // 40)
    cell_region = np.sort(rng.integers(0, regions, size=scenario.cells)).astype(np.int64)
    cell_next_region = nulls(scenario.cells)
    moving = rng.choice(scenario.cells, size=max(1, scenario.cells // 100), replace=False)
    cell_next_region[moving] = (cell_region[moving] + 1) % regions
    technology = rng.choice(4, size=scenario.cells, p=(0.6, 0.2, 0.1, 0.1)).astype(np.int64)
    cell_weights = rng.lognormal(0, 0.8, size=scenario.cells)
    cell_weights /= cell_weights.sum()
    bad = np.zeros(scenario.cells, dtype=bool)
    bad[rng.choice(scenario.cells, size=max(1, scenario.cells * 3 // 100), replace=False)] = True

    home_cell = rng.choice(scenario.cells, size=count, p=cell_weights).astype(np.int64)
    work_cell = rng.choice(scenario.cells, size=count, p=cell_weights).astype(np.int64)
    abroad = nulls(count)
    away = np.nonzero(rng.random(known) < 0.02)[0]
    abroad[away] = rng.integers(0, len(FOREIGN_PLMNS), size=len(away))
    segments = rng.choice(len(SEGMENTS), size=count, p=(0.6, 0.2, 0.1, 0.1)).astype(np.int64)
    first, second = _versions(scenario, rng, known, count, cell_region[home_cell], is_set(abroad[:known]))
    return Population(
        scenario=scenario,
        kind=kind,
        numbers=numbers,
        msisdns=objects(msisdns),
        imsis=objects(imsis),
        imeis=objects(imeis),
        home_plmns=objects(home_plmns),
        abroad=abroad,
        weights=weights,
        home_cell=home_cell,
        work_cell=work_cell,
        first=first,
        second=second,
        segments=segments,
        cell_ids=objects([_cell_id(scenario, index, int(tech)) for index, tech in enumerate(technology)]),
        cell_technology=technology,
        cell_vendor=rng.integers(0, len(VENDORS), size=scenario.cells).astype(np.int64),
        cell_region=cell_region,
        cell_next_region=cell_next_region,
        cell_changes_at=scenario.start_ms + MS_PER_DAY // 2,
        cell_weights=cell_weights,
        bad_cells=bad,
        latitudes=rng.integers(47_500_000, 54_800_000, size=scenario.cells).astype(np.int64),
        longitudes=rng.integers(6_000_000, 14_900_000, size=scenario.cells).astype(np.int64),
        regions=regions,
    )


def _versions(
    scenario: Scenario, rng: np.random.Generator, known: int, count: int, region: Ints, away: Bools
) -> tuple[Versions, Versions]:
    """Most rows never change; some change plan, start or pass their number on during the simulated days."""
    first = Versions(np.full(count, BEGINNING_MS, dtype=np.int64), nulls(count), nulls(count), region.copy())
    second = Versions(nulls(count), nulls(count), nulls(count), region.copy())
    first.customer[:known] = np.arange(known)
    first.plan[:known] = rng.integers(0, PLAN_COUNT, size=known)
    change = rng.random(known)
    # Whole minutes of the simulated days.
    when = scenario.start_ms + rng.integers(1, scenario.days * 1440, size=known) * 60_000
    new_plan = change < 0.04
    second.valid_from[:known][new_plan] = when[new_plan]
    second.customer[:known][new_plan] = first.customer[:known][new_plan]
    second.plan[:known][new_plan] = (first.plan[:known][new_plan] + 1) % PLAN_COUNT
    # Whether somebody abroad is ours is known from the customer alone, so those do not begin meanwhile.
    begins = (change >= 0.04) & (change < 0.05) & ~away
    first.valid_from[:known][begins] = when[begins]
    # A number that goes to another customer: the record before belongs to the old one.
    passed_on = np.nonzero((change >= 0.05) & (change < 0.055))[0]
    second.valid_from[passed_on] = when[passed_on]
    second.customer[passed_on] = known + np.arange(len(passed_on))
    second.plan[passed_on] = (first.plan[passed_on] + 3) % PLAN_COUNT
    return first, second


def _cell_id(scenario: Scenario, index: int, technology: int) -> str:
    """Ids of a block's own: 28 bits for LTE, 36 for NR, an area of its own for UMTS and GSM."""
    size = 1 << (scenario.cells - 1).bit_length()
    if TECHNOLOGIES[technology] == "LTE":
        return f"{HOME_PLMN}-{scenario.block % ((1 << 28) // size) * size + index}"
    if TECHNOLOGIES[technology] == "NR":
        # Above the 28 bits of LTE, so that the two never meet.
        return f"{HOME_PLMN}-{(1 << 28) + (scenario.block * size + index) % ((1 << 36) - (1 << 28))}"
    turn, area = divmod(scenario.block * 4 + technology, 65_000)
    return f"{HOME_PLMN}-{1 + area}-{(turn * size + index) % (1 << 16)}"


REFERENCE_HEADERS = {
    "customer": ("valid_from,customer_id,msisdn,imsi,plan_id,segment,region_id,status,activated_at,bill_cycle_day"),
    "cell": "valid_from,cell_id,name,region_id,latitude,longitude,technology,vendor",
    "region": "valid_from,region_id,name,country",
    "plan": (
        "valid_from,plan_id,name,payment,currency,monthly_fee_micros,"
        "voice_allowance_s,sms_allowance,data_allowance_bytes"
    ),
}


def reference_rows(population: Population) -> dict[str, list[str]]:
    """CSV lines without the header, per reference type."""
    beginning = iso(BEGINNING_MS)
    p = population
    cells = []
    for index in range(len(p.cell_ids)):
        tail = (
            f"{p.latitudes[index] / 1e6:.6f},{p.longitudes[index] / 1e6:.6f},"
            f"{TECHNOLOGIES[p.cell_technology[index]]},{VENDORS[p.cell_vendor[index]]}"
        )
        # A comma in a quoted field: CSV as it is in the world.
        name = f'"Site {index // 3}, sector {index % 3 + 1}"'
        cells.append(f"{beginning},{p.cell_ids[index]},{name},{p.region_id(int(p.cell_region[index]))},{tail}")
        if p.cell_next_region[index] != NULL:
            region = p.region_id(int(p.cell_next_region[index]))
            cells.append(f"{iso(p.cell_changes_at)},{p.cell_ids[index]},{name},{region},{tail}")
    customers = []
    for versions in (p.first, p.second):
        for index in np.nonzero(is_set(versions.customer))[0].tolist():
            valid_from = iso(int(versions.valid_from[index]))
            msisdn = "" if p.numbers[index] == ONLY_IMSI else p.msisdns[index]
            customers.append(
                f"{valid_from},{p.customer_id(int(versions.customer[index]))},{msisdn},{p.imsis[index]},"
                f"{p.plan_id(int(versions.plan[index]))},{SEGMENTS[p.segments[index]]},"
                f"{p.region_id(int(versions.region[index]))},ACTIVE,{valid_from},{index % 28 + 1}"
            )
    plans = [
        ",".join(
            (
                beginning,
                p.plan_id(index),
                name,
                payment,
                HOME_CURRENCY,
                str(fee),
                *("" if allowance < 0 else str(allowance) for allowance in allowances),
            )
        )
        for index, (name, payment, fee, *allowances) in enumerate(_PLANS)
    ]
    regions = [f"{beginning},{p.region_id(index)},Region {index},DE" for index in range(p.regions)]
    return {"region": regions, "plan": plans, "cell": cells, "customer": customers}
