"""The block allocator of the paged cache. Plain Python: numbers of blocks, no tensors.

A block holds the keys and values of `block_tokens` positions. Sequences that share a prompt share
its blocks by counting references; a block is free when nobody refers to it. Freed blocks are taken
again last in, first out, so that memory which was never needed is never touched.
"""

from __future__ import annotations


class OutOfBlocks(Exception):
    """There are fewer free blocks than asked for. The scheduler makes room; users never see it."""


class BlockAllocator:
    """Hands out block numbers 0 to `blocks` - 1."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.total = blocks
        self._free = list(range(blocks - 1, -1, -1))
        self._references = [0] * blocks

    @property
    def free(self) -> int:
        """How many blocks nobody refers to."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks hold `tokens` positions."""
        return -(-tokens // self.block_tokens)

    def take(self, count: int) -> list[int]:
        """`count` fresh blocks with one reference each, or OutOfBlocks and nothing taken."""
        if count > len(self._free):
            raise OutOfBlocks
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, blocks: list[int]) -> None:
        """One more reference to each of `blocks`."""
        for block in blocks:
            if self._references[block] == 0:
                raise ValueError(f"block {block} is free and cannot be shared")
        for block in blocks:
            self._references[block] += 1

    def release(self, blocks: list[int]) -> None:
        """One reference less to each of `blocks`; those with none left are free again."""
        for block in reversed(blocks):
            if self._references[block] == 0:
                raise ValueError(f"block {block} is already free")
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def references(self, block: int) -> int:
        """How many refer to `block`."""
        return self._references[block]
