"""Distinct counts: registers against a plain walk over bits, the estimate against what was put in."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from telestream_domain.sketch import MAX_RANK, REGISTERS, STANDARD_ERROR, estimate, merged, registers_and_ranks


def sketch_of(hashes: npt.NDArray[np.uint64]) -> dict[int, int]:
    registers, ranks = registers_and_ranks(hashes)
    held = np.zeros(REGISTERS, np.int64)
    np.maximum.at(held, registers, ranks)
    return {int(register): int(held[register]) for register in np.flatnonzero(held)}


def random_hashes(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint64]:
    return rng.integers(0, 2**64, size=count, dtype=np.uint64)


def test_register_and_rank_are_the_top_bits_and_the_leading_zeros_after_them() -> None:
    hashes = [0, 1, 2**54 - 1, 2**54, 2**53, 2**64 - 1, *(2**n for n in range(64)), *(2**n - 1 for n in range(1, 64))]
    hashes += [int(value) for value in random_hashes(np.random.default_rng(3), 5_000)]
    registers, ranks = registers_and_ranks(np.array(hashes, np.uint64))
    for value, register, rank in zip(hashes, registers, ranks, strict=True):
        text = f"{value:064b}"
        assert register == int(text[:10], 2)
        assert rank == 1 + len(text[10:]) - len(text[10:].lstrip("0"))
    assert ranks.max() == MAX_RANK


@pytest.mark.parametrize("size", [1, 30, 300, 2_000, 2_560, 4_000, 20_000, 100_000])
def test_the_error_over_200_sets_is_the_stated_one(size: int) -> None:
    rng = np.random.default_rng(size)
    errors = [estimate(list(sketch_of(random_hashes(rng, size)).values())) / size - 1 for _ in range(200)]
    assert math.sqrt(np.mean(np.square(errors))) <= 1.2 * STANDARD_ERROR
    assert round(STANDARD_ERROR, 4) == 0.0325


def test_sketches_of_parts_that_overlap_merge_to_the_sketch_of_the_union() -> None:
    hashes = random_hashes(np.random.default_rng(4), 5_000)
    parts = [sketch_of(hashes[:3_000]), sketch_of(hashes[2_000:]), {}]
    assert merged(*parts) == sketch_of(hashes)
    assert merged() == {}
    assert estimate([]) == 0
