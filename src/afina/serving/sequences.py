"""What the scheduler moves around: a prompt, the answers that grow from it, and a step's plan.

Plain Python, no tensors. A prompt with several answers is computed once: the first sequence fills
the cache, its siblings start from the same blocks (see `afina.serving.scheduler`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from afina.serving.prefixes import Branch


class State(enum.Enum):
    """Where a sequence stands. Only RUNNING ones hold a place in the batch."""

    PENDING = "pending"
    """Waits for its sibling to compute their prompt."""
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


@dataclass(eq=False)
class Prompt:
    """One request's prompt and what its answers share."""

    request_id: str
    ids: list[int]
    adapter: str | None = None
    namespace: str = ""
    background: bool = False
    """Nobody waits for its answer: others go first (afina.serving.ranks)."""
    sequences: list[Sequence] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    """Blocks of the computed prompt, kept until every sibling has started."""
    first: object | None = None
    """What the runner computed for the prompt's last position; opaque here."""
    started: bool = False
    cached: int = 0
    """Positions that were found computed when the first answer began."""

    @property
    def is_done(self) -> bool:
        return all(sequence.state is State.DONE for sequence in self.sequences)


@dataclass(eq=False)
class Sequence:
    """One answer that grows. `computed` positions have their keys and values in `blocks`."""

    prompt: Prompt
    choice: int
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    state: State = State.WAITING
    arrival: int = 0
    """Order of first admission; the youngest makes room first."""
    branch: Branch | None = None
    """Where its prefix stands among the kept ones; None: what follows is not kept."""
    kept: int = 0
    """Blocks up to `branch`."""
    draft: list[int] = field(default_factory=list)
    """Tokens that this step checks (afina.serving.speculation); empty between steps."""

    @property
    def target(self) -> int:
        """Positions that must be in the cache before the next token can be sampled or fed: the
        last token of an answer is fed by the decoding step itself."""
        return len(self.prompt.ids) + max(0, len(self.tokens) - 1)

    @property
    def is_decoding(self) -> bool:
        return bool(self.tokens) and self.computed == self.target

    def ids(self, start: int, stop: int) -> list[int]:
        """Ids at positions `start` to `stop` of prompt, answer and draft together."""
        size = len(self.prompt.ids)
        if stop <= size:
            return self.prompt.ids[start:stop]
        answer = self.tokens + self.draft if self.draft else self.tokens
        return self.prompt.ids[start:] + answer[max(0, start - size) : stop - size]


@dataclass(frozen=True)
class Chunk:
    """Positions `start` to `start + length` of a sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    length: int

    @property
    def ends_prompt(self) -> bool:
        """Whether the first token is sampled from the chunk's last position."""
        stop = self.start + self.length
        return not self.sequence.tokens and stop == len(self.sequence.prompt.ids)


@dataclass(frozen=True)
class Plan:
    """One step. Copies of blocks come first; forks sample from their prompt's kept logits."""

    copies: list[tuple[int, int]] = field(default_factory=list)
    forks: list[Sequence] = field(default_factory=list)
    decodes: list[Sequence] = field(default_factory=list)
    checks: list[Sequence] = field(default_factory=list)
    """Answers that decode with a draft behind their last token."""
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.forks or self.decodes or self.checks or self.chunks)
