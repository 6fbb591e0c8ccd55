"""What prompts take over of prefixes that others computed, and what is kept of them for others.

A sequence that begins stands on a branch of the index (afina.serving.prefixes): its first
`sequence.kept` blocks are that branch's. What it computes beyond is kept block by block.
"""

from __future__ import annotations

from afina.serving.blocks import BlockAllocator
from afina.serving.prefixes import Branch, PrefixIndex
from afina.serving.sequences import Sequence

_WORTH_WAITING = 4
"""Blocks in common with a prompt that is being computed, from which on another waits for them."""


class KeptPlaces:
    """Follows and extends the index for the sequences of one scheduler."""

    def __init__(
        self, blocks: BlockAllocator, index: PrefixIndex, *, prefixes: bool, answers: bool
    ) -> None:
        """`prefixes`: whether anything is kept; `answers`: also of what was sampled."""
        self._blocks, self._index = blocks, index
        self._keeps, self._keeps_answers = prefixes, answers

    def begin(self, sequence: Sequence, found: list[Branch]) -> None:
        """A sequence that has `found` computes from there on."""
        prompt = sequence.prompt
        if self._keeps and sequence.choice == 0:
            root = self._index.root((prompt.namespace, prompt.adapter))
            sequence.branch = found[-1] if found else root
            sequence.kept = len(found)
        if not prompt.started:
            prompt.cached = sequence.computed
            self._index.tokens_asked += len(prompt.ids)
            self._index.tokens_found += sequence.computed

    def found(self, sequence: Sequence) -> list[Branch]:
        """What is kept of a sequence's positions, but for the last of a prompt: its logits are
        needed."""
        prompt = sequence.prompt
        if not self._keeps or sequence.choice > 0:
            return []
        root = self._index.root((prompt.namespace, prompt.adapter))
        return self._index.follow(root, sequence.ids(0, sequence.target), self._most(sequence))

    def _most(self, sequence: Sequence) -> int:
        """How many whole blocks of a sequence may be taken from others."""
        wanted = sequence.target if sequence.tokens else sequence.target - 1
        return wanted // self._blocks.block_tokens

    def take_over(self, sequence: Sequence) -> None:
        """Takes what others computed of a sequence's prefix since it began."""
        branch = sequence.branch
        size = self._blocks.block_tokens
        if branch is None or sequence.computed != sequence.kept * size:
            return
        ids = sequence.ids(sequence.computed, sequence.target)
        found = self._index.follow(branch, ids, self._most(sequence) - sequence.kept)
        for place in found:
            self._blocks.share([place.block])
            self._blocks.release([sequence.blocks[sequence.kept]])
            sequence.blocks[sequence.kept] = place.block
            sequence.branch = place
            sequence.kept += 1
        sequence.computed += len(found) * size
        if not sequence.tokens:
            sequence.prompt.cached += len(found) * size
            self._index.tokens_found += len(found) * size

    def is_worth_waiting(self, sequence: Sequence, other: Sequence) -> bool:
        """Whether `other`, in this step, computes much of what `sequence` would compute."""
        branch = sequence.branch
        if branch is None or branch is not other.branch or sequence.computed != other.computed:
            return False
        wanted = _WORTH_WAITING * self._blocks.block_tokens
        start, stop = sequence.computed, sequence.computed + wanted
        if min(sequence.target, other.target) <= stop:
            return False
        return sequence.ids(start, stop) == other.ids(start, stop)

    def keep(self, sequence: Sequence) -> None:
        """Keeps the whole blocks that a sequence has computed by now."""
        size = self._blocks.block_tokens
        computed = sequence.computed
        if sequence.prompt.adapter is not None or not self._keeps_answers:
            # What an adapter sampled has its terms from other sums than what it is prompted with
            # (afina.serving.pages), and so have products in few bits: kept, it would change the
            # bits of the next prompt's answer.
            computed = min(computed, len(sequence.prompt.ids))
        while sequence.branch is not None and (sequence.kept + 1) * size <= computed:
            ids = sequence.ids(sequence.kept * size, (sequence.kept + 1) * size)
            block = sequence.blocks[sequence.kept]
            sequence.branch = self._index.keep(sequence.branch, tuple(ids), block)
            sequence.kept += 1
