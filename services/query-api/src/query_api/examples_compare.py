"""Example of a comparison of two generations, for the OpenAPI document."""

from __future__ import annotations

from typing import Any


def _sums(records: int, duration_ms: int, moved: int, amount: str) -> dict[str, Any]:
    charges = [{"currency": "EUR", "amount": amount}] if amount else []
    return {"records": records, "duration_ms": duration_ms, "bytes": moved, "charges": charges}


def _side(stored: int, rejected: int, sums: dict[str, Any], records: int) -> dict[str, Any]:
    return {
        "records": records,
        "stored": stored,
        "withdrawn": 0,
        "duplicates": 0,
        "conflicts": 0,
        "rejected_records": rejected,
        "rejected": {"duration_too_long": rejected} if rejected else {},
        "erased": 0,
        "without_effect": 0,
        "warned": -rejected if records == 0 else 0,
        "sums": sums,
    }


_LOST = _sums(10_012, 901_080_000_000, 0, "40048.000000")
_SIDES = {
    "this": _side(990_188, 10_012, _sums(990_188, 178_233_840_000, 91_204_000, "123773.500000"), 1_000_200),
    "other": _side(1_000_200, 0, _sums(1_000_200, 1_079_313_840_000, 91_204_000, "163821.500000"), 1_000_200),
    "difference": _side(-10_012, 10_012, _sums(-10_012, -901_080_000_000, 0, "-40048.000000"), 0),
}
_JUDGED = {
    "this": {"verdict": "REJECTED", "rule": "duration_too_long"},
    "other": {"verdict": "STORED", "rule": None},
}
_BOOKS = _sums(990_188, 0, 91_204_000, "123773.500000")

COMPARISON: dict[str, Any] = {
    "this": 2,
    "by": "source",
    "from": None,
    "to": None,
    "tz": "UTC",
    "equal": False,
    "types": [
        {
            "type": "cdr",
            "with": 1,
            "spans": [{"partition": 0, "first": 120_000, "end": 1_120_200}],
            "records": 1_000_200,
            "before_start": {"this": 0, "other": 120_000},
            "not_yet": {"this": 0, "other": 4_150},
            "differing": 10_012,
            **_SIDES,
            "causes": [
                {
                    "cause": "rule_changed",
                    "rule": "duration_too_long",
                    "records": 10_012,
                    "share": 0.01001,
                    "sums": _LOST,
                    "verdicts": [{**_JUDGED, "records": 10_012}],
                    "by_source": [{"source": "msc-1", "records": 10_012}],
                    "by_region": [{"region_id": "R01", "records": 9_000}, {"region_id": "", "records": 1_012}],
                    "columns": {"verdict": 10_012, "rule": 10_012},
                    "samples": [
                        {
                            "partition": 0,
                            "offset": 120_093,
                            "source": "msc-1",
                            **_JUDGED,
                            "columns": ["verdict", "rule"],
                        }
                    ],
                }
            ],
            "groups": [{"key": "msc-1", **_SIDES}],
            "kpis": [],
            "kpis_not_compared": [],
            "truncated": False,
            "windows": [
                {
                    "generation": 2,
                    "family": "region",
                    "agree": True,
                    "books": _BOOKS,
                    "windows": _BOOKS,
                    "difference": _sums(0, 0, 0, ""),
                }
            ],
        }
    ],
}
