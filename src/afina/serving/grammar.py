"""Grammars that an answer must follow, by llguidance: which tokens may come next.

A grammar is text in llguidance's own forms (see afina.text.grammars). Compiling takes
milliseconds and is done where requests arrive; a mask takes microseconds in the step loop. An end
of turn is allowed exactly where the grammar is complete, so an answer that ended by itself is
whole, and one that was cut says `length`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from afina.errors import InvalidRequest
from afina.serving.penalties import Scores
from afina.text.tokenizer import ChatTokenizer

_KEPT: Final = 256
"""Compiled grammars that are kept."""
_LIMITS: Final = {"verbose_errors": False}
"""Errors of the library may hold text of answers; ours must not."""


class Grammars:
    """Compiles grammars for one tokenizer and the ids of one network."""

    def __init__(self, tokenizer: ChatTokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        # A network may have more ids than its tokenizer has tokens: those are never allowed.
        self._size = max(vocab_size, tokenizer.vocab_size)
        self._tokens = functools.lru_cache(maxsize=8)(self._make_tokens)
        self._compiled = functools.lru_cache(maxsize=_KEPT)(self._compile)

    def follow(self, grammar: str, end_tokens: Sequence[int]) -> Follower:
        """One answer's way through a grammar. Raises InvalidRequest for one that is wrong."""
        return Follower(self._compiled(grammar, tuple(end_tokens)).deep_copy(), self._size)

    def _compile(self, grammar: str, end_tokens: tuple[int, ...]) -> LLMatcher:
        limits = LLParserLimits(**_LIMITS)
        matcher = LLMatcher(self._tokens(end_tokens), grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise InvalidRequest(
                "The grammar of the answer cannot be followed.",
                param="response_format",
                remedy="Make the schema simpler.",
            )
        return matcher

    def _make_tokens(self, end_tokens: tuple[int, ...]) -> LLTokenizer:
        if not end_tokens:
            raise InvalidRequest("A grammar needs ids that end an answer.", param="end_tokens")
        source = self._tokenizer.source
        return LLTokenizer(source, n_vocab=self._size, eos_token=list(end_tokens))


class Follower:
    """A Reshaping that leaves only tokens which the grammar allows."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._seen = 0
        self._mask = np.zeros(-(-size // 32), dtype=np.int32)
        self.fault: str | None = None

    def apply(self, scores_V: Scores, tokens: Sequence[int]) -> None:
        """Sets the scores of tokens that may not come next to minus infinity."""
        fresh = list(tokens[self._seen :])
        self._seen = len(tokens)
        if self.fault is not None or (fresh and not self._matcher.consume_tokens(fresh)):
            self._break()
            return
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            self._break()
            return
        restrict(scores_V, self._mask)

    def _break(self) -> None:
        self.fault = "The grammar of this answer grew too large to be followed further."


def restrict(scores_V: Scores, mask: NDArray[np.int32]) -> None:
    """Minus infinity where the mask's bit is 0, by whichever of the allowed and the others are
    fewer: most masks allow nearly all tokens or nearly none."""
    bits = np.unpackbits(mask.view(np.uint8), count=len(scores_V), bitorder="little")
    if 2 * np.count_nonzero(bits) > len(bits):
        scores_V[np.flatnonzero(bits == 0)] = -np.inf
        return
    allowed = np.flatnonzero(bits)
    kept = scores_V[allowed]
    scores_V.fill(-np.inf)
    scores_V[allowed] = kept
