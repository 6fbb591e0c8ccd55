"""Packing is a pure function that loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afina.domain.bins import bin_capacities
from afina.domain.mixing import mixed_key, splitmix64
from afina.training.packing import (
    _mixed,
    epoch_order,
    pack_rows,
    rows_of_step,
    steps_in_epoch,
)


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 99)
)
def test_an_epoch_takes_each_row_once_and_no_bin_overflows(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    capacities = (128, 256, 700)
    order = epoch_order(len(lengths), seed, 1)
    seen: list[int] = []
    for step in range(steps_in_epoch(len(lengths), batch_size)):
        rows = rows_of_step(order, batch_size, step)
        bins = pack_rows(rows, lengths, capacities)
        inside = [row for one in bins for row in one.rows]
        assert sorted(inside) == sorted(rows)
        for one in bins:
            used = sum(lengths[row] for row in one.rows)
            assert one.capacity == min(c for c in capacities if c >= used)
        seen += rows
    assert sorted(seen) == list(range(len(lengths)))


def test_the_order_changes_with_seed_and_epoch_and_with_nothing_else() -> None:
    first = epoch_order(100, 1, 1)
    assert np.array_equal(first, epoch_order(100, 1, 1))
    assert not np.array_equal(first, epoch_order(100, 1, 2))
    assert not np.array_equal(first, epoch_order(100, 2, 1))


def test_the_order_of_a_seed_never_changes_between_versions() -> None:
    assert epoch_order(8, 7, 1).tolist() == [4, 5, 1, 2, 7, 0, 3, 6]
    assert mixed_key(7, 1) == 2207009715805324207


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_mixing_many_numbers_is_mixing_each(values: list[int]) -> None:
    found = _mixed(np.array(values, dtype=np.uint64))
    assert found.tolist() == [splitmix64(value) for value in values]


def test_a_row_longer_than_every_bin_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="row 1 has 300 tokens"):
        pack_rows([0, 1], [5, 300], (128, 256))


def test_capacities_hold_the_longest_row() -> None:
    assert bin_capacities(10)[-1] == 2048
    assert bin_capacities(5000)[-1] >= 5000
    assert list(bin_capacities(5000)) == sorted(set(bin_capacities(5000)))
