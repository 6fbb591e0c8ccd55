"""Kept prefixes are let go whole, whatever was used when."""

from __future__ import annotations

from afina.serving.blocks import BlockAllocator
from afina.serving.prefixes import Branch, PrefixIndex

ROOT = ("project", None)


def keep(index: PrefixIndex, allocator: BlockAllocator, place: Branch, letters: str) -> None:
    """Keeps a block of one token a letter, as a sequence that ends afterwards."""
    for letter in letters:
        (block,) = allocator.take(1)
        found = index.keep(place, (ord(letter),), block)
        allocator.release([block])
        assert found is not None
        place = found


def test_one_round_lets_go_of_all_that_nobody_reads() -> None:
    allocator = BlockAllocator(8, 1)
    index = PrefixIndex(allocator)
    root = index.root(ROOT)
    keep(index, allocator, root, "abc")
    shared = index.follow(root, [ord("a"), ord("b")], 2)
    keep(index, allocator, shared[-1], "d")
    assert allocator.free == 4
    assert index.let_go(8) == 4
    assert allocator.free == 8


def test_nothing_is_found_behind_a_place_that_was_forgotten() -> None:
    allocator = BlockAllocator(8, 1)
    index = PrefixIndex(allocator)
    root = index.root(ROOT)
    keep(index, allocator, root, "abc")
    (place,) = index.follow(root, [ord("a")], 1)
    index.forget(None)
    assert allocator.free == 8
    for left in (root, place, index.root(ROOT)):
        assert index.follow(left, [ord("a"), ord("b"), ord("c")], 3) == []
        assert index.follow(left, [ord("b"), ord("c")], 2) == []
