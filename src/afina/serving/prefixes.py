"""Computed prompts, kept for whoever begins with the same ids. Plain Python over block numbers.

Whole blocks of computed positions form a tree for each namespace and adapter: what follows the same
ids under the same weights for the same project is computed once. The index refers to its blocks as
a sequence does, so a block is free only when neither needs it. When blocks run short, those that
nobody reads are let go, ends of branches first, the least recently used before others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from afina.serving.blocks import BlockAllocator

Root = tuple[str, str | None]
"""A namespace, and the adapter or None for the base."""


class Branch:
    """A place in the tree: one block's ids after those of `parent`."""

    __slots__ = ("block", "children", "ids", "is_kept", "parent", "used_at")

    def __init__(self, parent: Branch | None, ids: tuple[int, ...], block: int) -> None:
        self.parent = parent
        self.ids = ids
        self.block = block
        self.children: dict[tuple[int, ...], Branch] = {}
        self.is_kept = True
        self.used_at = 0


class PrefixIndex:
    """Which blocks hold which prefixes."""

    def __init__(self, allocator: BlockAllocator) -> None:
        self._blocks = allocator
        self._roots: dict[Root, Branch] = {}
        self._used: OrderedDict[Branch, None] = OrderedDict()
        self._uses = 0
        self.tokens_asked = 0
        """Prompt positions of all sequences that began."""
        self.tokens_found = 0
        """Those that were kept already."""

    def __len__(self) -> int:
        """How many blocks are kept."""
        return len(self._used)

    def __iter__(self) -> Iterator[int]:
        """The blocks that are kept."""
        return (branch.block for branch in self._used)

    def root(self, root: Root) -> Branch:
        """Where all prefixes of a namespace and adapter begin."""
        return self._roots.setdefault(root, Branch(None, (), -1))

    def follow(self, branch: Branch, ids: Sequence[int], most: int) -> list[Branch]:
        """The kept blocks that hold `ids` after `branch`, in order, at most `most`. Takes no
        references."""
        found: list[Branch] = []
        size = self._blocks.block_tokens
        place: Branch | None = branch
        while place is not None and len(found) < most:
            start = len(found) * size
            place = place.children.get(tuple(ids[start : start + size]))
            if place is not None:
                found.append(place)
        for place in reversed(found):
            self._touch(place)
        return found

    def keep(self, branch: Branch, ids: tuple[int, ...], block: int) -> Branch | None:
        """Keeps `block`, which holds `ids` after `branch`; the place behind it. Where the same is
        kept already, that stays. None if `branch` itself was let go."""
        if not branch.is_kept:
            return None
        found = branch.children.get(ids)
        if found is None:
            self._blocks.share([block])
            found = branch.children[ids] = Branch(branch, ids, block)
        self._touch(found)
        return found

    def let_go(self, wanted: int) -> int:
        """Frees up to `wanted` blocks; how many."""
        freed = 0
        for branch in list(self._used):
            place: Branch | None = branch
            while place is not None and freed < wanted and self._may_go(place):
                self._drop(place)
                freed += 1
                parent = place.parent
                # Those that were used after `branch` come later in this very round.
                older = parent is not None and parent.used_at < branch.used_at
                place = parent if older else None
            if freed >= wanted:
                break
        return freed

    def forget(self, adapter: str | None) -> None:
        """Lets go of all that was computed with an adapter, in every namespace."""
        for root in [r for r in self._roots if r[1] == adapter]:
            gone = [self._roots.pop(root)]
            while gone:
                branch = gone.pop()
                gone += branch.children.values()
                # A sequence may still stand here: it must not find what is let go behind it.
                branch.children = {}
                branch.is_kept = False
                if branch.parent is not None:
                    del self._used[branch]
                    self._blocks.release([branch.block])

    def _may_go(self, branch: Branch) -> bool:
        unread = branch.is_kept and not branch.children and branch.parent is not None
        return unread and self._blocks.references(branch.block) == 1

    def _touch(self, branch: Branch) -> None:
        self._uses += 1
        branch.used_at = self._uses
        self._used[branch] = None
        self._used.move_to_end(branch)

    def _drop(self, branch: Branch) -> None:
        branch.is_kept = False
        del self._used[branch]
        if branch.parent is not None:
            del branch.parent.children[branch.ids]
        self._blocks.release([branch.block])
