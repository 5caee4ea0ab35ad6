"""How long cells were up, from the outages in ``fact_network_event``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import source

DOWN_SEVERITIES = ("CRITICAL",)
"""An alarm of these takes the cell out of service (X.733: critical); of others it goes on, worse."""

LOOK_BACK = timedelta(days=92)
"""An outage that began longer before the range is not seen: such a cell is gone rather than down."""

Step = tuple[datetime, datetime]


def cell_availability(
    steps: Sequence[Step],
    *,
    cells: Sequence[str] | None = None,
    generation: int | None = None,
    severities: Sequence[str] = DOWN_SEVERITIES,
    look_back: timedelta = LOOK_BACK,
) -> Query:
    """One row per step and cell: ``step_start``, ``cell_id``, ``available_ms`` and ``range_ms`` (whole milliseconds).

    ``steps`` are ascending (start, end) without overlap, the last one ended: what lies ahead is not available yet. A
    cell is down from CELL_DOWN to CELL_UP, and from an alarm RAISED with one of ``severities`` until the same
    ``alarm_id`` is CLEARED or raised with another severity; overlapping outages count once. Before a cell's first
    outage event it was up. Only cells with an event of any kind within the steps, or down when they begin, have rows:
    of others nothing is known. Raises ValueError without steps.
    """
    if not steps:
        raise ValueError("availability of no steps: give at least one")
    params: dict[str, Parameter] = {
        "oldest": steps[0][0] - look_back,
        "since": steps[0][0],
        "until": steps[-1][1],
        "since_ms": _ms(steps[0][0]),
        "until_ms": _ms(steps[-1][1]),
        "starts": [_ms(start) for start, _ in steps],
        "ends": [_ms(end) for _, end in steps],
        "severities": list(severities),
    }
    of_cells = ""
    if cells is not None:
        of_cells = " AND e.cell_id IN {cells:Array(String)}"
        params["cells"] = list(cells)
    events = source("fact_network_event", generation)
    return Query(_SQL.format(events=events, of_cells=of_cells), params)


def _ms(at: datetime) -> int:
    return (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


# A channel is one thing that can hold a cell down: the cell itself, or one alarm. `delta` is +1 where a channel goes
# down and -1 where it comes up, so the cell is down where their sum so far is above 0. Doing and undoing within one
# millisecond is an interval of length 0.
_SQL = """WITH
changes AS
(
    SELECT
        cell_id,
        at,
        down - lagInFrame(down, 1, toInt8(0)) OVER (
            PARTITION BY cell_id, channel ORDER BY at, arrived ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS delta
    FROM
    (
        SELECT
            toString(e.cell_id) AS cell_id,
            toUnixTimestamp64Milli(e.occurred_at) AS at,
            (e.appended_at, e.src_partition, e.src_offset) AS arrived,
            if(e.event_type = 'ALARM', concat('alarm ', ifNull(e.alarm_id, '')), 'cell') AS channel,
            toInt8(
                e.event_type = 'CELL_DOWN'
                OR (e.event_type = 'ALARM' AND ifNull(e.alarm_state, '') = 'RAISED'
                    AND has({{severities:Array(String)}}, ifNull(toString(e.severity), '')))
            ) AS down
        FROM {events} AS e
        WHERE e.occurred_at >= {{oldest:DateTime64(3, 'UTC')}} AND e.occurred_at < {{until:DateTime64(3, 'UTC')}}
          AND (e.event_type IN ('CELL_DOWN', 'CELL_UP')
               OR (e.event_type = 'ALARM' AND e.alarm_id IS NOT NULL AND e.alarm_state IS NOT NULL)){of_cells}
    )
),
outages AS
(
    SELECT
        cell_id,
        greatest(at, {{since_ms:Int64}}) AS down_from,
        least(next_at, {{until_ms:Int64}}) AS down_to
    FROM
    (
        SELECT
            cell_id,
            at,
            sum(delta) OVER (PARTITION BY cell_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                AS level,
            leadInFrame(at, 1, {{until_ms:Int64}}) OVER (
                PARTITION BY cell_id ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) AS next_at
        FROM (SELECT cell_id, at, sum(delta) AS delta FROM changes GROUP BY cell_id, at)
    )
    WHERE level > 0 AND down_from < down_to
),
known AS
(
    SELECT toString(e.cell_id) AS cell_id FROM {events} AS e
    WHERE e.occurred_at >= {{since:DateTime64(3, 'UTC')}} AND e.occurred_at < {{until:DateTime64(3, 'UTC')}}{of_cells}
    UNION DISTINCT
    SELECT cell_id FROM outages
)
SELECT
    fromUnixTimestamp64Milli(start, 'UTC') AS step_start,
    known.cell_id AS cell_id,
    step_end - start - ifNull(lost.down_ms, 0) AS available_ms,
    step_end - start AS range_ms
FROM known
ARRAY JOIN {{starts:Array(Int64)}} AS start, {{ends:Array(Int64)}} AS step_end
LEFT JOIN
(
    SELECT
        cell_id,
        start,
        sum(least(down_to, step_end) - greatest(down_from, start)) AS down_ms
    FROM outages
    ARRAY JOIN {{starts:Array(Int64)}} AS start, {{ends:Array(Int64)}} AS step_end
    WHERE start < down_to AND step_end > down_from
    GROUP BY cell_id, start
) AS lost
ON known.cell_id = lost.cell_id AND start = lost.start
ORDER BY step_start, cell_id"""
