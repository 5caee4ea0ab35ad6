"""What comes out is what a plain loop over the records gives."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("seed", range(4))
def test_all_families_and_sizes_equal_a_plain_model_over_segment_borders(world, some, seed):
    w = world(zone="Europe/Paris")
    for partition in (0, 3):
        w.write("cdr", partition, some("cdr", 700, seed, first=30, partition=partition, zone="Europe/Paris"), 9)
        w.write("network", partition, some("network", 400, seed, partition=partition), 7)
    w.take_all()
    assert w.windows() == w.expected()
