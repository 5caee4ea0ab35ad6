"""What switches counted against what is there: gaps in ``node_seq`` over judged records of every verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from telestream_domain.gaps import BACKWARDS_MS, MAX_GAP, SURE_GAP
from telestream_warehouse.query import Parameter, Query
from telestream_warehouse.tables import physical


def node_numbers(
    since: datetime, until: datetime, generation: int, sources: Sequence[str] | None = None, limit: int = 1_000
) -> Query:
    """One row per source and node of CDRs that arrived in ``since ≤ t < until``: ``source``, ``node_id`` ('' where
    none was given), ``first``, ``last``, ``present``, ``missing``, ``restarts``, and ``reused``: numbers that several
    records hold which are not duplicates of one another. At most ``limit`` rows, most missing first."""
    inner, params = _steps(since, until, generation, sources)
    sql = f"""SELECT
    source,
    node_id,
    min(node_seq) AS first,
    max(node_seq) AS last,
    count() AS present,
    sumIf(hole, NOT restart) AS missing,
    countIf(restart) AS restarts,
    countIf(holders > 1) AS reused
FROM ({inner})
GROUP BY source, node_id
ORDER BY missing DESC, source, node_id
LIMIT {int(limit)}"""
    return Query(sql, params)


def missing_numbers(
    since: datetime, until: datetime, generation: int, sources: Sequence[str] | None = None, limit: int = 100
) -> Query:
    """The holes themselves: ``source``, ``node_id``, ``first``, ``last`` of the missing numbers, ``numbers``, and
    ``noticed_at``: when the number after it arrived. Largest first, at most ``limit``."""
    inner, params = _steps(since, until, generation, sources)
    sql = f"""SELECT
    source,
    node_id,
    node_seq - hole AS first,
    node_seq - 1 AS last,
    hole AS numbers,
    toUnixTimestamp64Milli(at) AS noticed_at
FROM ({inner})
WHERE hole > 0 AND NOT restart
ORDER BY numbers DESC, source, node_id, first
LIMIT {int(limit)}"""
    return Query(sql, params)


def numbers_by_step(
    since: datetime,
    until: datetime,
    generation: int,
    step: str,
    *,
    by_source: bool,
    sources: Sequence[str] | None = None,
    margin_s: int = 0,
) -> Query:
    """Per ``step_start`` (epoch ms; ``step`` is SQL of the column ``at``) and ``source`` ('' if not ``by_source``):
    ``present`` and ``missing``. A number counts at its first arrival, a missing one at that of the number after it.

    Numbers that arrived up to ``margin_s`` before or after the range fill its holes.
    """
    inner, params = _steps(since, until, generation, sources, margin_s)
    sql = f"""SELECT
    {step} AS step_start,
    {"toString(source)" if by_source else "''"} AS source,
    count() AS present,
    sumIf(hole, NOT restart) AS missing
FROM ({inner})
WHERE at >= {{since:DateTime64(3, 'UTC')}} AND at < {{until:DateTime64(3, 'UTC')}}
GROUP BY ALL"""
    return Query(sql, params)


def _steps(
    since: datetime, until: datetime, generation: int, sources: Sequence[str] | None, margin_s: int = 0
) -> tuple[str, dict[str, Parameter]]:
    """Per number that is there: ``at`` (its first arrival), ``holders``, ``hole`` (numbers missing before it) and
    ``restart`` (its hole is the counter's, not ours: ``telestream_domain.gaps.is_restart``)."""
    params: dict[str, Parameter] = {"since": since, "until": until, "generation": generation}
    chosen = ""
    if sources is not None:
        chosen = " AND source IN {sources:Array(String)}"
        params["sources"] = list(sources)
    sql = f"""SELECT
    source,
    node_id,
    node_seq,
    at,
    holders,
    if(before_at IS NULL, 0, node_seq - before - 1) AS hole,
    hole > {MAX_GAP} OR (hole > {SURE_GAP}
        AND toUnixTimestamp64Milli(before_at) - toUnixTimestamp64Milli(at) > {BACKWARDS_MS}) AS restart
FROM
(
    SELECT
        *,
        lagInFrame(node_seq, 1, node_seq) OVER w AS before,
        lagInFrame(toNullable(at), 1, NULL) OVER w AS before_at
    FROM
    (
        SELECT
            source,
            ifNull(judged.node_id, '') AS node_id,
            assumeNotNull(judged.node_seq) AS node_seq,
            min(appended_at) AS at,
            uniqExactIf((src_partition, src_offset), verdict NOT IN ('DUPLICATE', 'REJECTED')) AS holders
        FROM {physical("judgement")} AS judged
        WHERE generation = {{generation:UInt32}} AND type = 'cdr' AND sign = 1 AND judged.node_seq IS NOT NULL
          AND appended_at >= {{since:DateTime64(3, 'UTC')}} - INTERVAL {int(margin_s)} SECOND
          AND appended_at < {{until:DateTime64(3, 'UTC')}} + INTERVAL {int(margin_s)} SECOND{chosen}
        GROUP BY source, node_id, node_seq
    )
    WINDOW w AS (PARTITION BY source, node_id ORDER BY node_seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)"""
    return sql, params
