"""The views with KPIs as columns, rendered from the table of KPIs: ``python -m telestream_warehouse.kpi_views FILE``.

``fact_cell_kpi`` has the measures of a quarter hour and KPIs beside them, ``kpi_cell``, ``kpi_region`` and ``kpi_plan``
the KPIs alone. Every KPI is three columns: its value (null: the source is missing), ``<name>_num`` and ``<name>_den``,
which are what may be summed over windows and groups.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from telestream_domain.kpis import PRESENT, WINDOW_MS, Basis, Kpi, Term, kpis_of
from telestream_domain.sketch import estimate_sql
from telestream_warehouse.tables import measures
from telestream_warehouse.windows import GROUP_OF_FAMILY, QUARTER_HOUR_S

_ACTIVE = "(SELECT argMax(generations, version) FROM {database}.activation)"
_HEAD = """-- KPIs as columns, by quarter hour. Made from the table of KPIs by telestream_warehouse.kpi_views.
-- The value is null and <name>_den 0 where the source is missing. Over several windows and groups sum the values of
-- counts, and of ratios and means <name>_num and <name>_den before dividing.
"""


def rendered() -> str:
    """The text of the migration."""
    views = [_view("fact_cell_kpi", "cell", with_measures=True)]
    views += [_view(f"kpi_{family}", family, with_measures=False) for family in GROUP_OF_FAMILY]
    return _HEAD + "".join(f"\n{view}" for view in views)


def _view(name: str, family: str, *, with_measures: bool) -> str:
    group = GROUP_OF_FAMILY[family]
    kpis = kpis_of(family, Basis.WINDOWS)
    outer = [f"w.{group} AS {group}", "w.window_start AS window_start", "w.size_s AS size_s"]
    outer += ["w.freshest_event_end_at AS freshest_event_end_at"]
    if with_measures:
        outer += [f"w.{measure} AS {measure}" for measure in measures(family)] + ["w.charge_micros AS charge_micros"]
        outer += ["w.late_at AS late_at"]
    else:
        outer += ["w.late_records AS late_records", "w.reversals AS reversals", "w.late_at AS late_at"]
    for kpi in kpis:
        outer += _columns(kpi, _sum(kpi.numerator), _den(kpi))
    outer += [f"if(w.records != 0, {estimate_sql('w.ranks')}, NULL) AS distinct_subscribers"]
    outer += ["w.reversals > 0 AS distinct_is_upper_bound"]
    sums = [f"sum(a.{measure}) AS {measure}" for measure in measures(family)]
    charges = "sumMap(a.charge_currencies, a.charge_micros)"
    return f"""CREATE OR REPLACE VIEW {{database}}.{name} AS
SELECT
    {_listed(outer, 4)}
FROM
(
    SELECT
        a.{group} AS {group},
        a.window_start AS window_start,
        a.size_s AS size_s,
        max(a.freshest_event_end_at) AS freshest_event_end_at,
        {_listed(sums, 8)},
        mapFromArrays({charges}.1, {charges}.2) AS charge_micros,
        max(a.late_at) AS late_at,
        maxMap(a.subscriber_registers, a.subscriber_ranks).2 AS ranks
    FROM {{database}}.agg_{family}_all AS a FINAL
    WHERE a.generation IN mapValues({_ACTIVE})
      AND a.generation = {_ACTIVE}[a.type]
      AND a.size_s = {QUARTER_HOUR_S}
    GROUP BY {group}, window_start, size_s
) AS w;
"""


def _columns(kpi: Kpi, num: str, den: str) -> list[str]:
    return [
        f"if({den} != 0, ({num}) / ({den}), NULL) AS {kpi.name}",
        f"{num} AS {kpi.name}_num",
        f"{den} AS {kpi.name}_den",
    ]


def _den(kpi: Kpi) -> str:
    den = _sum(kpi.denominator) if kpi.denominator else "toInt64(1)"
    if not kpi.gated:
        return f"({den})" if " " in den else den
    there = " AND ".join(f"w.{PRESENT[kind]} != 0" for kind in sorted(kpi.needs))
    return f"if({there}, {den}, 0)"


def _sum(terms: Sequence[Term]) -> str:
    parts = []
    for name, factor in terms:
        column = f"toInt64({QUARTER_HOUR_S * 1_000})" if name == WINDOW_MS else f"w.{name}"
        if factor.numerator != 1:
            column = f"{column} * {factor.numerator}"
        parts.append(column if factor.denominator == 1 else f"{column} / {factor.denominator}")
    return " + ".join(parts)


def _listed(columns: Sequence[str], indent: int) -> str:
    return f",\n{' ' * indent}".join(columns)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(rendered(), encoding="utf-8")
