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

# countries with more than one mobile country code (ITU-T E.212): the USA, India, the United Kingdom, Japan, China
_SEVERAL = ((310, 311, 312, 313, 314, 315, 316), (404, 405, 406), (234, 235), (440, 441), (460, 461))
_FIRST = {code: codes[0] for codes in _SEVERAL for code in codes}
_FIRST_OF_CODE = pl.Series([_FIRST.get(code) for code in range(1000)], dtype=pl.UInt16)
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
        .when(_same_country(home, serving))
        .then(pl.lit(NATIONAL))
        .when(home_is_ours & ~serving_is_ours)
        .then(pl.lit(OUTBOUND))
        .when(serving_is_ours)
        .then(pl.lit(INBOUND))
        .otherwise(pl.lit(UNKNOWN))
        .alias("roaming")
    )


def _same_country(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    # a table by number costs a third of replacing texts
    codes = [plmn.str.slice(0, 3) for plmn in (one, other)]
    first, second = (pl.lit(_FIRST_OF_CODE).gather(code.cast(pl.UInt16, strict=False)) for code in codes)
    return (codes[0] == codes[1]) | (first == second)
