"""What a customer used, by local day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from telestream_warehouse.query import Query
from telestream_warehouse.tables import measures, source

GROUPS = ("subscriber_id", "plan_id", "roaming", "direction")


def usage_per_day(
    customer_id: str, since: date, until: date, *, group_by: Sequence[str] = (), generation: int | None = None
) -> Query:
    """Per local date of ``since ≤ date < until`` (and per ``group_by``, some of ``GROUPS``): the measures of
    ``agg.subscriber_day``, and ``charge_micros`` as a map by currency.

    A day of an identifier belongs to the last customer who held it on that day. Raises KeyError for another group.
    """
    wrong = [name for name in group_by if name not in GROUPS]
    if wrong:
        raise KeyError(f"usage cannot be grouped by {', '.join(wrong)}: one of {', '.join(GROUPS)}")
    keys = ["local_date", *group_by]
    sums = ",\n    ".join(f"sum(a.{name}) AS {name}" for name in measures("subscriber_day"))
    held = "(SELECT identifier FROM dim_customer WHERE customer_id = {customer:String})"
    sql = f"""SELECT
    {", ".join(f"a.{key} AS {key}" for key in keys)},
    {sums},
    sumMap(map(toString(a.currency), a.charge_micros)) AS charge_micros
FROM
(
    SELECT *, window_start + INTERVAL 1 DAY AS day_end
    FROM {source("agg_subscriber_day", generation)}
    WHERE subscriber_id IN {held} AND local_date >= {{since:Date32}} AND local_date < {{until:Date32}}
) AS a
ASOF LEFT JOIN
(
    SELECT identifier, valid_from, valid_to, customer_id FROM dim_customer WHERE identifier IN {held}
) AS c
ON a.subscriber_id = c.identifier AND a.day_end > c.valid_from
WHERE c.customer_id = {{customer:String}} AND c.valid_to > a.window_start
GROUP BY {", ".join(keys)}
ORDER BY {", ".join(keys)}"""
    return Query(sql, {"customer": customer_id, "since": since, "until": until})
