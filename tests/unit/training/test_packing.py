"""Packing is a pure function that loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afina.domain.bins import bin_capacities
from afina.domain.mixing import mixed_key, splitmix64
from afina.training.families import RowTokens, find_families, pack_families
from afina.training.packing import (
    Family,
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


def tokens_of(texts: list[str], first_learned: int = 30) -> list[RowTokens]:
    rows = [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]
    return [RowTokens(n, ids, min(first_learned, len(ids) - 1)) for n, ids in enumerate(rows)]


def test_rows_share_what_saves_most() -> None:
    system, other = "S" * 20, "T" * 24
    texts = [system + "one", other + "1", system + "two", system + "two more", other + "2", "alone"]
    assert find_families(tokens_of(texts)) == (
        Family(20, (0, 2, 3)),
        Family(24, (1, 4)),
        Family(0, (5,)),
    )


def test_a_beginning_ends_where_a_loss_looks_first() -> None:
    texts = ["S" * 40 + "one", "S" * 40 + "two"]
    assert find_families(tokens_of(texts, first_learned=25)) == (Family(25, (0, 1)),)
    assert find_families(tokens_of(texts, first_learned=5)) == (Family(0, (0, 1)),)


@given(
    st.lists(st.tuples(st.sampled_from(["A" * 18, "B" * 33, ""]), st.text("xy", min_size=1))),
    st.sampled_from([(128,), (64, 80), (64, 128, 4096)]),
)
def test_a_shared_beginning_is_in_a_bin_once_and_every_row_in_one_bin(
    parts: list[tuple[str, str]], capacities: tuple[int, ...]
) -> None:
    rows = tokens_of([beginning + rest[:30] for beginning, rest in parts])
    families = find_families(rows)
    assert sorted(row for family in families for row in family.rows) == list(range(len(rows)))
    lengths = {row.number: len(row.ids) for row in rows}
    bins = pack_families(families, lengths, capacities)
    assert sorted(row for one in bins for row in one.rows) == list(range(len(rows)))
    for one in bins:
        assert one.rows == tuple(row for family in one.families for row in family.rows)
        used = 0
        for family in one.families:
            used += family.shared + sum(lengths[row] - family.shared for row in family.rows)
            beginnings = {rows[row].ids[: family.shared].tobytes() for row in family.rows}
            assert len(beginnings) == 1
        assert used <= one.capacity
        assert one.capacity == min(c for c in capacities if c >= used)
