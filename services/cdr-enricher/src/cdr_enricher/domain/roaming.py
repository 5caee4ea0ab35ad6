"""Whose subscriber was served by whom.

The first row that applies counts. *Ours*: the network is in the operator's list of home networks, where there is one.

| home network | serving network | roaming |
|---|---|---|
| unknown, or any | unknown | UNKNOWN |
| unknown | known | UNKNOWN |
| the same as serving, or both ours | | HOME |
| of the same country as serving | | NATIONAL |
| ours | of another country | OUTBOUND |
| of another country | ours | INBOUND |
| otherwise | | UNKNOWN |

Serving is the record's ``serving_plmn``, else the network in its cell's id. Home is the record's ``home_plmn``; with a
list of home networks a known customer without one is at home in the first of them. Without a list, the home network
counts as ours if the customer is known, else the serving one if the cell is.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

HOME, OUTBOUND, INBOUND, NATIONAL, UNKNOWN = "HOME", "OUTBOUND", "INBOUND", "NATIONAL", "UNKNOWN"

# countries with more than one mobile country code, by the first of them (ITU-T E.212)
_FIRST_OF_COUNTRY = {
    **dict.fromkeys(("311", "312", "313", "314", "315", "316"), "310"),  # USA
    **dict.fromkeys(("405", "406"), "404"),  # India
    "235": "234",  # United Kingdom
    "441": "440",  # Japan
    "461": "460",  # China
}
_PLMN = r"^([0-9]{3}-[0-9]{2,3})-"


def plmn_of_cell(cell_id: pl.Expr) -> pl.Expr:
    """MCC-MNC of a canonical cell id, null if it has none."""
    return cell_id.str.extract(_PLMN, 1)


def roaming(home_plmns: Sequence[str]) -> pl.Expr:
    """Of columns ``home_plmn``, ``serving_plmn``, ``cell_id``, ``customer_known`` and ``cell_known``."""
    serving = pl.coalesce("serving_plmn", plmn_of_cell(pl.col("cell_id")))
    home = pl.col("home_plmn")
    if home_plmns:
        home = pl.coalesce(home, pl.when("customer_known").then(pl.lit(home_plmns[0])))
        home_is_ours, serving_is_ours = home.is_in(list(home_plmns)), serving.is_in(list(home_plmns))
        both_ours = home_is_ours & serving_is_ours
    else:
        home_is_ours = pl.col("customer_known")
        serving_is_ours = pl.col("cell_known") & ~home_is_ours
        both_ours = pl.lit(False)
    return (
        pl.when(home.is_null() | serving.is_null())
        .then(pl.lit(UNKNOWN))
        .when((home == serving) | both_ours)
        .then(pl.lit(HOME))
        .when(_country(home) == _country(serving))
        .then(pl.lit(NATIONAL))
        .when(home_is_ours & ~serving_is_ours)
        .then(pl.lit(OUTBOUND))
        .when(serving_is_ours)
        .then(pl.lit(INBOUND))
        .otherwise(pl.lit(UNKNOWN))
        .alias("roaming")
    )


def _country(plmn: pl.Expr) -> pl.Expr:
    return plmn.str.slice(0, 3).replace(_FIRST_OF_COUNTRY)
