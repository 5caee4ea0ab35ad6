"""How many different subscribers: HyperLogLog over 2¹⁰ registers, merged by maximum, estimated here.

A register is the top ten bits of a 64-bit hash; its rank is 1 + the leading zeros of the 54 bits after them. Registers
that nothing fell into are left out (rank 0). Standard error 1.04 / √1024 = 3.25 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

REGISTER_BITS = 10
REGISTERS = 1 << REGISTER_BITS
RANK_BITS = 64 - REGISTER_BITS
MAX_RANK = RANK_BITS + 1
STANDARD_ERROR = 1.04 / math.sqrt(REGISTERS)

_ALPHA = 1 / (2 * math.log(2))
_TERMS = 24
"""Of the series for empty registers: with one of 1024 in use, later ones are below 1e-300."""


def registers_and_ranks(hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Register (0…1023) and rank (1…55) of each 64-bit hash."""
    registers = (hashes >> np.uint64(RANK_BITS)).astype(np.int64)
    rest = hashes & np.uint64((1 << RANK_BITS) - 1)
    # exponents of the two halves: a double holds 53 bits only, and rounding up would cross a power of two
    high, low = (rest >> np.uint64(27)).astype(np.float64), (rest & np.uint64((1 << 27) - 1)).astype(np.float64)
    length = np.where(high > 0, np.frexp(high)[1] + 27, np.frexp(low)[1])
    return registers, (MAX_RANK - length).astype(np.int64)


def merged(*sketches: Mapping[int, int]) -> dict[int, int]:
    """Register → rank of the union of what the sketches saw, ascending."""
    union: dict[int, int] = {}
    for sketch in sketches:
        for register, rank in sketch.items():
            union[register] = max(rank, union.get(register, 0))
    return dict(sorted(union.items()))


def estimate(ranks: npt.ArrayLike) -> float:
    """How many different ones a sketch saw, from the ranks of its registers in use; 0 of none.

    Ertl's improved raw estimator (arXiv 1702.01284, section 3): one formula, without a bias where others change over
    from counting empty registers to ranks.
    """
    found = np.asarray(ranks, dtype=np.float64)
    if not found.size:
        return 0.0
    empty = 1 - found.size / REGISTERS
    unused = empty + math.fsum(math.pow(empty, 2.0**term) * 2.0 ** (term - 1) for term in range(1, _TERMS))
    return _ALPHA * REGISTERS**2 / (REGISTERS * unused + float(np.sum(np.exp2(-found))))


def estimate_sql(ranks: str) -> str:
    """The same as a ClickHouse expression; ``ranks`` is an expression of the array of ranks, such as
    ``maxMap(subscriber_registers, subscriber_ranks).2``."""
    empty = f"(1 - length({ranks}) / {REGISTERS})"
    unused = f"({empty} + arraySum(k -> pow({empty}, exp2(k)) * exp2(k - 1), range(1, {_TERMS})))"
    raw = f"{_ALPHA * REGISTERS**2!r} / ({REGISTERS} * {unused} + arraySum(r -> exp2(-toFloat64(r)), {ranks}))"
    return f"if(empty({ranks}), 0., {raw})"
