"""What a request asks of its scores before a token is chosen: biases and penalties.

A `Reshaping` belongs to one answer. It changes the row of scores that the answer's next token is
chosen from, in place, given the answer's tokens so far. Nothing of another answer reaches it, so
company cannot change what it does.

Formula of the penalties, as OpenAI documents it: a token that was sampled c times loses
c * frequency_penalty, and presence_penalty once if c > 0. Tokens of the prompt are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""One row of scores `[V]`, before temperature."""


class Reshaping(Protocol):
    """Changes the scores that one answer's next token is chosen from."""

    @property
    def fault(self) -> str | None:
        """Why the answer cannot go on; None while it can."""
        ...

    def apply(self, scores_V: Scores, tokens: Sequence[int]) -> None:
        """Changes `scores_V` in place. `tokens` are the answer's so far: from call to call they
        only grow."""
        ...


class Bias:
    """Adds given numbers to the scores of given tokens."""

    fault: str | None = None

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._ids = np.fromiter(bias.keys(), dtype=np.int64, count=len(bias))
        self._values = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))

    def apply(self, scores_V: Scores, tokens: Sequence[int]) -> None:  # noqa: ARG002
        """Adds the biases."""
        scores_V[self._ids] += self._values


class Penalties:
    """Lowers (or raises) the scores of tokens that the answer holds already."""

    fault: str | None = None

    def __init__(self, presence: float, frequency: float) -> None:
        self._presence = presence
        self._frequency = frequency
        self._places: dict[int, int] = {}
        self._ids: list[int] = []
        self._counts: list[int] = []
        self._seen = 0

    def apply(self, scores_V: Scores, tokens: Sequence[int]) -> None:
        """Subtracts what the tokens so far cost."""
        for token in tokens[self._seen :]:
            place = self._places.setdefault(token, len(self._ids))
            if place == len(self._ids):
                self._ids.append(token)
                self._counts.append(0)
            self._counts[place] += 1
        self._seen = len(tokens)
        if self._ids:
            cost = np.array(self._counts, dtype=np.float32) * np.float32(self._frequency)
            scores_V[self._ids] -= cost + np.float32(self._presence)


class Reshapings:
    """Several, one after the other."""

    def __init__(self, parts: Sequence[Reshaping]) -> None:
        self._parts = tuple(parts)

    @property
    def fault(self) -> str | None:
        """The first part's that has one."""
        return next((part.fault for part in self._parts if part.fault is not None), None)

    def apply(self, scores_V: Scores, tokens: Sequence[int]) -> None:
        """Applies each part."""
        for part in self._parts:
            part.apply(scores_V, tokens)
