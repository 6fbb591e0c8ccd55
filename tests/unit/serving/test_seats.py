"""Rows find their own adapter's slot, and slots stay where they are."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from afina.serving.seats import ROWS_A_SLOT, seat

NAMES = st.sampled_from([None, "a", "b", "c", "d", "e"])
ADAPTERS = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    rows=st.lists(NAMES, max_size=64),
    chunks=st.lists(ADAPTERS, max_size=4),
    existing=st.lists(NAMES, max_size=40),
)
def test_every_row_sits_in_a_slot_of_its_own_adapter_and_no_seat_is_shared(
    rows: list[str | None], chunks: list[str], existing: list[str | None]
) -> None:
    found = seat(rows, chunks, existing)
    assert found.seated == [i for i, name in enumerate(rows) if name is not None]
    assert len(set(found.seats)) == len(found.seats)
    for row, place in zip(found.seated, found.seats, strict=True):
        assert found.slots[place // found.rows_a_slot] == rows[row]
    assert found.rows_a_slot in ROWS_A_SLOT
    positions = {**dict(enumerate(found.slots)), **{s: n for n, s in found.alone.items()}}
    assert len(positions) == len(found.slots) + len(found.alone)
    for name in chunks:
        assert positions[found.slot_of(name)] == name


@given(rows=st.lists(NAMES, max_size=64), chunks=st.lists(ADAPTERS, max_size=4))
def test_the_same_step_again_moves_nobody(rows: list[str | None], chunks: list[str]) -> None:
    first = seat(rows, chunks, [])
    highest = max([len(first.slots) - 1, *first.alone.values()], default=-1)
    existing: list[str | None] = [None] * (highest + 1)
    existing[: len(first.slots)] = first.slots
    for name, slot in first.alone.items():
        existing[slot] = name
    again = seat(rows, chunks, existing)
    assert (again.slots, again.alone) == (first.slots, first.alone)


def test_who_stays_keeps_its_slot_when_another_leaves() -> None:
    before = seat(["a", "b", "c", "d"], [], [])
    after = seat(["a", "c", "d"], [], before.slots)
    kept = Counter(name for slot, name in enumerate(after.slots) if before.slots[slot] == name)
    assert kept.total() == 2
    assert sorted(after.slots) == ["a", "c", "d"]


def test_one_adapter_for_all_rows_is_read_once() -> None:
    found = seat(["a"] * 32, [], [])
    assert (found.slots, found.rows_a_slot) == (["a"], 32)
